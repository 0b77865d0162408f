"""The mobile family: inverted residual blocks (MobileNetV2, EfficientNet)."""

from functools import partial

import jax
from flax import linen as nn

from models import layers
from models.fields import field


class Mobile(layers.BlockNet):
    """A net of inverted residuals: Sandler et al. 2018, table 2; Tan and Le 2019, table 1.

    The default is the shape of MobileNetV2. Stage i has `stage_sizes[i]` blocks, of which the
    first has the stage's stride; a 1x1 convolution of `head_width` filters follows the last.
    """

    kernel_size: int = field(3, 'Size of the kernels of the stem, in pixels.', at_least=1)
    activation: str = field(
        'relu6', 'Activation function.', choices=tuple(layers.ACTIVATIONS)
    )  # fmt: skip
    stage_sizes: tuple[int, ...] = field(
        (1, 2, 3, 4, 3, 3, 1), 'Blocks in each stage.', at_least=1, longest=12
    )
    filters: tuple[int, ...] = field(
        (16, 24, 32, 64, 96, 160, 320), 'Filters of each stage.', at_least=1, longest=12
    )
    strides: tuple[int, ...] = field(
        (1, 2, 2, 2, 1, 2, 1), 'Stride of each stage.', at_least=1, longest=12
    )
    expansions: tuple[int, ...] = field(
        (1, 6, 6, 6, 6, 6, 6), 'Filters inside a block, in multiples of its input.', at_least=1,
        longest=12
    )  # fmt: skip
    kernels: tuple[int, ...] = field(
        (3, 3, 3, 3, 3, 3, 3), 'Size of the depthwise kernels of each stage, in pixels.',
        at_least=1, longest=12
    )  # fmt: skip
    stem_width: int = field(32, 'Filters of the stem.', at_least=1)
    stem_stride: int = field(2, 'Stride of the stem; 1 for images of 32 pixels.', at_least=1)
    head_width: int = field(1280, 'Filters of the last convolution.', at_least=1)
    squeeze_excitation: float = field(
        0.0, 'Filters of the squeeze-and-excitation bottleneck, as a share of the block\'s input; '
        '0: none.', at_least=0.0, at_most=1.0
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        self.check_lengths('filters', 'strides', 'expansions', 'kernels')

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        conv, norm, activation = parts = self.parts()
        x = images_BHWC.astype(self.dtype)
        x = conv(self.stem_width, strides=self.stem_stride, name='stem')(x)
        x = activation(norm(name='stem_norm')(x, self.trains('stem', train)))
        blocks = []
        for i, count in enumerate(self.stage_sizes):
            block = partial(
                InvertedResidual,
                self.filters[i],
                self.expansions[i],
                self.kernels[i],
                squeeze_excitation=self.squeeze_excitation,
                parts=parts,
            )
            blocks.append([partial(block, stride=self.strides[i]), *[block] * (count - 1)])
        x = self.stages(x, train, blocks, [None] * len(blocks))
        x = conv(self.head_width, kernel_size=1, name='final')(x)
        x = activation(norm(name='final_norm')(x, self.trains('final', train)))
        return self.logits(x, train)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection, + input."""

    filters: int
    expansion: int
    kernel_size: int
    squeeze_excitation: float
    parts: layers.Parts
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, keep_B: jax.Array | None, train: bool) -> jax.Array:
        conv, norm, activation = self.parts
        inputs = x.shape[-1]
        inner = inputs * self.expansion
        y = x
        if self.expansion > 1:
            y = conv(inner, kernel_size=1, name='expand')(y)
            y = activation(norm(name='expand_norm')(y, train))
        y = conv(
            inner,
            kernel_size=self.kernel_size,
            strides=self.stride,
            groups=inner,
            name='depthwise',
        )(y)
        y = activation(norm(name='depthwise_norm')(y, train))
        if self.squeeze_excitation:
            narrow = max(1, int(inputs * self.squeeze_excitation))
            y = layers.SqueezeExcite(narrow, conv, activation, name='squeeze')(y)
        y = conv(self.filters, kernel_size=1, name='project')(y)
        y = norm(name='project_norm')(y, train)
        return layers.add(x, y, keep_B) if self.stride == 1 and inputs == self.filters else y
