"""The small residual net, wider and deeper by multipliers: ResNet-14 at twice the width."""

from ml_collections import ConfigDict

from configs import resnet_small


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the config; change `--config.scale.width` and `--config.scale.depth` to scale."""
    config = resnet_small.get_config(dataset)
    config.scale.width = 2.0
    config.scale.depth = 2.0
    return config
