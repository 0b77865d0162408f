"""What the benchmarks calculate, and what configs/speed_cifar10.py and its fields do."""

import contextlib
import functools
import json
import types

import numpy as np
import pytest
from conftest import call_once, load

from benchmarks import common, sweep, sweep_config
from configs import default, speed_cifar10
from configs.sweeps import default as sweep_default
from console import Console
from data import augmentation
from sweeping.table import Point, Replicate, Table
from training import optimizer, recipe, step
from training.data_parallel import DataParallel
from training.prepared import Prepared, open_devices


def test_the_slope_is_the_exponent_and_its_error_follows_the_scatter():
    sizes = [32, 64, 128, 256]
    exact = common.log_log_slope(sizes, [3e-4 * size**1.1 for size in sizes])
    assert exact.value == pytest.approx(1.1)
    assert exact.error == pytest.approx(0, abs=1e-6)
    scattered = common.log_log_slope(sizes, [1.0, 2.2, 3.8, 8.4])
    # By hand: logarithms to base 2 against 0, 1, 2, 3.
    assert scattered.value == pytest.approx(1.0, abs=0.03)
    assert 0.01 < scattered.error < 0.1


def test_seconds_to_a_target_are_of_training_alone_up_to_its_first_evaluation():
    lines = [
        {'step': 10, 'images_per_second': 100.0, 'validation_accuracy': 0.5},
        {'step': 20, 'images_per_second': 50.0, 'validation_accuracy': 0.9},
        {'step': 25, 'images_per_second': 50.0, 'validation_accuracy': 0.8},
    ]
    assert common.seconds_to(lines, 32, 0.4) == pytest.approx(3.2)
    assert common.seconds_to(lines, 32, 0.8) == pytest.approx(3.2 + 6.4)
    assert common.seconds_to(lines, 32, 0.95) is None


def test_the_speed_config_is_valid_and_its_dispatches_have_one_length():
    config = speed_cifar10.get_config('npz:cifar10.npz')
    default.validate(config)
    assert augmentation.parse(config.augment)['horizontal_flip'] == 0.5
    assert 49_000 % config.batch_size == 0


def test_the_linear_schedule_is_a_triangle(tiny_config):
    config = tiny_config(optimizer__schedule='linear', optimizer__warmup_epochs=2.0)
    rates = optimizer.learning_rates(config.optimizer, total_steps=50, steps_per_epoch=5.0)
    peak = config.optimizer.learning_rate
    np.testing.assert_allclose(rates[:10], peak * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(rates[10:], peak * np.arange(40, 0, -1) / 40, atol=1e-7)


def test_mirrored_evaluation_averages_the_logits_of_both(tiny_config):
    pipeline = load(tiny_config())
    parts = recipe.build(tiny_config(evaluate_mirrored=True), 10)
    init = functools.partial(step.init_state, parts, pipeline.input_shape)
    state = call_once(init, np.uint32(0), pipeline.normalization)
    images = pipeline.source.inputs[:4]

    def logits(recipe_, inputs):
        batch = {'input': inputs, 'index': np.arange(4)}
        evaluate = functools.partial(step.eval_step, recipe_)
        return np.asarray(call_once(evaluate, state.reported(), {}, batch))

    plain = parts._replace(evaluate_mirrored=False)
    both = (logits(plain, images) + logits(plain, images[:, :, ::-1])) / 2
    np.testing.assert_allclose(logits(parts, images), both, rtol=1e-5, atol=1e-6)
    assert abs(logits(plain, images) - both).max() > 1e-3


def test_dispatches_fill_the_time_between_evaluations_on_accelerators(tiny_config, monkeypatch):
    monkeypatch.setattr(DataParallel, 'platform', 'gpu')
    # 1,078 images make 90 steps of 12 between evaluations, more than fit one dispatch.
    config = tiny_config(batch_size=12, model__width=8)
    with contextlib.closing(Prepared(config, open_devices(config), Console(quiet=True))) as run:
        assert run.evaluation_steps == 90
        assert run.dispatch_length(0) == 45


def test_a_configuration_that_hyperband_goes_on_with_counts_once():
    trials = [
        {'id': '0', 'status': 'COMPLETED', 'epochs': 1, 'continues': None},
        {'id': '1', 'status': 'COMPLETED', 'epochs': 1, 'continues': None},
        {'id': '2', 'status': 'FAILED', 'epochs': 1, 'continues': None},
        {'id': '3', 'status': 'COMPLETED', 'epochs': 3, 'continues': '1'},
        {'id': '4', 'status': 'COMPLETED', 'epochs': 9, 'continues': '3'},
        {'id': '5', 'status': 'RUNNING', 'epochs': 9, 'continues': None},
    ]
    outcomes = {'finished': 1, 'stopped': 1, 'failed': 1, 'running': 1}
    assert sweep.count(trials, 9.0) == outcomes


def test_pruned_points_are_no_finished_ones_but_what_they_compiled_counts(tmp_path, monkeypatch):
    def point(number, outcome, accuracy=None):
        folder = f'runs/{number}/0'
        run = Replicate(folder, 0, 'finished', {'accuracy': accuracy}, {})
        (tmp_path / folder).mkdir(parents=True)
        seconds = {'compile': 1.5 if number == 0 else 0.25}
        (tmp_path / folder / 'result.json').write_text(json.dumps({'seconds': seconds}))
        objectives = () if accuracy is None else (accuracy,)
        return Point(number, {'model.width': 8 * number}, outcome, '', objectives, (run,))

    points = (
        point(0, 'pruned'), point(1, 'complete', 0.8), point(2, 'complete', 0.9),
        point(3, 'interrupted'),
    )  # fmt: skip
    table = Table(
        tmp_path, ('model.width',), ('validation_accuracy',), (True,), 'digits', 1, points
    )
    opened = types.SimpleNamespace(table=lambda: table)
    monkeypatch.setattr(sweep, 'reopen', lambda folder: opened)
    figures = sweep.read_study(tmp_path)
    assert (figures['finished'], figures['stopped']) == (2, 1)
    assert figures['validation_accuracy'] == 0.9
    assert figures['best'] == {'model.width': 16}
    assert figures['compile_seconds'] == pytest.approx(2.25)


def test_the_ratio_of_searches_is_of_finished_trials_by_the_same_tuner():
    def search(finished):
        return {'finished': finished, 'compile_seconds': 6.0, 'wall_seconds': 60.0}

    lines = sweep.summary({
        'Leadline random': [search(40), search(50)],
        'KerasTuner random': [search(10), search(20)],
        'Leadline hyperband': [search(5)],
        'KerasTuner hyperband': [search(0)],
    })  # fmt: skip
    assert lines['Leadline random'] == {'compile_share': pytest.approx(0.1), 'ratio': 3.0}
    assert lines['KerasTuner random']['ratio'] is None
    assert lines['Leadline hyperband']['ratio'] is None
    assert sweep.spread([0.5, None]) == '-'
    assert sweep.spread([0.97, 0.99], 100) == '98.00 ± 1.41'


@pytest.mark.parametrize('space', sweep_config.SPACES)
def test_the_sweeps_beside_keras_tuner_are_valid(space):
    config = sweep_config.get_config(f'digits,{space}')
    config.budget.hours = 0.1
    sweep_default.validate(config)
    assert config.base.augment == 'none'
    assert config.replicates == 1
    assert not config.vary_splits
