"""Would more images help? A learning curve.

The net of the base, trained with an eighth, a quarter, half and all of the images that are not the
test's. Where the set has no validation split of its own, that split is drawn from the subset and is
as much smaller: the left end of the curve is judged by few images, so there are five replicates.
They share the subset, so that their spread lacks what another subset would do. Epochs and the
learning rate are those of the base for all sizes: fewer images are fewer steps.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/data_size.py:folder:PATH` names photos."""
    space = [choice('dataset.subset', 0.125, 0.25, 0.5, 1.0)]
    return default.get_config(default.small_net(dataset), space, replicates=5)
