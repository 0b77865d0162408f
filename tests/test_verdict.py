"""Verdicts: numbers by hand, errors in simulation, and what groups, weights and other nets do."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, t
from sklearn import metrics

from benchmarks import verdict as simulator
from errors import UserError
from evaluation.costs import Costs
from selection import looks, verdict
from selection.verdict import Evidence

DELTA = 0.01


def folds_of(repeats, images, folds=4, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(images) % folds for _ in range(repeats)])


def evidence(scores, folds_MN, groups=None, weights=None, scale=1.0):
    images = folds_MN.shape[1]
    groups = np.arange(images) if groups is None else groups
    weights = np.ones(images) if weights is None else weights
    return Evidence(scores, folds_MN, groups, weights, scale)


def simulated(gains, count, seed, images=400):
    """Evidence of candidates a, b, ... at an accuracy of 0.9."""
    setting = simulator.Setting(accuracy=0.9, images=images)
    for _, scores, design in simulator.simulate(setting, np.array([gains]), count, seed):
        for each in scores:
            yield evidence(dict(zip('abcdefg', each, strict=False)), design.folds_MN)


@pytest.fixture(scope='module')
def one():
    return next(simulated([0.01, 0.0, 0.0, 0.0, -0.3], 1, 5))


@pytest.mark.parametrize('level', [0.05, 0.0125])
def test_all_looks_together_are_wrong_at_the_level(level):
    bounds = np.array([looks.critical(look, level) for look in (1, 2, 3)])
    assert bounds[0] / bounds[2] == pytest.approx(3**0.25)
    order = np.arange(1, 4)
    correlations = np.sqrt(np.minimum.outer(order, order) / np.maximum.outer(order, order))
    quiet = multivariate_normal(cov=correlations).cdf(bounds)
    assert 1 - quiet == pytest.approx(level, abs=2e-4)


def test_the_half_width_is_that_of_the_formulas():
    # Two repeats of two folds of four images; differences by hand.
    folds_MN = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]])
    differences_MN = np.array([[1, 1, 0, 0, 0, 0, 0, -1], [1, 0, 0, 0, 0, 1, 0, -1]], float)
    b = np.full((2, 8), 0.5)
    found = evidence({'a': b + differences_MN, 'b': b}, folds_MN).compare('a', 'b', DELTA)
    assert found.difference == pytest.approx(2 / 16)
    # Means of images over repeats 1, 0.5, 0, 0, 0, 0.5, 0, -1; fold means 0.5, -0.25; 0.25, 0.
    at_images = (2.5 - 8 * 0.125**2) / 7 / 8
    one_repeat = (3 - 8 * 0.125**2) / 7
    square = (0.75**2 / 2 + 0.25**2 / 2) / 2
    run = square - one_repeat / 4
    variance = at_images + run / 4
    freedom = variance**2 / ((square / 4) ** 2 / 2 + at_images**2 / 7)
    critical = looks.critical(2, 0.05)
    half = t.isf(norm.sf(critical), freedom) * np.sqrt(variance)
    assert found.half_width == pytest.approx(half)
    assert (found.answer, found.runs) == ('cannot tell', 4)


@pytest.mark.parametrize(
    ('difference', 'half', 'answer'),
    [
        (0.015, 0.01, 'better'), (0.004, 0.003, 'better'), (0.0, 0.009, 'no better'),
        (-0.02, 0.01, 'worse'), (-0.005, 0.01, 'no better'), (0.005, 0.006, 'cannot tell'),
    ],
)  # fmt: skip
def test_the_first_answer_that_holds_is_given(difference, half, answer):
    assert str(verdict.answers(difference, (half, half), DELTA)) == answer


def test_errors_and_power_are_those_promised_and_others_promise_less():
    figures = simulator.shares(simulator.Setting(images=1400), 1000, seed=4)
    ours = figures['Leadline']
    assert ours['wrong_better'] < 0.06
    assert ours['wrong_no_better_at_delta'] < 0.06
    assert ours['wrong_no_better_at_2_delta'] < 0.005
    assert ours['better_at_2_delta'] > 0.9
    assert ours['better_at_delta'] > 0.4
    assert ours['cannot_tell_at_0'] < 0.55
    assert figures['corrected t-test']['better_at_2_delta'] < 0.7
    assert figures['McNemar, one run']['wrong_better'] > 0.06
    assert figures['Bayesian, region']['wrong_better'] < 0.01


def test_choosing_the_best_looking_is_allowed_for_by_holm():
    found = simulator.selected(500, seed=5)
    assert found['wrong_better_alone'] > 0.07
    assert found['holm'] < 0.07


def test_the_simulator_asks_the_rule_that_users_are_answered_by():
    setting, gains_GC = simulator.Setting(accuracy=0.9, images=400), np.array([[0.02, 0.0]])
    ((_, scores, design),) = simulator.simulate(setting, gains_GC, 20, seed=6)
    answers = simulator.ours_by_look(scores, design)
    for look in range(3):
        for i in np.flatnonzero(answers[look - 1] == 'cannot tell') if look else range(20):
            own = dict(zip('ab', scores[i, :, : look + 1], strict=True))
            found = evidence(own, design.folds_MN).compare('a', 'b', DELTA)
            assert found.answer == answers[look][i]


def test_intervals_hold_the_accuracy():
    bounds = np.array([each.interval('a') for each in simulated([0.0, 0.0], 300, 7)])
    assert np.mean((bounds[:, 0] < 0.9) & (bounds[:, 1] > 0.9)) > 0.92
    assert 0.03 < np.diff(bounds).mean() < 0.08


def test_images_of_one_group_are_one_piece_of_evidence(one):
    copied = {name: np.repeat(scores, 4, axis=1) for name, scores in one.scores.items()}
    groups, folds_MN = np.repeat(np.arange(400), 4), np.repeat(one.folds_MN, 4, axis=1)
    alone, grouped, ungrouped = (
        each.compare('a', 'b', DELTA)
        for each in (one, evidence(copied, folds_MN, groups), evidence(copied, folds_MN))
    )
    assert grouped.half_width == pytest.approx(alone.half_width)
    assert ungrouped.half_width < 0.8 * alone.half_width


def test_weights_give_balanced_accuracy():
    rng = np.random.default_rng(8)
    labels = rng.choice(3, 300, p=[0.7, 0.2, 0.1])
    logits = rng.normal(size=(300, 3)) + 2 * np.eye(3)[labels]
    scores = {'a': verdict.scores_of(logits, labels, 'balanced_accuracy')[None]}
    weights = verdict.weights_of(labels, 'balanced_accuracy')
    assert weights.mean() == pytest.approx(1)
    expected = metrics.balanced_accuracy_score(labels, logits.argmax(axis=1))
    found = evidence(scores, folds_of(1, 300), weights=weights)
    assert found.mean('a') == pytest.approx(expected)
    low, high = found.interval('a')
    assert low < expected < high <= 1


def test_scores_are_more_for_what_is_better():
    logits, labels = np.log([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1]]), np.array([0, 0])
    assert verdict.scores_of(logits, labels, 'accuracy').tolist() == [1, 0]
    np.testing.assert_allclose(
        verdict.scores_of(logits, labels, 'log_loss'), np.log([0.7, 0.4]), rtol=1e-12
    )
    costs = Costs(['a', 'b', 'c'], np.array([[0, 1, 9], [9, 0, 9], [9, 9, 0]]))
    assert verdict.scores_of(logits, labels, 'cost', costs).tolist() == [-1, -1]
    with pytest.raises(ValueError, match='cost matrix'):
        verdict.scores_of(logits, labels, 'cost')
    with pytest.raises(ValueError, match='no measure'):
        verdict.scores_of(logits, labels, 'f1')


def test_units_do_not_matter(one):
    scores = {name: -20 * (1 - each) for name, each in one.scores.items()}
    plain, scaled = one, evidence(scores, one.folds_MN, scale=20.0)
    verdicts = plain.compare('a', 'b', DELTA), scaled.compare('a', 'b', 20 * DELTA)
    assert verdicts[0].answer == verdicts[1].answer
    assert verdicts[1].half_width == pytest.approx(20 * verdicts[0].half_width)
    assert scaled.resolution() == pytest.approx(20 * plain.resolution())


def test_only_repeats_of_both_are_compared(one):
    fewer = {**one.scores, 'b': one.scores['b'][:1]}
    first = {name: scores[:1] for name, scores in one.scores.items()}
    found, expected = (
        evidence(scores, one.folds_MN).compare('a', 'b', DELTA) for scores in (fewer, first)
    )
    assert found.runs == 4
    assert found.difference == pytest.approx(expected.difference)


def test_runs_of_near_candidates_tell_of_the_pairs_and_far_ones_do_not(one):
    def half_width(found, names):
        first = {name: found.scores[name][:1] for name in names}
        return evidence(first, found.folds_MN).compare('a', 'b', DELTA).half_width

    assert half_width(one, 'abe') == half_width(one, 'ab')
    assert half_width(one, 'abcd') != half_width(one, 'ab')
    each = list(simulated([0.0] * 4, 60, 9))
    widths = np.array([[half_width(found, names) for names in ('ab', 'abcd')] for found in each])
    assert widths[:, 1].mean() < 0.95 * widths[:, 0].mean()
    assert widths[:, 1].std() < 0.8 * widths[:, 0].std()


def test_agreement_on_few_images_proves_nothing():
    def compare(images):
        same = np.ones((1, images))
        return evidence({'a': same, 'b': same}, folds_of(1, images)).compare('a', 'b', DELTA)

    assert compare(60).answer == 'cannot tell'
    assert compare(2000).answer == 'no better'


def test_the_runs_that_would_settle_it_bring_the_half_width_there():
    ratios = []
    for full in simulated([0.004, -0.004], 120, 10, images=1400):
        first = {name: scores[:1] for name, scores in full.scores.items()}
        found = evidence(first, full.folds_MN).compare('a', 'b', 0.03)
        if found.settle.runs != 8:
            continue
        needed = max(found.difference, 0.03 - found.difference)
        ratios.append(full.compare('a', 'b', 0.03).half_width / needed)
        assert found.settle.sentence == 'About 8 more runs of each would settle it.'
    # After as many runs it is below what was needed, after half as many it would not have been.
    assert len(ratios) > 10
    assert 0.7 < np.mean(ratios) < 1.0


def test_where_no_runs_would_do_images_would():
    def compare(images, repeats):
        # Of 20 images the candidates always differ on two, one each way; so does each fold.
        pattern_N = np.tile(np.arange(20), images // 20)
        a, b = (np.tile((pattern_N != k).astype(float), (repeats, 1)) for k in (0, 1))
        folds_MN = (np.arange(images) // 20 + np.arange(repeats)[:, None]) % 4
        groups, weights = np.arange(images), np.ones(images)
        found = Evidence({'a': a, 'b': b}, folds_MN, groups, weights, looks=max(3, repeats))
        return found.compare('a', 'b', DELTA)

    few = compare(400, 3)
    assert (few.answer, few.settle.runs) == ('cannot tell', None)
    assert few.settle.images > 400
    assert f'{few.settle.images:,} more images' in few.settle.sentence
    enough = 400 + few.settle.images
    assert compare(enough + 20 - enough % 20, 10).answer == 'no better'
    assert compare(enough // 40 * 20, 10).answer == 'cannot tell'


def test_holm_is_the_rule_alone_for_one_question_and_stricter_for_more(one):
    alone = one.compare('a', 'b', DELTA)
    assert verdict.holm(one, [('a', 'b')], DELTA) == [alone]
    several = verdict.holm(one, [('a', 'b'), ('c', 'd'), ('b', 'e')], DELTA)
    assert several[0].half_width > alone.half_width
    assert several[2].answer == 'better'
    # The surest is asked at a third of the level, the next, as that one held, at half of it.
    strict = one.compare('b', 'e', DELTA, level=0.05 / 3)
    assert several[2].half_width == strict.half_width
    assert several[0].difference == alone.difference


def test_the_resolution_is_of_candidates_near_the_best(one):
    near = evidence({name: one.scores[name] for name in 'abcd'}, one.folds_MN)
    assert one.resolution() == pytest.approx(near.resolution())
    half = one.compare('a', 'b', DELTA).half_width
    assert 0.5 * half < one.resolution() < 1.5 * half


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({'scores': {'a': np.ones((1, 9))}}, "'a' has scores"),
        ({'scores': {'a': np.full((1, 8), np.nan)}}, 'no numbers'),
        ({'folds_MN': np.zeros((1, 8), int)}, 'two folds'),
        ({'folds_MN': np.array([[0, 0, 0, 0, 2, 2, 2, 2]])}, 'without images'),
        ({'groups_N': np.zeros(8, int)}, 'two groups'),
        ({'groups_N': np.array([0, 1, 2, 3, 3, 4, 5, 6])}, 'one fold'),
        ({'weights_N': np.ones(7)}, '8 images'),
        ({'weights_N': np.zeros(8)}, 'above 0'),
        ({'looks': 0}, '0 looks are planned'),
    ],
)
def test_evidence_that_does_not_fit_is_refused(change, text):
    fields = {
        'scores': {'a': np.ones((1, 8))}, 'folds_MN': np.array([[0, 0, 0, 0, 1, 1, 1, 1]]),
        'groups_N': np.arange(8), 'weights_N': np.ones(8),
    }  # fmt: skip
    Evidence(**fields)
    with pytest.raises(ValueError, match=text):
        Evidence(**fields | change)


def test_questions_that_make_no_sense_are_refused(one):
    with pytest.raises(UserError, match='above 0, not 0'):
        one.compare('a', 'b', 0.0)
    with pytest.raises(ValueError, match='itself'):
        one.compare('a', 'a', DELTA)
    with pytest.raises(ValueError, match="no scores of 'f'"):
        one.compare('a', 'f', DELTA)
    with pytest.raises(ValueError, match='level'):
        one.compare('a', 'b', DELTA, level=0.7)
    with pytest.raises(ValueError, match='two candidates'):
        evidence({'a': one.scores['a']}, one.folds_MN).resolution()
