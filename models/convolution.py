"""Convolution of images: XLA's own, or on CPU faster ones, by oneDNN or by products of matrices.

Measurements and what else was tried: docs/performance.md.
"""

import contextlib
import contextvars
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import onednn

# Whether XLA's own is wanted where oneDNN would be used.
_plain: contextvars.ContextVar[bool] = contextvars.ContextVar('plain', default=False)
# Below it XLA is as fast, since a call costs a tenth of a millisecond; but not with groups.
_AT_LEAST_FLOPS = 8_000_000
# Where more of a convolution is multiplied by padding, leaving that out pays.
_MOST_PADDING = 0.3
_MOST_PAIRS = 1024
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


class Window(NamedTuple):
    """How the kernel moves: each pair is of height and width."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, ...], ...]  # Before and behind.
    dilation: tuple[int, ...]
    groups: int


@contextlib.contextmanager
def left_to_xla() -> Iterator[None]:
    """While the block runs, what is traced anew convolves by XLA, which can count its FLOPs."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def conv_general_dilated(
    images_BHWC: jax.Array,
    kernel_HWIO: jax.Array,
    window_strides: tuple[int, int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: tuple[int, int] = (1, 1),
    rhs_dilation: tuple[int, int] = (1, 1),
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """Convolves as `jax.lax.conv_general_dilated`, for `nn.Conv`.

    float32 on CPU (where that is JAX's default) is left to oneDNN, where it is installed. There
    gradients are taken in reverse mode only (`jax.grad`, `jax.vjp`), and once; `jax.export` does
    not take it, nor does automatic sharding split it: see `left_to_xla`. Where much of the window
    lies outside of small images, products of matrices are faster.

    Args:
      images_BHWC: of any float type.
      kernel_HWIO: of the same type; I is the images' channels divided by the groups.
      window_strides: of height and width, as `rhs_dilation`.
      padding: 'VALID', or pixels before and behind for height and for width.
      lhs_dilation: of the images; left to XLA where it is not 1.
      rhs_dilation: of the kernel.
      dimension_numbers: what nn.Conv gives, which is the layout in the names here.
      feature_group_count: groups of channels; as many as channels in a depthwise convolution.
      precision: of XLA.

    Returns:
      [B, H', W', O] in the type of the images.

    Raises:
      ValueError: padding by another name.
    """
    del dimension_numbers
    if isinstance(padding, str) and padding != 'VALID':
        raise ValueError(f'padding={padding!r} is not known: give pixels, or VALID')
    pads = ((0, 0), (0, 0)) if isinstance(padding, str) else tuple(map(tuple, padding))
    window = Window(tuple(window_strides), pads, tuple(rhs_dilation), feature_group_count)
    ours = (
        not _plain.get()
        and jax.default_backend() == 'cpu'
        and images_BHWC.dtype == kernel_HWIO.dtype == jnp.float32
        and tuple(lhs_dilation) == (1, 1)
    )
    if ours and _is_worth_it(images_BHWC, kernel_HWIO, window):
        if window.groups == 1 and _padding_share(images_BHWC, kernel_HWIO, window) > _MOST_PADDING:
            return _by_products(images_BHWC, kernel_HWIO, window)
        if onednn.version():
            return _convolve(*alike(images_BHWC, kernel_HWIO), window)
    return _by_xla(images_BHWC, kernel_HWIO, window, lhs_dilation, precision)


def alike(*arrays: jax.Array) -> list[jax.Array]:
    """Casts arrays so that under shard_map all vary over the axes over which one does.

    Outside of derivatives written by hand, so that JAX sums gradients over the devices.
    """
    axes = frozenset.union(*(jax.typeof(array).mat.varying for array in arrays))
    return [
        jax.lax.pcast(array, tuple(axes - own), to='varying') if axes - own else array
        for array in arrays
        for own in [jax.typeof(array).mat.varying]
    ]


def _is_worth_it(images_BHWC: jax.Array, kernel_HWIO: jax.Array, window: Window) -> bool:
    result = jax.eval_shape(partial(_by_xla, window=window), images_BHWC, kernel_HWIO)
    flops = 2 * math.prod(result.shape) * math.prod(kernel_HWIO.shape[:3])
    known = min(result.shape) > 0 and all(pad >= 0 for pads in window.padding for pad in pads)
    return known and (flops >= _AT_LEAST_FLOPS or window.groups > 1)


class _Reach(NamedTuple):
    """Outputs `first` to `end - 1` of an axis meet the images at a pixel of the kernel.

    The first of them meets them at `start`.
    """

    first: int
    end: int
    start: int


def _reaches(size: int, kernel_size: int, window: Window, axis: int) -> list[_Reach]:
    """Returns the reach of each pixel of the kernel along an axis: 0 for height, 1 for width."""
    (before, behind), stride = window.padding[axis], window.strides[axis]
    outputs = (size + before + behind - window.dilation[axis] * (kernel_size - 1) - 1) // stride + 1
    reaches = []
    for pixel in range(kernel_size):
        offset = pixel * window.dilation[axis] - before
        first = max(0, -(offset // stride))
        end = max(first, min(outputs, (size - 1 - offset) // stride + 1))
        reaches.append(_Reach(first, end, first * stride + offset))
    return reaches


def _padding_share(images_BHWC: jax.Array, kernel_HWIO: jax.Array, window: Window) -> float:
    """Returns how much of all that a convolution multiplies by is padding."""
    inside = 1.0
    result = jax.eval_shape(partial(_by_xla, window=window), images_BHWC, kernel_HWIO)
    for axis in (0, 1):
        size, kernel_size = images_BHWC.shape[axis + 1], kernel_HWIO.shape[axis]
        met = sum(r.end - r.first for r in _reaches(size, kernel_size, window, axis))
        inside *= met / (kernel_size * result.shape[axis + 1])
    return 1 - inside


def _by_products(images_BHWC: jax.Array, kernel_HWIO: jax.Array, window: Window) -> jax.Array:
    """Adds up products of matrices: of each pixel of the kernel and the pixels it meets."""
    height, width, inputs, outputs = kernel_HWIO.shape
    result = jax.eval_shape(partial(_by_xla, window=window), images_BHWC, kernel_HWIO)
    # Split, since its gradient is one concatenation.
    pixels = jax.lax.split(kernel_HWIO.reshape(-1, outputs), [inputs] * (height * width))
    total = jnp.zeros(result.shape, result.dtype)
    rows, columns = (
        _reaches(images_BHWC.shape[axis + 1], kernel_HWIO.shape[axis], window, axis)
        for axis in (0, 1)
    )
    for pixel, (row, column) in zip(pixels, itertools.product(rows, columns), strict=True):
        counts = row.end - row.first, column.end - column.first
        if 0 in counts:
            continue
        ends = (
            reach.start + (count - 1) * stride + 1
            for reach, count, stride in zip((row, column), counts, window.strides, strict=True)
        )
        met = jax.lax.slice(
            images_BHWC,
            (0, row.start, column.start, 0),
            (len(images_BHWC), *ends, inputs),
            (1, *window.strides, 1),
        )
        product = (met.reshape(-1, inputs) @ pixel).reshape(-1, *counts, outputs)
        around = (
            (r.first, n - r.end) for r, n in zip((row, column), total.shape[1:3], strict=True)
        )
        total += jnp.pad(product, ((0, 0), *around, (0, 0)))
    return total


def _by_xla(
    images_BHWC: jax.Array,
    kernel_HWIO: jax.Array,
    window: Window,
    lhs_dilation: tuple[int, int] = (1, 1),
    precision: Any = None,
) -> jax.Array:
    padding: Any = window.padding
    return jax.lax.conv_general_dilated(
        images_BHWC,
        kernel_HWIO,
        window.strides,
        padding,
        lhs_dilation,
        window.dilation,
        _LAYOUT,
        window.groups,
        precision=precision,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(images_BHWC: jax.Array, kernel_HWIO: jax.Array, window: Window) -> jax.Array:
    result = jax.eval_shape(partial(_by_xla, window=window), images_BHWC, kernel_HWIO)
    shapes = images_BHWC.shape, kernel_HWIO.shape, result.shape
    return _call('convolution', shapes, window, result, images_BHWC, kernel_HWIO)


def _forward(images_BHWC: jax.Array, kernel_HWIO: jax.Array, window: Window) -> Any:
    return _convolve(images_BHWC, kernel_HWIO, window), (images_BHWC, kernel_HWIO)


def _backward(window: Window, residuals: Any, gradient_BHWC: jax.Array) -> Any:
    images_BHWC, kernel_HWIO = residuals
    shapes = images_BHWC.shape, kernel_HWIO.shape, gradient_BHWC.shape
    call = partial(_call, shapes=shapes, window=window)
    of_images = call('images_gradient', like=images_BHWC, first=gradient_BHWC, second=kernel_HWIO)
    if _is_small_and_depthwise(*shapes, window):
        return of_images, _gradient_by_pairs(images_BHWC, gradient_BHWC, kernel_HWIO.shape, window)
    return (
        of_images,
        call('kernel_gradient', like=kernel_HWIO, first=images_BHWC, second=gradient_BHWC),
    )


def _is_small_and_depthwise(
    images: tuple[int, ...], kernel: tuple[int, ...], result: tuple[int, ...], window: Window
) -> bool:
    """Says whether each channel has a kernel larger than the images: oneDNN is slow at it."""
    pairs = math.prod(images[1:3]) * math.prod(result[1:3])
    depthwise = window.groups == images[3] == kernel[3]
    return depthwise and min(kernel[:2]) > max(images[1:3]) and pairs <= _MOST_PAIRS


def _gradient_by_pairs(
    images_BHWC: jax.Array, gradient_BHWC: jax.Array, kernel: tuple[int, ...], window: Window
) -> jax.Array:
    """Returns the gradient of a depthwise kernel: of each pair of input and output, then summed up.

    Which pairs meet at a pixel of the kernel follows from the shapes alone.
    """
    height, width, channels = images_BHWC.shape[1:]
    meet = []
    for axis, size in enumerate((height, width)):
        table = np.zeros((size, gradient_BHWC.shape[axis + 1], kernel[axis]), np.float32)
        for pixel, reach in enumerate(_reaches(size, kernel[axis], window, axis)):
            outputs = np.arange(reach.first, reach.end)
            table[reach.start + (outputs - reach.first) * window.strides[axis], outputs, pixel] = 1
        meet.append(table)
    table = np.einsum('hoi,wpj->hwopij', *meet).reshape(height * width, -1, *kernel[:2])
    flat = (len(images_BHWC), -1, channels)
    pairs = jnp.einsum('nqc,npc->cqp', images_BHWC.reshape(flat), gradient_BHWC.reshape(flat))
    return jnp.einsum('cqp,qpij->ijc', pairs, table)[:, :, None]


_convolve.defvjp(_forward, _backward)


def _call(
    kind: str, shapes: Any, window: Window, like: Any, first: jax.Array, second: jax.Array
) -> jax.Array:
    """Calls oneDNN; the result is of the shape of `like`."""
    result = jax.typeof(first).update(shape=like.shape)
    call = jax.ffi.ffi_call(onednn.TARGET, result, vmap_method='sequential')
    return call(first, second, description=json.dumps([kind, *shapes, *window]))
