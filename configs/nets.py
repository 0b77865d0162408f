"""Published nets by name: `--config=configs/nets.py:resnet20:cifar10`."""

from ml_collections import ConfigDict

from configs import default
from errors import UserError, did_you_mean
from models.nets import NETS


def get_config(net_and_dataset: str = '') -> ConfigDict:
    """Returns the config of a net of `models.nets.NETS` on a data set.

    Photos come in the size the net was published with; other sets as they are.

    Args:
      net_and_dataset: `NET` or `NET:DATASET`; the data set is digits where none is named.

    Raises:
      UserError: there is no such net.
    """
    name, colon, dataset = net_and_dataset.partition(':')
    if name not in NETS:
        raise UserError(
            f'There is no net {name!r}: write --config=configs/nets.py:NET:DATASET, where NET is '
            f'one of {", ".join(NETS)}.{did_you_mean(name, NETS)}'
        )
    net = NETS[name]
    images = len(net.input_shape) == 3
    if not (colon or images):
        raise UserError(f'{name} is for tables or series: --config=configs/nets.py:{name}:DATASET.')
    config = default.get_config(dataset if colon else 'digits', family=net.family)
    changes = {f'model.{field}': value for field, value in net.fields.items()} | dict(net.training)
    config.update_from_flattened_dict(changes)
    if images and config.dataset.name.startswith('folder:'):
        config.dataset.image_size = net.input_shape[0]
    return config
