"""The residual family: stages of two-convolution blocks with skip connections."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers
from models.fields import field


class Residual(nn.Module):
    """A residual net: He et al. 2016, "Deep Residual Learning", section 3.3, basic blocks.

    Stage i has `stage_sizes[i]` blocks of `width * 2**i` filters; the first block of every stage
    but the first halves the map. Weighted layers on the longest path: 2 * blocks + 2, so
    (3, 3, 3) at width 16 is the shape of the paper's ResNet-20 (with projection shortcuts).
    """

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    stage_sizes: tuple[int, ...] = field(
        (3, 3, 3), 'Residual blocks in each stage.', at_least=1, longest=12
    )
    width: int = field(16, 'Filters of the first stage; doubles each stage.', at_least=1)
    kernel_size: int = field(3, 'Height and width of the kernels, in pixels.', at_least=1)
    activation: str = field('relu', 'Activation function.', choices=tuple(layers.ACTIVATIONS))
    norm: str = field('batch', 'Normalisation after each convolution.', choices=layers.NORMS)
    skip: bool = field(True, 'Skip connections; false gives the plain net of the same shape.')
    pooling: str = field(
        'stride',
        'How a stage halves the map: a strided convolution, or pooling.',
        choices=('stride', 'max', 'average'),
    )
    head: str = field('global_average_pooling', 'What precedes the logits.', choices=layers.HEADS)
    dense_units: tuple[int, ...] = field(
        (), 'Units of dense layers before the logits, such as (128,).', at_least=1, longest=8
    )
    dropout: float = field(0.0, 'Share of units dropped in the head.', at_least=0.0, below=1.0)

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        conv = partial(
            nn.Conv,
            use_bias=self.norm == 'none',
            kernel_init=layers.conv_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        norm = partial(layers.Norm, self.norm, self.dtype, self.param_dtype)
        activation = layers.ACTIVATIONS[self.activation]

        x = images_BHWC.astype(self.dtype)
        x = conv(self.width, (self.kernel_size,) * 2, name='stem')(x)
        x = activation(norm(name='stem_norm')(x, train))
        for i, blocks in enumerate(self.stage_sizes):
            x = ResidualStage(
                blocks,
                self.width * 2**i,
                self.kernel_size,
                activation,
                self.skip,
                'none' if i == 0 else self.pooling,
                conv,
                norm,
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


class ResidualStage(nn.Module):
    """Blocks at one resolution; `pooling` says how the map is halved at the start."""

    blocks: int
    filters: int
    kernel_size: int
    activation: Any
    skip: bool
    pooling: str
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.pooling in ('max', 'average'):
            x = layers.Pool(self.pooling, name='pool')(x)
        for i in range(1, self.blocks + 1):
            stride = 2 if self.pooling == 'stride' and i == 1 else 1
            x = ResidualBlock(
                self.filters,
                self.kernel_size,
                stride,
                self.activation,
                self.skip,
                self.conv,
                self.norm,
                name=f'block{i}',
            )(x, train)
        return x


class ResidualBlock(nn.Module):
    """conv, norm, act, conv, norm, + input, act; a 1x1 projection where the shape changes."""

    filters: int
    kernel_size: int
    stride: int
    activation: Any
    skip: bool
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        kernel = (self.kernel_size,) * 2
        y = self.conv(self.filters, kernel, strides=self.stride, name='conv1')(x)
        y = self.activation(self.norm(name='norm1')(y, train))
        y = self.conv(self.filters, kernel, name='conv2')(y)
        y = self.norm(name='norm2')(y, train)
        if self.skip:
            if x.shape != y.shape:
                x = self.conv(self.filters, (1, 1), strides=self.stride, name='shortcut')(x)
                x = self.norm(name='shortcut_norm')(x, train)
            y = x + y
        return self.activation(y)
