"""Trains a space of nets: a sweep config in, a study folder out."""

import pathlib

from absl import flags
from ml_collections import config_flags

import command_line

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
_QUIET = flags.DEFINE_bool('quiet', False, 'Print the headline and the result alone.')

_USAGE = """
Trains every net of a space, or those that a sampler picks, and shows what makes them accurate.

  python sweep.py --config=configs/sweeps/depth.py                   how many convolutions?
  python sweep.py --config=configs/sweeps/width.py:folder:leaves --config.budget.hours=1
  python sweep.py --show=sweeps/depth-digits                         table, plots and page again

The same command again goes on with a study that was interrupted. Many hosts that see one study
folder work on it together, each with the same command and --storage=postgresql://...
Exit status: 0 done, or the budget is spent; 2 a mistake in the command; 130 interrupted.
"""


def main() -> int:
    """Runs the command and returns its exit status."""
    from console import Console

    console = Console(_QUIET.value)
    if _SHOW.value is not None:
        from sweeping import study

        table = study.reopen(pathlib.Path(_SHOW.value), _STORAGE.value).table()
    else:
        from configs.sweeps import default
        from sweeping.run import run
        from training import run_folder

        default.validate(_CONFIG.value)
        flag = flags.FLAGS['config']
        folder = _WORKDIR.value or run_folder.default_workdir(
            config_flags.get_config_filename(flag), config_flags.get_override_values(flag), 'sweeps'
        )
        table = run(_CONFIG.value, pathlib.Path(folder), _STORAGE.value, console)
    for p in table.points:
        print(p)
    return 0


if __name__ == '__main__':
    command_line.run(main, _USAGE, takes='sweep', instead_of_config=('show',))
