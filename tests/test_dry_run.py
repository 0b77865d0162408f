"""What a sweep would train, refuse and take."""

import json

import pytest

from configs import default
from configs.sweeps import default as sweeps
from configs.sweeps.factors import choice
from console import Console
from errors import UserError
from sweeping import points
from sweeping.dry_run import dry_run

RATES = (0.1, 0.2)


def sweep_of(**changes):
    base = default.get_config('digits', 'plain')
    base.update_from_flattened_dict({'model.stage_sizes': (1,), 'epochs': 2.0, 'batch_size': 128})
    space = [choice('model.width', 4, 8, 32, 2**20), choice('optimizer.learning_rate', *RATES)]
    changes = {name.replace('__', '.'): value for name, value in changes.items()}
    return sweeps.get_config(base, space, **changes)


def dry(sweep):
    every = list(points.planned(sweep.sampler, sweep.space, sweep.seed))
    return dry_run(sweep, every, len(every), Console())


@pytest.fixture(scope='module')
def figures():
    return dry(sweep_of(limits__parameters=500, replicates=2, budget__epochs=8.0))


def test_every_point_is_counted_or_refused_with_its_reason(figures):
    json.dumps(figures)
    rows = {(row['values']['model.width'], row['values']['optimizer.learning_rate']): row
            for row in figures['looked_at']}  # fmt: skip
    assert len(rows) == figures['points'] == 8
    for rate in RATES:
        assert rows[4, rate]['parameters'] == 3 * 3 * 4 + 2 * 4 + 4 * 10 + 10
        # 8 pixels squared, 9 weights, 4 filters; and the head.
        assert rows[4, rate]['flops'] == 2 * (64 * 9 * 4 + 4 * 10)
        assert rows[4, rate]['steps'] == 17  # 2 epochs of 1,078 images by 128.
        assert 'above limits.parameters=500' in rows[32, rate]['refused']
        assert 'does not fit' in rows[2**20, rate]['refused']
    assert (figures['runs'], figures['programs']) == (8, 2)
    assert [each['values']['model.width'] for each in figures['timed']] == [4, 8]


def test_seconds_follow_from_what_was_timed(figures):
    predicted, rows = figures['predicted'], figures['looked_at']
    for timed, row in zip(figures['timed'], (rows[0], rows[2]), strict=True):
        own = row['steps'] * timed['step_seconds'] + 2 * 3 * timed['batch_seconds']
        assert own < row['run_seconds'] < own + 10
    trained = 2 * sum(row['run_seconds'] for row in rows if 'refused' not in row)
    assert predicted['seconds'] == pytest.approx(trained)
    # Learning rates share their programs.
    compiled = sum(timed['compile_seconds'] for timed in figures['timed'])
    assert predicted['compile_seconds'] == pytest.approx(compiled)
    assert 3600 * predicted['hours'] > trained + compiled
    # 4 points of 2 runs of 2 epochs, and a budget of half of that.
    assert predicted['hours_in_budget'] == pytest.approx(predicted['hours'] / 2)


def test_what_is_wrong_with_all_points_is_an_error():
    sweep = sweep_of()
    sweep.base.dataset.name = 'npz:/nowhere.npz'
    with pytest.raises(UserError, match='nowhere'):
        dry(sweep)
