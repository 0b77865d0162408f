"""The blocks of a trained net: taken out, or looked into, while it runs.

Calls of modules are intercepted by their path, so that `models/` knows nothing of it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers, summary
from training import step
from training.recipe import Recipe

_HEAD = ('head',)
_Interceptor = Callable[[Callable[..., Any], Any, Any, Any], Any]


class Block(NamedTuple):
    """A part of a net that can be judged.

    Attributes:
      name: path in the parameters, such as `stem`, `stage1/conv1` or `stage2/block1`.
      norm: path of the norm that goes with it, of a single convolution; None where there is none.
      way: what is left where it is removed: `identity`, its input, which has the shape of its
        output; `skip path`, a projection beside it; `resized`, its input, subsampled and with
        zeros as further channels (He et al. 2016, "Deep Residual Learning", section 3.3, option A)
        or without the last ones.
      output_shape: without the batch axis.
      parameters: weights, with those of its norms.
      flops: of one example's forward pass.
      receptive_field: height and width in input pixels that one output sees.
    """

    name: str
    norm: str | None
    way: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    receptive_field: int | None


def unlooped(model: nn.Module) -> nn.Module:
    """Returns the same net without loops and recomputation, in which no block could be told."""
    return model.clone(remat=False, scan=False) if isinstance(model, layers.BlockNet) else model


def has_blocks(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Tells whether a net is one of images that has blocks."""
    return isinstance(model, layers.ConvNet) and bool(find(model, input_shape))


def find(model: nn.Module, input_shape: tuple[int, ...]) -> list[Block]:
    """Lists the blocks of an image net in the order of computation; the head is none of them.

    A block is a stem, a block of a stage or what stands before the first one, or, of a net
    without blocks, a convolution with its norm.
    """
    rows = [row for row in summary.summarize(model, input_shape) if _block_of(row.name)]
    merged: dict[str, list[summary.Layer]] = {}
    for row in rows:
        merged.setdefault(_block_of(row.name), []).append(row)
    calls = _calls(unlooped(model), input_shape)
    blocks = []
    for name, parts in merged.items():
        parameters = sum(row.parameters for row in parts)
        if not parameters:  # Pooling.
            continue
        call = calls[name]
        fields = [row.receptive_field for row in parts if row.receptive_field is not None]
        norm = _norm_of(name)
        blocks.append(Block(
            name=name,
            norm=norm if norm in calls else None,
            way='identity' if call.input_shape == call.output_shape
            else 'skip path' if call.skips else 'resized',
            output_shape=call.output_shape,
            parameters=parameters,
            flops=sum(row.flops for row in parts),
            receptive_field=fields[-1] if fields else None,
        ))  # fmt: skip
    return blocks


def _block_of(row: str) -> str:
    """Returns the block that a row of the model table belongs to, '' for the head."""
    parts = row.split('/')
    if parts[0] == _HEAD[0]:
        return ''
    return '/'.join(parts[:2]) if parts[0].startswith('stage') else parts[0]


def _norm_of(name: str) -> str:
    before, _, last = name.rpartition('/')
    norm = last.replace('conv', 'norm') if last.startswith('conv') else f'{last}_norm'
    return f'{before}/{norm}' if before else norm


class _Call(NamedTuple):
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    skips: bool


class _Listener:
    """Stands for `keep_B`, and hears whether a block uses it, so has a skip connection."""

    def __init__(self, batch: int):
        self._batch, self.used = batch, False

    def astype(self, dtype: Any) -> jax.Array:
        self.used = True
        return jnp.ones(self._batch, dtype)


def _calls(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, _Call]:
    """Returns what goes into and comes out of each module, by path."""
    calls: dict[str, _Call] = {}

    def record(next_method, args, kwargs, context):
        if context.method_name != '__call__' or not hasattr(args[0], 'shape'):
            return next_method(*args, **kwargs)
        listener = _Listener(len(args[0]))
        if len(args) == 3:
            args = (args[0], listener, args[2])
        output = next_method(*args, **kwargs)
        shapes = args[0].shape[1:], output.shape[1:]
        calls['/'.join(context.module.path)] = _Call(*shapes, listener.used)
        return output

    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), inputs)
    return calls


