"""Figures of an evaluation: scikit-learn's, or hand-made cases, with honest intervals."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest, norm
from sklearn import metrics as reference

from errors import UserError
from evaluation import calibration, costs, intervals, metrics, shown, slices, suspects

SHARES = np.array([0.5, 0.2, 0.2, 0.1])


def draw(generator, count, margin=2.3, shares=SHARES):
    """Returns logits and labels of a classifier that knows its probabilities up to a factor."""
    labels = generator.choice(len(shares), count, p=shares)
    logits = generator.normal(size=(count, len(shares)))
    logits[np.arange(count), labels] += margin
    return 2 * logits, labels


@pytest.fixture
def outputs():
    return draw(np.random.default_rng(0), 400)


def alone(labels):
    return np.arange(len(labels))


def test_figures_are_those_of_scikit_learn(outputs):
    logits, labels = outputs
    guesses = logits.argmax(1)
    figures = metrics.classification(logits, labels, alone(labels))
    for name, value in {
        'accuracy': reference.accuracy_score(labels, guesses),
        'balanced_accuracy': reference.balanced_accuracy_score(labels, guesses),
        'macro_f1': reference.f1_score(labels, guesses, average='macro'),
        'log_loss': reference.log_loss(labels, softmax(logits, axis=1)),
    }.items():
        assert figures[name]['value'] == pytest.approx(value, rel=1e-9)
        assert figures[name]['low'] < value < figures[name]['high']
    assert 'top_5_accuracy' not in figures
    rows = metrics.per_class(logits, labels, alone(labels))
    precision, recall, f1, counts = reference.precision_recall_fscore_support(labels, guesses)
    for k, row in enumerate(rows):
        found = [row[name]['value'] for name in ('precision', 'recall', 'f1')]
        assert found == pytest.approx([precision[k], recall[k], f1[k]])
        assert (row['examples'], row['predicted']) == (counts[k], (guesses == k).sum())


def test_many_classes_have_top_5_and_absent_ones_count_nowhere():
    generator = np.random.default_rng(1)
    logits, labels = draw(generator, 300, 2.0, np.full(12, 1 / 12))
    figures = metrics.classification(logits, labels, alone(labels))
    expected = reference.top_k_accuracy_score(labels, logits, k=5)
    assert figures['top_5_accuracy']['value'] == pytest.approx(expected)
    few = labels < 6
    figures = metrics.classification(logits[few], labels[few], alone(labels[few]))
    recall = reference.recall_score(
        labels[few], logits[few].argmax(1), labels=range(6), average='macro'
    )
    assert figures['balanced_accuracy']['value'] == pytest.approx(recall)
    rows = metrics.per_class(logits[few], labels[few], alone(labels[few]))
    assert rows[7]['recall'] == {'value': None, 'low': None, 'high': None}


def test_wilson_is_that_of_scipy():
    hits, counts = np.array([0, 1, 30, 36]), np.array([36, 36, 36, 36])
    low, high = intervals.wilson(hits / counts, counts)
    for i, (hit, count) in enumerate(zip(hits, counts, strict=True)):
        interval = binomtest(hit, count).proportion_ci(method='wilson')
        assert (low[i], high[i]) == pytest.approx((interval.low, interval.high))


def coverage(trials, one):
    """Returns how often the intervals of `one(generator)`, name: (figure, truth), hold it."""
    generator, held = np.random.default_rng(7), {}
    for _ in range(trials):
        for name, (figure, truth) in one(generator).items():
            held.setdefault(name, []).append(figure['low'] <= truth <= figure['high'])
    return {name: np.mean(values) for name, values in held.items()}


def test_intervals_cover_what_they_say():
    logits, labels = draw(np.random.default_rng(2), 400_000)
    truth = reference.precision_recall_fscore_support(labels, logits.argmax(1))
    whole = {
        'accuracy': (logits.argmax(1) == labels).mean(),
        'balanced_accuracy': truth[1].mean(),
        'macro_f1': truth[2].mean(),
        'log_loss': metrics.losses(logits, labels).mean(),
    }
    area = reference.roc_auc_score(labels == 0, logits[:, 0])

    def one(generator):
        logits, labels = draw(generator, 300)
        figures = metrics.classification(logits, labels, alone(labels))
        row = metrics.per_class(logits, labels, alone(labels))[1]
        of_class = zip(('precision', 'recall', 'f1'), (t[1] for t in truth[:3]), strict=True)
        auc = metrics.roc_auc(logits[:, 0], (labels == 0).astype(int), alone(labels))
        return (
            {name: (figures[name], value) for name, value in whole.items()}
            | {name: (row[name], value) for name, value in of_class}
            | {'roc_auc': (auc, area)}
        )

    # The standard error of 500 trials is one point.
    for name, share in coverage(500, one).items():
        assert 0.93 <= share <= 0.975, (name, share)


@pytest.mark.parametrize('margin', [1.0, 4.0])
def test_intervals_cover_at_other_accuracies(margin):
    """Accuracies of 0.57 and 0.98, in groups of two that have their noise in common."""

    def grouped(generator, count):
        labels = generator.choice(4, count // 2, p=SHARES)
        logits = generator.normal(size=(count // 2, 4))
        logits[np.arange(count // 2), labels] += margin
        return (2 * logits).repeat(2, axis=0), labels.repeat(2)

    logits, labels = grouped(np.random.default_rng(13), 400_000)
    accuracy = (logits.argmax(1) == labels).mean()
    recall = reference.balanced_accuracy_score(labels, logits.argmax(1))

    def one(generator):
        logits, labels = grouped(generator, 400)
        figures = metrics.classification(logits, labels, np.arange(400) // 2)
        return {
            'accuracy': (figures['accuracy'], accuracy),
            'balanced_accuracy': (figures['balanced_accuracy'], recall),
        }

    for name, share in coverage(300, one).items():
        assert 0.915 <= share <= 0.985, (name, share)


@pytest.mark.parametrize('pairs', [1, 2])
def test_few_positives_leave_the_area_uncertain(pairs):
    """Eight positives among 300, alone or each of them twice."""
    positive = np.arange(300) < 8
    groups = np.repeat(np.arange(300), pairs)

    def one(generator):
        scores = generator.normal(size=300) + 1.0 * positive
        scores, labels = scores.repeat(pairs), positive.astype(int).repeat(pairs)
        return {'area': (metrics.roc_auc(scores, labels, groups), norm.cdf(1 / np.sqrt(2)))}

    assert 0.93 <= coverage(600, one)['area'] <= 0.975


def test_groups_are_what_is_counted():
    """Eight photos of one plant are right or wrong together: without groups intervals are lies."""

    def one(generator):
        plants = generator.random(60) < 0.8
        right, groups = np.repeat(plants, 8), np.repeat(np.arange(60), 8)
        return {
            'groups': (metrics.proportion(right, groups), 0.8),
            'images': (metrics.proportion(right, np.arange(480)), 0.8),
            'bootstrap': (metrics.mean(right.astype(float), groups), 0.8),
        }

    share = coverage(200, one)
    assert 0.91 <= share['groups'] <= 0.99
    assert 0.91 <= share['bootstrap'] <= 0.99
    assert share['images'] < 0.7


def test_one_group_alone_is_one_witness():
    generator = np.random.default_rng(10)
    logits, labels = draw(generator, 40, shares=np.array([0.5, 0.5]))
    one = np.zeros(40, int)
    right = metrics.proportion(np.arange(40) < 30, one)
    assert right['high'] - right['low'] > 0.8
    figures = metrics.classification(logits, labels, one)
    for name in ('balanced_accuracy', 'macro_f1', 'log_loss'):
        assert figures[name]['value'] > 0
        assert figures[name]['low'] is figures[name]['high'] is None
    assert metrics.roc_auc(metrics.margins(logits), labels, one)['low'] is None
    numbers = metrics.regression(labels + 0.1, labels, one, None)
    assert numbers['rmse']['value'] == pytest.approx(0.1)
    assert numbers['rmse']['low'] is None
    assert shown.interval({'value': 0.9, 'low': None, 'high': None}) == '90.00 % (unknown)'


def test_a_class_that_is_absent_leaves_the_threshold_at_even_odds():
    assert metrics.best_threshold(np.array([1.0, 2, 3]), np.ones(3, int)) == 0


def test_two_classes_have_curves_and_a_threshold():
    generator = np.random.default_rng(3)
    labels = (generator.random(500) < 0.1).astype(int)
    margins = generator.normal(size=500) + 2 * labels - 3
    logits = np.stack([np.zeros(500), margins], axis=1)
    figures = metrics.two_classes(logits, labels, alone(labels))
    assert figures['roc_auc']['value'] == pytest.approx(reference.roc_auc_score(labels, margins))
    expected = reference.average_precision_score(labels, margins)
    assert figures['average_precision'] == pytest.approx(expected)
    threshold = metrics.best_threshold(margins, labels)
    assert -3 < threshold < -1
    best = reference.balanced_accuracy_score(labels, margins > threshold)
    others = [reference.balanced_accuracy_score(labels, margins > t) for t in margins]
    assert best == pytest.approx(max(others))
    told_apart = metrics.roc_auc(np.array([0.0, 1, 2, 3]), np.array([0, 0, 1, 1]), np.arange(4))
    assert told_apart['value'] == 1
    assert told_apart['low'] < 0.9


def test_numbers_have_figures_of_scikit_learn():
    generator = np.random.default_rng(4)
    targets = 1000 + generator.normal(size=200)
    predictions = targets + generator.normal(0.1, 0.3, 200)
    figures = metrics.regression(predictions, targets, alone(targets), targets - 1)
    for name, value in {
        'rmse': reference.root_mean_squared_error(targets, predictions),
        'mae': reference.mean_absolute_error(targets, predictions),
        'r2': reference.r2_score(targets, predictions),
        'bias': (predictions - targets).mean(),
        'last_value_rmse': 1.0,
    }.items():
        assert figures[name]['value'] == pytest.approx(value)
    assert figures['rmse']['low'] < figures['rmse']['value'] < figures['rmse']['high']


# Calibration.


@pytest.mark.parametrize('temperature', [0.4, 2.5])
def test_the_temperature_of_a_miscalibrated_net_is_found(temperature):
    generator = np.random.default_rng(5)
    exact = 2 * generator.normal(size=(4000, 5))
    chances = softmax(exact, axis=1).cumsum(axis=1)
    labels = (generator.random((4000, 1)) > chances).sum(axis=1).clip(0, 4)
    logits = exact * temperature
    found = calibration.fit_temperature(logits, labels)
    assert found.value == pytest.approx(temperature, rel=0.06)
    assert not found.undetermined
    before = calibration.reliability(logits, labels, alone(labels))
    scaled = calibration.cross_fitted(logits, labels, alone(labels))
    after = calibration.reliability(scaled, labels, alone(labels))
    assert before['expected_calibration_error'] > before['if_calibrated']['high']
    assert after['expected_calibration_error'] < after['if_calibrated']['high']


def test_calibration_error_of_a_hand_made_case():
    # Four of probability 0.8 (three right), four of 0.6 (all right): (4 * 0.05 + 4 * 0.4) / 8.
    chances = np.repeat([[0.8, 0.2], [0.6, 0.4]], 4, axis=0)
    labels = np.array([0, 0, 0, 1, 0, 0, 0, 0])
    found = calibration.reliability(np.log(chances), labels, alone(labels))
    assert found['expected_calibration_error'] == pytest.approx(0.225)
    assert [b['examples'] for b in found['bins'] if b['examples']] == [4, 4]


def test_few_errors_tell_little_of_the_temperature():
    labels = np.arange(60) % 3
    logits = 5 * np.eye(3)[labels]
    found = calibration.fit_temperature(logits, labels)
    assert found.undetermined
    assert 0.5 < found.value < 1
    # One error in one fold: the other folds fit a temperature for it without any.
    labels[7] = 2
    assert not calibration.fit_temperature(logits, labels).undetermined
    scaled = calibration.cross_fitted(logits, labels, alone(labels))
    assert np.abs(scaled / np.maximum(logits, 1e-9)).max() < 2
    # No better than chance, and sure of it.
    half = calibration.fit_temperature(20 * np.eye(2)[np.arange(16) % 2], np.arange(16) // 8)
    assert half.undetermined
    assert 2 < half.value < 50


def test_calibration_counts_groups():
    """Exact probabilities, but eight photos of one plant are right or wrong together."""
    generator = np.random.default_rng(11)
    beyond, of_images, held, groups = [], [], [], np.repeat(np.arange(40), 8)
    for _ in range(40):
        chances = np.repeat(generator.uniform(0.55, 0.98, 40), 8)
        labels = np.repeat(generator.random(40), 8) > chances
        logits = np.log(np.stack([chances, 1 - chances], axis=1))
        labels = labels.astype(int)
        found = calibration.reliability(logits, labels, groups)
        beyond.append(found['expected_calibration_error'] > found['if_calibrated']['high'])
        images = calibration.reliability(logits, labels, alone(labels))
        of_images.append(found['expected_calibration_error'] > images['if_calibrated']['high'])
        held += [b['accuracy']['low'] <= b['confidence'] <= b['accuracy']['high']
                 for b in found['bins'] if b['examples']]  # fmt: skip
    assert np.mean(beyond) < 0.13
    assert np.mean(of_images) > 0.5
    assert np.mean(held) > 0.9


# Costs.

NAMES = ['benign', 'malign']


def matrix(folder, text):
    path = folder / 'costs.csv'
    path.write_text(text)
    return path


def test_costs_flip_the_decision_where_they_must(tmp_path):
    path = matrix(tmp_path, ',malign,reject,benign\nmalign,0,3,20\nbenign,1,3,0\n')
    found = costs.read(path, NAMES)
    assert found.decisions == ['benign', 'malign', 'reject']
    assert found.matrix_KD.tolist() == [[0, 1, 3], [20, 0, 3]]
    # To say benign costs 20 p, malign 1 - p: malign from p = 1 / 21 on.
    chances = np.array([[0.96, 0.04], [0.94, 0.06], [0.3, 0.7]])
    assert costs.decide(chances, found).tolist() == [0, 1, 1]
    generator = np.random.default_rng(6)
    p = generator.beta(1, 4, 2000)
    labels = (generator.random(2000) < p).astype(int)
    result = costs.compare(np.stack([1 - p, p], 1), labels, alone(labels), found)
    assert result['difference']['high'] < 0
    expected = result['cost_optimal']['value'] - result['argmax']['value']
    assert result['difference']['value'] == pytest.approx(expected)
    assert result['argmax']['value'] == pytest.approx(
        (20 * ((labels == 1) & (p < 0.5)) + ((labels == 0) & (p > 0.5))).mean()
    )


def test_doubt_is_rejected_where_that_is_cheaper(tmp_path):
    found = costs.read(matrix(tmp_path, ',benign,malign,reject\nbenign,0,1,.2\nmalign,1,0,.2\n'),
                       NAMES)  # fmt: skip
    assert costs.decide(np.array([[0.9, 0.1], [0.6, 0.4]]), found).tolist() == [0, 2]


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        (',benign\nbenign,0\nmalign,1\n', 'no column for malign'),
        (',benign,malign\nbenign,0,1\n', 'no row for malign'),
        (',benign,malign\nbenign,0,1\nmalign,1,0\nmalinge,1,0\n', "Did you mean 'malign'"),
        (',benign,malign\nbenign,0,much\nmalign,1,0\n', "decision malign: 'much'"),
        (',benign,malign\nbenign,0\nmalign,1,0\n', "decision malign: ''"),
        (',benign,malign\nbenign,0,1,2\nmalign,1,0\n', '3 costs for 2 decisions'),
        (',benign,malign,malign\nbenign,0,1,1\nmalign,1,0,0\n', 'more than once'),
        ('', 'holds no cost matrix'),
    ],
)
def test_a_wrong_cost_matrix_is_named(tmp_path, text, problem):
    with pytest.raises(UserError, match=problem):
        costs.read(matrix(tmp_path, text), NAMES)


# Slices and suspects.


def test_a_slice_that_is_harder_is_named_and_chance_is_not():
    generator = np.random.default_rng(8)
    sites = generator.choice(['a', 'b', 'c'], 600)
    right = generator.random(600) < np.where(sites == 'b', 0.7, 0.95)
    found = slices.judge({'site': sites}, right, np.arange(600))
    assert (found['worst']['by'], found['worst']['value']) == ('site', 'b')
    assert found['worst']['p'] < 0.001
    assert 'more than chance' in found['note']
    assert found['worst']['simultaneous']['low'] < found['worst']['accuracy']['low']
    alarms = 0
    for _ in range(60):
        ways = {str(i): generator.choice(['a', 'b', 'c'], 300) for i in range(4)}
        found = slices.judge(ways, generator.random(300) < 0.9, np.arange(300))
        alarms += found['worst']['p'] < 0.05
    assert alarms <= 6


def test_slices_of_groups_are_judged_by_groups():
    """Eight photos of one plant are right or wrong together; its site has nothing to do with it."""
    generator = np.random.default_rng(12)
    groups, alarms = np.repeat(np.arange(60), 8), []
    for _ in range(50):
        sites = {'site': generator.integers(4, size=60).repeat(8).astype(str)}
        right = (generator.random(60) < 0.8).repeat(8)
        found = [slices.judge(sites, right, g) for g in (groups, np.arange(480))]
        alarms.append([f['worst']['p'] < 0.05 for f in found])
    of_groups, of_images = np.mean(alarms, axis=0)
    assert of_groups < 0.13
    assert of_images > 0.3
    right = np.where(sites['site'] == '0', generator.random(60).repeat(8) < 0.3, right)
    assert slices.judge(sites, right, groups)['worst']['value'] == '0'


def test_the_worst_slice_is_one_that_chance_does_not_explain():
    camera = np.repeat(['small', 'large', 'rest'], [10, 400, 600])
    right = np.concatenate([np.arange(10) < 6, np.arange(400) < 300, np.arange(600) < 580])
    found = slices.judge({'camera': camera}, right, np.arange(1010))
    assert found['worst']['value'] == 'large'
    assert 'more than chance' in found['note']


def test_slices_follow_folders_sizes_and_brightness():
    names = [f'oak/{site}/{i}.jpg' for i, site in enumerate(['north', 'south'] * 3)]
    files = {'width': np.arange(1, 7), 'height': np.ones(6, int), 'mode': np.full(6, 'RGB')}
    images = np.arange(6, dtype=np.uint8).repeat(12).reshape(6, 2, 2, 3)
    found = slices.candidates(images, names, ['oak'] * 6, files, {'camera': np.arange(6) % 2})
    assert found['folder'].tolist() == ['north', 'south'] * 3
    assert found['image size'].tolist()[::5] == ['the smallest third', 'the largest third']
    assert found['brightness'].tolist()[::5] == ['the darkest third', 'the brightest third']
    assert set(found) == {'camera', 'folder', 'image size', 'brightness'}
    columns = {'brightness': np.asarray(['low', 'high'] * 3)}
    found = slices.candidates(images, names, ['oak'] * 6, files, columns)
    assert found['column brightness'].tolist() == ['low', 'high'] * 3
    assert found['brightness'].tolist()[0] == 'the darkest third'


def test_wrong_labels_are_first_among_the_suspects():
    generator = np.random.default_rng(9)
    logits, labels = draw(generator, 1000, 4.0)
    planted = generator.choice(1000, 20, replace=False)
    given = labels.copy()
    given[planted] = (labels[planted] + generator.integers(1, 4, 20)) % 4
    found = suspects.find(softmax(logits, axis=1), given)
    assert (found.suggestion_N != given)[found.flagged_N].all()
    assert np.isin(planted, found.order_N[:50]).mean() >= 0.9
    assert found.flagged_N[planted].mean() >= 0.7
    assert found.flagged_N.mean() < 0.08
