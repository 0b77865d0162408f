"""Sweeps as people run them: the command, killed, stopped, short of time, on several hosts."""

import ast
import csv
import json
import os
import runpy
import signal
import time

import pytest
from conftest import ROOT, finish, python

from benchmarks import postgres, workers
from configs.sweeps import default
from console import Console
from errors import UserError
from sweeping import run
from sweeping import study as studies

TINY = {
    'base.model.stage_sizes': '(1,)', 'base.model.width': 4, 'base.epochs': 2.0,
    'base.batch_size': 128, 'replicates': 2,
}  # fmt: skip
SWEEP = """
from configs import plain_small
from configs.sweeps import default
from configs.sweeps.factors import choice, log_uniform

def get_config():
    return default.get_config(plain_small.get_config(), [{space}], **{fields!r})
"""


def sweep_file(folder, space, **fields):
    folder.mkdir(exist_ok=True)
    path = folder / 'space.py'
    path.write_text(SWEEP.format(space=space, fields=fields))
    return path


def start(config, workdir, fields=TINY, *arguments, **how):
    flags = [f'--config.{name}={value}' for name, value in fields.items()]
    where = f'--workdir={workdir}'
    return python('sweep.py', f'--config={config}', where, *flags, *arguments, **how)


def sweep(*arguments, status=0):
    return finish(start(*arguments), status)


def run_here(config, workdir, fields):
    """Runs a sweep in this process, without the page and the start of a command."""
    made = runpy.run_path(str(config))['get_config']()
    typed = {n: ast.literal_eval(v) if isinstance(v, str) else v for n, v in fields.items()}
    made.update_from_flattened_dict(typed)
    default.validate(made)
    return run.run(made, workdir, '', Console(quiet=True), time.monotonic())[0]


def table(workdir):
    return studies.reopen(workdir).table()


def outcome(workdir):
    """What a study came to, without what differs from call to call."""
    with (workdir / 'study.csv').open() as file:
        rows = list(csv.DictReader(file))
    return [
        {n: v for n, v in row.items() if not any(x in n for x in ('second', 'host', 'attempt'))}
        for row in rows
    ]


def kill_when(process, reached, workdir, number=signal.SIGKILL):
    """Kills the command once `reached(workdir)`."""
    while not reached(workdir):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)


def runs(pattern, count=1):
    return lambda workdir: len(list(workdir.glob(f'runs/{pattern}'))) >= count


RATES = "choice('optimizer.learning_rate', 0.01, 0.03, 0.1)"
SOBOL = (
    "log_uniform('optimizer.learning_rate', 0.001, 1), choice('optimizer.weight_decay', 0.0, 0.001)"
)


def test_killed_twice_it_goes_on_to_the_same_table(tmp_path):
    config = sweep_file(tmp_path, SOBOL, sampler='quasi_random', **{'budget.runs': 6})
    out, _ = sweep(config, tmp_path / 'whole')
    assert '3 points by' in out
    assert '3 points: 3 complete; 6 runs' in out
    workdir = tmp_path / 'killed'
    kill_when(start(config, workdir), runs('*/0/checkpoints/[0-9]*'), workdir)
    kill_when(start(config, workdir), runs('*/1/result.json', 2), workdir, signal.SIGTERM)
    before = {p: p.stat().st_mtime_ns for p in workdir.glob('runs/*/*/result.json')}
    sweep(config, workdir)
    assert outcome(workdir) == outcome(tmp_path / 'whole')
    ended = [p for p in before if p.exists() and p.stat().st_mtime_ns == before[p]]
    assert len(ended) >= 2  # What had ended was not touched.


