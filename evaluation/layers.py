"""Do these layers help? Every block removed, re-initialised, looked into, and judged."""

import csv
import pathlib
import time
from typing import Any

import numpy as np
from scipy.stats import binomtest

from console import Console, percent
from errors import UserError
from evaluation import blocks as net_blocks
from evaluation import intervals, latency, layer_plots, metrics, representations, retraining
from evaluation.blocks import Block
from evaluation.metrics import Figure
from evaluation.outputs import Outputs
from evaluation.trained import NEW, Trained

DELTA = 0.01  # The smallest difference of accuracies that matters.
_ERROR = 0.05  # Of a verdict.
_COMPARED = ('removed', 'removed_retrained', 'reinitialised')


def check(net: Trained, split: str) -> None:
    """Checks that the blocks of a net can be judged on a split.

    Raises:
      UserError: they cannot, and why.
    """
    if split == NEW:
        raise UserError(
            "--layers trains on, which takes the run's own data: leave --data out, or give --split "
            'too.'
        )
    if not net.class_names or not net_blocks.has_blocks(net.recipe.model, net.input_shape):
        raise UserError(
            '--layers is for convolutional nets that classify images, and this run is of the '
            f'family {net.config.model.family} on {net.config.dataset.name}.'
        )


def judge(net: Trained, outputs: Outputs, folder: pathlib.Path, console: Console) -> dict[str, Any]:
    """Judges every block of a net; writes layers.csv and layers.png.

    A block is not needed where it can be removed as it is, by an interval of one-sided 5 % over the
    images that lies below a loss of `DELTA`. Else it is needed where the net without it, after a
    brief training of the rest, is less accurate than the whole net after the same training, by
    McNemar's exact test at one-sided 5 % with Holm's rule for the number of blocks. Else it is not
    needed where that loss is below `DELTA` by the same interval. Each block for itself.

    Args:
      net: the net.
      outputs: of the split on which it is judged, of the run's own data.
      folder: of the evaluation.
      console: shows progress.

    Returns:
      `delta`, `error`, `least` (the smallest loss that so many images can exclude), `batch` (at
      which costs are measured), `retraining_steps`, `whole` (accuracy of the net and after the
      same training), `maps` (names), `cka`, `seconds` and `blocks`: what is said of each.
    """
    begun = time.perf_counter()
    blocks = net_blocks.find(net.recipe.model, net.input_shape)
    right, whole = _interventions(net, outputs, blocks, console)
    probes = representations.probe(net, outputs.pipeline, blocks, outputs.split)
    cka = representations.likeness(net, outputs.pipeline, blocks, outputs.split)
    seconds = latency.of_blocks(net, blocks)
    rows = []
    for i, block in enumerate(blocks):
        compared = {
            name: _loss(whole['retrained' if 'retrained' in name else 'plain'], right[i][name],
                        outputs.groups_N)
            for name in _COMPARED
        }  # fmt: skip
        rows.append({
            **block._asdict(),
            'seconds': seconds[i],
            **compared,
            'probe_before': metrics.proportion(probes[i], outputs.groups_N),
            'probe': metrics.proportion(probes[i + 1], outputs.groups_N),
            'probe_gain': _loss(probes[i + 1], probes[i], outputs.groups_N),
            'cka_to_input': _number(cka[i, i + 1]),
            'p': _p_value(whole['retrained'], right[i]['removed_retrained'], outputs.groups_N),
        })  # fmt: skip
    _add_verdicts(rows, whole, right, outputs.groups_N)
    nobody = np.zeros(len(outputs.labels_N), bool)
    content = {
        'delta': DELTA,
        'error': _ERROR,
        'least': _upper(nobody, nobody, outputs.groups_N),
        'retraining_steps': retraining.STEPS,
        'batch': latency.BLOCKS_BATCH,
        'whole': {n: metrics.proportion(v, outputs.groups_N) for n, v in whole.items()},
        'maps': ['input', *(block.name for block in blocks)],
        'cka': [[_number(value) for value in row] for row in cka],
        'blocks': rows,
        'seconds': time.perf_counter() - begun,
    }
    _write(rows, folder / 'layers.csv')
    layer_plots.layers(content).savefig(folder / 'layers.png', dpi=110)
    return content


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interventions(
    net: Trained, outputs: Outputs, blocks: list[Block], console: Console
) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Returns which images are right, bool [N]: without each block, and by the whole net."""
    altered = retraining.WithoutBlocks(net, outputs.pipeline, blocks)
    split, fresh = outputs.split, net.initial_state().reported()
    whole = {
        'plain': altered.right(net.variables, None, split),
        'retrained': altered.right(altered.retrained(None), None, split),
    }
    right = []
    with console.progress('Blocks', len(blocks)) as show:
        for i, block in enumerate(blocks):
            right.append({
                'removed': altered.right(net.variables, i, split),
                'removed_retrained': altered.right(altered.retrained(i), i, split),
                'reinitialised': altered.right(
                    retraining.reinitialised(net, fresh, block), None, split
                ),
            })  # fmt: skip
            show(i + 1)
    return right, whole


def _loss(with_N: np.ndarray, without_N: np.ndarray, groups_N: np.ndarray) -> Figure:
    """Returns by how much the accuracy is lower without, paired over the images."""
    bounds = intervals.paired_difference(with_N, without_N, groups_N)
    return metrics.figure(float(with_N.mean() - without_N.mean()), *bounds)


def _p_value(with_N: np.ndarray, without_N: np.ndarray, groups_N: np.ndarray) -> float:
    """Returns the chance of such a loss where there is none: McNemar's exact test, one-sided.

    Of groups: the sign test of whether a group loses more than it gains.
    """
    apart_N1 = (with_N.astype(float) - without_N.astype(float))[:, None]
    sums = intervals.group_sums(apart_N1, np.unique(groups_N, return_inverse=True)[1])
    lost, gained = int((sums > 0).sum()), int((sums < 0).sum())
    if not lost + gained:
        return 1.0
    return float(binomtest(lost, lost + gained, alternative='greater').pvalue)


def _add_verdicts(
    rows: list[dict[str, Any]],
    whole: dict[str, np.ndarray],
    right: list[dict[str, np.ndarray]],
    groups_N: np.ndarray,
) -> None:
    """Adds `verdict`, and `p` by Holm's rule (Holm 1979), to each row."""
    order = np.argsort([row['p'] for row in rows], kind='stable')
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, rows[i]['p'] * (len(rows) - rank)))
        rows[i]['p'] = largest
    for row, found in zip(rows, right, strict=True):
        at_once = _upper(whole['plain'], found['removed'], groups_N)
        later = _upper(whole['retrained'], found['removed_retrained'], groups_N)
        if at_once < DELTA:
            row['verdict'] = 'not needed'
        elif row['p'] < _ERROR:
            row['verdict'] = 'needed'
        else:
            row['verdict'] = 'not needed' if later < DELTA else 'cannot tell'


