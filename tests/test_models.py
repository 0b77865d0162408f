"""Every family: shapes, finite gradients, parameter counts, and what the table says of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from configs import default
from models import layers, scaling, summary

# Parameters of the default net of each family, 28x28x1 images, 10 classes; counted by hand from
# the layer shapes: kernels, two per channel for batch norm, and the logits with bias.
COUNTS = {
    'plain': (9 * 1 * 32 + 64) + (9 * 32 * 64 + 128) + (9 * 64 * 128 + 256) + 128 * 10 + 10,
    # ResNet-20 of He et al.: 0.27 M; here with projection shortcuts.
    'residual': (9 * 16 + 32)
    + 6 * (9 * 16 * 16 + 32)
    + (9 * 16 * 32 + 64) + 5 * (9 * 32 * 32 + 64) + (16 * 32 + 64)
    + (9 * 32 * 64 + 128) + 5 * (9 * 64 * 64 + 128) + (32 * 64 + 128)
    + 64 * 10 + 10,
}  # fmt: skip
VARIANTS = [
    {},
    {'pooling': 'average'},
    {'pooling': 'max'},
    {'pooling': 'stride'},
    {'head.pooling': 'flatten', 'head.dense_units': (16,), 'head.dropout': 0.5},
    {'kernel_size': 5, 'activation': 'gelu', 'norm': 'group'},
    {'activation': 'tanh', 'norm': 'none'},
    {'norm': 'layer', 'stage_sizes': (1, 2, 1, 1)},
]
IMAGE = (28, 28, 1)
CONVOLUTIONAL = [f for f, net in models.FAMILIES.items() if issubclass(net, layers.ConvNet)]


def build(family, dtype='float32', **changes):
    config = default.get_config('digits', family)
    config.model.update_from_flattened_dict(changes)
    return models.build(config.model.to_dict(), 10, dtype)


def shapes(model):
    return jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, *IMAGE))
    )


def count(tree):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def gradients(model):
    """Returns logits and gradients of one step on random images, under the mapped axis."""
    images = jax.random.normal(jax.random.key(1), (4, *IMAGE))
    variables = model.init(jax.random.key(0), images, train=False)

    def loss(params, images):
        logits, _ = model.apply(
            {**variables, 'params': params},
            images,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': jax.random.key(2)},
        )
        return (logits**2).mean(), logits

    step = jax.vmap(jax.value_and_grad(loss, has_aux=True), (None, 0), axis_name=layers.BATCH_AXIS)
    (_, logits), grads = jax.jit(step)(variables['params'], images[None])
    return logits[0], grads


@pytest.mark.parametrize('family', CONVOLUTIONAL)
def test_parameter_counts_are_exact(family):
    model = build(family)
    assert count(shapes(model)['params']) == COUNTS[family]
    assert sum(row.parameters for row in summary.summarize(model, IMAGE)) == COUNTS[family]


@pytest.mark.parametrize('changes', VARIANTS, ids=str)
@pytest.mark.parametrize('family', CONVOLUTIONAL)
def test_every_choice_gives_logits_and_finite_gradients(family, changes):
    small = {'stage_sizes': (1, 1), 'width': 4}
    logits, grads = gradients(build(family, **{**small, **changes}))
    assert logits.shape == (4, 10)
    assert logits.dtype == jnp.float32
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
    # A bias before a norm that takes the mean away has no gradient; kernels always have one.
    kernels = [g for p, g in jax.tree_util.tree_leaves_with_path(grads) if p[-1].key == 'kernel']
    assert all(np.abs(kernel).max() > 0 for kernel in kernels)


def test_bfloat16_computes_low_and_keeps_parameters_high():
    model = build('residual', 'bfloat16', stage_sizes=(1, 1), width=8)
    logits, grads = gradients(model)
    exact, _ = gradients(build('residual', stage_sizes=(1, 1), width=8))
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype('float32')}
    assert logits.dtype == jnp.float32
    difference = np.abs(logits - exact).max()
    assert 0 < difference < 0.1 * np.abs(exact).max()


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
    assert rows['stage1/conv2'].flops == 2 * 28 * 28 * 8 * 9 * 8
    assert rows['stage1/pool'].output_shape == (14, 14, 8)
    # 3, 5 after the second convolution, 6 after pooling, then 2 pixels of stride 2 on each side.
    assert [r.receptive_field for r in rows.values()] == [3, 5, 6, 10, None]
    variables = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes(model))
    apply = functools.partial(model.apply, train=False)
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
    assert grouped[4].output_shape == (14, 14, 32)


@pytest.mark.parametrize(
    ('width', 'depth', 'expected'),
    [
        (1.0, 1.0, (12, (1, 2))),
        (2.0, 1.0, (24, (1, 2))),
        (1.1, 1.5, (16, (2, 3))),
        (0.1, 0.5, (8, (1, 1))),
        (1.0, 1.1, (12, (2, 3))),
    ],
)
def test_scaling_rounds_as_documented(width, depth, expected):
    scaled = scaling.scale({'width': 12, 'stage_sizes': (1, 2)}, width, depth)
    assert (scaled['width'], scaled['stage_sizes']) == expected


def test_rounded_filters_are_never_a_tenth_too_few():
    for filters in range(1, 200):
        rounded = scaling.round_filters(filters)
        assert rounded % 8 == 0
        assert 0.9 * filters <= rounded <= filters + 8


def test_a_sigmoid_head_is_the_softmax_of_its_logit_and_zero():
    config = default.get_config('digits', 'plain')
    config.model.head.outputs = 'sigmoid'
    model = models.build(config.model.to_dict(), 2)
    variables = shapes(model)
    assert variables['params']['head']['logits']['kernel'].shape[-1] == 1
    images = jax.random.normal(jax.random.key(1), (4, *IMAGE))
    variables = model.init(jax.random.key(0), images, train=False)
    logits = model.apply(variables, images, train=False)
    assert logits.shape == (4, 2)
    np.testing.assert_array_equal(logits[:, 0], 0)
    np.testing.assert_allclose(
        jax.nn.softmax(logits)[:, 1], jax.nn.sigmoid(logits[:, 1]), rtol=1e-6
    )
