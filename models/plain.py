"""The plain family: stages of convolution, norm and activation, each ended by pooling."""

import jax
from flax import linen as nn

from models import layers
from models.fields import field


class Plain(layers.ConvNet):
    """A plain (VGG-like) net: Simonyan and Zisserman 2014, section 2, with norm layers.

    Stage i has `stage_sizes[i]` convolutions; pooling (or a stride) halves the map after every
    stage but the last, or after every stage where the head flattens.
    """

    stage_sizes: tuple[int, ...] = field(
        (1, 1, 1), 'Convolutions in each stage; their count is the depth.', at_least=1, longest=12
    )
    width: int = field(32, 'Filters of the first stage; doubles each stage.', at_least=1)
    filters: tuple[int, ...] = field(
        (), 'Filters of each stage, in place of width.', at_least=1, longest=12
    )
    pooling: str = field(
        'max',
        'How a stage halves the map: pooling, or a strided convolution.',
        choices=('max', 'average', 'stride'),
    )
    padding: str = field(
        'same', 'Whether convolutions keep the size of the map, or lose its border.',
        choices=('same', 'valid')
    )  # fmt: skip
    dropout: float = field(0.0, 'Share of units dropped after each stage.', at_least=0.0, below=1.0)

    def __post_init__(self):
        super().__post_init__()
        if self.filters:
            self.check_lengths('filters')

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]."""
        x = images_BHWC.astype(self.dtype)
        last = len(self.stage_sizes) - 1
        for i, convolutions in enumerate(self.stage_sizes):
            x = PlainStage(
                convolutions,
                self.filters[i] if self.filters else self.width * 2**i,
                self.pooling if i < last or self.head.pooling == 'flatten' else 'none',
                self.padding,
                self.dropout,
                self.parts(self.padding),
                name=f'stage{i + 1}',
            )(x, self.trains(f'stage{i + 1}', train))
        return self.logits(x, train)


class PlainStage(nn.Module):
    """Convolutions at one resolution; `pooling` says how the map is halved at the end."""

    convolutions: int
    filters: int
    pooling: str
    padding: str
    dropout: float
    parts: layers.Parts

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm, activation = self.parts
        for i in range(1, self.convolutions + 1):
            stride = 2 if self.pooling == 'stride' and i == self.convolutions else 1
            x = conv(self.filters, strides=stride, name=f'conv{i}')(x)
            x = activation(norm(name=f'norm{i}')(x, train))
        if self.pooling in ('max', 'average'):
            x = layers.Pool(self.pooling, padding=self.padding, name='pool')(x)
        return layers.Dropout(self.dropout)(x, train)
