"""What the families share: norm, pooling, per-example dropout, the head, and their fields."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.fields import field

# The name of the mapped axis over which training synchronises (see training/data_parallel.py).
BATCH_AXIS = 'batch'

ACTIVATIONS = {
    'relu': nn.relu,
    'leaky_relu': nn.leaky_relu,
    'elu': nn.elu,
    'gelu': nn.gelu,
    'silu': nn.silu,
    'tanh': nn.tanh,
}
NORMS = ('batch', 'group', 'layer', 'none')
HEADS = ('global_average', 'flatten')

# He et al. 2015, "Delving Deep into Rectifiers", section 2.2, fan-out form, untruncated.
conv_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Norm(nn.Module):
    """Normalisation by name.

    Batch norm (Ioffe and Szegedy 2015) takes its statistics over the global batch, so numbers do
    not depend on the device count; running statistics have momentum 0.9. Group norm (Wu and He
    2018) uses 8 groups, fewer where the channels do not divide.
    """

    kind: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        common: dict[str, Any] = {
            'dtype': self.dtype,
            'param_dtype': self.param_dtype,
            'epsilon': 1e-5,
            'name': self.kind,
        }
        if self.kind == 'batch':
            return nn.BatchNorm(
                use_running_average=not train, momentum=0.9, axis_name=BATCH_AXIS, **common
            )(x)
        if self.kind == 'group':
            return nn.GroupNorm(num_groups=math.gcd(8, x.shape[-1]), **common)(x)
        if self.kind == 'layer':
            return nn.LayerNorm(**common)(x)
        return x


class Pool(nn.Module):
    """Halves the feature map with a window of `window` (odd sizes round up: SAME padding)."""

    kind: str  # 'max' or 'average'
    window: int = 2

    @nn.compact
    def __call__(self, images_BHWC: jax.Array) -> jax.Array:
        window, strides = (self.window,) * 2, (2, 2)
        if self.kind == 'max':
            return nn.max_pool(images_BHWC, window, strides, 'SAME')
        return nn.avg_pool(images_BHWC, window, strides, 'SAME', count_include_pad=False)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose mask follows the example, not the device.

    The key is folded with the position of each example in the global batch, so the same step
    drops the same units on any number of devices. Needs the mapped axis while training.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not train or self.rate == 0.0:
            return x
        positions = jax.lax.axis_index(BATCH_AXIS) * x.shape[0] + jnp.arange(x.shape[0])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng('dropout'), positions)
        # Of a fixed type, so that JAX_ENABLE_X64 does not change what is drawn.
        probability = jnp.float32(1.0 - self.rate)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, probability, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """The fields of `config.model.head` of every family."""

    outputs: str = field(
        'softmax', 'A logit for each class, or, for two classes, one with a sigmoid.',
        choices=('softmax', 'sigmoid')
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class HeadOptions(OutputOptions):
    """The fields of `config.model.head` of convolutional nets."""

    pooling: str = field('global_average', 'What precedes the logits.', choices=HEADS)
    dense_units: tuple[int, ...] = field(
        (), 'Units of dense layers before the logits, such as (128,).', at_least=1, longest=8
    )
    dropout: float = field(0.0, 'Share of units dropped in the head.', at_least=0.0, below=1.0)


class Head(nn.Module):
    """Feature map to logits: global average pooling or flatten, dense layers, dropout, linear.

    Logits are computed and returned in the parameters' type (float32 under bfloat16 compute). A
    sigmoid's logit z comes as the two logits (0, z), whose softmax is that sigmoid, so that
    nothing behind the head has to know.
    """

    num_classes: int
    options: HeadOptions
    activation: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        if self.options.pooling == 'flatten':
            x = images_BHWC.reshape(images_BHWC.shape[0], -1)
        else:
            x = images_BHWC.mean(axis=(1, 2))
        types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
        for i, units in enumerate(self.options.dense_units, start=1):
            dense = nn.Dense(
                units, kernel_init=nn.initializers.he_normal(), name=f'dense{i}', **types
            )
            x = ACTIVATIONS[self.activation](dense(x))
            x = Dropout(self.options.dropout)(x, train)
        if not self.options.dense_units:
            x = Dropout(self.options.dropout)(x, train)
        sigmoid = self.options.outputs == 'sigmoid'
        logits = nn.Dense(
            1 if sigmoid else self.num_classes,
            dtype=self.param_dtype,
            param_dtype=self.param_dtype,
            name='logits',
        )(x)
        return jnp.concatenate([jnp.zeros_like(logits), logits], -1) if sigmoid else logits


class Parts(NamedTuple):
    """What blocks are made of: `conv(filters, ...)`, `norm()` and `activation(x)`."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]


class ConvNet(nn.Module):
    """What every family of image classifiers shares: fields, and the head.

    `dtype` is the type of the computation, `param_dtype` of the parameters and the logits; `takes`
    is what an input may be, as `data.listing.Source.holds` says it.
    """

    takes: ClassVar[tuple[str, ...]] = ('images',)
    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_size: int = field(3, 'Height and width of the kernels, in pixels.', at_least=1)
    activation: str = field('relu', 'Activation function.', choices=tuple(ACTIVATIONS))
    norm: str = field('batch', 'Normalisation after each convolution.', choices=NORMS)
    head: HeadOptions = HeadOptions()

    def parts(self) -> 'Parts':
        """Returns convolution, norm and activation as the fields ask for them."""
        types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
        conv = partial(
            nn.Conv,
            kernel_size=(self.kernel_size,) * 2,
            use_bias=self.norm == 'none',
            kernel_init=conv_init,
            **types,
        )
        return Parts(conv, partial(Norm, self.norm, **types), ACTIVATIONS[self.activation])

    def logits(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        """Maps the last feature map to logits [B, num_classes]."""
        return Head(
            num_classes=self.num_classes,
            options=self.head,
            activation=self.activation,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name='head',
        )(images_BHWC, train)
