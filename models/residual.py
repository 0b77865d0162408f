"""The residual family: stages of blocks with skip connections."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers
from models.fields import field

_EXPANSION = 4  # Of the last convolution of a bottleneck.


class BlockOptions(NamedTuple):
    """The fields of the family that concern a block."""

    kernel_size: int
    block: str
    preactivation: bool
    skip: bool
    shortcut: str
    zero_init: bool
    squeeze_excitation: float


class Residual(layers.BlockNet):
    """A residual net: He et al. 2016, "Deep Residual Learning", sections 3.3 and 4.

    Stage i has `stage_sizes[i]` blocks of `width * 2**i` filters; the first block of every stage
    but the first halves the map. Weighted layers on the longest path: 2 * blocks + 2 (with
    bottlenecks 3 * blocks + 2), so (3, 3, 3) at width 16 is the paper's ResNet-20 for CIFAR.
    """

    stage_sizes: tuple[int, ...] = field(
        (3, 3, 3), 'Residual blocks in each stage.', at_least=0, longest=12
    )
    width: int = field(16, 'Filters of the first stage; doubles each stage.', at_least=1)
    stem_width: int = field(0, 'Filters of the stem; 0: those of the first stage.', at_least=0)
    stem: str = field(
        'small', 'First layers: a convolution, or 7x7 with stride 2 and max pooling (large).',
        choices=('small', 'large')
    )  # fmt: skip
    block: str = field(
        'basic', 'Two convolutions, or 1x1, kernel and 1x1 with four times the filters.',
        choices=('basic', 'bottleneck')
    )  # fmt: skip
    preactivation: bool = field(False, 'Norm and activation before each convolution, not after.')
    skip: bool = field(True, 'Skip connections; false gives the plain net of the same shape.')
    shortcut: str = field(
        'projection', 'Where the shape changes: a 1x1 convolution, or the input, subsampled and '
        'padded with zeros (option A of the paper).', choices=('projection', 'identity')
    )  # fmt: skip
    pooling: str = field(
        'stride',
        'How a stage halves the map: a strided convolution, or pooling.',
        choices=('stride', 'max', 'average'),
    )
    transition: str = field(
        'block', 'What changes filters and size: the first block of a stage, or a convolution '
        'before the blocks, in every stage.', choices=('block', 'conv')
    )  # fmt: skip
    zero_init: bool = field(
        False, 'Begin with a scale of 0 in the last norm of each block (not with preactivation).'
    )
    squeeze_excitation: float = field(
        0.0, 'Filters of the squeeze-and-excitation bottleneck, as a share; 0: none.',
        at_least=0.0, at_most=1.0
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        if self.stochastic_depth and not self.skip:
            raise ValueError('model.stochastic_depth needs model.skip=true: what would pass by?')
        if 0 in self.stage_sizes and self.transition == 'block':
            raise ValueError(
                f'model.stage_sizes={self.stage_sizes} has a stage without blocks, which needs '
                'model.transition=conv'
            )

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        conv, norm, activation = parts = self.parts()
        x = images_BHWC.astype(self.dtype)
        large = self.stem == 'large'
        size = {'kernel_size': 7, 'strides': 2} if large else {}
        x = conv(self.stem_width or self.width, name='stem', **size)(x)
        # A preactivated stage begins with its own norm; without one before, pooling would mix.
        if not self.preactivation or large:
            x = activation(norm(name='stem_norm')(x, self.trains('stem', train)))
        if large:
            x = layers.Pool('max', window=3, name='stem_pool')(x)
        options = BlockOptions(*[getattr(self, name) for name in BlockOptions._fields])
        blocks, entries = [], []
        for i, count in enumerate(self.stage_sizes):
            block = partial(ResidualBlock, self.width * 2**i, options, parts)
            halves = i > 0 and self.transition == 'block'
            strided = halves and self.pooling == 'stride'
            first = partial(block, stride=2 if strided else 1)
            blocks.append([first, *[block] * (count - 1)][:count])
            entries.append(self._entry(i, halves, parts))
        x = self.stages(x, train, blocks, entries)
        if self.preactivation:
            x = activation(norm(name='final_norm')(x, self.trains('final', train)))
        return self.logits(x, train)

    def _entry(self, stage: int, halves: bool, parts: layers.Parts):
        if self.transition == 'conv':
            return partial(Transition, self.width * 2**stage, self.pooling, parts, name='entry')
        if halves and self.pooling != 'stride':
            return partial(layers.Pool, self.pooling, name='pool')
        return None


class Transition(nn.Module):
    """Convolution, norm, activation, and half the size."""

    filters: int
    pooling: str
    parts: layers.Parts

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm, activation = self.parts
        x = conv(self.filters, strides=2 if self.pooling == 'stride' else 1, name='conv')(x)
        x = activation(norm(name='norm')(x, train))
        return x if self.pooling == 'stride' else layers.Pool(self.pooling, name='pool')(x)


class ResidualBlock(nn.Module):
    """Convolutions, squeeze-and-excitation, + input; a projection where the shape changes.

    Each convolution is followed by its norm and, but for the last, its activation, and the sum by
    an activation; with preactivation (He et al. 2016, "Identity Mappings", figure 4e) norm and
    activation come before each convolution, and nothing follows the sum.
    """

    filters: int
    options: BlockOptions
    parts: layers.Parts
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, keep_B: jax.Array | None, train: bool) -> jax.Array:
        conv, norm, activation = self.parts
        kernel, options = self.options.kernel_size, self.options
        # (filters, kernel, stride); the bottleneck halves in the middle, where most is computed
        # (Goyal et al. 2017, section 5.1; torchvision's "v1.5").
        shape = [(self.filters, kernel, self.stride), (self.filters, kernel, 1)]
        if options.block == 'bottleneck':
            last = self.filters * _EXPANSION
            shape = [(self.filters, 1, 1), (self.filters, kernel, self.stride), (last, 1, 1)]
        y = shortcut = x
        for i, (filters, size, stride) in enumerate(shape, start=1):
            if options.preactivation:
                y = activation(norm(name=f'norm{i}')(y, train))
                if i == 1 and self._changes(x):
                    shortcut = y
            y = conv(filters, kernel_size=size, strides=stride, name=f'conv{i}')(y)
            if not options.preactivation:
                zero = options.zero_init and i == len(shape)
                y = norm(name=f'norm{i}', zero=zero)(y, train)
                y = y if i == len(shape) else activation(y)
        if options.squeeze_excitation:
            narrow = max(1, round(y.shape[-1] * options.squeeze_excitation))
            y = layers.SqueezeExcite(narrow, conv, activation, name='squeeze')(y)
        if options.skip:
            y = layers.add(self._shortcut(shortcut, y.shape[-1], train), y, keep_B)
        return y if options.preactivation else activation(y)

    def _changes(self, x: jax.Array) -> bool:
        expansion = _EXPANSION if self.options.block == 'bottleneck' else 1
        return self.stride > 1 or x.shape[-1] != self.filters * expansion

    def _shortcut(self, x: jax.Array, filters: int, train: bool) -> jax.Array:
        if not self._changes(x):
            return x
        conv, norm, _ = self.parts
        if self.options.shortcut == 'identity':
            x = x[:, :: self.stride, :: self.stride, :filters]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[-1])))
        x = conv(filters, kernel_size=1, strides=self.stride, name='shortcut')(x)
        return x if self.options.preactivation else norm(name='shortcut_norm')(x, train)
