"""What a net is before anyone trains it: layers, parameters, FLOPs, receptive field, concerns."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers
from models.batch_norm import BatchNorm

_NORMS = (BatchNorm, nn.GroupNorm, nn.LayerNorm)
_BESIDE = ('shortcut', 'squeeze')  # In the names of modules beside the longest path.


class EmptyMapError(ValueError):
    """A layer leaves nothing of the feature map; the text names the layer and its shapes."""


@dataclasses.dataclass
class Layer:
    """One row of the model table; shapes are of one example, without the batch axis.

    Attributes:
      name: path of the layer in the parameters, such as `stage2/block1/conv1`.
      output_shape: of the layer; `()` for parameters beside all layers.
      parameters: weights of the layer, and of what stands behind it without being one: a norm,
        the scale of a block.
      flops: floating-point operations of one example's forward pass; a multiply-add counts as
        two, and only convolutions, dense and recurrent layers count.
      receptive_field: height and width in input pixels that one output sees; None where that is
        everything (behind global pooling), for layers beside the longest path (shortcuts, squeeze
        and excitation, which tells each pixel of all others), and where the input is no image.
      activation_bytes: size of the layer's output, in the type it is computed in.
      input_shape: of the layer.
      stride: of the layer's window.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    receptive_field: int | None
    activation_bytes: int = 0
    input_shape: tuple[int, ...] = ()
    stride: int = 1


class _Call(NamedTuple):
    module: nn.Module
    path: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    itemsize: int


