"""The convolution used on CPU is the plain one, in values and gradients."""

import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from jax.sharding import PartitionSpec

from models import convolution, onednn
from models.convolution import conv_general_dilated

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ('linux', 'x86_64'), reason='oneDNN is not installed here'
)

# Of the images [B, H, W, C] and the kernel [H, W, C / groups, O]; strides, padding, dilation,
# groups. The families use all of these but the dilation.
CASES = {
    '3x3': ((8, 9, 11, 5), (3, 3, 5, 7), 1, [(1, 1), (1, 1)], 1, 1),
    '3x3 in slices': ((32, 16, 16, 16), (3, 3, 16, 32), 1, [(1, 1), (1, 1)], 1, 1),
    'batch of a prime number': ((31, 16, 16, 16), (3, 3, 16, 32), 1, [(1, 1), (1, 1)], 1, 1),
    'stride 2': ((8, 32, 32, 16), (3, 3, 16, 32), 2, [(1, 1), (1, 1)], 1, 1),
    'stem of ResNet': ((4, 32, 32, 3), (7, 7, 3, 16), 2, [(3, 3), (3, 3)], 1, 1),
    '1x1': ((8, 8, 8, 16), (1, 1, 16, 8), 1, [(0, 0), (0, 0)], 1, 1),
    '1x1, stride 2': ((8, 9, 9, 16), (1, 1, 16, 8), 2, [(0, 0), (0, 0)], 1, 1),
    'patches': ((8, 12, 12, 3), (4, 4, 3, 8), 4, [(0, 0), (0, 0)], 1, 1),
    'even kernel': ((8, 8, 8, 4), (2, 2, 4, 4), 1, [(0, 1), (0, 1)], 1, 1),
    'no padding': ((8, 12, 12, 1), (5, 5, 1, 6), 1, 'VALID', 1, 1),
    'unlike sides': ((8, 9, 7, 4), (3, 5, 4, 4), 1, [(2, 0), (1, 3)], 1, 1),
    'dilation': ((8, 12, 12, 4), (3, 3, 4, 8), 1, [(2, 2), (2, 2)], 2, 1),
    'groups': ((8, 8, 8, 16), (3, 3, 4, 32), 1, [(1, 1), (1, 1)], 1, 4),
    'depthwise': ((32, 16, 16, 32), (3, 3, 1, 32), 1, [(1, 1), (1, 1)], 1, 32),
    'depthwise 7x7, stride 2': ((8, 14, 14, 8), (7, 7, 1, 8), 2, [(3, 3), (3, 3)], 1, 8),
    'depthwise, two outputs each': ((8, 8, 8, 8), (3, 3, 1, 16), 1, [(1, 1), (1, 1)], 1, 8),
}
# The same where the window reaches beyond small images, and how many of the convolution and its two
# gradients oneDNN computes.
SMALL = {
    '3x3 on 2x2': ((16, 2, 2, 24), (3, 3, 24, 32), 1, [(1, 1), (1, 1)], 1, 1, 0),
    'stride 2 on 4x3': ((8, 4, 3, 16), (3, 3, 16, 8), 2, [(1, 1), (1, 1)], 1, 1, 0),
    'unlike sides on 3x2': ((8, 3, 2, 4), (5, 4, 4, 8), 2, [(3, 1), (0, 3)], 1, 1, 0),
    'dilation 2 on 4x4': ((8, 4, 4, 8), (3, 3, 8, 8), 1, [(2, 2), (2, 2)], 2, 1, 0),
    'depthwise 5x5 on 4x3': ((8, 4, 3, 16), (5, 5, 1, 16), 1, [(2, 2), (2, 2)], 1, 16, 2),
    'depthwise, stride 2': ((8, 4, 4, 16), (5, 5, 1, 16), 2, [(2, 2), (2, 2)], 1, 16, 2),
}


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    monkeypatch.setattr(convolution, '_AT_LEAST_FLOPS', 0)


def both(case):
    """Returns the convolution under test and XLA's own, and images, kernel and a cotangent."""
    *shapes, stride, padding, dilation, groups = case[:6]
    window = (stride,) * 2, padding, (1, 1), (dilation,) * 2, ('NHWC', 'HWIO', 'NHWC'), groups
    rng = np.random.default_rng(0)
    plain = lambda x, w: jax.lax.conv_general_dilated(x, w, *window)  # noqa: E731
    ours = lambda x, w: conv_general_dilated(x, w, *window)  # noqa: E731
    shapes.append(jax.eval_shape(plain, *(jnp.zeros(shape) for shape in shapes)).shape)
    return ours, plain, [jnp.asarray(rng.standard_normal(shape), 'float32') for shape in shapes]


