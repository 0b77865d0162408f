"""Trains one net: a config in, a run folder out."""

import json
import pathlib
import time

_STARTED = time.perf_counter()

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

import command_line  # noqa: E402
from errors import UserError  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Config file and data set, such as configs/resnet_small.py:fashion_mnist.'
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run folder; by default runs/<config>-<data set>[-<overrides>].'
)
_QUIET = flags.DEFINE_bool('quiet', False, 'Print the headline and the result alone.')
_DESCRIBE = flags.DEFINE_bool(
    'describe', False, 'Say what the net is and what training will take; train and write nothing.'
)
_JSON = flags.DEFINE_string('json', None, 'With --describe: file for the same figures.')

_USAGE = """
Trains an image classifier and writes everything about it into a run folder.

  python train.py --config=configs/resnet_small.py                  digits, within a minute
  python train.py --config=configs/resnet_small.py:fashion_mnist    a set of TensorFlow Datasets
  python train.py --config=configs/plain_small.py --config.model.width=64 --config.seed=1
  python train.py --config=configs/plain_small.py --describe        layers, time and memory
  python train.py --config=configs/nets.py:resnet20:cifar10         a published net by its name

The same command again goes on with an interrupted run, and shows the result of one that ended.
Exit status: 0 trained, 1 diverged or the disk is full, 2 a mistake in the command, 130 interrupted.
"""


def main() -> int:
    """Runs the command and returns its exit status."""
    from training import compilation_cache, run_folder

    compilation_cache.enable()
    if _JSON.value and not _DESCRIBE.value:
        raise UserError('--json is for --describe; a run writes result.json into its folder.')
    if _DESCRIBE.value:
        return _describe()
    from training.loop import train_and_evaluate

    flag = flags.FLAGS['config']
    workdir = _WORKDIR.value or run_folder.default_workdir(
        config_flags.get_config_filename(flag), config_flags.get_override_values(flag)
    )
    result = train_and_evaluate(_CONFIG.value, workdir, _QUIET.value, _STARTED)
    return {'interrupted': 130, 'diverged': 1}.get(result['status'], 0)


def _describe() -> int:
    """Describes the net in place of training it."""
    from training.describe import describe

    path = pathlib.Path(_JSON.value) if _JSON.value else None
    if path and path.is_dir():
        raise UserError(f'--json={path} is a folder: name a file.')
    if path and not path.parent.is_dir():
        raise UserError(f'--json={path}: there is no folder {path.parent}; make it first.')
    figures = describe(_CONFIG.value, _QUIET.value)
    if path:
        path.write_text(json.dumps(figures, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    command_line.run(main, _USAGE)