def summarize(model: nn.Module, input_shape: tuple[int, ...]) -> list[Layer]:
    """Lists the layers in the order of computation, without computing or allocating anything.

    A layer is a convolution, a dense layer, a pooling, or any other module that owns a parameter
    named `kernel`, such as a recurrent layer. The parameters of all rows add up to the net's.

    Receptive fields follow Araujo, Norris and Sim 2019, "Computing Receptive Fields of
    Convolutional Neural Networks", equation 2, along the longest path, by the windows' height.

    Args:
      model: called with inputs [1, *input_shape] and `train=False`.
      input_shape: [H, W, C] of images, [T, F] of sequences, [F] of features.

    Raises:
      EmptyMapError: a window without padding is larger than the map it slides over.
    """
    calls, params = _trace(model, input_shape)
    sizes = {
        tuple(key.key for key in path): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    # The kernels, each of whose numbers is multiplied once for every position of the output.
    kernels = {
        tuple(key.key for key in path): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim > 1
    }
    rows: list[Layer] = []
    field, jump = 1, 1
    for call in calls:
        is_layer = isinstance(call.module, (nn.Conv, nn.Dense, layers.Pool, *_NORMS))
        if not is_layer and (*call.path, 'kernel') not in sizes:
            continue
        parameters = _take(sizes, call.path)
        if isinstance(call.module, _NORMS):
            _book(rows, call.path, parameters, call.output_shape)
            continue
        beside = any(word in part for part in call.path for word in _BESIDE)
        stride = _stride(call.module)
        if not beside:
            field += (_window(call.module) - 1) * jump
            jump *= stride
        on_map = len(input_shape) == len(call.output_shape) == 3
        positions = math.prod(call.output_shape[:-1])
        weights = sum(size for path, size in kernels.items() if _inside(path, call.path))
        rows.append(
            Layer(
                name='/'.join(call.path),
                output_shape=call.output_shape,
                parameters=parameters,
                flops=2 * positions * weights,
                receptive_field=field if on_map and not beside else None,
                activation_bytes=math.prod(call.output_shape) * call.itemsize,
                input_shape=call.input_shape,
                stride=stride,
            )
        )
    for path, size in sizes.items():
        _book(rows, path, size, ())
    return rows


def grouped(rows: list[Layer], at_most: int) -> list[Layer]:
    """Merges the rows of a block, then of a stage, until no more than `at_most` are left."""
    for depth in (3, 2, 1):
        merged: dict[str, Layer] = {}
        for row in rows:
            name = '/'.join(row.name.split('/')[:depth])
            if name not in merged:
                merged[name] = dataclasses.replace(row, name=name)
                continue
            group = merged[name]
            group.parameters += row.parameters
            group.flops += row.flops
            group.activation_bytes += row.activation_bytes
            if row.receptive_field is not None or group.receptive_field is None:
                group.output_shape = row.output_shape
                group.receptive_field = row.receptive_field
        if len(merged) <= at_most:
            break
    return list(merged.values())


def concerns(rows: list[Layer]) -> list[str]:
    """Says in one line each what of a net for images is wasted or missing.

    That the last feature map sees less than the image, where no dense layer joins its pixels; or
    so much more, twice its size, that the last layers see nothing new; and layers that halve a
    map of one pixel.
    """
    found = [
        f'{row.name} halves a map that is one pixel already: its stride is wasted.'
        for row in rows
        if row.stride > 1 and row.receptive_field is not None and max(row.input_shape[:2]) == 1
    ]
    on_map = [row for row in rows if row.receptive_field is not None]
    if not on_map:
        return found
    image, last = max(on_map[0].input_shape[:2]), on_map[-1]
    seen = last.receptive_field or 0
    behind = [row for row in rows[rows.index(last) + 1 :] if row.output_shape]
    joins = bool(behind) and behind[0].input_shape[-1] != last.output_shape[-1]  # Flattens.
    joins |= any('squeeze' in row.name for row in rows)
    if seen < image and not joins:
        found.append(
            f'An output of the last feature map ({last.name}) sees {seen} of {image} pixels '
            f'({(seen / image) ** 2:.0%} of the image): what is larger is judged by its parts. '
            'A further layer, stride or larger kernel would reach it.'
        )
    beyond = [row for row in on_map if (row.receptive_field or 0) > 2 * image and row.flops]
    if beyond:
        share = sum(row.flops for row in beyond) / sum(row.flops for row in rows)
        found.append(
            f'From {beyond[0].name} on an output sees more than twice the image ({seen} pixels in '
            f'the end, of {image}): layers that hold {share:.0%} of the FLOPs add depth but no '
            'view; whether they help, a comparison has to show.'
        )
    return found


def _trace(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[list[_Call], Any]:
    """Returns the calls of modules from arrays to an array, inner before outer, and the params."""
    calls: list[_Call] = []

    def record(next_method, args, kwargs, context):
        output = next_method(*args, **kwargs)
        module = context.module
        if context.method_name != '__call__' or not args:
            return output
        if hasattr(args[0], 'shape') and hasattr(output, 'shape'):
            shapes = args[0].shape[1:], output.shape[1:]
            if 0 in shapes[1] and 0 not in shapes[0]:
                raise EmptyMapError(
                    f'{"/".join(module.path)} leaves nothing of its input of '
                    f'{"x".join(map(str, shapes[0]))}'
                )
            calls.append(_Call(module, module.path, *shapes, output.dtype.itemsize))
        return output

    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    with nn.intercept_methods(record):
        variables = jax.eval_shape(
            lambda inputs: model.init(jax.random.key(0), inputs, train=False), inputs
        )
    return calls, variables.get('params', {})


def _inside(path: tuple[str, ...], module: tuple[str, ...]) -> bool:
    return path[: len(module)] == module


def _take(sizes: dict[tuple[str, ...], int], path: tuple[str, ...]) -> int:
    """Returns the parameters of a module, once: a module called again has none left."""
    return sum(sizes.pop(leaf) for leaf in [leaf for leaf in sizes if _inside(leaf, path)])


def _book(
    rows: list[Layer], path: tuple[str, ...], parameters: int, output_shape: tuple[int, ...]
) -> None:
    """Adds parameters of no layer to the last row of the module around them, or to a new row.

    A norm by name has a module of its own around it, so the module around that counts too.
    """
    for outer in (path[:-1], path[:-2]):
        for row in reversed(rows):
            around = tuple(row.name.split('/')[:-1])
            if around == outer or (outer and _inside(around, outer)):
                row.parameters += parameters
                return
    rows.append(Layer('/'.join(path), output_shape, parameters, 0, None, input_shape=output_shape))


def _window(module: nn.Module) -> int:
    """Returns how many pixels of its input a layer spans in height, dilation included."""
    if isinstance(module, layers.Pool):
        return module.window
    size = _first(getattr(module, 'kernel_size', 1))
    return (size - 1) * _first(getattr(module, 'kernel_dilation', 1)) + 1


def _stride(module: nn.Module) -> int:
    return 2 if isinstance(module, layers.Pool) else _first(getattr(module, 'strides', 1))


def _first(value: Any) -> int:
    """Returns what flax takes for the height: a number, the first of several, or 1 for None."""
    if value is None:
        return 1
    return value if isinstance(value, int) else value[0]
