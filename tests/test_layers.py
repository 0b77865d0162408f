"""Blocks of a trained net: planted truths come out, and removal does what it says."""

import csv

import jax
import numpy as np
import pytest
from conftest import TINY
from PIL import Image
from scipy.stats import binomtest, ortho_group

from configs import default
from console import Console
from errors import UserError
from evaluation import blocks, intervals, maps, representations, trained
from evaluation.evaluate import evaluate_run
from training import step
from training.loop import train_and_evaluate

QUIET = Console(quiet=True)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A residual net on the digits whose first block is frozen as it began, as an identity."""
    folder = tmp_path_factory.mktemp('runs') / 'digits'
    config = default.get_config('digits', 'residual')
    fields = {'epochs': 20.0, 'batch_size': 64, 'augment': 'none', 'evaluate_every_epochs': 10.0}
    planted = {'model.zero_init': True, 'init.freeze': 'stage1'}
    config.update_from_flattened_dict(TINY | fields | planted)
    train_and_evaluate(config, folder, quiet=True)
    return folder


def test_an_identity_is_not_needed_and_what_holds_the_net_together_is(run, capsys):
    content = evaluate_run(run, with_layers=True)
    out = capsys.readouterr().out
    found = content['layers']
    rows = {row['name']: row for row in found['blocks']}
    assert [*rows] == ['stem', 'stage1/block1', 'stage2/block1']
    assert [row['way'] for row in rows.values()] == ['resized', 'identity', 'skip path']
    identity, last = rows['stage1/block1'], rows['stage2/block1']
    assert identity['verdict'] == 'not needed'
    for name in ('removed', 'removed_retrained', 'reinitialised'):
        assert identity[name]['value'] == 0
    assert 0 < identity['removed']['high'] < 0.02
    assert identity['cka_to_input'] == pytest.approx(1, abs=1e-4)
    assert identity['probe_gain']['value'] == 0
    assert last['verdict'] == 'needed'
    assert last['removed']['value'] > 0.2
    assert last['removed_retrained']['low'] > 0
    assert last['p'] < 0.05
    assert sum(row['parameters'] for row in rows.values()) == content['cost']['parameters'] - 170
    assert found['whole']['plain']['value'] == content['figures']['accuracy']['value']
    folder = run / 'evaluation' / 'validation'
    with (folder / 'layers.csv').open(newline='') as file:
        table = list(csv.DictReader(file))
    assert [row['verdict'] for row in table] == [row['verdict'] for row in rows.values()]
    for name in ('layers', *content['maps']):
        assert Image.open(folder / f'{name}.png').size[0] > 100
    assert 'not needed' in out
    assert 'points of accuracy that are lost without the block' in out


def logits(recipe, net, images):
    variables = jax.tree.map(np.asarray, net.variables)
    return np.asarray(jax.jit(lambda: step.eval_step(recipe, variables, {}, {'input': images}))())


def test_a_removed_block_is_passed_by(run):
    net = trained.open_run(run)
    parts = blocks.find(net.recipe.model, net.input_shape)
    images = net.own_data(QUIET).source.inputs[:16]
    whole = logits(net.recipe, net, images)
    for removed, same in ((None, True), (0, False), (1, True), (2, False)):
        off = np.arange(len(parts)) == removed
        altered = blocks.gated(net.recipe, parts, off)
        found = logits(altered, net, images)
        assert np.allclose(found, whole, atol=1e-5) == same
        if removed != 2:  # A projection beside the block is left out where costs are measured.
            cheap = blocks.without(net.recipe, parts, removed)
            np.testing.assert_allclose(logits(cheap, net, images), found, atol=1e-5)


@pytest.mark.parametrize(('family', 'fields', 'names'), [
    ('plain', {'stage_sizes': (1, 2)}, {'stage1/conv1': 'resized', 'stage2/conv1': 'resized',
                                        'stage2/conv2': 'identity'}),
    ('mobile', {'stage_sizes': (1, 2), 'filters': (8, 12), 'strides': (1, 2), 'expansions': (1, 2),
                'kernels': (3, 3), 'scan': True, 'remat': True},
     {'stem': 'resized', 'stage1/block1': 'resized', 'stage2/block1': 'resized',
      'stage2/block2': 'identity', 'final': 'resized'}),
    ('convnext', {'stage_sizes': (1, 1), 'width': 8},
     {'stem': 'resized', 'stage1/block1': 'identity', 'stage2/downsample': 'resized',
      'stage2/block1': 'identity'}),
    ('xception', {'stage_sizes': (1, 1), 'filters': (8, 16)},
     {'stem': 'resized', 'stage1/block1': 'skip path', 'stage2/block1': 'skip path',
      'final': 'resized'}),
])  # fmt: skip
def test_every_family_has_blocks(family, fields, names):
    import models

    config = default.get_config('digits', family)
    config.model.update(fields)
    model = models.build(config.model.to_dict(), 3)
    parts = blocks.find(model, (32, 32, 3))
    assert {part.name: part.way for part in parts} == names
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3)), False))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
    head = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']['head']))
    assert sum(part.parameters for part in parts) == count - head


def test_blocks_are_judged_where_there_are_some(run, tmp_path):
    with pytest.raises(UserError, match='--layers trains on'):
        evaluate_run(run, data=f'folder:{tmp_path}', with_layers=True, quiet=True)
    config = default.get_config('digits', 'dense')
    config.update_from_flattened_dict({'epochs': 1.0})
    train_and_evaluate(config, tmp_path / 'run', quiet=True)
    with pytest.raises(UserError, match=r'is for convolutional nets .* family dense on digits'):
        evaluate_run(tmp_path / 'run', with_layers=True, quiet=True)


def test_paired_differences():
    alone = np.arange(360)

    def bounds(lost, gained, groups=alone):
        more, less = np.zeros((2, len(groups)), bool)
        more[:lost], less[lost : lost + gained] = True, True
        return intervals.paired_difference(more, less, groups)

    z2 = 1.959964**2
    assert bounds(0, 0) == pytest.approx((-z2 / (360 + z2), z2 / (360 + z2)), rel=1e-5)
    # At a difference of 0 the score is McNemar's: (lost - gained) / sqrt(lost + gained).
    assert bounds(9, 1)[0] > 0 > bounds(8, 2)[0]
    assert binomtest(9, 10).pvalue < 0.05 < binomtest(8, 10).pvalue
    low, high = bounds(9, 1)
    assert bounds(1, 9) == pytest.approx((-high, -low))
    low_in_pairs, high_in_pairs = bounds(8, 2, np.arange(360) // 2)
    assert high_in_pairs - low_in_pairs > 1.2 * (bounds(8, 2)[1] - bounds(8, 2)[0])
    generator, held = np.random.default_rng(0), 0
    for _ in range(1000):
        drawn = generator.random(300)
        low, high = intervals.paired_difference(drawn < 0.03, drawn > 0.99, np.arange(300))
        held += low <= 0.02 <= high
    assert 930 <= held <= 975


def test_likeness_of_maps():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 40))
    turned = 3 * x @ ortho_group.rvs(40, random_state=0)
    other = generator.normal(size=(64, 500))
    features = [f - f.mean(axis=0) for f in (x, turned, other)]
    found = representations.hsic(np.stack([f @ f.T for f in features]))
    found /= np.sqrt(np.outer(np.diag(found), np.diag(found)))
    assert found[0, 1] == pytest.approx(1)
    assert abs(found[0, 2]) < 0.1  # The biased estimate says 0.6 of these.


def test_what_decided():
    features = np.zeros((1, 4, 4, 2), np.float32)
    features[0, 1, 2, 0], features[0, 3, 3, 1] = 2, 5
    gradients = np.ones_like(features) * np.array([1, -1])
    heat = maps.grad_cam(features, gradients)
    assert heat[0, 1, 2] == 1
    assert heat.sum() == 1
