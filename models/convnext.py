"""The convnext family: depthwise convolutions, layer norm and position-wise dense layers."""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from models import layers
from models.fields import field


class ConvNeXt(layers.BlockNet):
    """A ConvNeXt: Liu et al. 2022, "A ConvNet for the 2020s", section 2.

    Stage i has `stage_sizes[i]` blocks of `width * 2**i` channels; the stem cuts the image into
    patches, and a 2x2 convolution of stride 2 stands before every stage but the first.
    """

    kernel_size: int = field(7, 'Height and width of the kernels, in pixels.', at_least=1)
    activation: str = field(
        'gelu', 'Activation function.', choices=tuple(layers.ACTIVATIONS)
    )  # fmt: skip
    norm: str = field('layer', 'Normalisation.', choices=layers.NORMS)
    norm_epsilon: float = field(1e-6, 'Added to the variance in a norm.', above=0.0)
    bias: str = field('always', 'Biases of convolutions.', choices=('auto', 'always'))
    kernel_init: str = field('normal', 'Initial kernels.', choices=tuple(layers.KERNEL_INITS))
    stage_sizes: tuple[int, ...] = field(
        (3, 3, 9, 3), 'Blocks in each stage.', at_least=1, longest=12
    )
    width: int = field(96, 'Channels of the first stage; doubles each stage.', at_least=1)
    patch_size: int = field(
        4, 'Height and width of the patches, in pixels; 1 or 2 for images of 32.', at_least=1
    )
    layer_scale: float = field(1e-6, 'Initial factor of what a block adds to its input.', above=0.0)

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        conv, norm, _ = parts = self.parts(padding='valid')
        x = images_BHWC.astype(self.dtype)
        x = conv(self.width, kernel_size=self.patch_size, strides=self.patch_size, name='stem')(x)
        x = norm(name='stem_norm')(x, self.trains('stem', train))
        block = partial(ConvNeXtBlock, self.layer_scale, self.parts(), self.param_dtype)
        blocks, entries = [], []
        for i, count in enumerate(self.stage_sizes):
            blocks.append([block] * count)
            entry = partial(Downsample, self.width * 2**i, parts, name='downsample')
            entries.append(entry if i else None)
        x = self.stages(x, train, blocks, entries)
        return self.logits(x, train, norm)


class Downsample(nn.Module):
    """Norm, and a 2x2 convolution of stride 2."""

    filters: int
    parts: layers.Parts

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm, _ = self.parts
        x = norm(name='norm')(x, train)
        return conv(self.filters, kernel_size=2, strides=2, name='conv')(x)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, 1x1 to four times the channels, activation, 1x1, + input."""

    layer_scale: float
    parts: layers.Parts
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, keep_B: jax.Array | None, train: bool) -> jax.Array:
        conv, norm, activation = self.parts
        filters = x.shape[-1]
        y = conv(filters, groups=filters, name='depthwise')(x)
        y = norm(name='norm')(y, train)
        y = activation(conv(4 * filters, kernel_size=1, name='expand')(y))
        y = conv(filters, kernel_size=1, name='project')(y)
        scale = self.param(
            'layer_scale',
            nn.initializers.constant(self.layer_scale),
            (filters,),
            self.param_dtype,
        )
        return layers.add(x, y * scale.astype(y.dtype), keep_B)
