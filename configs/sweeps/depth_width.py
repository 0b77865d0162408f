"""Is a plain net better made deeper or wider?

One to four stages of one convolution, each at 8 to 64 filters in the first stage; filters double
with each stage. The learning rate is that of the base for all nets.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/depth_width.py:mnist` picks the data set."""
    depths = [(1,) * stages for stages in range(1, 5)]
    space = [choice('model.stage_sizes', *depths), choice('model.width', 8, 16, 32, 64)]
    return default.get_config(default.small_net(dataset), space)
