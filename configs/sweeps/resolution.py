"""How many pixels does the net need?

The net of the base on images of several sizes: photos at 32 to 96 pixels, the digits, which have 8,
at 4 to 8, and other sets, taken to have about 32, at 8 to 32. The learning rate is that of the base
for all sizes. Near duplicates of photos are looked for at each size, so that at another size a few
photos may be in another split.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/resolution.py:folder:PATH` names photos."""
    sizes = {'digits': (4, 6, 8), 'folder': (32, 48, 64, 96)}
    space = [choice('dataset.image_size', *sizes.get(dataset.partition(':')[0], (8, 16, 24, 32)))]
    return default.get_config(default.small_net(dataset), space)