def test_what_ails_a_net_is_said_and_the_sweep_goes_on(tmp_path):
    """One cannot fit, one diverges, one raises and one hangs."""
    space = (
        "choice('model.width', 4, 3_000_000), "
        "choice('optimizer.learning_rate', 0.1, 1e35, 0.05, when={'model.width': 4}), "
        "choice('init.weights', '', 'gone.pth', when={'optimizer.learning_rate': 0.1})"
    )
    config = sweep_file(tmp_path, space)
    workdir = tmp_path / 'study'
    fields = TINY | {'replicates': 1, 'hang_seconds': 10, 'base.epochs': 30}
    # With a variable of JAX it is a process of its own, whose children can be looked for.
    process = start(config, workdir, fields, JAX_PLATFORMS='cpu')
    while not runs('*learning_rate=0.05*/0/metrics.jsonl')(workdir):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    (worker,) = workers.children(process)
    os.kill(worker, signal.SIGSTOP)
    out, _ = finish(process)
    points = {tuple(point.values.values()): point for point in table(workdir).points}
    said = {values: (point.outcome, point.reason) for values, point in points.items()}
    assert said.pop((4, 0.1, '')) == ('complete', '')
    assert said[4, 0.1, 'gone.pth'][0] == 'failed'
    assert 'gone.pth' in said[4, 0.1, 'gone.pth'][1]
    assert said[4, 1e35][0] == 'diverged'
    assert said[4, 1e35][1].startswith('at step ')
    assert said[4, 0.05] == ('failed', 'hung: no sign of life for 10 s')
    assert said[3_000_000,][0] == 'infeasible'
    assert 'does not fit' in said[3_000_000,][1]
    for _, reason in said.values():
        assert reason.split('.')[0] in out
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_budget_of_time_holds_and_what_trains_is_saved(tmp_path):
    config = sweep_file(tmp_path, RATES)
    workdir = tmp_path / 'study'
    endless = TINY | {'base.epochs': 2000, 'base.evaluate_every_epochs': 10, 'replicates': 1}
    begun = time.monotonic()
    out, _ = sweep(config, workdir, endless | {'budget.hours': 12 / 3600})
    assert time.monotonic() - begun < 12 + 25  # Saving, and the page, beside other tests.
    assert 'The budget of time is spent; the same command goes on.' in out
    assert {p.outcome for p in table(workdir).points} == {'interrupted'}
    first = next(workdir.glob('runs/*/0'))
    step = json.loads((first / 'result.json').read_text())['last_step']
    assert step > 0


def test_weak_points_are_pruned_and_equal_ones_not_trained_twice(tmp_path):
    space = "choice('optimizer.learning_rate', 0.1, 0.05, 1e-7, 1e-8, 0.03, 1e-6)"
    fields = {'pruner': 'successive_halving', 'sampler': 'tpe', 'budget.runs': 40}
    config = sweep_file(tmp_path, space, **fields)
    workdir = tmp_path / 'study'
    points = run_here(config, workdir, TINY | {'base.epochs': 9.0}).points
    assert len(points) == 6  # TPE draws points again, and the space is exhausted.
    assert {p.outcome for p in points} == {'complete', 'pruned'}
    for point in points:
        # A run may end before it hears that it is pruned; the other one never begins.
        assert (len(point.replicates) == 2) == (point.outcome == 'complete')
        folders = list(
            workdir.glob(f'runs/*learning_rate={point.values["optimizer.learning_rate"]:.4g}-*/*')
        )
        assert len(folders) == (2 if point.outcome == 'complete' else 1)


@pytest.mark.parametrize('storage', ['sqlite', 'postgresql'])
def test_hosts_that_die_lose_no_point(tmp_path, storage):
    """One is killed with its worker, of another one the worker alone, and one comes late."""
    env = {'PYTHONPATH': str(ROOT / 'tests' / 'without_tensorflow')}
    if storage == 'postgresql':
        if not postgres.found():
            pytest.skip('PostgreSQL is not installed')
        with postgres.server() as url:
            _, counts, end = workers.work(tmp_path, url, 3, 16, True, **env)
    else:
        _, counts, end = workers.work(tmp_path, '', 2, 8, True, **env)
    assert set(counts.values()) == {1}
    assert len(counts) == len(end.points) == (16 if storage == 'postgresql' else 8)
    assert {point.outcome for point in end.points} == {'complete'}


