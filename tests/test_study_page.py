"""Reading a study: figures are right, pages whole, with none, one or many points."""

import csv
import dataclasses
import itertools
import json
import math
import os
import types

import numpy as np
import pytest
from pages import Page, at_390_pixels, check_whole

from console import Console
from errors import UserError
from sweeping import export, rerun
from sweeping import points as points_of_space
from sweeping.reading import importance, overviews, page, plots, show, summary, words
from sweeping.reading.axes import Scale
from sweeping.reading.heights import Heights
from sweeping.table import Point, Replicate, Table
from training import many

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
        spread = 0.004 if near else 0.01
        scores = [middle - spread, middle, middle + spread]
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


def test_points_are_compared_run_by_run_with_the_spread_near_the_best():
    """A split that is hard for all nets, and a bad net that is erratic, take nothing away."""
    hard = np.asarray([0.0, -0.02, 0.01, -0.01])
    offs = {0: [0.0, 1e-3, -1e-3, 0.0], 1: [2e-3, 0.0, 0.0, -2e-3], 2: [0.0, 0.0, 1e-3, -1e-3]}
    means = {0: 0.98, 1: 0.979, 2: 0.97}
    scores = {i: means[i] + hard + np.asarray(offs[i]) for i in means}
    points = [point(i, {'model.width': i}, scores[i], 1000 - i) for i in means]
    points.append(point(3, {'model.width': 3}, [0.4, 0.7, 0.5, 0.6], 10))
    table = Table(None, ('model.width',), ('validation_accuracy',), (True,), 'x', 4, tuple(points))
    deviation, freedom = summary.spread(table)
    pairs = [scores[a] - scores[b] for a, b in itertools.combinations(scores, 2)]
    assert deviation**2 == pytest.approx(np.mean([pair.var(ddof=1) for pair in pairs]))
    assert freedom == 6  # (3 points - 1) (4 runs - 1)
    told = {each.point.number: each for each in summary.differences(table)}
    assert [told[i].mean for i in (1, 2, 3)] == pytest.approx([0.001, 0.01, 0.425])
    assert told[1].half_width == pytest.approx(2.446912 * deviation / 2)
    assert [told[i].open for i in (1, 2, 3)] == [True, False, False]
    assert [p.number for p in summary.recommended(table)] == [1]
    # A run that only one of them has is left out.
    short = dataclasses.replace(points[1], replicates=points[1].replicates[:3])
    table = dataclasses.replace(table, points=(points[0], short, *points[2:]))
    assert summary.spread(table)[1] == 4
    assert summary.differences(table)[0].mean == pytest.approx(1e-3 - 2e-3 / 3)


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
    # Run by run -0.1, 0.5 and 1.1: mean 0.5, deviation 0.6, so half an interval of 1.49.
    assert (
        'cannot be told from it is point 5 (stage_sizes=(1,1), width=128), 0.50 percentage points '
        'worse (interval of 95 %: 0.99 better to 1.99 worse); it takes 256,000 FLOPs, 67 % of'
    ) in said
    assert '2 points near the best (2 degrees of freedom)' in said
    assert f"python sweep.py --workdir='{grid.folder}' --export=5" in said
    assert 'The pruner stopped 1 point early' in said
    assert EVIL in parsed.text
    assert 'needs 80 GiB' in said
    assert f"python sweep.py --show='{grid.folder}'" in said
    alts = [image['alt'] for image in parsed.all('img')]
    assert len(alts) == 7  # Two factors, three costs, parallel coordinates, curves; few points.
    (flops,) = (alt for alt in alts if alt.startswith('Validation accuracy against FLOPs'))
    front = [int(part.split()[0]) for part in flops.split('point ')[1:]]
    assert front == [0, 3, 6, 7, 5, 8]  # By their cost; 1, 2 and 4 have a better one at less.


def test_plots_are_replaced_together(grid):
    names = {path.name for path in (grid.folder / 'plots').iterdir()}
    assert {'factor-model.width.png', 'factor-model.width.svg', 'cost-latency_ms.svg'} <= names
    assert len(names) == 14
    left = {path.name for path in grid.folder.iterdir()} - {'.page.lock'}
    assert left == {'plots', 'runs', 'study.csv', 'study.html'}


def test_a_browser_shows_it_at_390_pixels(grid, tmp_path):
    width, shown, broken = at_390_pixels(grid.folder / 'study.html', tmp_path)
    assert width <= 390
    assert (shown, broken) == (7, 0)


