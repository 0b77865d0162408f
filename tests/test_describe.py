"""Knowing a net before training it: counts by hand, fields by gradients, forecasts, refusals."""

import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, flags, train
from flax import linen as nn

import models
from configs import default
from errors import UserError
from models import layers, summary
from training import memory
from training.loop import train_and_evaluate
from training.prepared import Prepared


def total(model, shape):
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, *shape))
    )
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params']))


class Mixed(nn.Module):
    """Depthwise, dilated, VALID and even kernels, squeeze and excitation, norms, a layer scale."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (4, 4), strides=4, padding='VALID', name='stem')(x)  # 32 -> 8
        x = layers.Norm('layer', name='stem_norm')(x, train)
        x = nn.Conv(8, (7, 7), feature_group_count=8, name='depthwise')(x)
        s = x.mean(axis=(1, 2), keepdims=True)
        s = nn.Conv(2, (1, 1), name='squeeze_down')(s)
        x = x * nn.sigmoid(nn.Conv(8, (1, 1), name='squeeze_up')(s))
        x = nn.Dense(16, name='expand')(x)
        x = x * self.param('gamma', nn.initializers.ones, (16,))
        x = nn.Conv(4, (3, 3), kernel_dilation=2, padding='VALID', name='dilated')(x)  # 8 -> 4
        x = nn.Conv(6, (2, 2), strides=(2, 2), feature_group_count=2, name='grouped')(x)
        return nn.Dense(3, name='logits')(x.mean(axis=(1, 2)))


def test_counts_and_fields_agree_with_hand_arithmetic():
    rows = summary.summarize(Mixed(), (32, 32, 3))
    table = {r.name: (r.output_shape, r.parameters, r.flops, r.receptive_field) for r in rows}
    assert table == {
        'stem': ((8, 8, 8), 4 * 4 * 3 * 8 + 8 + 16, 2 * 64 * 16 * 3 * 8, 4),
        'depthwise': ((8, 8, 8), 49 * 8 + 8, 2 * 64 * 49 * 8, 4 + 6 * 4),
        'squeeze_down': ((1, 1, 2), 8 * 2 + 2, 2 * 16, None),
        'squeeze_up': ((1, 1, 8), 2 * 8 + 8, 2 * 16, None),
        'expand': ((8, 8, 16), 8 * 16 + 16, 2 * 64 * 8 * 16, 28),
        'dilated': ((4, 4, 4), 9 * 16 * 4 + 4, 2 * 16 * 9 * 16 * 4, 28 + 4 * 4),
        'grouped': ((2, 2, 6), 4 * 2 * 6 + 6, 2 * 4 * 4 * 2 * 6, 44 + 4),
        'logits': ((3,), 6 * 3 + 3 + 16, 2 * 18, None),  # With gamma, which is in no layer.
    }
    assert sum(row.parameters for row in rows) == total(Mixed(), (32, 32, 3))
    assert rows[0].activation_bytes == 4 * 8 * 8 * 8


def test_sequences_count_every_time_and_have_no_field():
    config = default.get_config('series:x.csv', 'recurrent')
    config.model.units = (8, 4)
    model = models.build(config.model.to_dict(), 2)
    rows = summary.summarize(model, (10, 3))
    assert [row.output_shape for row in rows] == [(10, 8), (10, 4), (2,)]
    assert [row.flops for row in rows] == [
        2 * 10 * 4 * 8 * (3 + 8), 2 * 10 * 4 * 4 * (8 + 4), 2 * 4 * 2
    ]  # fmt: skip
    assert sum(row.parameters for row in rows) == total(model, (10, 3))
    assert all(row.receptive_field is None for row in rows)
    features = nn.Sequential([nn.Dense(5, name='hidden'), nn.relu])
    rows = summary.summarize(Called(features), (7,))
    assert [(row.output_shape, row.parameters, row.flops) for row in rows] == [((5,), 40, 70)]
    assert summary.concerns(rows) == []


class Called(nn.Module):
    """A net without the argument `train`, as a net with it."""

    inner: nn.Module

    @nn.compact
    def __call__(self, x, train):
        return self.inner(x)


class NormedHead(nn.Module):
    """A norm that stands before any layer of its module, and logits."""

    @nn.compact
    def __call__(self, x, train):
        x = layers.Norm('layer', name='norm')(x.mean(axis=(1, 2)), train)
        return nn.Dense(3, name='logits')(x)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), name='conv')(x)
        return NormedHead(name='head')(x, train)


def test_a_norm_before_any_layer_of_its_module_has_a_row_of_its_own():
    rows = summary.summarize(Normed(), (8, 8, 1))
    assert [(row.name, row.parameters) for row in rows] == [
        ('conv', 80), ('head/norm/layer', 16), ('head/logits', 27)
    ]  # fmt: skip
    assert 'sees 3 of 8 pixels' in summary.concerns(rows)[0]


class Windows(nn.Module):
    """Convolutions of (window, stride, dilation) and pools of a window, to one channel."""

    windows: tuple

    @nn.compact
    def __call__(self, x, train):
        for i, window in enumerate(self.windows):
            if isinstance(window, int):
                x = layers.Pool('average', window, name=f'pool{i}')(x)
            else:
                size, stride, dilation = window
                x = nn.Conv(
                    2, (size, size), stride, kernel_dilation=dilation, name=f'conv{i}',
                    kernel_init=nn.initializers.ones,
                )(x)  # fmt: skip
        return x


def extent(model, side):
    """Returns the height of the pixels on which the middle of the last feature map depends."""
    images = jnp.ones((1, side, side, 1))
    variables = model.init(jax.random.key(0), images, train=False)

    def middle(images):
        x = model.apply(variables, images, train=False)
        return x[0, x.shape[1] // 2, x.shape[2] // 2].sum()

    rows = np.flatnonzero(np.abs(jax.jit(jax.grad(middle))(images)).sum(axis=(0, 2, 3)))
    return int(rows.max() - rows.min() + 1)


@pytest.mark.parametrize(
    'windows',
    [
        ((3, 1, 1), (3, 2, 1), 2, (5, 1, 1)),
        ((4, 3, 1), (2, 1, 1), 3, (3, 1, 2)),
        (2, 2, (1, 2, 1), (3, 1, 3)),
        ((7, 2, 1), 3, (3, 1, 1), (3, 2, 1), (3, 1, 1)),
    ],
    ids=str,
)
def test_receptive_fields_are_those_of_the_gradient(windows):
    model = Windows(windows)
    assert summary.summarize(model, (96, 96, 1))[-1].receptive_field == extent(model, 96)


def test_a_residual_net_sees_what_its_longest_path_sees():
    config = default.get_config('digits', 'residual')
    config.model.update({'stage_sizes': (1, 2), 'width': 4, 'norm': 'none', 'activation': 'elu'})
    net = models.build(config.model.to_dict(), 10)
    images = jax.random.normal(jax.random.key(1), (1, 48, 48, 1))
    variables = net.init(jax.random.key(0), images, train=False)

    def middle(images):
        _, kept = net.apply(
            variables, images, train=False, capture_intermediates=True, mutable=['intermediates']
        )
        x = kept['intermediates']['stage2']['block2']['__call__'][0]
        return x[0, x.shape[1] // 2, x.shape[2] // 2].sum()

    rows = np.flatnonzero(np.abs(jax.jit(jax.grad(middle))(images)).sum(axis=(0, 2, 3)))
    seen = summary.summarize(net, (48, 48, 1))[-2].receptive_field
    assert seen == rows.max() - rows.min() + 1


def test_concerns_name_what_is_missing_or_wasted():
    def found(*windows, side):
        return summary.concerns(summary.summarize(Windows(windows), (side, side, 1)))

    assert found((3, 1, 1), (3, 1, 1), side=5) == []
    (missing,) = found((3, 1, 1), (3, 1, 1), side=10)
    assert '(conv1) sees 5 of 10 pixels (25% of the image)' in missing
    (beyond,) = found((5, 1, 1), (5, 1, 1), (5, 1, 1), side=5)
    assert beyond.startswith('From conv2 on an output sees more than twice the image (13 pixels')
    assert 'pool2 halves a map that is one pixel already' in found(2, 2, 2, side=4)[0]


def test_a_map_that_vanishes_is_told_before_training(tmp_path, monkeypatch):
    class Shrinking(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Conv(4, (5, 5), padding='VALID', name='conv1')(x)
            return nn.Conv(4, (5, 5), padding='VALID', name='conv2')(x)

    config = default.get_config('digits', 'plain')
    monkeypatch.setattr(models, 'build', lambda *_, **__: Shrinking())
    with pytest.raises(UserError, match=r'images of 8x8x1 .*conv2 leaves nothing .* 4x4x4\..*size'):
        train_and_evaluate(config, tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('extra', [[], ['--describe']], ids=['train', 'describe'])
def test_a_net_that_cannot_fit_is_refused_at_once(tmp_path, extra):
    begun = time.perf_counter()
    _, err = train(
        '--config=configs/resnet_small.py', '--config.model.width=65536', *extra,
        f'--workdir={tmp_path / "run"}', status=2,
    )  # fmt: skip
    assert time.perf_counter() - begun < 60  # Initialising it would take hours.
    for words in ('does not fit', 'needs about 14 TiB', '--config.batch_size', 'there is'):
        assert words in err
    assert err.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_what_xla_plans_is_held_against_memory_too(tiny_config, tmp_path, monkeypatch):
    # Room for what arithmetic says, which leaves out temporaries.
    def tight(prepared):
        needed = prepared_needs(prepared)
        prepared.memory_bytes = sum(needed.values())
        return needed

    prepared_needs = Prepared.needed_bytes
    monkeypatch.setattr(Prepared, 'needed_bytes', tight)
    with pytest.raises(UserError, match='as XLA plans it'):
        train_and_evaluate(tiny_config(), tmp_path, quiet=True)


def test_rematerialised_blocks_keep_their_outputs_alone():
    rows = [
        summary.Layer(name, (), 0, 0, None, count)
        for name, count in (('stage1/block1/a', 10), ('stage1/block1/b', 3),
                            ('stage1/block2/a', 20), ('stage1/block2/b', 4))
    ]  # fmt: skip
    assert memory.activation_bytes(rows) == 37
    assert memory.activation_bytes(rows, remat=True) == 3 + 4 + 24


@pytest.fixture(scope='module')
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp('described')
    before = set(folder.parent.iterdir())
    out, err = train(
        '--config=configs/resnet_small.py', '--describe', f'--json={folder / "figures.json"}',
        f'--workdir={folder / "run"}', *flags(TINY),
    )  # fmt: skip
    assert err == ''
    assert set(folder.parent.iterdir()) == before
    assert [path.name for path in folder.iterdir()] == ['figures.json']
    return out, json.loads((folder / 'figures.json').read_text())


def test_the_command_prints_what_it_writes(described):
    out, figures = described
    for layer in figures['layers']:
        assert layer['name'] in out
    assert sum(layer['parameters'] for layer in figures['layers']) == figures['parameters']
    assert sum(layer['flops'] for layer in figures['layers']) == figures['flops']
    assert figures['multiply_adds'] == figures['flops'] // 2
    assert f'{figures["parameters"]:,} parameters' in out
    for text in figures['concerns']:
        assert f'Warning   {text}' in out
    assert figures['versions']['jax']


def test_arithmetic_and_xla_agree_within_what_padding_explains(described):
    _, figures = described
    # XLA does not count what is multiplied with the zeros around maps of 8 and 4 pixels.
    assert 0.6 < figures['xla']['evaluation_flops'] / figures['flops'] < 1.1
    assert 0.6 < figures['xla']['training_flops'] / (3 * figures['flops']) < 1.2
    plan = figures['xla']['bytes']
    assert plan['total'] == sum(plan.values()) - plan['total'] - 2 * plan['aliased']
    assert plan['aliased'] > 0  # The state is donated.


def test_predictions_are_of_the_size_of_what_was_measured(described):
    _, figures = described
    predicted = figures['predicted']
    assert 0 < predicted['step_seconds'] < predicted['epoch_seconds'] < predicted['total_seconds']
    # 8.4 steps and one evaluation an epoch.
    expected = 1078 / 128 * predicted['step_seconds'] + predicted['evaluation_seconds']
    assert predicted['epoch_seconds'] == pytest.approx(expected, rel=0.1)
    assert 5e8 < predicted['host_peak_bytes'] < 2e9
    assert predicted['device_peak_bytes'] is None
