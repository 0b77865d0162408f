"""How many filters does a plain net need?

The net of the base at 8 to 64 filters in its first stage; they double with each stage. The
learning rate is that of the base for all widths.

On the digits, 12 runs: 42 s on 2 cores.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/width.py:mnist` picks the data set."""
    return default.get_config(default.small_net(dataset), [choice('model.width', 8, 16, 32, 64)])
