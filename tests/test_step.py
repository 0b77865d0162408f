"""The step: golden numbers, what each option changes, and how a run ends."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import call_once, load

from errors import UserError
from training import optimizer, recipe, step
from training.data_parallel import DataParallel
from training.loop import train_and_evaluate


def prepare(config):
    """Returns the recipe, the first state, resident data and the batch of step 0."""
    pipeline = load(config)
    parts = recipe.build(config, 10)
    init = functools.partial(step.init_state, parts, pipeline.input_shape)
    state = call_once(init, np.uint32(config.seed), pipeline.normalization)
    batches = {name: value[None] for name, value in pipeline.train_batch(0).items()}
    decay = np.float32(config.optimizer.weight_decay)
    return parts, state, pipeline.resident() | {'weight_decay': decay}, batches


def one_step(config):
    parts, state, resident, batches = prepare(config)
    devices = DataParallel(config.parallel)
    mapped = devices.map_train(lambda *arguments: step.train_steps(parts, *arguments))
    rates = optimizer.learning_rates(config.optimizer, total_steps=16, steps_per_epoch=8.0)[:1]
    before = jax.tree.map(np.array, state)
    arguments = *devices.replicate((state, resident, rates)), devices.split(batches, axis=1)
    level = {'xla_backend_optimization_level': 0}
    after, values = mapped.lower(*arguments).compile(compiler_options=level)(*arguments)
    of_parts = np.asarray(values.pop('gradient_norms')[0])
    scalars = {name: float(value[0]) for name, value in values.items()}
    # The parts' norms make up the whole one.
    assert scalars['gradient_norm'] == pytest.approx(np.sqrt((of_parts**2).sum()), rel=1e-4)
    return before, jax.tree.map(np.array, after), scalars


def test_golden_step(tiny_config):
    """The first step of a fixed net on fixed data.

    If this fails and you meant to change initialisation, data order, augmentation, the net or
    the loss, update the numbers and say so in CHANGELOG.md: every published figure of Leadline
    changes with them. If you did not mean to, you have found a bug.
    """
    _, after, values = one_step(tiny_config())
    assert values == pytest.approx(GOLDEN, rel=1e-4)
    assert float(np.linalg.norm(after.params['stage2']['block1']['conv2']['kernel'])) == (
        pytest.approx(GOLDEN_NORM, rel=1e-5)
    )


GOLDEN = {
    'loss': 2.498437,
    'accuracy': 16 / 128,
    'gradient_norm': 0.834824,
    'learning_rate': 0.025,
}
GOLDEN_NORM = 5.672815


def test_weight_decay_spares_biases_and_norms(tiny_config):
    base = one_step(tiny_config(optimizer__weight_decay=0.0))[1].params
    decayed = one_step(tiny_config(optimizer__weight_decay=0.5))[1].params
    changed = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (path[-1].key, not np.array_equal(a, b)), base, decayed
    )
    for name, differs in jax.tree.leaves(changed, is_leaf=lambda leaf: isinstance(leaf, tuple)):
        assert differs == (name == 'kernel')


def test_clipping_bounds_the_update(tiny_config):
    config = tiny_config(optimizer__clip_norm=1e-3, optimizer__weight_decay=0.0)
    before, after, values = one_step(config)
    update = jax.tree.map(lambda a, b: a - b, after.params, before.params)
    norm = math.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(update)))
    # Nesterov's first step is 1 + 0.9 times the clipped gradient; the metric is before clipping.
    assert norm == pytest.approx(values['learning_rate'] * 1.9e-3, rel=1e-3)
    assert values['gradient_norm'] > 0.1


def test_the_moving_average_follows_and_is_what_is_reported(tiny_config):
    before, after, _ = one_step(tiny_config(ema_decay=0.9))
    # At step 0 the ramp (1 + step) / (10 + step) keeps a tenth of the first weights.
    kernel = ('stem', 'kernel')
    old, new = before.params[kernel[0]][kernel[1]], after.params[kernel[0]][kernel[1]]
    average = after.ema['params'][kernel[0]][kernel[1]]
    np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, rtol=1e-5)
    assert after.reported()['params'] is after.ema['params']
    plain = one_step(tiny_config())[1]
    assert plain.reported()['params'] is plain.params
    assert plain.reported()['normalization'] is plain.normalization


def test_label_smoothing_is_the_textbook_loss(tiny_config):
    parts, state, resident, batches = prepare(tiny_config(label_smoothing=0.2))
    smooth = one_step(tiny_config(label_smoothing=0.2))[2]['loss']
    batch = {name: value[0] for name, value in batches.items()}
    inputs = functools.partial(step.training_inputs, parts)
    images = jax.jit(inputs)(state.normalization, resident, batch, jnp.zeros((), jnp.int32))
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    apply = jax.vmap(
        lambda x: parts.model.apply(variables, x, train=True, mutable=['batch_stats']),
        axis_name='batch',
    )
    logits, _ = jax.jit(apply)(images[None])
    log_p = np.asarray(jax.nn.log_softmax(logits[0]))
    labels = resident['label'][batch['index']]
    nll = -log_p[np.arange(len(labels)), labels].mean()
    assert smooth == pytest.approx(0.8 * nll + 0.2 * -log_p.mean(), rel=1e-4)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('kind', ['none', 'class_weights', 'logit_adjustment'])
def test_class_balance_is_the_textbook_loss(tiny_config, kind, smoothing):
    parts = prepare(tiny_config(class_balance=kind, label_smoothing=smoothing))[0]
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(64, 3)), generator.choice(3, 64, p=[0.7, 0.2, 0.1])
    share = np.array([0.7, 0.2, 0.1])
    targets = np.eye(3)[labels]
    resident = {'class_share': jnp.asarray(share)}
    got = parts.task.loss(jnp.asarray(logits), jnp.asarray(targets), resident)
    adjusted = logits + (np.log(share) if kind == 'logit_adjustment' else 0)
    log_p = adjusted - np.log(np.exp(adjusted).sum(1, keepdims=True))
    each = -((1 - smoothing) * log_p[np.arange(64), labels] + smoothing * log_p.mean(1))
    weight = 1 / (3 * share[labels]) if kind == 'class_weights' else np.ones(64)
    assert float(got) == pytest.approx((weight * each).mean(), rel=1e-5)


def test_schedules_warm_up_and_decay(tiny_config):
    config = tiny_config().optimizer.unlock()
    config.learning_rate, config.warmup_epochs = 0.4, 1.0
    cosine = optimizer.learning_rates(config, total_steps=104, steps_per_epoch=4.0)
    assert cosine[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert cosine[54] == pytest.approx(0.2)
    assert len(cosine) == 104
    assert 0 < cosine[103] < 1e-3
    config.schedule = 'constant'
    constant = optimizer.learning_rates(config, total_steps=104, steps_per_epoch=4.0)
    assert constant[[0, 4, 103]] == pytest.approx([0.1, 0.4, 0.4])


def test_adamw_trains(tiny_config, tmp_path):
    config = tiny_config(
        optimizer__name='adamw', optimizer__learning_rate=0.01, epochs=8.0, family='plain'
    )
    result = train_and_evaluate(config, tmp_path, quiet=True)
    assert result['test']['accuracy'] > 0.6


def checkpoint(folder, step):
    """Returns the state of a checkpoint, as saved."""
    with ocp.CheckpointManager(folder / 'checkpoints') as manager:
        restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    return jax.tree.map(np.asarray, restored['state'])


def test_divergence_is_told_and_keeps_the_last_good_checkpoint(tiny_config, tmp_path, capsys):
    config = tiny_config(
        model__norm='none', optimizer__schedule='constant', optimizer__learning_rate=30.0,
        optimizer__warmup_epochs=0.0, evaluate_every_epochs=0.12, family='plain',
        optimizer__weight_decay=1e3, epochs=9.0,
    )  # fmt: skip
    result = train_and_evaluate(config, tmp_path, quiet=True)
    assert result['status'] == 'diverged'
    assert result['test']['accuracy'] is None
    assert 0 < result['saved_step'] < result['diverged_step']
    kept = jax.tree.leaves(checkpoint(tmp_path, result['saved_step']))
    assert all(np.isfinite(array).all() for array in kept)
    assert f'step {result["diverged_step"]}' in capsys.readouterr().out
    assert not (tmp_path / 'predictions.npz').exists()
    again = train_and_evaluate(config, tmp_path, quiet=True)
    assert again == result


def test_weights_that_the_last_update_broke_are_not_kept(tiny_config, tmp_path, capsys):
    # Loss and gradient of step 1 are finite; what it makes of the weights is not.
    config = tiny_config(
        family='plain', model__norm='none', optimizer__learning_rate=1e35, epochs=0.1,
        optimizer__warmup_epochs=0.0,
    )  # fmt: skip
    result = train_and_evaluate(config, tmp_path, quiet=True)
    assert (result['status'], result['diverged_step']) == ('diverged', 1)
    assert result['saved_step'] is None
    assert 'no checkpoint was written' in capsys.readouterr().out


def test_patience_shorter_than_an_evaluation_waits_for_one(tiny_config, tmp_path):
    config = tiny_config(
        early_stopping__patience_epochs=0.1, epochs=20.0, optimizer__schedule='constant'
    )
    result = train_and_evaluate(config, tmp_path, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert result['status'] == 'early_stopped'
    assert len(lines) >= 2
    assert result['last_step'] == lines[-1]['step']
    assert result['best_step'] == result['reported_step'] == lines[-2]['step']


def test_early_stopping_judges_on_a_tenth_of_the_training_part(tiny_config, tmp_path):
    config = tiny_config(
        early_stopping__patience_epochs=1.0, epochs=40.0, optimizer__learning_rate=0.3,
        optimizer__schedule='constant',
    )  # fmt: skip
    result = train_and_evaluate(config, tmp_path, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert result['status'] == 'early_stopped'
    best = min(lines, key=lambda line: (line['stopping_loss'], -line['step']))
    assert result['best_step'] == result['reported_step'] == best['step'] < result['last_step']
    assert result['validation']['loss'] == pytest.approx(best['validation_loss'], rel=1e-5)
    splits = json.loads((tmp_path / 'splits.json').read_text())
    assert len(splits['stopping']) == 108
    assert len(splits['train']) == 970
    assert not set(splits['stopping']) & set(splits['train'] + splits['validation'])


def test_a_batch_size_that_does_not_divide_the_splits_judges_every_example(tiny_config, tmp_path):
    results = [
        train_and_evaluate(
            tiny_config(batch_size=size, epochs=1e-6, family='plain'), tmp_path / str(size), True
        )
        for size in (7, 360)
    ]
    # One step of training differs between batch sizes; the counts may not.
    assert [r['test']['examples'] for r in results] == [359, 359]
    predictions = np.load(tmp_path / '7' / 'predictions.npz')
    assert predictions['test_logits'].shape == (359, 10)
    pipeline = load(tiny_config())
    np.testing.assert_array_equal(predictions['test_label'], pipeline.labels_of('test'))


def test_the_profiler_leaves_a_trace(tiny_config, tmp_path):
    train_and_evaluate(tiny_config(profile_steps=2), tmp_path, quiet=True)
    assert list(tmp_path.glob('plugins/profile/*/*.xplane.pb'))


def test_debug_nans_names_the_step(tiny_config, tmp_path):
    config = tiny_config(
        debug_nans=True, model__norm='none', optimizer__learning_rate=1e20, family='plain',
        steps_per_dispatch=4,
    )  # fmt: skip
    place = r'(models/\w+|training/tasks)\.py:\d+ \('
    with pytest.raises(UserError, match=f'a NaN in step 2, made at {place}'):
        train_and_evaluate(config, tmp_path, quiet=True)
