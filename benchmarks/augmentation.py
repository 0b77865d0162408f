"""What augmentation costs: a training step with and without it, in turn.

python benchmarks/augmentation.py                resnet_small at 32x32, batch 128; 2 minutes
python benchmarks/augmentation.py --json=FILE    the figures, with versions and hardware
"""

import pathlib
import statistics
import sys

import numpy as np
from absl import app

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import common, report
from configs import resnet_small
from training import compilation_cache, recipe, step
from training.data_parallel import DataParallel

_POLICIES = ('none', 'light', 'photos', 'digits', 'photos,hue=0.05,noise=0.02,erasing=0.25',
             'mixup=0.2,cutmix=1', 'randaugment=2')  # fmt: skip
_BATCH, _SIDE, _ROUNDS = 128, 32, 15


def prepare(policy: str):
    """Returns a function that gives the seconds of a step with a policy."""
    config = resnet_small.get_config()
    config.augment, config.batch_size = policy, _BATCH
    parts = recipe.build(config, 10)
    devices = DataParallel(config.parallel)
    generator = np.random.default_rng(0)
    resident = devices.replicate({
        'input': generator.integers(0, 256, (1000, _SIDE, _SIDE, 3), np.uint8),
        'label': np.arange(1000, dtype=np.int32) % 10,
        'class_share': np.full(10, 0.1),
        'seed': np.uint32(0),
        'weight_decay': np.float32(config.optimizer.weight_decay),
    })  # fmt: skip
    statistics_ = step.normalization.Normalization(
        np.full((1, 1, 3), 127.5), np.full((1, 1, 3), 60.0)
    )
    state = devices.replicate(step.init_state(parts, (_SIDE, _SIDE, 3), 0, statistics_))
    plan = {'index': np.arange(_BATCH, dtype=np.int32)[None],
            'position': np.arange(_BATCH, dtype=np.int32)[None]}  # fmt: skip
    batches = devices.split(plan, axis=1)
    steps = devices.map_train(lambda *given: step.train_steps(parts, *given), donate=False)
    arguments = state, resident, devices.replicate(np.full(1, 0.1, np.float32)), batches
    compiled = steps.lower(*arguments).compile()
    return common.repeated(lambda: compiled(*arguments))


def main(_) -> None:
    """Times the policies in turn and prints medians."""
    compilation_cache.enable()
    seconds = common.in_turn({policy: prepare(policy) for policy in _POLICIES}, _ROUNDS)
    none = statistics.median(seconds['none'])
    for policy, times in seconds.items():
        median = statistics.median(times)
        print(f'{policy:45} {1e3 * median:7.1f} ms a step, {100 * (median / none - 1):+5.1f} %')
    report.write({'seconds': seconds})


if __name__ == '__main__':
    app.run(main)
