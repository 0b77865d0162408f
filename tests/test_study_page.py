"""Reading a study: figures are right, pages whole, with none, one or many points."""

import csv
import dataclasses
import itertools
import json
import math
import os

import numpy as np
import pytest
from pages import Page, at_390_pixels, check_whole

from console import Console
from sweeping.reading import importance, page, show, summary, words
from sweeping.reading.axes import Scale
from sweeping.table import Point, Replicate, Table

EVIL = '<script>alert("$x$ $y$")'


def point(number, values, scores, flops=1000, name='accuracy', **facts):
    """A complete point whose runs have these scores."""
    runs = tuple(
        Replicate(f'runs/{number}/{i}', i, 'finished', {name: x}, {'total': 2.0})
        for i, x in enumerate(scores)
    )
    known = {'parameters': flops // 10, 'flops': flops, **facts}
    mean = (float(np.mean(scores)),)
    return Point(number, values, 'complete', '', mean, runs, known, {'host': 'a', 'attempts': 1})


def study(folder, points, factors=None, objectives=('validation_accuracy',), maximize=(True,)):
    """A study, with run folders as training leaves them for its first two points."""
    folder.mkdir(exist_ok=True)
    names = factors or tuple(dict.fromkeys(name for p in points for name in p.values))
    for run in (run for p in points[:2] for run in p.replicates):
        path = folder / run.folder
        path.mkdir(parents=True)
        key, value = next(iter(run.validation.items()))
        lines = [{'step': e, 'epoch': e, f'validation_{key}': value * e / 3} for e in (1, 2, 3)]
        (path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return Table(folder, names, objectives, maximize, 'digits', 3, tuple(points))


@pytest.fixture(scope='module')
def grid(tmp_path_factory):
    """Depth x width, three runs each, with what else may come of a point."""
    points = []
    for depth, width in itertools.product((1, 2, 3), (8, 32, 128)):
        best = depth == 3 and width == 128
        near = depth == 2 and width == 128  # As good within the error, at fewer FLOPs.
        middle = 0.96 if best else 0.955 if near else 0.7 + 0.04 * depth + 0.02 * math.log2(width)
        scores = [middle - 0.01, middle, middle + 0.01]
        values = {'model.stage_sizes': (1,) * depth, 'model.width': width}
        points.append(point(len(points), values, scores, depth * width * 1000, latency_ms=depth))
    ended = points[0].replicates[:1]
    values = {'model.stage_sizes': (1,), 'model.width': 8}
    for outcome, reason, runs in (
        ('pruned', 'behind the median', ended), ('failed', EVIL, ()), ('diverged', 'at step 9', ()),
        ('infeasible', 'needs 80 GiB', ()), ('waiting', '', ()),
    ):  # fmt: skip
        points.append(Point(len(points), values, outcome, reason, (), runs))
    table = study(tmp_path_factory.mktemp('study') / 'a $b$ <i>', points)
    page.write(table)
    return table


def rows(table):
    with (table.folder / 'study.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_means_spreads_and_intervals():
    found = summary.Estimate(0.92, (0.90, 0.92, 0.94))
    assert found.deviation == pytest.approx(0.02)
    assert found.half_width == pytest.approx(4.302653 * 0.02 / math.sqrt(3))  # t, 2 degrees.
    assert summary.Estimate(0.92, (0.92,)).half_width is None
    assert summary.Estimate(0.92, (0.92, 0.92)).half_width == 0


def test_the_csv_holds_points_and_their_runs(grid):
    first, *_ = table = rows(grid)
    assert [row['outcome'] for row in table] == [p.outcome for p in grid.points]
    assert first['model.stage_sizes'] == '(1,)'
    assert float(first['validation_accuracy_mean']) == pytest.approx(0.8)
    assert float(first['validation_accuracy_sd']) == pytest.approx(0.01)
    assert first['validation_accuracy_n'] == '3'
    runs = [float(first[f'validation_accuracy_run{i}']) for i in range(3)]
    assert runs == pytest.approx([0.79, 0.8, 0.81])
    assert (first['seed_run2'], first['seconds'], first['flops']) == ('2', '6.0', '8000')
    pruned, failed = table[9:11]
    assert float(pruned['validation_accuracy_mean']) == pytest.approx(0.79)
    assert pruned['validation_accuracy_sd'] == ''
    assert (failed['validation_accuracy_mean'], failed['reason']) == ('', EVIL)


def test_the_page_says_what_counts_and_asks_for_nothing(grid):
    text = (grid.folder / 'study.html').read_text()
    parsed = Page(text)
    check_whole(parsed)
    said = ' '.join(parsed.text.split())
    assert 'The best of 9 complete points is point 8 (stage_sizes=(1,1,1), width=128)' in said
    assert '96.00 ± 1.00 % (mean ± standard deviation of 3 runs)' in said
    # The pooled deviation is 1 point, so the error of 3 runs 0.58.
    assert '1 other point is within one standard error of it (0.58 points, pooled)' in said
    assert 'cheapest net within one standard error is point 5' in said
    assert "256,000 FLOPs, 67 % of the best's" in said
    assert 'The pruner stopped 1 point early' in said
    assert EVIL in parsed.text
    assert 'needs 80 GiB' in said
    assert f"python sweep.py --show '{grid.folder}'" in said
    alts = [image['alt'] for image in parsed.all('img')]
    assert len(alts) == 8  # Two factors, three costs, parallel coordinates, curves, importance.
    (flops,) = (alt for alt in alts if alt.startswith('Validation accuracy against FLOPs'))
    front = [int(part.split()[0]) for part in flops.split('point ')[1:]]
    assert front == [0, 3, 6, 7, 5, 8]  # By their cost; 1, 2 and 4 have a better one at less.


def test_plots_are_replaced_together(grid):
    names = {path.name for path in (grid.folder / 'plots').iterdir()}
    assert {'factor-model.width.png', 'factor-model.width.svg', 'cost-latency_ms.svg'} <= names
    assert len(names) == 16
    left = {path.name for path in grid.folder.iterdir()} - {'.page.lock'}
    assert left == {'plots', 'runs', 'study.csv', 'study.html'}


def test_a_browser_shows_it_at_390_pixels(grid, tmp_path):
    width, shown, broken = at_390_pixels(grid.folder / 'study.html', tmp_path)
    assert width <= 390
    assert (shown, broken) == (8, 0)


def test_the_console_shows_the_best_first_and_no_more_than_30(grid, capsys):
    show.show(grid, Console())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        'point', 'stage_sizes', 'width', 'validation', 'accuracy', 'runs', 'parameters', 'FLOPs',
        'latency', 'in', 'ms', 'seconds',
    ]  # fmt: skip
    assert [int(line.split()[0]) for line in lines[1:3]] == [8, 5]
    assert f'point 10  stage_sizes=(1,), width=8  failed: {EVIL}' in lines
    assert any('9 complete, 1 pruned, 1 diverged, 1 infeasible' in line for line in lines)
    many = [point(i, {'a': i / 1e3}, [i / 1e3]) for i in range(100)]
    many += [Point(100 + i, {'a': 1.0}, 'failed', 'broken') for i in range(50)]
    show.show(Table(grid.folder, ('a',), grid.objectives, (True,), 'x', 1, tuple(many)), Console())
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith('broken') for line in lines) == 10
    assert '... and 120 points more, in study.csv' in lines


def test_none_or_one_complete_point(tmp_path):
    failed = Point(0, {'model.width': 8}, 'failed', 'broken')
    table = study(tmp_path / 'none', [failed])
    page.write(table)
    parsed = Page((tmp_path / 'none' / 'study.html').read_text())
    check_whole(parsed)
    assert 'No point is complete yet' in parsed.text
    assert 'broken' in parsed.text
    assert '--export_best' not in parsed.text
    table = study(tmp_path / 'one', [point(0, {'model.width': 8}, [0.9])])
    page.write(table)
    parsed = Page((tmp_path / 'one' / 'study.html').read_text())
    assert 'Point 0 is the only one that is complete (width=8)' in parsed.text
    assert '90.00 % in one run, so its spread is unknown' in parsed.text
    page.write(study(tmp_path / 'empty', [], factors=('model.width',)))
    assert rows(study(tmp_path / 'empty', [], factors=('model.width',))) == []


def test_one_run_each_leaves_the_spread_unknown(tmp_path):
    points = [point(i, {'a.x': EVIL + str(i), 'b.x': None}, [0.9 + i / 100]) for i in range(3)]
    page.write(study(tmp_path / 'single', points))
    parsed = Page((tmp_path / 'single' / 'study.html').read_text())
    check_whole(parsed)
    assert '--config.replicates=3 would tell' in parsed.text
    assert f'a.x={EVIL}2, b.x=None' in parsed.text


def test_several_objectives_have_a_front_in_place_of_a_best(tmp_path):
    planted = [(0.9, 100), (0.8, 50), (0.85, 200), (0.9, 120), (0.7, 10)]
    points = []
    for i, (score, flops) in enumerate(planted):
        one = point(i, {'model.width': i}, [score], flops)
        points.append(dataclasses.replace(one, objectives=(score, flops)))
    table = study(tmp_path / 'two', points, objectives=('validation_accuracy', 'flops'),
                  maximize=(True, False))  # fmt: skip
    assert [p.number for p in summary.on_front(table)] == [0, 1, 4]
    page.write(table)
    parsed = Page((tmp_path / 'two' / 'study.html').read_text())
    assert 'Of 5 complete points 3 are on the Pareto front' in parsed.text
    assert 'points 0, 1, 4.' in parsed.text
    assert rows(table)[2]['flops'] == '200.0'


def test_numbers_are_minimised(tmp_path):
    points = [
        point(i, {'lr': 10.0**-i}, [1 + i, 1.5 + i], name='rmse', flops=10**i) for i in range(4)
    ]
    table = study(tmp_path / 'rmse', points, objectives=('validation_rmse',), maximize=(False,))
    page.write(table)
    parsed = Page((tmp_path / 'rmse' / 'study.html').read_text())
    assert 'point 0 (lr=1): validation RMSE 1.25 ± 0.35 (mean' in parsed.text
    assert any(alt['alt'].endswith('best first: 0, 1, 2, 3.') for alt in parsed.all('img'))


def test_importance_finds_the_planted_factor_on_a_logarithmic_axis():
    rng = np.random.default_rng(0)
    points = []
    for i in range(30):
        rate, width, skip = 10 ** rng.uniform(-5, 0), int(rng.integers(8, 64)), bool(i % 2)
        score = 0.8 + 0.1 * (rate > 1e-3) + 0.0004 * width
        points.append(point(i, {'rate': rate, 'width': width, 'skip': skip}, [score]))
    table = Table(None, ('rate', 'width', 'skip'), ('validation_accuracy',), (True,), 'x', 1,
                  tuple(points))  # fmt: skip
    shares = importance.importances(table)
    assert next(iter(shares)) == 'rate'
    assert shares['rate'] > 0.8
    assert sum(shares.values()) <= 1.001
    few = dataclasses.replace(table, points=table.points[:7])
    assert importance.importances(few) == {}


def test_axes_of_factors():
    assert Scale([128, 8, 32, 8]).log
    assert not Scale([8, 64, 0]).log
    sizes = Scale([(2, 2), [1, 1, 1], (1,), (1, 1, 1)])
    assert [tuple(v) for v in sizes.values] == [(1,), (1, 1, 1), (2, 2)]
    assert Scale([0.001, 0.1]).share(0.01) == pytest.approx(0.5)
    assert Scale([True, False]).values == [False, True]
    assert words.short_names(('model.width', 'scale.width', 'optimizer.learning_rate')) == {
        'model.width': 'model.width',
        'scale.width': 'scale.width',
        'optimizer.learning_rate': 'learning_rate',
    }
    assert os.fspath(words.label((1, 0.5))) == '(1,0.5)'
