"""Trains a space of nets: a sweep config in, a study folder out."""

import itertools
import json
import pathlib
import time
from typing import Any

_STARTED = time.monotonic()

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

import command_line  # noqa: E402
from errors import UserError  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Sweep file and data set, such as configs/sweeps/depth.py:fashion_mnist.'
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Study folder; by default sweeps/<sweep>-<data set>[-<overrides>].'
)
_STORAGE = flags.DEFINE_string(
    'storage', '', 'Database of the study, such as postgresql://USER@HOST/DATABASE, which many '
    'hosts can share; by default SQLite in the study folder.'
)  # fmt: skip
_SHOW = flags.DEFINE_string('show', None, 'Study folder to show; trains nothing.')
_DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Say what the sweep would train, refuse and take; train nothing.'
)
_RERUN = flags.DEFINE_integer('rerun', None, 'With --workdir: number of a point to train again.')
_EXPORT = flags.DEFINE_integer(
    'export', None, 'With --workdir: number of a point to write the config of, for train.py.'
)
_QUIET = flags.DEFINE_bool('quiet', False, 'Print the headline and the result alone.')
_JSON = flags.DEFINE_string('json', None, 'With --dry_run: file for the same figures.')

_USAGE = """
Trains every net of a space, or those that a sampler picks, and shows what makes them accurate.

  python sweep.py --config=configs/sweeps/depth.py --dry_run         how many runs, how long?
  python sweep.py --config=configs/sweeps/depth.py                   how many convolutions?
  python sweep.py --config=configs/sweeps/width.py:folder:leaves --config.budget.hours=1
  python sweep.py --show=sweeps/depth-digits                         table, plots and page again
  python sweep.py --workdir=sweeps/depth-digits --rerun=3            one point once more
  python sweep.py --workdir=sweeps/depth-digits --export=3           its config, for train.py

The same command again goes on with a study that was interrupted. Many hosts that see one study
folder work on it together, each with the same command and --storage=postgresql://...
Exit status: 0 done, or the budget is spent; 1 a rerun gave other figures; 2 a mistake in the
command; 130 interrupted.
"""
_SAMPLE = 50  # Points that a dry run looks at, where there are more or nobody knows how many.


def main() -> int:
    """Runs the command and returns its exit status."""
    from console import Console

    console = Console(_QUIET.value)
    flagged = (_SHOW.value, _RERUN.value, _EXPORT.value, _DRY_RUN.value or None)
    if sum(value is not None for value in flagged) > 1:
        raise UserError('Give one of --show, --rerun, --export and --dry_run.')
    if _JSON.value and not _DRY_RUN.value:
        raise UserError('--json is for --dry_run; a study writes study.csv into its folder.')
    if _SHOW.value is not None:
        return _show(console, pathlib.Path(_SHOW.value))
    if _RERUN.value is not None or _EXPORT.value is not None:
        return _go_back(console)
    from configs.sweeps import default

    default.validate(_CONFIG.value)
    if _DRY_RUN.value:
        return _dry_run(console)
    return _sweep(console)


def _sweep(console: Any) -> int:
    """Trains what is left of the study, and writes what came of it."""
    from sweeping import definition, run
    from sweeping.reading import page, show
    from training import run_folder

    flag = flags.FLAGS['config']
    # A larger budget goes on with the same study.
    changes = {
        name: value
        for name, value in config_flags.get_override_values(flag).items()
        if name.partition('.')[0] in ('base', *definition.DEFINING)
    }
    default = run_folder.default_workdir(config_flags.get_config_filename(flag), changes, 'sweeps')
    folder = pathlib.Path(_WORKDIR.value or default)
    table, ended = run.run(_CONFIG.value, folder, _STORAGE.value, console, _STARTED)
    page.write(table)
    show.show(table, console)
    console.line(
        f'{ended}. Everything is in {folder}; plots and page: {folder / "study.html"}; curves: '
        f'tensorboard --logdir {folder / "runs"}',
        always=True,
    )
    return 130 if ended == run.INTERRUPTED else 0


def _show(console: Any, folder: pathlib.Path) -> int:
    """Prints a study and writes its table, plots and page anew."""
    from sweeping import study
    from sweeping.reading import page, show

    table = study.reopen(folder, _STORAGE.value).table()
    page.write(table)
    show.show(table, console)
    console.line(f'Plots and page: {folder / "study.html"}', always=True)
    return 0


def _go_back(console: Any) -> int:
    """Trains a point once more, or writes its config."""
    from sweeping import export, rerun, study

    if not _WORKDIR.value:
        raise UserError('--rerun and --export need --workdir, the study folder.')
    there = study.reopen(pathlib.Path(_WORKDIR.value), _STORAGE.value)
    if _EXPORT.value is not None:
        export.export(there, _EXPORT.value, console)
        return 0
    from training import compilation_cache

    compilation_cache.enable()
    ended = rerun.rerun(there, _RERUN.value, console)
    return {rerun.SAME: 0, rerun.OTHER: 1, rerun.INTERRUPTED: 130}[ended]


def _dry_run(console: Any) -> int:
    """Says what the sweep would take."""
    from sweeping import dry_run, points
    from sweeping.study import total_points
    from training import compilation_cache

    compilation_cache.enable()
    config = _CONFIG.value
    total = total_points(config)
    kind = config.sampler if config.sampler in points.PLANNED else 'random'
    most = total if config.sampler == 'grid' else min(total or _SAMPLE, _SAMPLE)
    sample = itertools.islice(points.planned(kind, config.space, config.seed), most)
    figures = dry_run.dry_run(config, list(sample), total, console)
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(figures, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    command_line.run(main, _USAGE, takes='sweep', instead_of_config=('show', 'rerun', 'export'))
