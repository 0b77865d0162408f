"""Whether probabilities can be believed: reliability, and one temperature that mends them.

Guo et al. 2017, "On calibration of modern neural networks".
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from evaluation import intervals, metrics

BINS = 15
_FOLDS = 5
_RANGE = (0.01, 100.0)  # Of temperatures.
_PRIOR_DEVIATION = 1.0  # Of the logarithm of a temperature: 95 % between 1/7 and 7.
_DRAWS = 1000


class Temperature(NamedTuple):
    """What logits are divided by.

    Attributes:
      value: one temperature.
      undetermined: whether the prior alone keeps it finite, since no prediction is wrong (so that
        the log loss falls with the temperature for ever), or the logits of the labels are no
        higher than others are on average (so that it falls with ever higher temperatures).
    """

    value: float
    undetermined: bool


def fit_temperature(logits_NK: np.ndarray, labels_N: np.ndarray) -> Temperature:
    """Returns the temperature with the least log loss (Guo et al. 2017, section 4.2).

    Few examples have an extreme one, or none, so the estimate is the mode of the posterior under a
    normal prior on the logarithm of the temperature, around 0 (Bishop 2006, "Pattern recognition
    and machine learning", section 4.5): the prior counts where there are few errors, and does not
    where there are many.
    """
    logits_NK = logits_NK.astype(np.float64)

    def loss(log_temperature: float) -> float:
        losses_N = metrics.losses(logits_NK / np.exp(log_temperature), labels_N)
        return float(losses_N.sum() + (log_temperature / _PRIOR_DEVIATION) ** 2 / 2)

    best = minimize_scalar(loss, bounds=np.log(_RANGE), method='bounded', options={'xatol': 1e-5})
    faultless = (logits_NK.argmax(axis=1) == labels_N).all()
    clueless = logits_NK[np.arange(len(labels_N)), labels_N].mean() <= logits_NK.mean()
    return Temperature(float(np.exp(best.x)), bool(faultless or clueless))


def folds(groups_N: np.ndarray, seed: int = 0) -> np.ndarray:
    """Deals images in whole groups to 5 folds at random: the number of each image's, [N]."""
    number, group_N = np.unique(groups_N, return_inverse=True)
    dealt = np.arange(len(number)) % _FOLDS
    return np.random.default_rng(seed).permutation(dealt)[group_N]


def cross_fitted(logits_NK: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """Returns the logits divided by temperatures, each fitted on the other folds."""
    scaled_NK = np.array(logits_NK, np.float64)
    fold_N = folds(groups_N)
    for fold in np.unique(fold_N):
        mine = fold_N == fold
        if not mine.all():
            scaled_NK[mine] /= fit_temperature(logits_NK[~mine], labels_N[~mine]).value
    return scaled_NK


def reliability(
    logits_NK: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray
) -> dict[str, Any]:
    """Returns the reliability diagram and the expected calibration error.

    Guo et al. 2017, section 2, equations 2, 3 and 5: 15 bins of equal width by the probability of
    the prediction.

    Args:
      logits_NK: of the images.
      labels_N: the truth.
      groups_N: number of each image's group.

    Returns:
      `expected_calibration_error`; `if_calibrated`, within which 95 % of such errors lie for a net
      whose probabilities are exact (the error is never 0 in a finite set: Bröcker and Smith
      2007, "Increasing the reliability of reliability diagrams"), and whose images of one group
      are right and wrong together as far as their probabilities allow; `mean_confidence`; and
      `bins`: `from`, `to`, `examples`, `confidence` and `accuracy` (None where there are none).
    """
    probabilities_NK = softmax(logits_NK.astype(np.float64), axis=1)
    confidence_N = probabilities_NK.max(axis=1)
    right_N = (logits_NK.argmax(axis=1) == labels_N).astype(float)
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    counts_B = np.bincount(bin_N, minlength=BINS)
    confidence_B = np.bincount(bin_N, weights=confidence_N, minlength=BINS)
    right_B = np.bincount(bin_N, weights=right_N, minlength=BINS)
    with np.errstate(all='ignore'):
        share_B = right_B / counts_B
    inside_NB = np.eye(BINS)[bin_N]
    worth_B = intervals.effective_counts(inside_NB * right_N[:, None], inside_NB, groups_N)
    low_B, high_B = intervals.wilson(share_B, worth_B)
    number, group_N = np.unique(groups_N, return_inverse=True)
    generator = np.random.default_rng(0)
    errors = []
    for _ in range(_DRAWS):
        drawn_N = generator.random(len(number))[group_N] < confidence_N
        drawn_B = np.bincount(bin_N, weights=drawn_N, minlength=BINS)
        errors.append(np.abs(drawn_B - confidence_B).sum() / len(labels_N))
    low, high = np.quantile(errors, (0.025, 0.975))
    return {
        'expected_calibration_error': float(np.abs(right_B - confidence_B).sum() / len(labels_N)),
        'if_calibrated': {'low': float(low), 'high': float(high)},
        'mean_confidence': float(confidence_N.mean()),
        'bins': [
            {
                'from': i / BINS,
                'to': (i + 1) / BINS,
                'examples': int(counts_B[i]),
                'confidence': confidence_B[i] / counts_B[i] if counts_B[i] else None,
                'accuracy': metrics.figure(share_B[i], low_B[i], high_B[i]),
            }
            for i in range(BINS)
        ],
    }
