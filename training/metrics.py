"""Figures from the logits of every example of a split, computed once on the host."""

from typing import Any

import numpy as np
from scipy.special import log_softmax

# The figures of a run that has none, such as one that diverged.
NONE: dict[str, Any] = dict.fromkeys(('examples', 'loss', 'accuracy', 'balanced_accuracy'))


def evaluate(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns examples, loss, accuracy and balanced accuracy of one split.

    Args:
      logits: [N, classes].
      labels: int [N].

    Returns:
      `loss` is the mean cross-entropy in nats without label smoothing; accuracies are fractions
      of 1; `balanced_accuracy` is the mean of the recalls of the classes that occur.
    """
    with np.errstate(all='ignore'):  # Logits of a net that is about to diverge.
        log_probabilities = log_softmax(logits.astype(np.float64), axis=-1)
    right = logits.argmax(-1) == labels
    counts = np.bincount(labels, minlength=logits.shape[-1])
    hits = np.bincount(labels, weights=right, minlength=logits.shape[-1])
    return {
        'examples': len(labels),
        'loss': float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        'accuracy': float(right.mean()),
        'balanced_accuracy': float((hits[counts > 0] / counts[counts > 0]).mean()),
    }
