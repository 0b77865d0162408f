"""Every family: shapes, finite gradients, parameter counts, and what the table says of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import call_once
from flax import linen as nn

import models
from configs import default, nets
from models import layers, scaling, summary
from models.convolution import left_to_xla
from models.nets import NETS
from training.loop import train_and_evaluate

# Small nets of every family, for 28x28 images; what they are made of differs as far as it can.
SMALL = {
    'plain': {'stage_sizes': (1, 1), 'width': 4},
    'residual': {'stage_sizes': (1, 3), 'width': 4},
    'mobile': {
        'stage_sizes': (1, 3), 'filters': (4, 8), 'strides': (1, 2), 'expansions': (1, 3),
        'kernels': (3, 5), 'stem_width': 4, 'head_width': 16, 'squeeze_excitation': 0.25,
        'activation': 'silu',
    },
    'xception': {'stage_sizes': (1, 3), 'filters': (4, 8), 'stem_width': 4, 'head_width': 16},
    'convnext': {
        'stage_sizes': (1, 3), 'width': 4, 'kernel_size': 3, 'layer_scale': 0.1, 'patch_size': 2,
    },
}  # fmt: skip
COMMON = [
    {'head.pooling': 'flatten', 'head.dense_units': (16,), 'head.dropout': 0.5,
     'norm': 'group', 'bias': 'always'},
    {'head.pooling': 'global_max', 'activation': 'tanh', 'norm': 'none',
     'kernel_init': 'glorot_uniform'},
]  # fmt: skip
VARIANTS = {
    'plain': [
        {'pooling': 'average', 'kernel_size': 5},
        {'pooling': 'stride', 'stage_sizes': (1, 2, 1, 1), 'norm': 'layer'},
        {'filters': (6, 5), 'padding': 'valid', 'dropout': 0.5},
    ],
    'residual': [
        {'pooling': 'average'},
        {'pooling': 'max', 'shortcut': 'identity'},
        {'stem': 'large', 'block': 'bottleneck', 'squeeze_excitation': 0.25, 'zero_init': True},
        {'preactivation': True, 'stem_width': 3},
        {'preactivation': True, 'block': 'bottleneck', 'shortcut': 'identity'},
        {'transition': 'conv', 'stage_sizes': (1, 0), 'pooling': 'max'},
        {'transition': 'conv', 'stage_sizes': (0, 1), 'skip': False},
    ],
    'mobile': [{'stem_stride': 1, 'squeeze_excitation': 0.0}],
    'xception': [{'stem_stride': 1}],
    'convnext': [],
}
EVERY = [(family, changes) for family in SMALL for changes in COMMON + VARIANTS[family]]
# As published, of an image.
MULTIPLY_ADDS = {
    'resnet50': 4.09e9, 'efficientnet_b0': 0.39e9, 'mobilenet_v2': 0.3e9, 'convnext_tiny': 4.46e9,
    'vgg16': 15.47e9,
}  # fmt: skip
IMAGE = (14, 14, 1)
IMAGES = np.random.default_rng(1).normal(size=(4, *IMAGE)).astype(np.float32)


def build(family, dtype='float32', **changes):
    config = default.get_config('digits', family)
    config.model.update_from_flattened_dict(changes)
    return models.build(config.model.to_dict(), 10, dtype)


def shapes(model, image_shape=IMAGE):
    return jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, *image_shape))
    )


def count(tree):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def initialised(model, images):
    """Returns first variables; the generator `rbg` compiles much faster than JAX's own."""
    return model.init(jax.random.key(0, impl='rbg'), images, train=False)


def one_pass(model):
    """Returns logits, statistics and gradients of one step on random images."""

    def loss(params, rest, images):
        logits, changed = model.apply(
            {**rest, 'params': params},
            images,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': jax.random.key(2)},
        )
        return (logits**2).mean(), (logits, changed)

    def step(images):
        variables = initialised(model, images)
        params = variables.pop('params')
        differentiate = jax.value_and_grad(loss, has_aux=True)
        over = jax.vmap(differentiate, (None, None, 0), axis_name=layers.BATCH_AXIS)
        return over(params, variables, images[None])

    (_, (logits, changed)), grads = call_once(step, IMAGES)
    return logits[0], changed, grads


@pytest.mark.parametrize('name', NETS)
def test_published_nets_have_their_published_parameters_and_multiply_adds(name):
    net = NETS[name]
    model = models.build(nets.get_config(f'{name}:digits').model.to_dict(), net.classes)
    rows = summary.summarize(model, net.input_shape)
    assert sum(row.parameters for row in rows) == net.parameters
    if name in MULTIPLY_ADDS:
        multiply_adds = sum(row.flops for row in rows) / 2
        assert multiply_adds == pytest.approx(MULTIPLY_ADDS[name], rel=0.02)


