"""The xception family: separable convolutions with skip connections."""

from functools import partial

import jax
from flax import linen as nn

from models import layers
from models.fields import field


class Xception(layers.BlockNet):
    """A small Xception (Chollet 2017, figure 5).

    The default is the net of Keras' guide "Image classification from scratch". The first block of
    every stage halves the map (the paper's entry flow); further ones keep it (its middle flow). A
    separable convolution of `head_width` filters follows the last.
    """

    norm_epsilon: float = field(1e-3, 'Added to the variance in a norm.', above=0.0)
    norm_momentum: float = field(
        0.99, 'Share of the old running statistics of batch norm that a step keeps.',
        at_least=0.0, below=1.0
    )  # fmt: skip
    stage_sizes: tuple[int, ...] = field((1, 1, 1), 'Blocks in each stage.', at_least=1, longest=12)
    filters: tuple[int, ...] = field(
        (256, 512, 728), 'Filters of each stage.', at_least=1, longest=12
    )
    stem_width: int = field(128, 'Filters of the stem.', at_least=1)
    stem_stride: int = field(2, 'Stride of the stem; 1 for images of 32 pixels.', at_least=1)
    head_width: int = field(1024, 'Filters of the last convolution.', at_least=1)

    def __post_init__(self):
        super().__post_init__()
        self.check_lengths('filters')

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        conv, norm, activation = parts = self.parts()
        x = images_BHWC.astype(self.dtype)
        x = conv(self.stem_width, strides=self.stem_stride, name='stem')(x)
        x = activation(norm(name='stem_norm')(x, self.trains('stem', train)))
        blocks = []
        for filters, count in zip(self.filters, self.stage_sizes, strict=True):
            block = partial(SeparableBlock, filters, parts)
            blocks.append([partial(block, halves=True), *[block] * (count - 1)])
        x = self.stages(x, train, blocks, [None] * len(blocks))
        x = SeparableConv(self.head_width, parts, name='final')(x)
        x = activation(norm(name='final_norm')(x, self.trains('final', train)))
        return self.logits(x, train)


class SeparableConv(nn.Module):
    """A convolution of each channel, then a 1x1 convolution over the channels."""

    filters: int
    parts: layers.Parts

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = self.parts.conv
        x = conv(x.shape[-1], groups=x.shape[-1], bias=False, name='depthwise')(x)
        return conv(self.filters, kernel_size=1, name='pointwise')(x)


class SeparableBlock(nn.Module):
    """Twice activation, separable convolution and norm, max pooling, + projected input."""

    filters: int
    parts: layers.Parts
    halves: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, keep_B: jax.Array | None, train: bool) -> jax.Array:
        conv, norm, activation = self.parts
        y = x
        for i in (1, 2):
            y = SeparableConv(self.filters, self.parts, name=f'conv{i}')(activation(y))
            y = norm(name=f'norm{i}')(y, train)
        if self.halves:
            y = layers.Pool('max', window=3, name='pool')(y)
            x = conv(self.filters, kernel_size=1, strides=2, name='shortcut')(x)
        return layers.add(x, y, keep_B)
