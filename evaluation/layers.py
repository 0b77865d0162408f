"""Do these layers help? Every block removed, re-initialised, looked into, and judged."""

import csv
import functools
import pathlib
import time
from typing import Any

import jax
import numpy as np
from scipy.stats import binomtest

from console import Console, percent
from errors import UserError
from evaluation import blocks as net_blocks
from evaluation import intervals, layer_plots, metrics, representations, retraining
from evaluation.blocks import Block
from evaluation.metrics import Figure
from evaluation.outputs import Outputs
from evaluation.trained import NEW, Trained
from training import step
from training.data_parallel import DataParallel

DELTA = 0.01  # The smallest difference of accuracies that matters.
_ERROR = 0.05  # Of a verdict.
_BATCH = 64  # At which costs are measured.
_ROUNDS, _SECONDS = 15, 1.0
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

    A block is needed where the net without it, after a brief training of the rest, is less
    accurate than the whole net after the same training, by an interval of one-sided 5 % over the
    images, with Holm's rule for the number of blocks. It is not needed where that difference, or
    that without any training, is below `DELTA` by the same interval, each block for itself.

    Args:
      net: the net.
      outputs: of the split on which it is judged, of the run's own data.
      folder: of the evaluation.
      console: shows progress.

    Returns:
      `delta`, `error`, `retraining_steps`, `whole` (accuracy of the net and after the same
      training), `maps` (names), `cka` and `blocks`: what is said of each.
    """
    begun = time.perf_counter()
    blocks = net_blocks.find(net.recipe.model, net.input_shape)
    right, whole = _interventions(net, outputs, blocks, console)
    probes = representations.probe(net, outputs.pipeline, blocks, outputs.split)
    cka = representations.likeness(net, outputs.pipeline, blocks, outputs.split)
    seconds = _seconds(net, blocks)
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
    content = {
        'delta': DELTA,
        'error': _ERROR,
        'retraining_steps': retraining.STEPS,
        'batch': _BATCH,
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
    level = 1 - 2 * _ERROR  # Two-sided, so that each bound has this error.
    for row, found in zip(rows, right, strict=True):
        upper = min(
            intervals.paired_difference(whole[base], found[name], groups_N, level)[1]
            for base, name in (('plain', 'removed'), ('retrained', 'removed_retrained'))
        )
        if row['p'] < _ERROR:
            row['verdict'] = 'needed'
        else:
            row['verdict'] = 'not needed' if upper < DELTA else 'cannot tell'


def _seconds(net: Trained, blocks: list[Block]) -> list[dict[str, float]]:
    """Measures what each block adds to the seconds of a batch, on one device.

    Returns:
      For each block `value`, the median over rounds of the time of the whole net minus that
      without the block, with the quartiles as `low` and `high`; it may be below 0 by chance.
    """
    devices = DataParallel('shard_map', net.devices.devices[:1])
    variables = devices.replicate(jax.tree.map(np.asarray, net.variables))
    shape = (_BATCH, *net.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    given = devices.split({'input': images}, axis=0)
    programs = [
        devices.map_eval(functools.partial(step.eval_step, recipe)).lower(variables, {}, given)
        .compile()
        for recipe in (
            net_blocks.without(net.recipe, blocks, removed)
            for removed in (None, *range(len(blocks)))
        )
    ]  # fmt: skip

    def call(program: Any) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(program(variables, {}, given))
        return time.perf_counter() - begun

    for program in programs:
        call(program)
    rounds: list[list[float]] = []
    begun = time.perf_counter()
    while len(rounds) < 5 or (
        len(rounds) < _ROUNDS and time.perf_counter() - begun < _SECONDS * len(programs)
    ):
        rounds.append([call(program) for program in programs])
    times = np.asarray(rounds)
    low, middle, high = np.quantile(times[:, :1] - times[:, 1:], (0.25, 0.5, 0.75), axis=0)
    return [
        {'value': float(m), 'low': float(a), 'high': float(b)}
        for m, a, b in zip(middle, low, high, strict=True)
    ]


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