def _upper(with_N: np.ndarray, without_N: np.ndarray, groups_N: np.ndarray) -> float:
    level = 1 - 2 * _ERROR  # Two-sided, so that each bound has this error.
    return intervals.paired_difference(with_N, without_N, groups_N, level)[1]


def _write(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    plain = (
        'name',
        'way',
        'parameters',
        'flops',
        'receptive_field',
        'cka_to_input',
        'p',
        'verdict',
    )
    figures = (*_COMPARED, 'probe', 'probe_gain', 'seconds')
    parts = [(f, k) for f in figures for k in ('value', 'low', 'high')]
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        heading = [f if k == 'value' else f'{f}_{k}' for f, k in parts]
        writer.writerow([*plain, *heading])
        for row in rows:
            writer.writerow([*(row[name] for name in plain), *(row[f][k] for f, k in parts)])


def show(console: Console, content: dict[str, Any]) -> None:
    """Prints what was found, as a table and in words."""
    rows = content['blocks']
    total = sum(row['parameters'] for row in rows)

    def points(figure: Figure) -> str:
        value, low, high = (f'{100 * (figure[k] or 0):+.1f}' for k in ('value', 'low', 'high'))
        return f'{value} ({low} to {high})'

    console.table(
        ['block', 'costs points', 'untrained', 'initial', 'probe', 'weights', 'ms', 'verdict'],
        [
            [
                row['name'],
                points(row['removed_retrained']),
                f'{100 * row["removed"]["value"]:+.1f}',
                f'{100 * row["reinitialised"]["value"]:+.1f}',
                percent(row['probe']['value']),
                f'{row["parameters"] / total:.0%}',
                f'{1000 * row["seconds"]["value"]:.2f}',
                row['verdict'],
            ]
            for row in rows
        ],
    )
    console.line(
        f'Blocks: points of accuracy that are lost without the block once the rest has trained for '
        f'{content["retraining_steps"]} steps, against the whole net after the same (95 % '
        'interval over the images); lost without training; with the block as it was before '
        f'training; accuracy of a linear probe behind it. Smallest difference that matters: '
        f'{100 * content["delta"]:g} point.'
    )
    if content['least'] >= content['delta']:
        console.line(
            f'These images are too few to find a block not needed: even where none changes, a loss '
            f'of {100 * content["least"]:.1f} points cannot be excluded. Train with a larger '
            '--config.dataset.validation_fraction.'
        )
