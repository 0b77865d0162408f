"""Figures of a classifier, or of a forecast of numbers, each with an interval of 95 %.

A figure is `{'value': x, 'low': x, 'high': x}`; fractions are of 1, losses in nats. Classes that do
not occur have no recall and do not count in means over classes.
"""

from typing import Any

import numpy as np
from scipy.special import log_softmax
from scipy.stats import rankdata
from scipy.stats import t as student
from sklearn import metrics

from evaluation import intervals

# What figures are called where they are shown, in their order.
HEADINGS = {
    'accuracy': 'accuracy',
    'top_5_accuracy': 'top-5 accuracy',
    'balanced_accuracy': 'balanced accuracy',
    'macro_f1': 'macro-F1',
    'log_loss': 'log loss',
    'rmse': 'RMSE',
    'mae': 'mean absolute error',
    'bias': 'bias',
    'r2': 'R2',
    'last_value_rmse': 'RMSE of the last value as forecast',
}
SHARES = ('accuracy', 'top_5_accuracy', 'balanced_accuracy', 'macro_f1')
TOP = 5
_MOST_CLASSES_WITHOUT_TOP = 10

Figure = dict[str, float | None]


def figure(value: float, low: float, high: float) -> Figure:
    """Returns a figure with its bounds; what is no number becomes None."""
    rounded = (float(x) if np.isfinite(x) else None for x in (value, low, high))
    return dict(zip(('value', 'low', 'high'), rounded, strict=True))