@pytest.mark.parametrize(('family', 'changes'), EVERY, ids=str)
def test_every_choice_gives_logits_and_finite_gradients(family, changes):
    short = {'stage_sizes': (1, 1)}
    logits, _, grads = one_pass(build(family, **{**SMALL[family], **short, **changes}))
    assert logits.shape == (4, 10)
    assert logits.dtype == jnp.float32
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
    if 'zero_init' in changes:
        return  # Convolutions before a scale of 0 have none in the first step.
    # A bias before a norm that takes the mean away has no gradient; kernels always have one.
    kernels = [g for p, g in jax.tree_util.tree_leaves_with_path(grads) if p[-1].key == 'kernel']
    assert all(np.abs(kernel).max() > 0 for kernel in kernels)


@pytest.mark.parametrize('family', SMALL)
def test_bfloat16_computes_low_and_keeps_parameters_high(family):
    low, exact = (build(family, dtype, **SMALL[family]) for dtype in ('bfloat16', 'float32'))

    def both(images):
        variables = initialised(low, images)
        return variables, *(m.apply(variables, images, train=False) for m in (low, exact))

    variables, logits, expected = call_once(both, IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize('family', ['residual', 'mobile', 'xception', 'convnext'])
def test_loops_and_recomputed_activations_change_no_result(family):
    last = {name: v[1:] if isinstance(v, tuple) else v for name, v in SMALL[family].items()}
    small = {**last, 'stochastic_depth': 0.5}  # A stage of three blocks.
    logits, stats, grads = one_pass(build(family, **small))
    others = one_pass(build(family, **small, remat=True, scan=True))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6),
        (logits, stats, grads), others,
    )  # fmt: skip


def test_stochastic_depth_passes_the_last_block_by_and_keeps_the_mean():
    rate, options = 0.6, {'stage_sizes': (1, 1), 'width': 4, 'norm': 'none'}
    model, deep = build('residual', **options), build('residual', **options, stochastic_depth=rate)
    images = np.random.default_rng(1).normal(size=(64, *IMAGE)).astype(np.float32)

    def run(variables, devices):
        apply = functools.partial(
            deep.apply, variables, train=True, rngs={'dropout': jax.random.key(2)}
        )
        shares = images.reshape(devices, -1, *IMAGE)
        return jax.vmap(apply, axis_name=layers.BATCH_AXIS)(shares).reshape(64, -1)

    def with_last_block(variables, factor):
        params = jax.tree.map(lambda leaf: leaf, variables['params'])
        last = params['stage2']['block1']
        last['conv2'] = jax.tree.map(lambda leaf: factor * leaf, last['conv2'])
        return model.apply({'params': params}, images, train=False)

    def every(images):
        variables = initialised(model, images)
        plain = [net.apply(variables, images, train=False) for net in (model, deep)]
        blocks = [with_last_block(variables, factor) for factor in (0.0, 1 / (1 - rate))]
        return *plain, *blocks, run(variables, 1), run(variables, 4)

    exact, unchanged, passed_by, kept, got, on_four = call_once(every, images)
    np.testing.assert_array_equal(unchanged, exact)
    # Which examples pass by follows their place in the batch, on any number of devices.
    np.testing.assert_allclose(got, on_four, rtol=1e-5)
    out = np.isclose(got, passed_by, rtol=1e-4, atol=1e-5).all(axis=-1)
    assert np.isclose(got, kept, rtol=1e-4, atol=1e-5).all(axis=-1)[~out].all()
    assert 0.4 < out.mean() < 0.8


def conv(x, layer, stride=1, groups=1):
    kernel = layer['kernel']
    pad = kernel.shape[0] // 2
    y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, feature_group_count=groups,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    return y + layer.get('bias', 0.0)


def batch_norm(x, layer, statistics, epsilon):
    scale, offset = layer['batch']['scale'], layer['batch']['bias']
    mean, variance = statistics['batch']['mean'], statistics['batch']['var']
    return (x - mean) / jnp.sqrt(variance + epsilon) * scale + offset


def identity_shortcuts(p, norm, x):
    """He et al. 2016, "Deep Residual Learning", option A, from its description."""
    x = jax.nn.relu(norm(conv(x, p['stem']), 'stem_norm'))
    for stage, stride in (('stage1', 1), ('stage2', 2)):
        where = f'{stage}/block1'
        block = p[stage]['block1']
        y = jax.nn.relu(norm(conv(x, block['conv1'], stride), f'{where}/norm1'))
        y = norm(conv(y, block['conv2']), f'{where}/norm2')
        shortcut = jnp.zeros_like(y).at[..., : x.shape[-1]].set(x[:, ::stride, ::stride])
        x = jax.nn.relu(shortcut + y)
    return x


