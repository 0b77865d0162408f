"""Nets that begin as a smaller trained one: what they compute at first, and runs that do."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import models
from configs import default
from errors import UserError
from evaluation.trained import open_run
from models import growth
from training.loop import train_and_evaluate
from training.many import check_alike

PLAIN = {'family': 'plain', 'stage_sizes': (1, 2), 'width': 4}
RESIDUAL = {'family': 'residual', 'stage_sizes': (1, 1), 'width': 4}
WIDER, DEEPER = {'width': 7}, {'stage_sizes': (3, 3)}
# What makes the net from the default of its family, and what grows.
SAME = {
    'plain': (PLAIN, WIDER | DEEPER),
    'plain strided': (PLAIN | {'pooling': 'stride', 'kernel_size': 2}, DEEPER),
    'plain without norm': (PLAIN | {'norm': 'none'}, WIDER | DEEPER),
    'plain flattened': (PLAIN | {'head.pooling': 'flatten', 'head.dense_units': (6,)},
                        WIDER | DEEPER | {'head.dense_units': (9,)}),
    'residual': (RESIDUAL | {'pooling': 'max'}, WIDER | DEEPER),
    'residual option A': (RESIDUAL | {'shortcut': 'identity'}, WIDER | DEEPER),
    'residual preactivated': (RESIDUAL | {'preactivation': True, 'activation': 'gelu'},
                              WIDER | DEEPER),
    'residual bottlenecks': (RESIDUAL | {'block': 'bottleneck', 'squeeze_excitation': 0.5},
                             WIDER | DEEPER),
}  # fmt: skip
# What grows, and what is said of it.
OTHER = {
    'another stage': (PLAIN, {'stage_sizes': (1, 2, 1)}, 'new weights in head, stage3'),
    'a stage less': (PLAIN, {'stage_sizes': (1,)}, 'stage2 there has no place'),
    'narrower': (PLAIN, {'width': 3}, 'new weights in head, stage1, stage2'),
    'another pooling': (PLAIN, {'pooling': 'average'}, 'model.pooling differs'),
    'no identity': (PLAIN | {'activation': 'tanh'}, DEEPER, 'new weights in stage1, stage2'),
    'without skips': (RESIDUAL | {'skip': False}, DEEPER, 'new weights in stage1, stage2'),
    'other groups': (RESIDUAL | {'norm': 'layer'}, WIDER, 'model.norm=layer is taken over other'),
    'another family': (PLAIN, RESIDUAL, 'the family differs'),
}  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(np.float32)


def net(fields):
    config = default.get_config('digits', fields['family'])
    config.model.update_from_flattened_dict({k: v for k, v in fields.items() if k != 'family'})
    return models.build(config.model.to_dict(), 5)


def first(model, seed=0):
    """Returns parameters and statistics by name, as initialisation would draw them."""
    generator = np.random.default_rng(seed)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), IMAGES)

    def draw(name, shape):
        if name.endswith('/kernel'):
            return generator.normal(0, 0.3, shape).astype(np.float32)
        return np.full(shape, name.endswith(('/scale', '/var')), np.float32)

    flat = flatten_dict(dict(shapes), sep='/')
    return {name: draw(name, leaf.shape) for name, leaf in flat.items()}


def trained(model):
    """Returns those of a net whose norms are not those of initialisation."""
    generator, arrays = np.random.default_rng(1), first(model)
    for name, array in arrays.items():
        if not name.endswith('kernel'):
            arrays[name] = array + generator.uniform(0.1, 0.9, array.shape).astype(np.float32)
    return arrays


def logits(model, arrays):
    apply = jax.jit(functools.partial(model.apply, train=False))
    return np.asarray(apply(unflatten_dict(arrays, sep='/'), IMAGES))


def grow(before, after):
    small, large = net(before), net(after)
    arrays, fresh = trained(small), first(large, seed=1)
    grown = growth.grow(small, large, arrays, fresh)
    placed = fresh | {name: a.astype(np.float32) for name, a in grown.arrays.items()}
    assert {name: a.shape for name, a in placed.items()} == {n: a.shape for n, a in fresh.items()}
    return grown, lambda: logits(small, arrays), large, placed


@pytest.mark.parametrize('name', SAME)
def test_a_grown_net_computes_the_same(name):
    before, changes = SAME[name]
    grown, expected, large, placed = grow(before, before | changes)
    np.testing.assert_allclose(logits(large, placed), expected(), atol=1e-4)
    assert grown.differences == ()
    assert (grown.kept == 1) == ('stage_sizes' not in changes)


@pytest.mark.parametrize('name', OTHER)
def test_what_does_not_compute_the_same_is_said(name):
    before, changes, expected = OTHER[name]
    grown, *_ = grow(before, before | changes)
    assert expected in '; '.join(grown.differences)
    assert 0 <= grown.kept <= 1


def test_copies_of_a_channel_are_trained_apart():
    *_, large, placed = grow(PLAIN, PLAIN | {'width': 8})
    loss = jax.jit(jax.grad(lambda v: (large.apply(v, IMAGES, train=False) ** 2).sum()))
    gradients = flatten_dict(loss(unflatten_dict(placed, sep='/')), sep='/')
    for part in ('stage1/conv1', 'stage2/conv1', 'stage2/conv2'):
        kernel = gradients[f'params/{part}/kernel']
        assert not np.allclose(kernel[..., 0], kernel[..., 1], rtol=0.1, atol=0)


def test_an_inserted_convolution_is_nearly_an_identity_in_training_too():
    *_, large, placed = grow(PLAIN | {'stage_sizes': (1,)}, PLAIN | {'stage_sizes': (2,)})
    variables = unflatten_dict(placed, sep='/')
    step = jax.vmap(
        lambda x: large.apply(
            variables, x, train=True, mutable=['batch_stats', 'intermediates'],
            capture_intermediates=True,
        ), axis_name='batch',
    )  # fmt: skip
    maps = jax.jit(step)(IMAGES[None])[1]['intermediates']['stage1']
    before, after = (np.maximum(maps[f'norm{i}']['__call__'][0], 0) for i in (1, 2))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.99
    assert abs(before - after).mean() < 0.2 * before.std()


# Runs.


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Returns the folder of a run of a small plain net, and its config."""
    config = default.get_config('digits', 'plain')
    config.update_from_flattened_dict({
        'model.stage_sizes': (1, 1), 'model.width': 8, 'epochs': 3.0, 'pictures': False,
    })  # fmt: skip
    folder = tmp_path_factory.mktemp('small') / 'run'
    train_and_evaluate(config, folder, quiet=True)
    return folder, config


