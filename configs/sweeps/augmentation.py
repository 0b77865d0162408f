"""Which augmentation helps?

None, what the base has for the set, and presets; mirrored images are among them, which helps with
most photos and harms with digits, where a mirrored 2 is none. The learning rate and the epochs are
those of the base for all; the more images are changed, the more epochs are worth their time.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/augmentation.py:folder:PATH` names photos."""
    base = default.small_net(dataset)
    tried = ['none', base.augment, 'light', 'digits', 'photos']
    return default.get_config(base, [choice('augment', *dict.fromkeys(tried))])
