"""What the image families share: convolution, norm, pooling, dropout, stages, the head."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.batch_norm import BatchNorm
from models.convolution import conv_general_dilated
from models.fields import field

# The name of the mapped axis over which training synchronises (see training/data_parallel.py).
BATCH_AXIS = 'batch'

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'relu': nn.relu,
    'relu6': nn.relu6,
    'leaky_relu': nn.leaky_relu,
    'elu': nn.elu,
    # With the error function, as published (Hendrycks and Gimpel 2016), not its tanh likeness.
    'gelu': partial(nn.gelu, approximate=False),
    'silu': nn.silu,
    'tanh': nn.tanh,
}
NORMS = ('batch', 'group', 'layer', 'none')
HEADS = ('global_average', 'global_max', 'flatten')
KERNEL_INITS = {
    # He et al. 2015, "Delving Deep into Rectifiers", section 2.2, fan-out form, untruncated.
    'he_normal': nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
    'he_truncated': nn.initializers.variance_scaling(2.0, 'fan_out', 'truncated_normal'),
    'glorot_uniform': nn.initializers.glorot_uniform(),  # Glorot and Bengio 2010, equation 16.
    # ConvNeXt's: cut at 100 deviations, so not at all.
    'normal': nn.initializers.normal(0.02),
}
# A depthwise kernel [h, w, 1, C] feeds h * w outputs, not h * w * C.
_depthwise_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class Norm(nn.Module):
    """Normalisation by name.

    Batch norm (Ioffe and Szegedy 2015) takes its statistics over the global batch, so numbers do
    not depend on the device count. Group norm (Wu and He 2018) uses 8 groups, fewer where the
    channels do not divide.
    """

    kind: str
    epsilon: float = 1e-5
    momentum: float = 0.9
    zero: bool = False  # Begin with a scale of 0, so that what follows is not heard at first.
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        common: dict[str, Any] = {
            'dtype': self.dtype,
            'param_dtype': self.param_dtype,
            'epsilon': self.epsilon,
            'scale_init': nn.initializers.zeros if self.zero else nn.initializers.ones,
            'name': self.kind,
        }
        if self.kind == 'batch':
            return BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                axis_name=BATCH_AXIS,
                **common,
            )(x)
        if self.kind == 'group':
            return nn.GroupNorm(num_groups=math.gcd(8, x.shape[-1]), **common)(x)
        if self.kind == 'layer':
            return nn.LayerNorm(**common)(x)
        return x


class Pool(nn.Module):
    """Halves the feature map; odd sizes round up, or down where it is not padded."""

    kind: str  # 'max' or 'average'
    window: int = 2  # or 3
    padding: str = 'same'  # or 'valid'

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool = False) -> jax.Array:
        if self.kind == 'max':
            return _max_pool(_max_pool(images_BHWC, 2, self.window, self.padding), 1, self.window,
                             self.padding)  # fmt: skip
        padding: Any = self.padding.upper()
        if padding == 'SAME' and self.window % 2:
            padding = _symmetric(self.window)
        return nn.avg_pool(
            images_BHWC, (self.window,) * 2, (2, 2), padding, count_include_pad=False
        )


def _max_pool(images_BHWC: jax.Array, axis: int, window: int, padding: str) -> jax.Array:
    """Pools windows of 2 or 3 pixels along one axis at stride 2, by comparing neighbours.

    Backward on CPU this is several times faster than XLA's windows.
    """
    count = images_BHWC.shape[axis]
    before = window // 3 if padding == 'same' else 0
    behind = before or count % 2 if padding == 'same' else 0
    outputs = (count + before + behind - window) // 2 + 1
    whole = 2 * (outputs + window - 2)  # Pairs of neighbours, one more for windows of 3.
    kept = jax.lax.slice_in_dim(images_BHWC, 0, min(count, whole - before), axis=axis)
    widths = [(0, 0)] * images_BHWC.ndim
    widths[axis] = (before, whole - before - kept.shape[axis])
    padded = jnp.pad(kept, widths, constant_values=-jnp.inf)
    shape = padded.shape
    pairs = padded.reshape(*shape[:axis], whole // 2, 2, *shape[axis + 1 :])
    first, second = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))

    def part(pixels: jax.Array, start: int) -> jax.Array:
        return jax.lax.slice_in_dim(pixels, start, start + outputs, axis=axis)

    larger = _larger(part(first, 0), part(second, 0))
    return larger if window == 2 else _larger(larger, part(first, 1))


@jax.custom_vjp
def _larger(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the maximum; of two equal ones the first has the gradient, as in pooling."""
    return jnp.maximum(first, second)