def compiled(function):
    """Returns the function as a program, without LLVM's optimization: it takes most of the time."""
    return jax.jit(function, compiler_options={'xla_backend_optimization_level': 0})


def gradients(convolve):
    def compute(images, kernel, cotangent):
        result, pull = jax.vjp(convolve, images, kernel)
        return result, *pull(cotangent)

    return compute


def with_gradients(convolve):
    return compiled(gradients(convolve))


def assert_close(ours, plain):
    for array, expected in zip(ours, plain, strict=True):
        assert array.shape == expected.shape
        np.testing.assert_allclose(array, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_onednn_is_there():
    assert onednn.version()


@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_are_those_of_xla(name):
    ours, plain, arrays = both(CASES[name])
    lowered = with_gradients(ours).lower(*arrays)
    assert 'leadline_convolution' in lowered.as_text()
    program = lowered.compile()
    results = program(*arrays)
    assert_close(results, with_gradients(plain)(*arrays))
    for array, again in zip(results, program(*arrays), strict=True):
        np.testing.assert_array_equal(array, again)


@pytest.mark.parametrize('name', SMALL)
def test_small_images(name):
    ours, plain, arrays = both(SMALL[name])
    lowered = with_gradients(ours).lower(*arrays)
    assert lowered.as_text().count('leadline_convolution') == SMALL[name][-1]
    assert_close(lowered.compile()(*arrays), with_gradients(plain)(*arrays))


def test_other_types_are_left_to_xla():
    ours, plain, arrays = both(CASES['3x3'])
    arrays = [array.astype(jnp.bfloat16) for array in arrays]
    for array, expected in zip(ours(*arrays[:2]), plain(*arrays[:2]), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_mapped_over_runs_and_in_a_loop():
    ours, plain, (images, kernel, cotangent) = both(CASES['3x3'])
    many = jnp.stack([kernel, 2 * kernel])
    mapped = [
        compiled(jax.vmap(gradients(f), (None, 0, None)))(images, many, cotangent)
        for f in (ours, plain)
    ]
    assert_close(*mapped)
    looped = compiled(lambda: jax.lax.map(lambda k: gradients(ours)(images, k, cotangent), many))
    assert_close(looped(), mapped[1])


def test_under_shard_map_with_its_check():
    ours, plain, (images, kernel, cotangent) = both(CASES['3x3'])
    mesh, split = jax.sharding.Mesh(jax.devices()[:1], ('batch',)), PartitionSpec('batch')

    def share(images, kernel, cotangent):
        return gradients(ours)(images, kernel, cotangent)  # JAX sums over the devices.

    specs = {'in_specs': (split, PartitionSpec(), split)}
    mapped = jax.shard_map(share, mesh=mesh, out_specs=(split, split, PartitionSpec()), **specs)
    expected = with_gradients(plain)(images, kernel, cotangent)
    assert_close(compiled(mapped)(images, kernel, cotangent), expected)


SCRIPT = """
import sys
import jax, jax.numpy as jnp
from models.convolution import conv_general_dilated as convolve
images, kernel = jnp.ones((64, 32, 32, 16)), jnp.ones((3, 3, 16, 16)) / 144
def body(i, x):
    return jnp.tanh(convolve(x, kernel, (1, 1), [(1, 1), (1, 1)]))
program = jax.jit(lambda x: jax.lax.fori_loop(0, 100, body, x)).lower(images).compile()
running = program(images)
sys.exit(3)
"""


def test_a_process_ends_while_a_convolution_runs():
    ended = subprocess.run([sys.executable, '-c', SCRIPT], cwd=ROOT, timeout=60)
    assert ended.returncode == 3


def test_an_error_of_onednn_names_the_convolution(monkeypatch):
    ours, _, arrays = both(CASES['dilation'])
    monkeypatch.setattr(onednn, '_convolution', lambda description: 1 / 0)
    with pytest.raises(Exception, match=r'division by zero.*8, 12, 12, 4'):
        jax.block_until_ready(jax.jit(ours)(*arrays[:2]))


def test_later_calls_make_nothing_that_stays(monkeypatch):
    ours, _, arrays = both(CASES['3x3 in slices'])
    step = with_gradients(ours)
    for _ in range(20):  # Every thread of XLA has been there.
        jax.block_until_ready(step(*arrays))
    made = []
    make = onednn._make
    monkeypatch.setattr(onednn, '_make', lambda *given: made.append(given) or make(*given))
    for _ in range(20):
        jax.block_until_ready(step(*arrays))
    assert len(made) < 60  # At most what a thread makes that comes late; 6 for each call before.
