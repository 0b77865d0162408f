"""Our batch norm is Flax's: numbers, statistics, and the gradients it writes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from models.batch_norm import BatchNorm

AXIS, DEVICES = 'batch', 3
X = 2 + 3 * jax.random.normal(jax.random.key(0), (DEVICES, 4, 5, 6, 7))
COTANGENT = jax.random.normal(jax.random.key(1), X.shape)


def run(kind, dtype, train=True):
    """Returns what both modules must agree on, mapped over devices as a step is."""
    norm = kind(use_running_average=not train, axis_name=AXIS, momentum=0.8, dtype=dtype)
    variables = kind(use_running_average=False, axis_name=AXIS).init(jax.random.key(2), X[0])
    variables = jax.tree.map(lambda leaf: leaf + jnp.linspace(-0.3, 0.4, 7), variables)

    def each(x, cotangent):
        def apply(params, x):
            given = {**variables, 'params': params}
            return norm.apply(given, x, mutable=['batch_stats'])

        y, pull, changed = jax.vjp(apply, variables['params'], x.astype(dtype), has_aux=True)
        return y, changed, *pull(cotangent.astype(dtype))

    return jax.jit(jax.vmap(each, axis_name=AXIS))(X, COTANGENT)


def test_under_shard_map_with_its_check():
    norm = BatchNorm(use_running_average=False, axis_name=AXIS)
    variables = norm.init(jax.random.key(2), X[0])
    mesh = jax.sharding.Mesh(jax.devices()[:1], (AXIS,))
    parts = jax.sharding.PartitionSpec

    def loss(kind, params):
        def share(params, x):
            given = {**variables, 'params': params}
            y, changed = kind(use_running_average=False, axis_name=AXIS).apply(
                given, x, mutable=['batch_stats']
            )
            return jax.lax.psum((y * COTANGENT[0]).sum(), AXIS), changed

        mapped = jax.shard_map(share, mesh=mesh, in_specs=(parts(), parts(AXIS)), out_specs=parts())
        return mapped(params, X[0])

    gradients = [
        jax.jit(jax.grad(lambda params: loss(kind, params)[0]))(variables['params'])  # noqa: B023
        for kind in (BatchNorm, nn.BatchNorm)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), *gradients)


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-5), ('bfloat16', 1e-2)])
def test_it_is_that_of_flax(train, dtype, tolerance):
    ours, expected = (run(kind, dtype, train) for kind in (BatchNorm, nn.BatchNorm))
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == other.dtype
        largest = np.abs(np.asarray(other, np.float32)).max()
        np.testing.assert_allclose(
            np.asarray(leaf, np.float32), np.asarray(other, np.float32), atol=tolerance * largest
        )
