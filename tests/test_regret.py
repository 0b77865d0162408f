"""Regret and calibration on tables of which the truth is known; a table made of real runs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy.special import ndtri

from benchmarks import regret, regret_cells, regret_make, regret_replay, regret_score, regret_table
from benchmarks.regret_cells import Cell
from benchmarks.regret_table import FULL, JUDGE, KINDS, NINTH, THIRD, TWIN, Key, Stored
from selection.record import TUNING, Record, Run
from training.interruption import Interruption

K, REPEATS, JUDGES = 4, regret_replay.REPEATS, 8
DIGITS = ('images', (8, 8, 1), 10, False, 'none')


def grid():
    """Linear, plain and residual cells of digits, at five learning rates."""
    trunks = [('plain', (1,) * n, False) for n in (1, 2, 3)]
    trunks += [('residual', (n,) * 3, True) for n in (1, 2, 3)]
    shapes = [Cell('linear')]
    shapes += [Cell(*trunk[:2], width, trunk[2], head) for trunk, width, head in
               itertools.product(trunks, (8, 16, 32), ('average', 'flatten'))]  # fmt: skip
    return [shape._replace(rate=rate) for shape in shapes for rate in (-2, -1, 0, 1, 2)]


def strength(cell):
    """An accuracy that grows with depth up to five convolutions, and a little with width."""
    depth = {'linear': 0, 'plain': len(cell.stages)}.get(cell.family, 1 + 2 * sum(cell.stages))
    by_width = {0: 0.0, 8: -0.01, 16: 0.0, 32: 0.002}[cell.width]
    return 0.8 + 0.03 * min(depth, 5) + by_width - 0.02 * abs(cell.rate)


def synthetic(accuracy, cells, images=400, official=True, seed=0):
    """A table whose cells have the accuracies that `accuracy` says: images differ in difficulty."""
    rng = np.random.default_rng(seed)
    test = images if official else 50
    about = {'name': 'digits', 'folds': K, 'rate': 0.1, 'width': 16, 'facts': DIGITS,
             'constant': 0.1, 'official': official, 'judges': JUDGES, 'returned': [],
             'asked': [], 'made': [], 'images': ''}  # fmt: skip
    table = regret_table.Table(about, np.arange(images), images + np.arange(test))
    repeats = [*range(REPEATS), TUNING // K, *range(JUDGE // K, JUDGE // K + JUDGES)]
    table.folds = {m: rng.permutation(images) % K for m in repeats}
    hard_N, hard_T = rng.standard_normal(images), rng.standard_normal(test)
    numbers = {FULL: [*range(REPEATS * K), *range(TUNING, TUNING + K)],
               THIRD: range(K), NINTH: range(K), TWIN: range(REPEATS * K)}  # fmt: skip
    numbers[FULL] += [n for judge in range(JUDGES) for n in table.judge_numbers(judge)]
    for cell in cells:
        level = ndtri(accuracy(cell))
        cost = 0.2 + 0.1 * sum(cell.stages) * max(cell.width, 1) / 8
        table.facts[cell.shape] = (1000 * int(10 * cost), 10_000 * int(10 * cost))
        for run, kind in [(n, k) for k in KINDS for n in numbers[k]]:
            hard = hard_N[table.images(run)]
            if run >= JUDGE:
                hard = np.concatenate([hard, hard_T])
            luck = 0.5**0.5 * rng.standard_normal(len(hard)) + 0.03 * rng.standard_normal()
            part = {THIRD: 3, NINTH: 9}.get(kind, 1)
            right = level + 0.5**0.5 * hard + luck > 0
            table.add(Key(cell, run, kind), Stored(right, cost / part, compile_seconds=0.5))
    return table


@pytest.fixture(scope='module')
def table():
    return synthetic(strength, grid())


def test_a_table_is_what_was_written_and_cells_are_their_fields(table, tmp_path):
    small = synthetic(strength, grid()[:12])
    regret_table.write(small, tmp_path / 'a.npz')
    again = regret_table.read(tmp_path / 'a.npz')
    assert again.about == {**small.about, 'facts': [*DIGITS[:1], [8, 8, 1], *DIGITS[2:]]}
    assert again.runs() == small.runs()
    assert again.facts == small.facts
    for key in small.runs():
        assert np.array_equal(again.get(key).right, small.get(key).right)
    assert again.whole() == pytest.approx(small.whole())
    for cell in table.cells:
        fields = cell.fields(0.1)
        assert table.cell(fields) == cell
        assert table.cell({**fields, 'model.kernel_size': 5}) is None
    assert table.cell({**fields, 'optimizer.learning_rate': 0.07}) is None


def test_regret_is_that_of_the_truth_and_of_a_perfect_chooser_none(table):
    judged = table.judged()
    truth = {cell: strength(cell) for cell in judged.cells}
    best = max(truth, key=truth.get)
    rng = np.random.default_rng(0)
    some = [judged.cells[i] for i in rng.integers(len(judged.cells), size=300)]
    found = regret_score.regrets(
        judged, {'perfect': [best] * 300, 'random': some, 'poor': [None] * 100 + [best] * 200}, 100
    )
    expected = truth[best] - np.mean([truth[cell] for cell in some])
    assert found['perfect'].mean == pytest.approx(0, abs=0.003)
    assert found['random'].mean == pytest.approx(expected, abs=0.01)
    assert found['random'].low < expected < found['random'].high
    assert found['poor'].nothing == pytest.approx(1 / 3)
    assert (found['poor'].judged, found['random'].judged) == (1, 1)


def test_the_winner_of_equal_nets_has_no_regret_of_its_own():
    # 350 images at 95 %: the highest of 60 equal means looks far better than they are.
    naive, ours = [], []
    for seed in range(4):
        cells = grid()[:60]
        judged = synthetic(lambda cell: 0.95, cells, 350, seed=seed).judged()
        means_C = judged.scores_CSN.mean(axis=(1, 2))
        naive.append(means_C.max() - means_C.mean())
        ours.append(regret_score.regrets(judged, {'any': cells}, draws=2)['any'].mean)
    assert np.mean(naive) > 0.006
    assert abs(np.mean(ours)) < 0.003


@pytest.mark.parametrize('share', [0.02, 0.1])
def test_no_chooser_spends_more_than_there_is(table, share):
    budget, spent = share * table.whole(), []
    for name, choose in regret_replay.choosers(table, [table]).items():
        for seed in range(3):
            replay = regret_replay.Replay(table, budget, seed)
            cell = choose(replay)
            assert cell is None or cell in table.cells, name
            assert replay.spent <= budget, name
            if name == 'Leadline':
                assert cell is not None
                spent.append(replay.spent / budget)
    assert max(spent) > 0.4


def test_regret_falls_with_the_budget_of_a_chooser_that_reads_evidence(table):
    figures = regret.replay_one(table, [table], 2)
    leadline, blind = (figures['regret'][name] for name in ('Leadline', 'most parameters'))
    assert leadline[0.2]['mean'] < 0.012
    assert leadline[0.5]['mean'] < 0.012
    assert leadline[0.02]['mean'] > leadline[0.2]['mean']
    assert (blind[0.02]['nothing'], blind[0.2]['nothing']) == (1, 0)
    assert {*figures['returned']} <= {*table.cells}
    assert figures['asked'] == []


def test_what_is_not_in_the_table_cannot_be_bought(table):
    one = synthetic(strength, [Cell('plain', (1,), 16), Cell('plain', (1, 1), 16)])
    replay = regret_replay.Replay(one, 1e6, 0)
    net = regret_replay.TableSpace(one).ladder(8)[0]
    record = Record(K, one.groups_N, np.ones(400))
    assert replay.price([Run(net, 0)], record) < math.inf
    wide = net.changed('wide', 'twice', {'model.width': 512})
    assert replay.price([Run(net, 0), Run(wide, 0)], record) == math.inf
    assert replay.price([Run(net, REPEATS * K)], record) == math.inf
    assert replay.train(Cell('plain', (1,), 512)) is None
    assert replay.spent == 0
    # What could be paid for is asked for; what could not is not.
    assert replay.asked == {(Cell('plain', (1,), 16), REPEATS)}
    poor = regret_replay.Replay(one, 1e-3, 0)
    assert poor.price([Run(net, REPEATS * K)], record) == math.inf
    assert not poor.asked
    # Runs of one number share a fold whatever the net, and those of a repeat are all its folds; the
    # first are those that all cells have.
    assert {replay.stored(n) // K for n in range(K)} == {0}
    assert {replay.stored(n) for n in range(regret_replay.SEARCHED)} == {0, 1}
    assert sorted(replay.stored(n) for n in range(REPEATS * K)) == [*range(REPEATS * K)]
    assert regret_replay.leadline(replay) == Cell('plain', (1, 1), 16)


def test_the_linear_classifier_may_be_the_answer():
    def easy(cell):
        return 0.95 if cell.family == 'linear' else 0.7

    table = synthetic(easy, grid()[:40])
    replay = regret_replay.Replay(table, 0.9 * table.whole(), 0)
    assert regret_replay.leadline(replay).family == 'linear'


def test_verdicts_are_counted_against_judges_and_twins():
    cells = [Cell('plain', (1,) * n, 16) for n in (1, 2, 3)]
    cells += [Cell('residual', (n,) * 3, 16, True) for n in (1, 2)]
    # The second and third are 10 points better each; the others equal the third.
    levels = dict(zip(cells, (0.7, 0.8, 0.9, 0.9, 0.9), strict=True))
    table = synthetic(levels.__getitem__, cells, 600)
    found = regret_score.calibration(table, 100)
    assert found['better, where the gain is delta or more']['share'] == 1
    assert found['better, where the gain is delta or more']['verdicts'] == 7
    assert found['wrong no better']['share'] == 0
    assert found['cannot tell']['verdicts'] == 10
    assert found['cannot tell']['nets'] == 5
    twins = [found[f'twins: {what}'] for what in ('wrong better', 'no better', 'cannot tell')]
    assert sum(each['share'] for each in twins) == pytest.approx(1)
    assert {each['verdicts'] for each in twins} == {10}
    counted = regret_score.share_of(['better'] * 2 + ['worse'] * 8, [(cells[0], cells[1])] * 10,
                                    'better')  # fmt: skip
    assert (counted.share, counted.nets, counted.verdicts) == (0.2, 2, 10)
    assert counted.high > 0.8  # Ten verdicts on one pair are one piece of evidence.


def test_a_table_is_made_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(regret_make, 'REPEATS', 1)
    plan = regret_cells.PLANS['digits']
    fields = {**plan.fields, 'epochs': 0.5}
    monkeypatch.setitem(
        regret_cells.PLANS, 'digits', dataclasses.replace(plan, fields=fields, judges=1)
    )
    path = tmp_path / 'digits.npz'

    def maker():
        return regret_make.Maker('digits', '', path, 1, 'make')

    first = maker()
    assert [runs for _, runs, _ in first.forecast()] == [4, 4, 0, 4, 0]
    assert not first.make(tmp_path / 'runs', 0, Interruption())
    assert first.make(tmp_path / 'runs', 1, Interruption())
    cell = Cell('linear')
    assert regret._wish(first.table, [cell], [(cell, 1)])
    assert not regret._wish(first.table, [cell], [(cell, 1)])
    assert first.make(tmp_path / 'runs', 1, Interruption())
    again = maker()
    assert sum(runs for _, runs, _ in again.forecast()) == 0
    assert not [each for each in (tmp_path / 'runs').iterdir() if each.name != 'xla']
    table = again.table
    assert table.cells == [cell]
    assert (table.about['official'], table.repeats(cell)) == (False, 2)
    assert table.about['made'] == ['make']
    assert np.bincount(table.folds[0]).sum() == 1438
    assert 0 < table.seconds(cell, NINTH) < 60
    judged = table.judged()
    assert judged.scores_CSN.shape == (1, 1, 1797)
    assert table.score(cell) == pytest.approx(judged.scores_CSN.mean(), abs=0.2)