@dataclasses.dataclass(frozen=True)
class _Altered:
    """A net whose modules are called through an interceptor; it stands for the net in a recipe."""

    model: nn.Module
    interceptor: _Interceptor

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(self.interceptor):
            return self.model.apply(*args, **kwargs)


def _altered(recipe: Recipe, interceptor: _Interceptor) -> Recipe:
    model: Any = _Altered(unlooped(recipe.model), interceptor)
    return recipe._replace(model=model)


def gated(recipe: Recipe, blocks: Sequence[Block], off_U: jax.Array) -> Recipe:
    """Returns the recipe of a net in which blocks are removed where `off_U` is true.

    All are computed, so that one compiled program serves every choice.
    """
    places = {block.name: i for i, block in enumerate(blocks)}
    norms = {block.norm: i for i, block in enumerate(blocks) if block.norm}

    def around(next_method, args, kwargs, context):
        name = '/'.join(context.module.path)
        if context.method_name != '__call__' or name not in places | norms:
            return next_method(*args, **kwargs)
        if name in norms:
            return jnp.where(off_U[norms[name]], args[0], next_method(*args, **kwargs))
        off, block = off_U[places[name]], blocks[places[name]]
        if block.way == 'skip path':
            x, keep_B, train = args
            keep_B = jnp.ones(x.shape[0], x.dtype) if keep_B is None else keep_B
            return next_method(x, jnp.where(off, 0, keep_B), train, **kwargs)
        return jnp.where(off, _passed(args[0], block.output_shape), next_method(*args, **kwargs))

    return _altered(recipe, around)


def without(recipe: Recipe, blocks: Sequence[Block], removed: int | None) -> Recipe:
    """Returns the recipe of a net that does not compute one of its blocks (None: computes all).

    For its cost: a skip path with a projection goes too.
    """
    block = None if removed is None else blocks[removed]

    def around(next_method, args, kwargs, context):
        name = '/'.join(context.module.path)
        if block is None or context.method_name != '__call__':
            return next_method(*args, **kwargs)
        if name == block.name:
            return _passed(args[0], block.output_shape)
        return args[0] if name == block.norm else next_method(*args, **kwargs)

    return _altered(recipe, around)


def _passed(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if x.shape[1:-1] != shape[:-1]:
        x = jax.image.resize(x, (x.shape[0], *shape[:-1], x.shape[-1]), 'nearest')
    x = x[..., : shape[-1]]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, shape[-1] - x.shape[-1])])


def maps(
    recipe: Recipe, blocks: Sequence[Block], variables: dict[str, Any], batch: dict[str, jax.Array]
) -> list[jax.Array]:
    """Returns what goes into each block, and last into the head: [B, H, W, C] each.

    So the map behind a block is as the next one sees it: activated, and pooled where pooling is.
    """
    places = {block.name: i for i, block in enumerate(blocks)} | {_HEAD[0]: len(blocks)}
    seen: dict[int, jax.Array] = {}

    def around(next_method, args, kwargs, context):
        name = '/'.join(context.module.path)
        if context.method_name == '__call__' and name in places:
            seen[places[name]] = args[0]
        return next_method(*args, **kwargs)

    plain = _altered(recipe, around)._replace(evaluate_mirrored=False)
    step.eval_step(plain, variables, {}, batch)
    return [seen[i] for i in range(len(blocks) + 1)]


def with_change(
    recipe: Recipe, change: jax.Array, variables: dict[str, Any], batch: dict[str, jax.Array]
) -> jax.Array:
    """Returns the logits [B, K] where something is added to what goes into the head."""

    def around(next_method, args, kwargs, context):
        if context.method_name == '__call__' and context.module.path == _HEAD:
            args = (args[0] + change, *args[1:])
        return next_method(*args, **kwargs)

    plain = _altered(recipe, around)._replace(evaluate_mirrored=False)
    return step.eval_step(plain, variables, {}, batch)