def test_points_are_exported_and_repeated(tmp_path):
    config = sweep_file(tmp_path, RATES)
    workdir = tmp_path / 'study'
    sweep(config, workdir)
    ended = {p: p.stat().st_mtime_ns for p in workdir.glob('runs/*/*/result.json')}
    out, _ = sweep(config, workdir)
    assert '3 points ended before' in out
    assert {p: p.stat().st_mtime_ns for p in workdir.glob('runs/*/*/result.json')} == ended
    result = json.loads(next(iter(ended)).read_text())
    assert result['test']['accuracy'] is None  # It stays sealed.
    assert result['validation']['examples'] == 360
    out, _ = finish(python('sweep.py', f'--workdir={workdir}', '--rerun=1'))
    assert 'Point 1 again: ' in out
    assert 'the same, figure by figure' in out
    best = max(table(workdir).points, key=lambda point: point.objectives)
    finish(python('sweep.py', f'--workdir={workdir}', f'--export={best.number}'))
    exported = workdir / f'point_{best.number}_config.py'
    out, _ = finish(python('train.py', f'--config={exported}', f'--workdir={tmp_path / "b"}'))
    result = json.loads((tmp_path / 'b' / 'result.json').read_text())
    assert result['validation'] == best.replicates[0].validation
    assert result['test']['examples'] == 359
    assert (workdir / 'study.html').exists()


def test_a_mistake_that_all_points_share_ends_the_sweep_and_leaves_no_study(tmp_path):
    gone = {'base.dataset.name': f'folder:{tmp_path / "gone"}'}
    workdir = tmp_path / 'study'
    config = sweep_file(tmp_path, RATES)
    out, err = sweep(config, workdir, TINY | gone, status=2)
    assert err.startswith(f"sweep.py: There is no folder '{tmp_path / 'gone'}'")
    assert err.count('\n') == 1
    assert 'failed' not in out
    assert not workdir.exists()
    config = sweep_file(tmp_path, RATES, objective='validation_rmse')
    with pytest.raises(UserError, match='validation_rmse does not exist for digits'):
        run_here(config, workdir, TINY)
    # What some points may mend is no matter of the sweep before three of them have failed.
    config = sweep_file(tmp_path, "choice('dataset.image_size', 4, 6, 8)")
    alike = '3 points have failed alike, and none between them was well: There is no folder'
    with pytest.raises(UserError, match=alike):
        run_here(config, workdir, TINY | {'base.dataset.name': repr(gone['base.dataset.name'])})
    assert not workdir.exists()


def test_two_objectives_and_limits(tmp_path):
    space = "choice('model.width', 4, 8, 400)"
    fields = {'objective': 'validation_accuracy,latency_ms', 'limits.parameters': 1000}
    config = sweep_file(tmp_path, space, **fields)
    small, large, huge = run_here(config, tmp_path / 'study', TINY | {'replicates': 1}).points
    assert huge.outcome == 'infeasible'
    assert huge.reason.endswith('is above limits.parameters=1,000')
    for point in (small, large):
        assert point.objectives == (
            point.replicates[0].validation['accuracy'],
            point.facts['latency_ms'],
        )
        assert 0 < point.facts['latency_ms'] < 1000
        assert point.facts['memory_mb'] > 0
    fields |= {'limits.parameters': 0, 'predict_batch': 256}
    config = sweep_file(tmp_path, "choice('model.width', 4)", **fields)
    (same,) = run_here(config, tmp_path / 'batch', TINY | {'replicates': 1}).points
    assert same.facts['memory_mb'] > 20 * small.facts['memory_mb']


def test_replicates_that_lose_against_the_best_are_pruned(tmp_path):
    space = "choice('optimizer.learning_rate', 0.1, 1e-8)"
    config = sweep_file(tmp_path, space, pruner='wilcoxon', replicates=6)
    fields = TINY | {'base.epochs': 4.0, 'replicates': 6}
    good, bad = run_here(config, tmp_path / 'study', fields).points
    assert (good.outcome, len(good.replicates)) == ('complete', 6)
    assert bad.outcome == 'pruned'
    assert 2 <= len(bad.replicates) < 6
    assert bad.reason == f'after {len(bad.replicates)} of its runs'
