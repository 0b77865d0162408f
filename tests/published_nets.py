"""Published nets with random weights in their published layouts, for tests and benchmarks."""

import functools
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import models
from configs import nets
from models import published

STORE = pathlib.Path(__file__).parent / 'published_nets.json'
IMAGES = np.random.default_rng(0).normal(size=(2, 64, 64, 3))


def random_weights(layout):
    """Returns float64 arrays of these shapes: a function of their names alone."""
    arrays = {}
    for name, shape in layout.items():
        array = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
        if name.endswith('running_var'):
            array = 0.75 + 0.5 * abs(array)
        elif name.endswith(('gamma', 'layer_scale')):
            array = 0.2 + 0.1 * array  # Not 1e-6, which would hide what the block computes.
        elif len(shape) > 1:
            array *= np.sqrt(2 / np.prod(shape[1:]))
        else:
            array = 0.1 * array + name.endswith('weight')
        arrays[name] = array
    return arrays


@functools.cache
def compiled(name, dtype):
    """Returns the net's shapes and its compiled evaluation."""
    config = nets.get_config(name)
    net = models.build(config.model.to_dict(), 1000, dtype)
    images = jnp.zeros(IMAGES.shape, dtype)
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), images)
    # Flax makes running statistics float32 whatever the parameters are.
    variables = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), variables)
    apply = jax.jit(lambda variables, images: net.apply(variables, images, train=False))
    quick = {'xla_backend_optimization_level': 0}
    program = apply.lower(variables, images).compile(compiler_options=quick)
    return config, flatten_dict(variables, sep='/'), program


def outputs(name, weights, dtype):
    """Returns our logits of IMAGES with weights in a published layout."""
    config, targets, program = compiled(name, dtype)
    placed = published.convert(config.model.to_dict(), weights, targets)
    typed = {name: array.astype(dtype) for name, array in placed.items()}
    return np.asarray(program(unflatten_dict(typed, sep='/'), IMAGES.astype(dtype)))


def _norm(name, channels):
    parts = ('weight', 'bias', 'running_mean', 'running_var')
    return {f'{name}.{part}': [channels] for part in parts}


# A residual net of two blocks for grey images and 10 classes, as torchvision would name its parts.
# tiny_resnet.pth and tiny_resnet_legacy.pth hold `random_weights` of it as PyTorch 2.13 saved them,
# today's way and that before 1.6: with a transposed tensor, a parameter and a bfloat16 among them.
TINY_NET = {'stage_sizes': (1, 1), 'width': 4}
TINY_LAYOUT = {
    'conv1.weight': [4, 1, 3, 3], **_norm('bn1', 4),
    'layer1.0.conv1.weight': [4, 4, 3, 3], **_norm('layer1.0.bn1', 4),
    'layer1.0.conv2.weight': [4, 4, 3, 3], **_norm('layer1.0.bn2', 4),
    'layer2.0.conv1.weight': [8, 4, 3, 3], **_norm('layer2.0.bn1', 8),
    'layer2.0.conv2.weight': [8, 8, 3, 3], **_norm('layer2.0.bn2', 8),
    'layer2.0.downsample.0.weight': [8, 4, 1, 1], **_norm('layer2.0.downsample.1', 8),
    'fc.weight': [10, 8], 'fc.bias': [10],
}  # fmt: skip