def losses(logits_NK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Returns the cross-entropy of each image in nats, float64 [N]."""
    log_probabilities = log_softmax(logits_NK.astype(np.float64), axis=-1)
    return -log_probabilities[np.arange(len(labels_N)), labels_N]


def proportion(hits_N: np.ndarray, groups_N: np.ndarray, level: float = intervals.LEVEL) -> Figure:
    """Returns the share of the images that are right, by Wilson's interval."""
    hits_N1 = np.asarray(hits_N, float)[:, None]
    counts = intervals.effective_counts(hits_N1, np.ones_like(hits_N1), groups_N)
    low, high = intervals.wilson(hits_N1.mean(axis=0), counts, level)
    return figure(float(np.mean(hits_N)), low[0], high[0])


def mean(values_N: np.ndarray, groups_N: np.ndarray) -> Figure:
    """Returns the mean, such as that of paired differences, by the bootstrap."""
    values_N2 = np.stack([values_N, np.ones(len(values_N))], axis=1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        return sums[..., :1] / sums[..., 1:]

    bounds = intervals.bootstrap(statistic, values_N2, groups_N)
    return figure(float(np.mean(values_N)), *bounds[:, 0])


def classification(
    logits_NK: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray
) -> dict[str, Any]:
    """Returns the figures of a split.

    Accuracy and top-5 accuracy (of more than 10 classes) have Wilson's interval, balanced accuracy
    and macro-F1 (means over the classes that occur) Wilson's at their variance, log loss that of
    the bootstrap.
    """
    classes = logits_NK.shape[1]
    guesses_N = logits_NK.argmax(axis=1)
    figures = {'accuracy': proportion(guesses_N == labels_N, groups_N)}
    if classes > _MOST_CLASSES_WITHOUT_TOP:
        best_NT = np.argpartition(-logits_NK, TOP - 1, axis=1)[:, :TOP]
        figures['top_5_accuracy'] = proportion((best_NT == labels_N[:, None]).any(1), groups_N)
    values_NC = _counted(guesses_N, labels_N, classes)
    there_K = np.bincount(labels_N, minlength=classes) > 0

    def means(sums: np.ndarray) -> np.ndarray:
        hits, counts, guesses = (part[..., there_K] for part in np.split(sums, 3, axis=-1))
        recall = hits / np.maximum(counts, 1)
        f1 = 2 * hits / np.maximum(counts + guesses, 1)
        return np.stack([recall.mean(axis=-1), f1.mean(axis=-1)], axis=-1)

    labelled_NK = values_NC[:, classes : 2 * classes][:, there_K]
    low, high = intervals.mean_of_classes(means, values_NC, labelled_NK, groups_N)
    values = means(values_NC.sum(axis=0))
    for i, name in enumerate(('balanced_accuracy', 'macro_f1')):
        figures[name] = figure(values[i], low[i], high[i])
    figures['log_loss'] = mean(losses(logits_NK, labels_N), groups_N)
    return {'examples': len(labels_N), **figures}


def _counted(guesses_N: np.ndarray, labels_N: np.ndarray, classes: int) -> np.ndarray:
    """Returns, of each image and class, [N, 3K]: whether hit, whether labelled, whether guessed."""
    one_NK = np.eye(classes)
    labelled_NK, guessed_NK = one_NK[labels_N], one_NK[guesses_N]
    return np.concatenate([labelled_NK * guessed_NK, labelled_NK, guessed_NK], axis=1)


def per_class(
    logits_NK: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray
) -> list[dict[str, Any]]:
    """Returns `examples`, `predicted`, `precision`, `recall` and `f1` of each class.

    Precision and recall have Wilson's interval. F1 is 2J / (1 + J), where J is the share of hits
    among the images that have the class as label or prediction, so its bounds are those of J.
    """
    classes = logits_NK.shape[1]
    hits, labelled, guessed = np.split(_counted(logits_NK.argmax(1), labels_N, classes), 3, axis=1)
    shares = {}
    for name, among in (
        ('precision', guessed),
        ('recall', labelled),
        ('f1', np.maximum(labelled, guessed)),
    ):
        with np.errstate(all='ignore'):
            share = hits.sum(axis=0) / among.sum(axis=0)
        bounds = intervals.wilson(share, intervals.effective_counts(hits, among, groups_N))
        shares[name] = np.stack([share, *bounds])
    shares['f1'] = 2 * shares['f1'] / (1 + shares['f1'])
    return [
        {
            'examples': int(labelled[:, k].sum()),
            'predicted': int(guessed[:, k].sum()),
            **{name: figure(*shares[name][:, k]) for name in ('precision', 'recall', 'f1')},
        }
        for k in range(classes)
    ]


def confusion(guesses_N: np.ndarray, labels_N: np.ndarray, classes: int) -> np.ndarray:
    """Returns the counts [true, predicted]."""
    return metrics.confusion_matrix(labels_N, guesses_N, labels=range(classes))


def confused_pairs(counts_KK: np.ndarray, at_most: int) -> list[tuple[int, int, int]]:
    """Returns (true, predicted, count) of the pairs confused most often, most often first."""
    wrong = counts_KK - np.diag(np.diag(counts_KK))
    order = np.argsort(-wrong, axis=None, kind='stable')[:at_most]
    rows, columns = np.unravel_index(order, wrong.shape)
    found = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(i, j, int(wrong[i, j])) for i, j in found if wrong[i, j]]


# Two classes.


def two_classes(
    logits_N2: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray
) -> dict[str, Any] | None:
    """Returns ROC AUC, average precision and curves of the second class; None if one is absent."""
    if len(np.unique(labels_N)) < 2:
        return None
    scores_N = margins(logits_N2)
    false, true, _ = metrics.roc_curve(labels_N, scores_N)
    precision, recall, _ = metrics.precision_recall_curve(labels_N, scores_N)
    return {
        'roc_auc': roc_auc(scores_N, labels_N, groups_N),
        'average_precision': float(metrics.average_precision_score(labels_N, scores_N)),
        'roc': {'false_positive_rate': false.tolist(), 'true_positive_rate': true.tolist()},
        'pr': {'recall': recall.tolist(), 'precision': precision.tolist()},
    }


def margins(logits_N2: np.ndarray) -> np.ndarray:
    """Returns the log odds of the second of two classes, float64 [N]."""
    return logits_N2[:, 1].astype(np.float64) - logits_N2[:, 0]


def roc_auc(scores_N: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray) -> Figure:
    """Returns the area under the ROC curve.

    Its interval is that of DeLong et al. 1988, equations 4 to 7, on the scale of log odds (so that
    it ends before 1), with the components summed by group and a factor for each class as of
    Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data", section 2, and the
    quantile of t at the degrees of freedom of the rarer class. Without bounds where a class has
    fewer than two groups.
    """
    positive = labels_N == 1
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores_N)
    parts = np.empty(len(scores_N))
    # Share of the other class that each image stands on the right side of.
    parts[positive] = (ranks[positive] - rankdata(scores_N[positive])) / n
    parts[~positive] = 1 - (ranks[~positive] - rankdata(scores_N[~positive])) / m
    area = float(parts[positive].mean())
    members_N2 = np.stack([positive / m, ~positive / n], axis=1)
    number, group_N = np.unique(groups_N, return_inverse=True)
    there_2 = (intervals.group_sums(members_N2, group_N) > 0).sum(axis=0)
    if there_2.min() < 2:
        return figure(area, np.nan, np.nan)
    sums_G2 = intervals.group_sums((parts - area)[:, None] * members_N2, group_N)
    own_2 = there_2 / (there_2 - 1) * (sums_G2**2).sum(axis=0)
    both = 2 * len(number) / (len(number) - 1) * sums_G2.prod(axis=1).sum()
    error = np.sqrt(max(own_2.sum() + both, 0.0))
    inside = np.clip(area, 0.5 / (m * n), 1 - 0.5 / (m * n))
    # Of classes that are told apart without an error the components do not vary.
    error = max(
        error, np.sqrt(inside * (1 - inside) / there_2.min()) if area in (0.0, 1.0) else 0.0
    )
    middle = np.log(inside / (1 - inside))
    quantile = student.ppf((1 + intervals.LEVEL) / 2, there_2.min() - 1)
    half = quantile * error / (inside * (1 - inside))
    low, high = (1 / (1 + np.exp(-(middle + side * half))) for side in (-1, 1))
    return figure(area, min(low, area), max(high, area))


