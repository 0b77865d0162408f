"""A small dense net: one hidden layer of 16 units; for tables, seconds on a CPU."""

from ml_collections import ConfigDict

from configs import default


def get_config(dataset: str = '') -> ConfigDict:
    """Returns the config; `--config=configs/dense_small.py:table:PATH.csv` names the table.

    Raises:
      UserError: no data set is named.
    """
    config = default.get_config(dataset, family='dense')
    config.model.hidden_units = (16,)
    return config
