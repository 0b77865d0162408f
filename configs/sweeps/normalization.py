"""Batch norm, group norm, layer norm, or none?

The net of the base with each, at the learning rate of the base and at a tenth of it, since nets
without norms, deep ones above all, may not bear the rate of those with; two rates are no tuning. In
small batches batch norm has poor statistics: try `--config.base.batch_size=8`.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/normalization.py:mnist` picks the data set."""
    base = default.small_net(dataset)
    rate = base.optimizer.learning_rate
    space = [
        choice('model.norm', 'batch', 'group', 'layer', 'none'),
        choice('optimizer.learning_rate', rate / 10, rate),
    ]
    return default.get_config(base, space)
