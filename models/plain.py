"""The plain family: stages of convolution, norm and activation, each ended by pooling."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers
from models.fields import field


class Plain(nn.Module):
    """A plain (VGG-like) net: Simonyan and Zisserman 2014, section 2, with norm layers.

    Stage i has `stage_sizes[i]` convolutions of `width * 2**i` filters; pooling (or a stride)
    halves the map after every stage but the last, or after every stage where the head flattens.
    """

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    stage_sizes: tuple[int, ...] = field(
        (1, 1, 1), 'Convolutions in each stage; their count is the depth.', at_least=1, longest=12
    )
    width: int = field(32, 'Filters of the first stage; doubles each stage.', at_least=1)
    kernel_size: int = field(3, 'Height and width of the kernels, in pixels.', at_least=1)
    activation: str = field('relu', 'Activation function.', choices=tuple(layers.ACTIVATIONS))
    norm: str = field('batch', 'Normalisation after each convolution.', choices=layers.NORMS)
    pooling: str = field(
        'max',
        'How a stage halves the map: pooling, or a strided convolution.',
        choices=('max', 'average', 'stride'),
    )
    head: str = field('global_average_pooling', 'What precedes the logits.', choices=layers.HEADS)
    dense_units: tuple[int, ...] = field(
        (), 'Units of dense layers before the logits, such as (128,).', at_least=1, longest=8
    )
    dropout: float = field(0.0, 'Share of units dropped in the head.', at_least=0.0, below=1.0)

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        x = images_BHWC.astype(self.dtype)
        stages = len(self.stage_sizes)
        for i, convolutions in enumerate(self.stage_sizes):
            x = PlainStage(
                convolutions,
                self.width * 2**i,
                self.kernel_size,
                self.activation,
                self.norm,
                self.pooling if i < stages - 1 or self.head == 'flatten' else 'none',
                self.dtype,
                self.param_dtype,
                name=f'stage{i + 1}',
            )(x, train)
        return layers.Head(
            self.num_classes,
            self.head,
            self.dense_units,
            self.dropout,
            self.activation,
            self.dtype,
            self.param_dtype,
            name='head',
        )(x, train)


class PlainStage(nn.Module):
    """Convolutions at one resolution; `pooling` says how the map is halved at the end."""

    convolutions: int
    filters: int
    kernel_size: int
    activation: str
    norm: str
    pooling: str
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(1, self.convolutions + 1):
            strided = self.pooling == 'stride' and i == self.convolutions
            x = nn.Conv(
                self.filters,
                (self.kernel_size,) * 2,
                strides=2 if strided else 1,
                use_bias=self.norm == 'none',
                kernel_init=layers.conv_init,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f'conv{i}',
            )(x)
            x = layers.Norm(self.norm, self.dtype, self.param_dtype, name=f'norm{i}')(x, train)
            x = layers.ACTIVATIONS[self.activation](x)
        if self.pooling in ('max', 'average'):
            x = layers.Pool(self.pooling, name='pool')(x)
        return x
