"""A small net for photos of your own: five convolutions at 64 pixels, minutes on a CPU."""

from ml_collections import ConfigDict

from configs import default


def get_config(dataset: str = '') -> ConfigDict:
    """Returns the config; `--config=configs/photos_small.py:folder:PATH` names the photos.

    Raises:
      UserError: no data set is named.
    """
    config = default.get_config(dataset, family='plain')
    config.model.stage_sizes = (1, 1, 1, 1, 1)
    config.model.width = 16
    return config
