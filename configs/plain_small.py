"""A small plain net: three convolutions with max pooling, the first thing most people build."""

from ml_collections import ConfigDict

from configs import default


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the config; `--config=configs/plain_small.py:mnist` picks the data set."""
    return default.get_config(dataset, family='plain')
