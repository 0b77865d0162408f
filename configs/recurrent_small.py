"""A small recurrent net: two LSTM layers of 64 and 32 units; for series, a minute on a CPU."""

from ml_collections import ConfigDict

from configs import default


def get_config(dataset: str = '') -> ConfigDict:
    """Returns the config; `--config=configs/recurrent_small.py:series:PATH.csv` names the series.

    Raises:
      UserError: no data set is named.
    """
    return default.get_config(dataset, family='recurrent')
