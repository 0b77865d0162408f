"""Batch norm over all devices, whose backward pass reads its maps once less than Flax's."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.convolution import alike


class BatchNorm(nn.Module):
    """Batch norm (Ioffe and Szegedy 2015, algorithm 1) over the global batch.

    Variables, arguments and numbers of the forward pass are those of `nn.BatchNorm`: parameters
    `scale` and `bias`, and running statistics `mean` and `var`, each [C]. Statistics are computed
    in float32 at least. Training needs the mapped axis, and takes gradients in reverse mode only.
    """

    use_running_average: bool
    axis_name: str
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Any = nn.initializers.ones
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        means = self.variable('batch_stats', 'mean', jnp.zeros, shape, jnp.float32)
        variances = self.variable('batch_stats', 'var', jnp.ones, shape, jnp.float32)
        scale = self.param('scale', self.scale_init, shape, self.param_dtype)
        bias = self.param('bias', nn.initializers.zeros, shape, self.param_dtype)
        if self.use_running_average:
            mean, variance = means.value, variances.value
            y = _affine(x, mean, jax.lax.rsqrt(variance + self.epsilon) * scale, bias)
            return y.astype(self.dtype)
        axis = None if self.is_initializing() else self.axis_name
        y, mean, variance = _normalize(*alike(x, scale, bias), self.epsilon, axis)
        if not self.is_initializing():
            for old, new in ((means, mean), (variances, variance)):
                new = jax.lax.stop_gradient(new)
                old.value = self.momentum * old.value + (1 - self.momentum) * new
        return y.astype(self.dtype)


def _affine(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    return (x - mean) * factor + bias


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the normalised map, and mean and variance [C], which have no gradient."""
    return _forward(x, scale, bias, epsilon, axis)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None
) -> Any:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    reduced = tuple(range(x.ndim - 1))
    sums = wide.mean(reduced), (wide * wide).mean(reduced)
    mean, square = jax.lax.pmean(sums, axis) if axis else sums
    variance = jnp.maximum(0, square - mean * mean)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = _affine(wide, mean, inverse * scale, bias)
    return (y, mean, variance), (x, scale, mean, inverse)


def _backward(epsilon: float, axis: str | None, residuals: Any, gradients: Any) -> Any:
    """Sums the gradient, and its product with the input; the rest follows from both.

    JAX would derive a third sum, and write the centred input to memory for it.
    """
    x, scale, mean, inverse = residuals
    wide, gradient = x.astype(mean.dtype), gradients[0]
    reduced = tuple(range(x.ndim - 1))
    of_bias = gradient.sum(reduced)
    of_scale = ((gradient * wide).sum(reduced) - mean * of_bias) * inverse
    count = x.size // x.shape[-1]
    sums = of_bias / count, of_scale / count
    shift, slope = jax.lax.pmean(sums, axis) if axis else sums
    of_x = (gradient - shift - (wide - mean) * (inverse * slope)) * (inverse * scale)
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


_normalize.defvjp(_forward, _backward)