def test_the_console_shows_the_best_first_and_no_more_than_30(grid, capsys):
    show.show(grid, Console())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        'point', 'stage_sizes', 'width', 'accuracy', 'runs', 'parameters', 'FLOPs', 'latency',
        'in', 'ms', 'seconds',
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
    assert '--export' not in parsed.text
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
    assert 'unknown from one run of each point' in parsed.text
    assert '--config.replicates=3 and another --workdir' in parsed.text
    assert '--export=2' in parsed.text
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
    assert 'points 0, 1 and 4.' in parsed.text
    assert 'point 0 of the Pareto front (or of 1 and 4)' in parsed.text
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
    assert 'Importance of the factors, from 30 points' in overviews.importance(table, shares).alt
    few = dataclasses.replace(table, points=table.points[:29])
    assert importance.importances(few) == {}


def test_an_axis_of_errors_keeps_far_and_near_apart():
    heights = Heights('validation_accuracy', [0.588, 0.95, 0.9898], [0.1, 1.02])
    assert heights.by_ratio
    assert heights.value(heights.place(0.97)) == pytest.approx(0.97)
    low, middle, high = heights.place(np.asarray([0.588, 0.95, 0.9898]))
    assert 0.4 < (middle - low) / (high - low) < 0.7
    assert heights.ticks() == pytest.approx([0.5, 0.8, 0.9, 0.95, 0.98, 0.99], abs=1e-9)
    assert 0.2 < heights.low < 0.5
    whole = Heights('validation_accuracy', [0.5, 0.99, 1.0])
    assert whole.ticks()[-1] == 1.0
    assert not Heights('validation_accuracy', [0.95, 0.98]).by_ratio
    assert Heights('validation_loss', [0.1, 2.0]).by_ratio
    assert not Heights('validation_r2', [-0.1, 0.9]).by_ratio


def test_depths_stand_at_their_sum_with_a_line_for_each_shape(grid):
    sizes = [(1,), (1, 1), (2,), (2, 2), (1, 1, 1)]
    points = [point(i, {'model.stage_sizes': s}, [0.9 + i / 100]) for i, s in enumerate(sizes)]
    table = dataclasses.replace(grid, factors=('model.stage_sizes',), points=tuple(points))
    plot = plots.factor(table, 'model.stage_sizes')
    assert '2 lines for 1 block in each stage; 2 blocks in each stage' in plot.alt
    (axes,) = plot.figure.axes
    assert axes.get_xlabel() == 'blocks in all, the sum of stage_sizes'
    assert [label.get_text() for label in axes.get_xticklabels()] == ['1', '2', '3', '4']


def rerun_of(folder, monkeypatch, results):
    """Reruns a point of two runs, the second of which diverged, as if these came out."""
    monkeypatch.setattr(many, 'train_many', lambda *_: types.SimpleNamespace(results=results))
    monkeypatch.setattr(points_of_space, 'configs', lambda *_: [])
    runs = (Replicate('runs/a/0', 0, 'finished', {'accuracy': 0.9}, {}),
            Replicate('runs/a/1', 1, 'diverged', {'accuracy': None}, {}))  # fmt: skip
    diverged = Point(0, {'model.width': 8}, 'diverged', 'at step 9', (), runs)
    table = study(folder, [], ('model.width',))
    table = dataclasses.replace(table, points=(diverged,))
    return types.SimpleNamespace(folder=folder, config=None, table=lambda: table)


def test_a_rerun_compares_what_both_have(tmp_path, monkeypatch, capsys):
    good, bad = ({'status': s, 'validation': {'accuracy': x}}
                 for s, x in (('finished', 0.9), ('diverged', None)))  # fmt: skip
    there = rerun_of(tmp_path, monkeypatch, [good, bad, good])
    assert rerun.rerun(there, 0, Console()) == rerun.SAME
    assert 'Point 0 again: the same, figure by figure.' in capsys.readouterr().out
    there = rerun_of(tmp_path, monkeypatch, [good, good, good])
    assert rerun.rerun(there, 0, Console()) == rerun.OTHER
    assert '1 of 2 runs came out otherwise' in capsys.readouterr().out
    stopped = {'status': 'interrupted', 'validation': {}}
    there = rerun_of(tmp_path, monkeypatch, [good, stopped, None])
    assert rerun.rerun(there, 0, Console()) == rerun.INTERRUPTED
    assert 'The same command goes on' in capsys.readouterr().out
    with pytest.raises(UserError, match=r'no point 1 in .*: they are numbered 0 to 0'):
        rerun.rerun(there, 1, Console())
    with pytest.raises(UserError, match=r'Point 0 .* is diverged, not complete'):
        export.export(there, 0, Console())


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