@pytest.fixture
def larger(small):
    """Returns a function from changed fields to the config of a net that grows from `small`."""

    def make(**changes):
        config = small[1].copy_and_resolve_references()
        config.update_from_flattened_dict({
            'init.grow_from': str(small[0]), 'model.stage_sizes': (2, 1), 'model.width': 12,
            'epochs': 1e-6, 'optimizer.learning_rate': 1e-9, 'model.norm_momentum': 0.999,
            **{name.replace('__', '.'): value for name, value in changes.items()},
        })  # fmt: skip
        return config

    return make


def test_a_run_begins_where_the_smaller_one_ended(small, larger, tmp_path, capsys):
    config = larger(seed=1, ema_decay=0.9)
    source = tmp_path / 'source'
    shutil.copytree(small[0], source)
    config.init.grow_from = str(source)
    folder = tmp_path / 'grown'
    result = train_and_evaluate(config, folder)
    said = ' '.join(capsys.readouterr().out.split())
    assert f'grown from {source}: 7' in said
    assert '% of the parameters are copies of its own; at first the same function' in said
    before, after = (np.load(f / 'predictions.npz') for f in (source, folder))
    assert np.array_equal(before['validation_hash'], after['validation_hash'])
    difference = abs(before['validation_logits'] - after['validation_logits'])
    assert difference.max() < 0.05 * before['validation_logits'].std()
    there = json.loads((source / 'result.json').read_text())
    assert abs(result['validation']['accuracy'] - there['validation']['accuracy']) <= 0.01

    run = open_run(folder)  # Whose blocks can be set back to their first weights.
    for known, expected in zip(
        jax.tree.leaves(run.initial_state().params), jax.tree.leaves(run.variables['params']),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(known, expected, atol=1e-5)

    shutil.rmtree(source)
    (folder / 'result.json').unlink()
    assert train_and_evaluate(config, folder, quiet=True)['status'] == 'finished'


def test_runs_that_grow_from_different_ones_share_their_programs(larger):
    check_alike([larger(), larger(init__grow_from='elsewhere')])


def test_what_cannot_grow_is_said_in_a_line(small, larger, tmp_path):
    folder, _ = small
    unfinished = tmp_path / 'unfinished'
    shutil.copytree(folder, unfinished)
    (unfinished / 'result.json').unlink()
    family = default.get_config('digits', 'mobile')
    family.init.grow_from = str(folder)
    for config, expected in (
        (larger(init__grow_from=str(tmp_path / 'none')), 'grow_from: There is no run folder'),
        (larger(init__grow_from=str(unfinished)), 'has not ended'),
        (larger(init__weights='file.pth'), 'are two beginnings'),
        (larger(dataset__channels=3), 'have 1 channels, and those of this run 3'),
        (larger(dataset__repeat=1), 'images of the validation split of this one'),
        (family, 'is of the family mobile'),
    ):
        with pytest.raises(UserError, match=expected):
            train_and_evaluate(config, tmp_path / 'run', quiet=True)
        assert not (tmp_path / 'run').exists()


def test_other_classes_have_a_new_last_layer():
    small = net(PLAIN)
    large = dataclasses.replace(small, num_classes=3)
    fresh = first(large)
    grown = growth.grow(small, large, trained(small), fresh, new=('head/logits',))
    assert grown.differences == ('new weights in head',)
    assert 'params/stage1/conv1/kernel' in grown.arrays
