"""Which activation function?

The net of the base with each of six. The learning rate and the initial kernels (He's, made for
rectifiers) are those of the base for all of them.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/activation.py:mnist` picks the data set."""
    space = [choice('model.activation', 'relu', 'leaky_relu', 'elu', 'gelu', 'silu', 'tanh')]
    return default.get_config(default.small_net(dataset), space)
