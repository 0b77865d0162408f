"""What a net is before anyone trains it: layers, parameters, FLOPs, receptive field."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers, recurrent

_NORMS = (nn.BatchNorm, nn.GroupNorm, nn.LayerNorm)
_RECURRENT = (recurrent.RecurrentLayer,)


@dataclasses.dataclass
class Layer:
    """One row of the model table.

    Attributes:
      name: path of the layer in the parameters, such as `stage2/block1/conv1`.
      output_shape: of one example, without the batch axis.
      parameters: weights of the layer, those of the norm behind it included.
      flops: floating-point operations of one example's forward pass; a multiply-add counts as
        two, and only convolutions, dense and recurrent layers count.
      receptive_field: height and width in input pixels that one output sees; None for dense
        and recurrent layers (everything) and for layers beside the longest path (shortcuts).
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    receptive_field: int | None


def summarize(model: nn.Module, image_shape: tuple[int, ...]) -> list[Layer]:
    """Lists the layers in the order of computation, without computing or allocating anything.

    Receptive fields follow Araujo, Norris and Sim 2019, "Computing Receptive Fields of
    Convolutional Neural Networks", equation 2, along the longest path.
    """
    calls: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = []

    def record(next_method, args, kwargs, context):
        output = next_method(*args, **kwargs)
        leaf = isinstance(context.module, (nn.Conv, nn.Dense, layers.Pool, *_RECURRENT, *_NORMS))
        if leaf and context.method_name == '__call__':
            calls.append((context.module, args[0].shape, output.shape))
        return output

    images_BHWC = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(record):
        variables = jax.eval_shape(
            lambda images: model.init(jax.random.key(0), images, train=False), images_BHWC
        )

    rows: list[Layer] = []
    field, jump = 1, 1
    for module, input_shape, output_shape in calls:
        parameters = _count(variables['params'], module.path)
        if isinstance(module, _NORMS):
            rows[-1].parameters += parameters
            continue
        on_path = 'shortcut' not in module.path
        if isinstance(module, (nn.Conv, layers.Pool)) and on_path:
            field += (_window(module) - 1) * jump
            jump *= max(1, round(input_shape[1] / output_shape[1]))
        rows.append(
            Layer(
                '/'.join(module.path),
                output_shape[1:],
                parameters,
                _flops(module, input_shape, output_shape),
                field if on_path and not isinstance(module, (nn.Dense, *_RECURRENT)) else None,
            )
        )
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
            if row.receptive_field is not None or group.receptive_field is None:
                group.output_shape = row.output_shape
                group.receptive_field = row.receptive_field
        if len(merged) <= at_most:
            break
    return list(merged.values())


def _count(params, path: tuple[str, ...]) -> int:
    for name in path:
        params = params.get(name, {})
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _window(module: nn.Module) -> int:
    if isinstance(module, nn.Conv):
        size = module.kernel_size
        return size if isinstance(size, int) else size[0]
    return module.window if isinstance(module, layers.Pool) else 1


def _flops(module: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    if isinstance(module, nn.Conv):
        fan_in = _window(module) ** 2 * input_shape[-1] // module.feature_group_count
        return 2 * math.prod(output_shape) * fan_in
    if isinstance(module, nn.Dense):
        return 2 * math.prod(output_shape) * input_shape[-1]
    if isinstance(module, recurrent.RecurrentLayer):
        return module.flops(input_shape)
    return 0