def best_threshold(margins_N: np.ndarray, labels_N: np.ndarray) -> float:
    """Returns the log odds above which to say the second class, for the highest balanced accuracy.

    Youden 1950, "Index for rating diagnostic tests"; halfway to the next lower score. 0, which is
    the most probable class, where one of the classes is absent.
    """
    if len(np.unique(labels_N)) < 2:
        return 0.0
    false, true, thresholds = metrics.roc_curve(labels_N, margins_N, drop_intermediate=False)
    best = int(np.argmax(true - false))
    threshold = float(min(thresholds[best], margins_N.max() + 1))
    lower = margins_N[margins_N < threshold]
    return float((threshold + lower.max()) / 2) if len(lower) else threshold - 1


# Numbers.


def regression(
    predictions_N: np.ndarray,
    targets_N: np.ndarray,
    groups_N: np.ndarray,
    last_values_N: np.ndarray | None,
) -> dict[str, Any]:
    """Returns RMSE, MAE, bias (the mean error) and R2, by the bootstrap, in units of the target.

    Args:
      predictions_N: float64.
      targets_N: what they should be.
      groups_N: number of each example's group.
      last_values_N: of a series the last value before each target, whose RMSE is given too.
    """
    targets_N = targets_N.astype(np.float64)
    errors_N = predictions_N - targets_N
    # Around the mean, so that squares do not lose digits.
    centred_N = targets_N - targets_N.mean()
    columns = [np.ones(len(targets_N)), errors_N, np.abs(errors_N), errors_N**2, centred_N,
               centred_N**2]  # fmt: skip
    names = ['bias', 'mae', 'rmse', 'r2']
    if last_values_N is not None:
        columns.append((last_values_N - targets_N) ** 2)
        names.append('last_value_rmse')
    values_NC = np.stack(columns, axis=1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        count, error, absolute, square, level, spread, *last = np.moveaxis(sums, -1, 0)
        variance = spread / count - (level / count) ** 2
        figures = [error / count, absolute / count, np.sqrt(square / count)]
        figures.append(1 - square / count / variance)
        return np.stack(figures + [np.sqrt(other / count) for other in last], axis=-1)

    with np.errstate(all='ignore'):
        values = statistic(values_NC.sum(axis=0))
    bounds = intervals.bootstrap(statistic, values_NC, groups_N)
    found = {name: figure(values[i], *bounds[:, i]) for i, name in enumerate(names)}
    return {'examples': len(targets_N), **found}
