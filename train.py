"""Trains one net: a config in, a run folder out."""

import time

_STARTED = time.perf_counter()

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

import command_line  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Config file and data set, such as configs/resnet_small.py:fashion_mnist.'
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run folder; by default runs/<config>-<data set>[-<overrides>].'
)
_QUIET = flags.DEFINE_bool('quiet', False, 'Print the headline and the result alone.')

_USAGE = """
Trains an image classifier and writes everything about it into a run folder.

  python train.py --config=configs/resnet_small.py                  digits, within a minute
  python train.py --config=configs/resnet_small.py:fashion_mnist    a set of TensorFlow Datasets
  python train.py --config=configs/plain_small.py --config.model.width=64 --config.seed=1

The same command again goes on with an interrupted run, and shows the result of one that ended.
Exit status: 0 trained, 1 diverged or the disk is full, 2 a mistake in the command, 130 interrupted.
"""


def main() -> int:
    """Runs the command and returns its exit status."""
    from training import compilation_cache, run_folder
    from training.loop import train_and_evaluate

    compilation_cache.enable()
    flag = flags.FLAGS['config']
    workdir = _WORKDIR.value or run_folder.default_workdir(
        config_flags.get_config_filename(flag), config_flags.get_override_values(flag)
    )
    result = train_and_evaluate(_CONFIG.value, workdir, _QUIET.value, _STARTED)
    return {'interrupted': 130, 'diverged': 1}.get(result['status'], 0)


if __name__ == '__main__':
    command_line.run(main, _USAGE)
