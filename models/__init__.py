"""The table of model families, and `build`, which makes a net from its config.

To add a family: write one file with a Linen module whose options are declared with
`models.fields.field` and whose `takes` says what it takes, and add one line to `FAMILIES`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from models.convnext import ConvNeXt
from models.dense import Dense
from models.layers import ConvNet
from models.mobile import Mobile
from models.plain import Plain
from models.recurrent import Recurrent
from models.residual import Residual
from models.scaling import scale
from models.xception import Xception

FAMILIES: dict[str, Any] = {
    'plain': Plain,
    'residual': Residual,
    'mobile': Mobile,
    'xception': Xception,
    'convnext': ConvNeXt,
    'dense': Dense,
    'recurrent': Recurrent,
}


def build(
    model: Mapping[str, Any],
    num_classes: int,
    dtype: str = 'float32',
    width: float = 1.0,
    depth: float = 1.0,
    frozen: tuple[str, ...] = (),
) -> nn.Module:
    """Makes the net that `model` (family and that family's fields) describes.

    Args:
      model: `config.model`.
      num_classes: number of classes; 1 for a number (regression).
      dtype: type of the computation; parameters are float32, or float64 where dtype is.
      width: multiplier of the filters.
      depth: multiplier of the stage sizes.
      frozen: topmost parts of the net, such as `stem`, that do not train.

    Raises:
      KeyError: for an unknown family.
      TypeError: for a field the family does not have.
      ValueError: for fields that do not go together; the text says which.
    """
    fields = scale(model, width, depth)
    family = FAMILIES[fields.pop('family')]
    fields['head'] = type(family.head)(**fields['head'])
    if frozen:
        if not issubclass(family, ConvNet):
            raise ValueError(f'the family {model["family"]} has no parts to freeze')
        fields['frozen'] = frozen
    return family(
        num_classes=num_classes,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype('float64' if dtype == 'float64' else 'float32'),
        **fields,
    )
