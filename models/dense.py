"""The dense family: layers of units, each connected to all before it."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers
from models.fields import field


class Dense(nn.Module):
    """A multilayer perceptron; without hidden layers a linear (logistic) regression.

    Inputs of any shape are flattened, so on images it is the baseline that knows no neighbours.
    """

    takes: ClassVar[tuple[str, ...]] = ('images', 'rows', 'windows')

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    hidden_units: tuple[int, ...] = field(
        (), 'Units of each hidden layer, such as (16,); (): none, a linear model.', at_least=1,
        longest=12
    )  # fmt: skip
    activation: str = field(
        'relu', 'Activation function of the hidden layers.', choices=tuple(layers.ACTIVATIONS)
    )
    dropout: float = field(
        0.0, 'Share of units dropped after each hidden layer; of the inputs where there is none.',
        at_least=0.0, below=1.0
    )  # fmt: skip
    head: layers.OutputOptions = layers.OutputOptions()

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps normalised inputs [B, ...] to logits [B, num_classes]."""
        options = layers.HeadOptions(
            outputs=self.head.outputs,
            pooling='flatten',
            dense_units=self.hidden_units,
            dropout=self.dropout,
        )
        return layers.Head(
            num_classes=self.num_classes,
            options=options,
            activation=self.activation,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name='head',
        )(inputs.astype(self.dtype), train)