def preactivation(p, norm, x):
    """He et al. 2016, "Identity Mappings", from its description."""
    x = conv(x, p['stem'])
    for stage, stride in (('stage1', 1), ('stage2', 2)):
        where = f'{stage}/block1'
        block = p[stage]['block1']
        a = jax.nn.relu(norm(x, f'{where}/norm1'))
        shortcut = conv(a, block['shortcut'], stride) if 'shortcut' in block else x
        y = conv(a, block['conv1'], stride)
        x = shortcut + conv(jax.nn.relu(norm(y, f'{where}/norm2')), block['conv2'])
    return jax.nn.relu(norm(x, 'final_norm'))


def separable(p, norm, x):
    """The Keras guide "Image classification from scratch", with pooling padded on both sides."""

    def both(x, layer):
        return conv(conv(x, layer['depthwise'], groups=x.shape[-1]), layer['pointwise'])

    x = jax.nn.relu(norm(conv(x, p['stem'], 2), 'stem_norm'))
    for stage in ('stage1', 'stage2'):
        where, block, y = f'{stage}/block1', p[stage]['block1'], x
        for i in (1, 2):
            y = norm(both(jax.nn.relu(y), block[f'conv{i}']), f'{where}/norm{i}')
        y = jax.lax.reduce_window(
            y, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
        )
        x = y + conv(x, block['shortcut'], 2)
    return jax.nn.relu(norm(both(x, p['final']), 'final_norm'))


@pytest.mark.parametrize(
    ('family', 'changes', 'reference', 'epsilon'),
    [
        ('residual', {'shortcut': 'identity', 'width': 4}, identity_shortcuts, 1e-5),
        ('residual', {'preactivation': True, 'width': 4}, preactivation, 1e-5),
        ('xception', {'filters': (4, 8), 'stem_width': 4, 'head_width': 16}, separable, 1e-3),
    ],
    ids=['option A', 'preactivation', 'xception'],
)
def test_blocks_compute_what_their_papers_say(family, changes, reference, epsilon):
    model = build(family, stage_sizes=(1, 1), **changes)
    generator = np.random.default_rng(0)  # All arrays, so that no norm is the identity.
    noise = jax.tree.map(lambda leaf: 0.3 * abs(generator.normal(size=leaf.shape)), shapes(model))

    def both(images, noise):
        variables = jax.tree.map(jnp.add, initialised(model, images), noise)
        params = variables['params']

        def norm(x, path):
            parts, statistics = params, variables['batch_stats']
            for name in path.split('/'):
                parts, statistics = parts[name], statistics[name]
            return batch_norm(x, parts, statistics, epsilon)

        last = reference(params, norm, images).mean(axis=(1, 2))
        logits = params['head']['logits']
        expected = last @ logits['kernel'] + logits['bias']
        return model.apply(variables, images, train=False), expected

    got, expected = call_once(both, IMAGES, noise)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize('family', ['mobile', 'convnext'])
def test_other_families_train_are_saved_and_evaluated(family, tmp_path):
    config = default.get_config('digits', family)
    config.model.update_from_flattened_dict({**SMALL[family], 'stage_sizes': (1, 1)})
    config.update_from_flattened_dict(
        {'epochs': 1e-6, 'dtype': 'bfloat16', 'ema_decay': 0.9, 'augment': 'none'}
    )
    result = train_and_evaluate(config, tmp_path, quiet=True)
    assert result['status'] == 'finished'
    assert result['saved_step'] == 1
    assert np.isfinite(result['test']['loss'])


def test_without_skips_only_the_projections_leave():
    with_skips, without = build('residual'), build('residual', skip=False)
    names = [row.name for row in summary.summarize(without, IMAGE)]
    assert names == [
        row.name for row in summary.summarize(with_skips, IMAGE) if 'shortcut' not in row.name
    ]
    difference = count(shapes(with_skips)['params']) - count(shapes(without)['params'])
    assert difference == (16 * 32 + 64) + (32 * 64 + 128)


def test_the_table_agrees_with_arithmetic_and_with_xla():
    model = build('plain', stage_sizes=(2, 1), width=8, norm='none')
    rows = {row.name: row for row in summary.summarize(model, IMAGE)}
    assert rows['stage1/conv2'].flops == 2 * 14 * 14 * 8 * 9 * 8
    assert rows['stage1/pool'].output_shape == (7, 7, 8)
    # 3, 5 after the second convolution, 6 after pooling, then 2 pixels of stride 2 on each side.
    assert [r.receptive_field for r in rows.values()] == [3, 5, 6, 10, None]
    variables = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes(model))
    apply = functools.partial(model.apply, train=False)
    with left_to_xla():
        compiled = jax.jit(apply).lower(variables, jnp.zeros((1, *IMAGE))).compile()
    ours = sum(row.flops for row in rows.values())
    # XLA counts additions of biases, activations and pooling too, and not the padding of borders.
    assert compiled.cost_analysis()['flops'] == pytest.approx(ours, rel=0.1)


