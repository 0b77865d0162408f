"""A small residual net: ResNet-8, 78 thousand parameters; minutes on a CPU."""

from ml_collections import ConfigDict

from configs import default


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the config; `--config=configs/resnet_small.py:fashion_mnist` picks the data set."""
    config = default.get_config(dataset, family='residual')
    config.model.stage_sizes = (1, 1, 1)
    return config
