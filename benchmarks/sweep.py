"""Sweeps beside KerasTuner's: trials finished in the same time, and how good the best net is.

  pip install -r requirements-bench.txt
  python benchmarks/sweep.py                          all: 3 seeds of 16 searches, 100 minutes
  python benchmarks/sweep.py --seconds=60 --seeds=1   a shorter look
  python benchmarks/sweep.py --data=digits --spaces=optimizer --tuners=random
  python benchmarks/sweep.py --json=FILE              every search, with versions and hardware

Each search is a command of its own, and has so many seconds: imports are counted for both, and so
are checkpoints (ours at the end of a trial and every ten seconds, KerasTuner's after each epoch
that is the best so far). The wall clock is from the start of the command to the end of its last
trial; what ours writes after that (plots, a page) and the reading of the test split are outside.
Ours begins with an empty compilation cache. Both search the same factors (sweep_config.py) around
the same plain net, on the training and validation images that our input pipeline splits off,
without augmentation; each trial has the same epochs, batch size, initialisation, SGD with Nesterov
momentum, L2 weight decay of kernels, and cosine schedule after a warmup, and is evaluated after
each epoch. KerasTuner trains one trial at a time, on all cores; ours two, in processes that share
them. Random search trains each point to its end; Hyperband stops the weak ones after 1, 3, 9 ...
epochs.

A trial is finished where it was trained for all its epochs. Stopped ones are counted apart, and
those that the end of the time interrupts not at all. Ours reports the accuracy of a trial after its
last epoch, KerasTuner that of its best epoch, as each does by itself. So KerasTuner's validation
accuracies are maxima over more evaluations, and flatter it. What is compared is the accuracy on the
test split, which neither search sees: it is read once, by the net that did best in validation. Ours
is trained once more for that, by `train.py`, which gives the same bits; KerasTuner's is loaded.

Compiling is, of ours, what the run folders say; of KerasTuner's, the time of the first call of each
trial less that of a usual call.
"""

import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import input_pipeline
from benchmarks import report, sweep_config
from configs import default
from console import Console, percent
from sweeping.reading.summary import complete
from sweeping.study import reopen

_DATA = flags.DEFINE_list('data', ['digits', 'fashion_mnist'], 'Data sets, as of --config.')
_SPACES = flags.DEFINE_list('spaces', [*sweep_config.SPACES], 'What is searched.')
_TUNERS = flags.DEFINE_list('tuners', ['random', 'hyperband'], 'How it is searched.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Searches of each kind, of the seeds from 0 on.')
_WORKERS = flags.DEFINE_integer('workers', 2, 'Processes that train, of our side.')
_SECONDS = flags.DEFINE_float('seconds', 120.0, 'Of each search, from the start of its command.')

OURS, THEIRS = 'Leadline', 'KerasTuner'
_ROOT = pathlib.Path(__file__).parent.parent
_PRUNERS = {'random': 'none', 'hyperband': 'hyperband'}
# Beyond its time a search may finish a step and write; then it hangs.
_GRACE_SECONDS = 120.0


def write_splits(dataset: str, folder: pathlib.Path) -> int:
    """Writes the splits as KerasTuner's side reads them; returns the number of classes.

    Args:
      dataset: as of `--config=FILE:DATASET`.
      folder: gets `search.npz` and `test.npz`.
    """
    pipeline = input_pipeline.load(sweep_config.base(dataset), 1e12, Console(quiet=True))
    offset, scale = pipeline.normalization

    def images(split: str) -> np.ndarray:
        levels = pipeline.source.inputs[pipeline.members[split]]
        return ((levels - offset) / scale).astype(np.float32)

    np.savez(
        folder / 'search.npz',
        train_images=images('train'), train_labels=pipeline.labels_of('train'),
        validation_images=images('validation'),
        validation_labels=pipeline.labels_of('validation'),
    )  # fmt: skip
    np.savez(folder / 'test.npz', images=images('test'), labels=pipeline.labels_of('test'))
    return len(pipeline.class_names)