def test_grouping_keeps_the_totals():
    rows = summary.summarize(build('residual'), IMAGE)
    grouped = summary.grouped(rows, at_most=12)
    assert [row.name for row in grouped][:3] == ['stem', 'stage1/block1', 'stage1/block2']
    assert len(grouped) == 11
    assert sum(r.flops for r in grouped) == sum(r.flops for r in rows)
    assert grouped[4].output_shape == (7, 7, 32)


@pytest.mark.parametrize(
    ('width', 'depth', 'expected'),
    [
        (1.0, 1.0, (12, (1, 2))),
        (2.0, 1.0, (24, (1, 2))),
        (1.1, 1.5, (13, (2, 3))),
        (0.1, 0.2, (1, (1, 1))),
        (1.5, 1.2, (18, (1, 2))),
    ],
)
def test_scaling_rounds_as_documented(width, depth, expected):
    scaled = scaling.scale({'width': 12, 'stage_sizes': (1, 2)}, width, depth)
    assert (scaled['width'], scaled['stage_sizes']) == expected


def test_filters_round_to_multiples_without_coarse_jumps():
    for tenths in range(10, 5000):
        filters = tenths / 10
        published, ours = scaling.round_filters(filters), scaling.nearest_filters(filters)
        assert published % 8 == 0
        assert 0.9 * filters <= published <= filters + 8
        assert abs(ours - filters) <= max(0.5, filters / 16)
        assert ours % 8 == 0 or filters < 64


@pytest.mark.parametrize('name', ['efficientnet_b0', 'resnet50', 'mobilenet_v2', 'convnext_tiny'])
def test_each_step_of_phi_doubles_the_flops(name):
    config = nets.get_config(name)
    flops = []
    for phi in range(4):
        config.scale.phi = float(phi)
        width, depth, resolution = scaling.multipliers(config.scale)
        model = models.build(config.model.to_dict(), 1000, width=width, depth=depth)
        size = round(224 * resolution)
        flops.append(sum(row.flops for row in summary.summarize(model, (size, size, 3))))
    for phi in range(1, 4):
        assert flops[phi] / flops[phi - 1] == pytest.approx(2, rel=0.15)
        assert flops[phi] / flops[0] == pytest.approx(2**phi, rel=0.15)


def test_a_sigmoid_head_is_the_softmax_of_its_logit_and_zero():
    config = default.get_config('digits', 'plain')
    config.model.head.outputs = 'sigmoid'
    model = models.build(config.model.to_dict(), 2)
    assert shapes(model)['params']['head']['logits']['kernel'].shape[-1] == 1
    logits = call_once(lambda x: model.apply(initialised(model, x), x, train=False), IMAGES)
    assert logits.shape == (4, 2)
    np.testing.assert_array_equal(logits[:, 0], 0)
    np.testing.assert_allclose(
        jax.nn.softmax(logits)[:, 1], jax.nn.sigmoid(logits[:, 1]), rtol=1e-6
    )


@pytest.mark.parametrize('size', [(8, 8), (9, 7), (7, 10), (3, 4)], ids=str)
def test_max_pooling_is_that_of_flax_in_value_and_gradient(size):
    generator = np.random.default_rng(0)
    images = generator.normal(scale=2, size=(2, *size, 3)).round().astype(np.float32)  # With ties.
    cotangents = generator.normal(size=(2, 10, 10, 3)).astype(np.float32)

    def with_gradient(pool, images):
        result, pull = jax.vjp(pool, images)
        _, height, width, _ = result.shape
        return result, *pull(cotangents[:, :height, :width])

    def both(images):
        for window, padding in itertools.product((2, 3), ('same', 'valid')):
            pads = [(1, 1), (1, 1)] if (window, padding) == (3, 'same') else padding.upper()
            plain = functools.partial(
                nn.max_pool, window_shape=(window, window), strides=(2, 2), padding=pads
            )
            ours = functools.partial(layers.Pool('max', window, padding).apply, {})
            yield with_gradient(ours, images), with_gradient(plain, images)

    for (result, ours), (expected, gradient) in call_once(lambda x: list(both(x)), images):
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_allclose(ours, gradient, rtol=0, atol=1e-6)
