"""What should come between the last feature map and the classes?

Global average pooling, global max pooling or the whole map (flatten), each with and without a dense
layer of 128 units. Before flatten the net pools once more. On the digits the net has two stages,
since behind three that pooling would leave one pixel. The learning rate is that of the base for all
heads.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/head.py:folder:PATH` names photos."""
    base = default.small_net(dataset)
    if dataset == 'digits':
        base.model.stage_sizes = (1, 1)
    space = [
        choice('model.head.pooling', 'global_average', 'global_max', 'flatten'),
        choice('model.head.dense_units', (), (128,)),
    ]
    return default.get_config(base, space)