_larger.defvjp(
    lambda first, second: (jnp.maximum(first, second), first >= second),
    lambda chosen, gradient: (
        jnp.where(chosen, gradient, 0),
        jnp.where(chosen, jnp.zeros_like(gradient), gradient),
    ),
)


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
        keep = _draw(self.make_rng('dropout'), jnp.float32(1.0 - self.rate), x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


def _draw(key: jax.Array, probability: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws bool of this shape: each example by its position in the global batch.

    `probability` is of a fixed type, so that JAX_ENABLE_X64 does not change what is drawn.
    """
    positions = jax.lax.axis_index(BATCH_AXIS) * shape[0] + jnp.arange(shape[0])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
    return jax.vmap(lambda k: jax.random.bernoulli(k, probability, shape[1:]))(keys)


class SqueezeExcite(nn.Module):
    """Weighs the channels by what the whole map holds: Hu et al. 2018, section 3."""

    filters: int  # Of the bottleneck.
    conv: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, images_BHWC: jax.Array) -> jax.Array:
        pooled = images_BHWC.mean(axis=(1, 2), keepdims=True)
        narrow = self.conv(self.filters, kernel_size=1, bias=True, name='reduce')(pooled)
        wide = self.conv(images_BHWC.shape[-1], kernel_size=1, bias=True, name='expand')
        return images_BHWC * nn.sigmoid(wide(self.activation(narrow)))


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
    """Feature map to logits: global pooling or flatten, dense layers, dropout, linear.

    Logits are computed and returned in the parameters' type (float32 under bfloat16 compute). A
    sigmoid's logit z comes as the two logits (0, z), whose softmax is that sigmoid, so that
    nothing behind the head has to know.
    """

    num_classes: int
    options: HeadOptions
    activation: str
    norm: Callable[..., nn.Module] | None = None  # Between the pooling and the logits.
    kernel_init: str = 'he_normal'
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        if self.options.pooling == 'flatten':
            x = images_BHWC.reshape(images_BHWC.shape[0], -1)
        elif self.options.pooling == 'global_max':
            x = _global_max(images_BHWC)
        else:
            x = images_BHWC.mean(axis=(1, 2))
        if self.norm:
            x = self.norm(name='norm')(x, train)
        types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
        # He's rule is for layers before a rectifier; logits then have the default of Flax.
        hidden, last = nn.initializers.he_normal(), nn.initializers.lecun_normal()
        if not self.kernel_init.startswith('he_'):
            hidden = last = KERNEL_INITS[self.kernel_init]
        for i, units in enumerate(self.options.dense_units, start=1):
            dense = nn.Dense(units, kernel_init=hidden, name=f'dense{i}', **types)
            x = ACTIVATIONS[self.activation](dense(x))
            x = Dropout(self.options.dropout)(x, train)
        if not self.options.dense_units:
            x = Dropout(self.options.dropout)(x, train)
        sigmoid = self.options.outputs == 'sigmoid'
        logits = nn.Dense(
            1 if sigmoid else self.num_classes,
            kernel_init=last,
            dtype=self.param_dtype,
            param_dtype=self.param_dtype,
            name='logits',
        )(x)
        return jnp.concatenate([jnp.zeros_like(logits), logits], -1) if sigmoid else logits


def _global_max(images_BHWC: jax.Array) -> jax.Array:
    """Returns the largest value of each channel, [B, C], by where it is.

    The gradient of `max` asks which values equal the largest, and divides by how many do; where XLA
    computes the map twice, with other rounding, these are none.
    """
    pixels = images_BHWC.reshape(images_BHWC.shape[0], -1, images_BHWC.shape[-1])
    places = jax.lax.stop_gradient(pixels).argmax(axis=1, keepdims=True)
    chosen = jax.lax.broadcasted_iota(places.dtype, pixels.shape, 1) == places
    return jnp.where(chosen, pixels, 0).sum(axis=1)


class Parts(NamedTuple):
    """What blocks are made of: `conv(filters, ...)`, `norm(...)` and `activation(x)`."""

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]


class ConvNet(nn.Module):
    """What every family of image classifiers shares: fields, and the head.

    `dtype` is the type of the computation, `param_dtype` of the parameters and the logits; `takes`
    is what an input may be, as `data.listing.Source.holds` says it. Parts of the net (its topmost
    modules, such as `stem` or `stage1`; `body` is all but the head) that are `frozen` behave as in
    evaluation: their batch norms use and keep the statistics they have.
    """

    takes: ClassVar[tuple[str, ...]] = ('images',)
    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    frozen: tuple[str, ...] = ()
    kernel_size: int = field(3, 'Height and width of the kernels, in pixels.', at_least=1)
    activation: str = field('relu', 'Activation function.', choices=tuple(ACTIVATIONS))
    norm: str = field('batch', 'Normalisation after each convolution.', choices=NORMS)
    norm_epsilon: float = field(1e-5, 'Added to the variance in a norm.', above=0.0)
    norm_momentum: float = field(
        0.9, 'Share of the old running statistics of batch norm that a step keeps.',
        at_least=0.0, below=1.0
    )  # fmt: skip
    bias: str = field(
        'auto', 'Biases of convolutions: where no norm follows (auto), or in all.',
        choices=('auto', 'always')
    )  # fmt: skip
    kernel_init: str = field('he_normal', 'Initial kernels.', choices=tuple(KERNEL_INITS))
    head: HeadOptions = HeadOptions()

    def parts(self, padding: str = 'same') -> Parts:
        """Returns convolution, norm and activation as the fields ask for them."""
        types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
        norm = partial(Norm, self.norm, self.norm_epsilon, self.norm_momentum, **types)
        biased = self.bias == 'always' or self.norm == 'none'

        def conv(
            filters: int,
            kernel_size: int = self.kernel_size,
            strides: int = 1,
            groups: int = 1,
            bias: bool = biased,
            name: str | None = None,
        ) -> nn.Module:
            depthwise = 1 < groups == filters and self.kernel_init.startswith('he_')
            return nn.Conv(
                filters,
                (kernel_size, kernel_size),
                strides,
                'VALID' if padding == 'valid' else _symmetric(kernel_size),
                feature_group_count=groups,
                use_bias=bias,
                kernel_init=_depthwise_init if depthwise else KERNEL_INITS[self.kernel_init],
                conv_general_dilated=conv_general_dilated,
                name=name,
                **types,
            )

        return Parts(conv, norm, ACTIVATIONS[self.activation])

    def check_lengths(self, *names: str) -> None:
        """Checks that these fields have one number for each stage.

        Raises:
          ValueError: names the field.
        """
        for name in names:
            if len(getattr(self, name)) != len(self.stage_sizes):
                raise ValueError(
                    f'model.{name}={getattr(self, name)} must have one number for each of '
                    f'model.stage_sizes={self.stage_sizes}'
                )

    def trains(self, part: str, train: bool) -> bool:
        """Returns `train`, or False for a part of the net that is frozen."""
        body = 'body' in self.frozen and part != 'head'
        return train and part not in self.frozen and not body

    def logits(
        self, images_BHWC: jax.Array, train: bool, norm: Callable[..., nn.Module] | None = None
    ) -> jax.Array:
        """Maps the last feature map to logits [B, num_classes]."""
        return Head(
            num_classes=self.num_classes,
            options=self.head,
            activation=self.activation,
            norm=norm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name='head',
        )(images_BHWC, self.trains('head', train))


class BlockNet(ConvNet):
    """An image family made of stages of blocks with skip connections."""

    stochastic_depth: float = field(
        0.0, 'Share of examples that pass by the last block; linearly less in earlier ones.',
        at_least=0.0, below=1.0
    )  # fmt: skip
    remat: bool = field(
        False, 'Compute the activations of a block again in the backward pass: less memory.'
    )
    scan: bool = field(
        False, 'Compile the equal blocks of a stage once, as a loop; slow on CPU without oneDNN.'
    )

    def stages(
        self,
        x: jax.Array,
        train: bool,
        blocks: Sequence[Sequence[Callable[..., nn.Module]]],
        entries: Sequence[Callable[[], nn.Module] | None],
    ) -> jax.Array:
        """Runs `stage1`, `stage2` and so on.

        Args:
          x: feature map.
          train: as always.
          blocks: of each stage, what makes the first block and what makes each other one.
          entries: of each stage, what makes the module before its blocks, or None.
        """
        total, done = sum(map(len, blocks)), 0
        for i, (makers, entry) in enumerate(zip(blocks, entries, strict=True), start=1):
            # Huang et al. 2016, "Deep Networks with Stochastic Depth", section 3, counted as
            # ConvNeXt does: none of the first block, all of the last.
            rates = [
                self.stochastic_depth * (done + j) / max(1, total - 1) for j in range(len(makers))
            ]
            done += len(makers)
            stage = Stage(
                tuple(makers), entry, tuple(rates), self.remat, self.scan, name=f'stage{i}'
            )
            x = stage(x, self.trains(f'stage{i}', train))
        return x


class Stage(nn.Module):
    """Blocks at one resolution: `block(x, keep_B, train)`, of which all but the first are equal.

    `keep_B` multiplies what a block adds to its input: 0 where stochastic depth passes it by, or
    None where it does not.
    """

    blocks: tuple[Callable[..., nn.Module], ...]
    entry: Callable[[], nn.Module] | None
    rates: tuple[float, ...]
    remat: bool
    scan: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.entry:
            x = self.entry()(x, train)
        keeps = self._keeps(x.shape[0], train)
        # Initialisation does not scan, so that parameters and their draws are the same.
        looped = self.scan and len(self.blocks) > 2 and not self.is_initializing()
        for i, make in enumerate(self.blocks[:1] if looped else self.blocks):
            block = make(name=f'block{i + 1}')

            def run(module: nn.Module, x: jax.Array, keep_B: jax.Array | None) -> jax.Array:
                return module(x, keep_B, train)

            x = (nn.remat(run) if self.remat else run)(block, x, keeps[i])
        return self._scan(x, keeps[1:], train) if looped else x

    def _keeps(self, batch: int, train: bool) -> list[jax.Array | None]:
        if not train or not any(self.rates):
            return [None] * len(self.rates)
        key = self.make_rng('dropout')
        keeps: list[jax.Array | None] = []
        for i, rate in enumerate(self.rates):
            keep_B = _draw(jax.random.fold_in(key, i), jnp.float32(1 - rate), (batch,))
            keeps.append(keep_B / (1 - rate))
        return keeps

    def _scan(self, x: jax.Array, keeps: list[jax.Array | None], train: bool) -> jax.Array:
        """Runs all blocks but the first as one loop over their stacked variables.

        By hand, since `nn.scan` would store them stacked: so a checkpoint serves with and without.
        """
        names = [f'block{i + 2}' for i in range(len(keeps))]
        block = self.blocks[-1](parent=None)
        each = [{c: tree[name] for c, tree in self.variables.items() if name in tree}
                for name in names]  # fmt: skip
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        kept = jax.tree.map(lambda *k: jnp.stack(k), *keeps)

        def body(x: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
            variables, keep_B = inputs
            mutable = ['batch_stats'] if train else []
            return block.apply(variables, x, keep_B, train, mutable=mutable)

        x, changed = jax.lax.scan(jax.checkpoint(body) if self.remat else body, x, (stacked, kept))
        for i, name in enumerate(names):
            for collection, tree in changed.items():
                self.put_variable(collection, name, jax.tree.map(lambda leaf: leaf[i], tree))  # noqa: B023
        return x


def add(x: jax.Array, y: jax.Array, keep_B: jax.Array | None) -> jax.Array:
    """Returns x + y, of which `keep_B` may leave out y for some examples."""
    return x + (y if keep_B is None else y * keep_B.astype(y.dtype)[:, None, None, None])


def _symmetric(window: int) -> list[tuple[int, int]]:
    """Pads both sides alike, as published nets do; SAME would not where a stride is even.

    At stride 1 this is SAME; an even window has one pixel more behind.
    """
    return [((window - 1) // 2, window // 2)] * 2
