"""Figures from the logits of every example of a split, computed once on the host."""

from typing import Any

import numpy as np
from scipy.special import log_softmax

# The figures of a run that has none, such as one that diverged.
NONE: dict[str, Any] = dict.fromkeys(
    ('examples', 'loss', 'accuracy', 'balanced_accuracy', 'macro_f1', 'recall')
)
NO_REGRESSION: dict[str, Any] = {**NONE, 'rmse': None, 'mae': None, 'r2': None}


def evaluate(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns the figures of one split.

    Args:
      logits: [N, classes].
      labels: int [N].

    Returns:
      `examples`; `loss`, the mean cross-entropy in nats without label smoothing; `accuracy`,
      fractions of 1 as all that follow; `recall` of each class, None where it does not occur;
      `balanced_accuracy`, their mean; `macro_f1`, the mean F1 of the classes that occur; for two
      classes `roc_auc` and `average_precision` of the second one, where both occur.
    """
    with np.errstate(all='ignore'):  # Logits of a net that is about to diverge.
        log_probabilities = log_softmax(logits.astype(np.float64), axis=-1)
    right = logits.argmax(-1) == labels
    classes = logits.shape[-1]
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right, minlength=classes)
    guesses = np.bincount(logits.argmax(-1), minlength=classes)
    there = counts > 0
    recall = hits[there] / counts[there]
    figures = {
        'examples': len(labels),
        'loss': float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        'accuracy': float(right.mean()),
        'balanced_accuracy': float(recall.mean()),
        'macro_f1': float((2 * hits[there] / (counts + guesses)[there]).mean()),
        'recall': [float(h / n) if n else None for h, n in zip(hits, counts, strict=True)],
    }
    scores = log_probabilities[:, -1] - log_probabilities[:, 0]
    if classes == 2 and there.all() and np.isfinite(scores).all():
        # Here, since it takes a second, which the first line of a command should not wait for.
        from sklearn.metrics import average_precision_score, roc_auc_score

        figures['roc_auc'] = float(roc_auc_score(labels, scores))
        figures['average_precision'] = float(average_precision_score(labels, scores))
    return figures


def evaluate_regression(
    predictions: np.ndarray, targets: np.ndarray, deviation: float, last_values: np.ndarray | None
) -> dict[str, Any]:
    """Returns the figures of one split where the labels are numbers.

    Args:
      predictions: float64 [N], in the units of the target.
      targets: [N].
      deviation: standard deviation of the target in the training split.
      last_values: [N], of a series the last value before each target; else None.

    Returns:
      `examples`; `loss`, the mean squared error in units of `deviation`; `rmse` and `mae`, in the
      units of the target; `r2`, the share of the variance that is explained (None where there is
      none); of a series `last_value_rmse`, that of the last value as forecast. The figures of
      classes are None.
    """
    targets = targets.astype(np.float64)
    with np.errstate(all='ignore'):  # Outputs of a net that is about to diverge.
        errors = predictions - targets
        square, variance = float((errors**2).mean()), float(targets.var())
        figures = NO_REGRESSION | {
            'examples': len(targets),
            'loss': square / deviation**2,
            'rmse': square**0.5,
            'mae': float(np.abs(errors).mean()),
            'r2': 1 - square / variance if variance else None,
        }
    if last_values is not None:
        figures['last_value_rmse'] = float(((last_values - targets) ** 2).mean() ** 0.5)
    return figures
