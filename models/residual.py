"""The residual family: stages of two-convolution blocks with skip connections."""

import jax
from flax import linen as nn

from models import layers
from models.fields import field


class Residual(layers.ConvNet):
    """A residual net: He et al. 2016, "Deep Residual Learning", section 3.3, basic blocks.

    Stage i has `stage_sizes[i]` blocks of `width * 2**i` filters; the first block of every stage
    but the first halves the map. Weighted layers on the longest path: 2 * blocks + 2, so
    (3, 3, 3) at width 16 is the shape of the paper's ResNet-20 (with projection shortcuts).
    """

    stage_sizes: tuple[int, ...] = field(
        (3, 3, 3), 'Residual blocks in each stage.', at_least=1, longest=12
    )
    width: int = field(16, 'Filters of the first stage; doubles each stage.', at_least=1)
    skip: bool = field(True, 'Skip connections; false gives the plain net of the same shape.')
    pooling: str = field(
        'stride',
        'How a stage halves the map: a strided convolution, or pooling.',
        choices=('stride', 'max', 'average'),
    )

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        conv, norm, activation = self.parts()
        x = images_BHWC.astype(self.dtype)
        x = conv(self.width, name='stem')(x)
        x = activation(norm(name='stem_norm')(x, train))
        for i, blocks in enumerate(self.stage_sizes):
            x = ResidualStage(
                blocks,
                self.width * 2**i,
                'none' if i == 0 else self.pooling,
                self.skip,
                self.parts(),
                name=f'stage{i + 1}',
            )(x, train)
        return self.logits(x, train)


class ResidualStage(nn.Module):
    """Blocks at one resolution; `pooling` says how the map is halved at the start."""

    blocks: int
    filters: int
    pooling: str
    skip: bool
    parts: layers.Parts

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.pooling in ('max', 'average'):
            x = layers.Pool(self.pooling, name='pool')(x)
        for i in range(1, self.blocks + 1):
            stride = 2 if self.pooling == 'stride' and i == 1 else 1
            block = ResidualBlock(self.filters, stride, self.skip, self.parts, name=f'block{i}')
            x = block(x, train)
        return x


class ResidualBlock(nn.Module):
    """conv, norm, act, conv, norm, + input, act; a 1x1 projection where the shape changes."""

    filters: int
    stride: int
    skip: bool
    parts: layers.Parts

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm, activation = self.parts
        y = conv(self.filters, strides=self.stride, name='conv1')(x)
        y = activation(norm(name='norm1')(y, train))
        y = conv(self.filters, name='conv2')(y)
        y = norm(name='norm2')(y, train)
        if self.skip:
            if x.shape != y.shape:
                x = conv(self.filters, kernel_size=(1, 1), strides=self.stride, name='shortcut')(x)
                x = norm(name='shortcut_norm')(x, train)
            y = x + y
        return activation(y)
