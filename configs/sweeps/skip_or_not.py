"""Do skip connections help, and from which depth on?

Residual nets of 8, 20 and 56 layers with skip connections, and the plain nets of the same shape:
the question of He et al. 2016, "Deep Residual Learning", section 4.2. The learning rate is that of
the base for all nets, also for deep plain ones, which may want a lower one.
"""

from ml_collections import ConfigDict

from configs import resnet_small
from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/skip_or_not.py:cifar10` picks the data set."""
    depths = [(blocks,) * 3 for blocks in (1, 3, 9)]
    space = [choice('model.stage_sizes', *depths), choice('model.skip', True, False)]
    return default.get_config(resnet_small.get_config(dataset), space)
