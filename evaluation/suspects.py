"""Likely label errors: images of which nets that never trained on them disagree with the label.

Northcutt et al. 2021, "Confident learning: estimating uncertainty in dataset labels".
"""

from typing import NamedTuple

import numpy as np


class Suspects(NamedTuple):
    """All images, most suspicious first.

    Attributes:
      order_N: indices of the images.
      margin_N: of each image (not in this order), the probability of its label minus that of the
        most probable other class.
      flagged_N: whether confident learning counts the image as mislabelled.
      suggestion_N: the class that a flagged image is counted as; of others the most probable one.
    """

    order_N: np.ndarray
    margin_N: np.ndarray
    flagged_N: np.ndarray
    suggestion_N: np.ndarray


def find(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> Suspects:
    """Ranks images by how far their label is from what was predicted.

    Args:
      probabilities_NK: of nets that did not see the images in training.
      labels_N: as given.

    Returns:
      The order is that of the margin (section 3.2, "normalized margin"). Flagged are images with
      another class whose probability reaches the mean of that class among its own images
      (section 3.1, equations 1 and 2).
    """
    rows = np.arange(len(labels_N))
    own_N = probabilities_NK[rows, labels_N]
    others_NK = probabilities_NK.copy()
    others_NK[rows, labels_N] = -1.0
    margin_N = own_N - others_NK.max(axis=1)
    classes = probabilities_NK.shape[1]
    counts_K = np.bincount(labels_N, minlength=classes)
    sums_K = np.bincount(labels_N, weights=own_N, minlength=classes)
    # Of a class that does not occur nothing is known, so nothing reaches it.
    threshold_K = np.where(counts_K > 0, sums_K / np.maximum(counts_K, 1), np.inf)
    confident_NK = probabilities_NK >= threshold_K
    best_N = np.where(confident_NK, probabilities_NK, -1.0).argmax(axis=1)
    flagged_N = confident_NK.any(axis=1) & (best_N != labels_N)
    suggestion_N = np.where(flagged_N, best_N, probabilities_NK.argmax(axis=1))
    order_N = np.argsort(margin_N, kind='stable')
    return Suspects(order_N, margin_N, flagged_N, suggestion_N)