def search_by_ours(
    dataset: str, space: str, tuner: str, seed: int, folder: pathlib.Path
) -> dict[str, Any]:
    """Runs `sweep.py` for the time of a search; returns what came of it.

    Args:
      dataset: as of `--config=FILE:DATASET`.
      space: a name of `sweep_config.SPACES`.
      tuner: of `--tuners`.
      seed: of the search and of every trial.
      folder: for the study, and for the run that opens the test split.
    """
    environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(folder / 'xla')}
    study = folder / 'study'
    begun = time.time()
    _call(
        'sweep.py', f'--config=benchmarks/sweep_config.py:{dataset},{space}', f'--workdir={study}',
        f'--config.seed={seed}', f'--config.base.seed={seed}',
        f'--config.pruner={_PRUNERS[tuner]}', f'--config.budget.hours={_SECONDS.value / 3600}',
        f'--config.workers={_WORKERS.value}',
        environment=environment, log=folder / 'sweep.log',
    )  # fmt: skip
    command_seconds = time.time() - begun
    figures = read_study(study)
    figures['wall_seconds'] = figures['ended_at'] - begun
    if figures['finished']:
        figures |= open_test(study, environment)
    return figures | {'command_seconds': command_seconds}


def read_study(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the figures of a study of ours; its test split stays sealed."""
    table = reopen(folder).table()
    paths = [*folder.glob('runs/*/*/result.json')]
    results = [json.loads(path.read_text()) for path in paths]
    outcomes = Counter(point.outcome for point in table.points)
    best = next(iter(complete(table)), None)
    return {
        'finished': outcomes['complete'],
        'stopped': outcomes['pruned'],
        'outcomes': outcomes,
        # An interrupted run writes its result too.
        'ended_at': max((path.stat().st_mtime for path in paths), default=time.time()),
        'compile_seconds': sum(result['seconds']['compile'] for result in results),
        'validation_accuracy': best.objectives[0] if best else None,
        'test_accuracy': None,
        'best': best.values if best else None,
    }


def open_test(study: pathlib.Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Trains the best point of a study once more, now with the test split; returns its figures."""
    run, log = study / 'best', study / 'best.log'
    best = complete(reopen(study).table())[0].number
    _call('sweep.py', f'--workdir={study}', f'--export={best}', environment=environment, log=log)
    config = study / f'point_{best}_config.py'
    _call('train.py', f'--config={config}', f'--workdir={run}', environment=environment, log=log)
    result = json.loads((run / 'result.json').read_text())
    return {
        'test_accuracy': result['test']['accuracy'],
        'validation_accuracy_again': result['validation']['accuracy'],
        'parameters': result['parameters'],
    }


def search_by_theirs(
    dataset: str, space: str, tuner: str, seed: int, folder: pathlib.Path
) -> dict[str, Any]:
    """Runs KerasTuner for the time of a search; arguments are as in `search_by_ours`."""
    classes = write_splits(dataset, folder)
    fields = default.flatten(sweep_config.base(dataset))
    begun = time.time()
    task = {
        'tuner': tuner, 'space': space, 'fields': fields, 'classes': classes, 'seed': seed,
        'deadline': begun + _SECONDS.value,
    }  # fmt: skip
    (folder / 'task.json').write_text(json.dumps(task))
    _call(
        '-m', 'benchmarks.peers.keras_tuner', str(folder), log=folder / 'search.log',
        environment=os.environ | {'KERAS_BACKEND': 'tensorflow', 'TF_CPP_MIN_LOG_LEVEL': '3'},
    )  # fmt: skip
    command_seconds = time.time() - begun
    figures = json.loads((folder / 'figures.json').read_text())
    outcomes = count(figures['trials'], fields['epochs'])
    return figures | {
        'finished': outcomes['finished'],
        'stopped': outcomes['stopped'],
        'outcomes': outcomes,
        'wall_seconds': figures['ended_at'] - begun,
        'command_seconds': command_seconds,
    }


def count(trials: Sequence[Mapping[str, Any]], epochs: float) -> Counter[str]:
    """Returns how many configurations KerasTuner trained in full, stopped before, and what else.

    A trial of a later round of Hyperband goes on with the weights of an earlier one: together they
    are one configuration.

    Args:
      trials: as `in_short` of benchmarks/peers/keras_tuner.py has them.
      epochs: of a full trial.
    """
    continued = {trial['continues'] for trial in trials}
    outcomes: Counter[str] = Counter()
    for trial in trials:
        if trial['status'] != 'COMPLETED':
            outcomes[trial['status'].lower()] += 1
        elif trial['epochs'] >= epochs:
            outcomes['finished'] += 1
        elif trial['id'] not in continued:
            outcomes['stopped'] += 1
    return outcomes


def _call(*arguments: str, environment: Mapping[str, str], log: pathlib.Path) -> None:
    """Runs Python in the root of the repository; ends the benchmark where that fails."""
    with log.open('w') as file:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=_ROOT, env=environment, stdout=file, stderr=file,
            timeout=_SECONDS.value + _GRACE_SECONDS, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(f'{log.read_text()[-4000:]}\n{" ".join(arguments)} failed: {done.returncode}')


SEARCHES = {OURS: search_by_ours, THEIRS: search_by_theirs}


def compare(
    dataset: str, space: str, contenders: Sequence[str], console: Console
) -> dict[str, list[dict[str, Any]]]:
    """Runs all searches of a data set and a space; returns those of each seed by name.

    The contenders take turns, each seed in another order.
    """
    searches: dict[str, list[dict[str, Any]]] = {}
    for seed in range(_SEEDS.value):
        turn = contenders if seed % 2 == 0 else contenders[::-1]
        for tuner in _TUNERS.value:
            for name in turn:
                with tempfile.TemporaryDirectory() as folder:
                    scratch = pathlib.Path(folder)
                    figures = SEARCHES[name](dataset, space, tuner, seed, scratch)
                searches.setdefault(f'{name} {tuner}', []).append({'seed': seed, **figures})
                console.line(f'  {name} {tuner}, seed {seed}: {in_a_line(figures)}')
    return searches


def in_a_line(figures: Mapping[str, Any]) -> str:
    """Returns the figures of a search in words."""
    return (
        f'{figures["finished"]} finished, {figures["stopped"]} stopped in '
        f'{figures["wall_seconds"]:.1f} s; best in validation '
        f'{percent(figures["validation_accuracy"])}, in test {percent(figures["test_accuracy"])}'
    )


def spread(values: Sequence[float | None], scale: float = 1.0, decimals: int = 2) -> str:
    """Returns mean ± standard deviation over the seeds; '-' where a seed has none."""
    known = [scale * value for value in values if value is not None]
    if not known or len(known) < len(values):
        return '-'
    deviation = f' ± {statistics.stdev(known):.{decimals}f}' if len(known) > 1 else ''
    return f'{statistics.mean(known):.{decimals}f}{deviation}'


def summary(searches: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Returns for each contender how it stands beside the other one that searches as it does.

    Returns:
      By name: `compile_share` of the wall clock, and `ratio`: finished trials of ours over those of
      KerasTuner, over all seeds; None where it has finished none or was not run.
    """
    totals = {name: sum(s['finished'] for s in each) for name, each in searches.items()}
    lines = {}
    for name, each in searches.items():
        theirs = totals.get(name.replace(OURS, THEIRS), 0)
        compiling = sum(s['compile_seconds'] for s in each)
        lines[name] = {
            'compile_share': compiling / sum(s['wall_seconds'] for s in each),
            'ratio': totals[name] / theirs if theirs and name.startswith(OURS) else None,
        }
    return lines


def show(searches: Mapping[str, Sequence[Mapping[str, Any]]], console: Console) -> None:
    """Prints the table of a data set and a space: mean ± standard deviation over the seeds."""
    rows = []
    for name, line in summary(searches).items():
        column = {key: [s[key] for s in searches[name]] for key in searches[name][0]}
        rows.append([
            name,
            spread(column['finished'], decimals=1),
            spread(column['stopped'], decimals=1),
            spread(column['validation_accuracy'], 100),
            spread(column['test_accuracy'], 100),
            spread(column['wall_seconds'], decimals=1),
            f'{100 * line["compile_share"]:.0f} %',
            '' if line['ratio'] is None else f'{line["ratio"]:.1f}',
        ])  # fmt: skip
    console.table(
        ['', 'finished', 'stopped', 'validation, %', 'test, %', 'wall, s', 'compiling',
         'ours / KerasTuner'],
        rows,
    )  # fmt: skip


def main(_) -> None:
    """Runs the searches and prints their tables."""
    console = Console()
    contenders = [OURS, THEIRS]
    if importlib.util.find_spec('keras_tuner') is None:
        contenders.remove(THEIRS)
        console.line(
            f'{THEIRS} is left out: there is no keras_tuner (pip install -r requirements-bench.txt)'
        )
    console.line(
        f'Searches of {_SECONDS.value:g} s on {report.processor()}, {os.cpu_count()} cores; '
        f'{_SEEDS.value} seeds'
    )
    rows: dict[str, Any] = {}
    for dataset in _DATA.value:
        for space in _SPACES.value:
            epochs = sweep_config.base(dataset).epochs
            console.line(f'\n{dataset}, space {space}, {epochs:g} epochs a trial')
            searches = compare(dataset, space, contenders, console)
            show(searches, console)
            rows[f'{dataset}, {space}'] = {'searches': searches, 'summary': summary(searches)}
    report.write({'rows': rows, 'seconds': _SECONDS.value})


if __name__ == '__main__':
    app.run(main)
