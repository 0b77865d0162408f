"""Convolution of images: XLA's own, or on CPU oneDNN's, which trains several times faster.

Measurements and what else was tried: docs/performance.md.
"""

import contextlib
import contextvars
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from models import onednn

# Whether XLA's own is wanted where oneDNN would be used.
_plain: contextvars.ContextVar[bool] = contextvars.ContextVar('plain', default=False)
# Below it XLA is as fast, since a call costs a tenth of a millisecond; but not with groups.
_AT_LEAST_FLOPS = 8_000_000
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
    not take it, nor does automatic sharding split it: see `left_to_xla`.

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
    by_onednn = (
        not _plain.get()
        and jax.default_backend() == 'cpu'
        and images_BHWC.dtype == kernel_HWIO.dtype == jnp.float32
        and tuple(lhs_dilation) == (1, 1)
        and onednn.version()
    )
    if by_onednn and _is_worth_it(images_BHWC, kernel_HWIO, window):
        return _convolve(*_alike(images_BHWC, kernel_HWIO), window)
    return _by_xla(images_BHWC, kernel_HWIO, window, lhs_dilation, precision)


def _alike(*arrays: jax.Array) -> list[jax.Array]:
    """Casts arrays so that under shard_map all vary over the axes over which one does.

    Outside of the derivative written here, so that JAX sums gradients over the devices.
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
    return (
        call('images_gradient', like=images_BHWC, first=gradient_BHWC, second=kernel_HWIO),
        call('kernel_gradient', like=kernel_HWIO, first=images_BHWC, second=gradient_BHWC),
    )


_convolve.defvjp(_forward, _backward)


def _call(
    kind: str, shapes: Any, window: Window, like: Any, first: jax.Array, second: jax.Array
) -> jax.Array:
    """Calls oneDNN; the result is of the shape of `like`."""
    result = jax.typeof(first).update(shape=like.shape)
    call = jax.ffi.ffi_call(onednn.TARGET, result, vmap_method='sequential')
    return call(first, second, description=json.dumps([kind, *shapes, *window]))
