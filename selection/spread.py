"""How far a mean over cross-validated runs may be from the truth.

Run j of a candidate leaves out fold j % K of repeat j // K. Axes: Q contrasts between candidates,
M repeats, N images, K folds; leading axes (...) are independent data sets, as in simulations.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from selection.looks import critical

POINT = 0.01
FLOOR = 0.3 * POINT  # Least standard deviation of runs: fewer runs than we have cannot show less.
_PRIOR = 4  # Degrees of freedom that the other candidates' runs are worth.
_HALF = 0.5  # Of the images' variance that a second repeat would average, before there is one.


class Design:
    """Which images are judged together, belong together, and how much they count.

    Attributes:
      folds_MN: int, the fold that image i is in, in repeat m.
      folds: K.
      groups: how many groups, which are what is independent.
      images: N.
      group_weight: mean over groups of the squared sum of weights, over N; 1 / N times that is the
        variance of a mean over images of which each group shows 1.
    """

    def __init__(self, folds_MN: np.ndarray, groups_N: np.ndarray, weights_N: np.ndarray):
        self.folds_MN = folds_MN
        self.folds = int(folds_MN.max()) + 1
        self.images = folds_MN.shape[1]
        self._weights_N = weights_N / weights_N.mean()
        _, group_N, sizes_G = np.unique(groups_N, return_inverse=True, return_counts=True)
        self.groups = len(sizes_G)
        self._order_N = np.argsort(group_N, kind='stable')
        self._starts_G = np.cumsum(sizes_G) - sizes_G
        weight_G = np.bincount(group_N, self._weights_N)
        self.group_weight = float((weight_G**2).mean() / self.images)
        inside_MNK = folds_MN[..., None] == np.arange(self.folds)
        weighted_MNK = inside_MNK * self._weights_N[:, None]
        self._averages_MNK = weighted_MNK / weighted_MNK.sum(axis=1, keepdims=True)
        self.per_fold = float((1 / inside_MNK.sum(axis=1)).mean())

    def mean(self, scores: np.ndarray) -> np.ndarray:
        """Returns the weighted mean over images, [...] of [..., N]."""
        return scores @ self._weights_N / self.images

    def fold_means(self, scores: np.ndarray) -> np.ndarray:
        """Returns the weighted mean of each fold, [..., M, K] of [..., M, N]."""
        repeats = range(scores.shape[-2])
        return np.stack([scores[..., m, :] @ self._averages_MNK[m] for m in repeats], axis=-2)

    def variance(self, scores: np.ndarray) -> np.ndarray:
        """Returns N times the variance of the mean over images, [...] of [..., N].

        Without groups and weights the sample variance; groups are summed first (the "ultimate
        cluster" estimate, Hansen, Hurwitz and Madow 1953). A weighted mean is linearised.
        """
        around = (scores - self.mean(scores)[..., None]) * self._weights_N
        if self.groups < self.images:
            around = np.add.reduceat(around[..., self._order_N], self._starts_G, axis=-1)
        return (around**2).sum(axis=-1) * self.groups / (self.groups - 1) / self.images


class Estimate(NamedTuple):
    """A mean and the parts of its variance V = (lasting + passing / M) / N + run / (K * M).

    All are [...]. `doubt` is half the variance of the mean square between folds that `run` was
    found from: that square squared, by its degrees of freedom.
    """

    mean: np.ndarray
    lasting: np.ndarray
    passing: np.ndarray
    run: np.ndarray
    doubt: np.ndarray
    repeats: int
    images: int
    folds: int
    groups: int

    def variance(self) -> np.ndarray:
        """Returns V, the variance of the mean."""
        at_images = (self.lasting + self.passing / self.repeats) / self.images
        return at_images + self.run / (self.folds * self.repeats)

    def half_width(self, level: float, looks: int) -> np.ndarray:
        """Returns h, how far the truth may be on one side when this look is one of several.

        t at as many degrees of freedom as V has, at the tail beyond `looks.critical`, times the
        square root of V. Degrees of freedom as of Satterthwaite 1946, "An approximate distribution
        of estimates of variance components", equation 17: V is a sum of mean squares, of which that
        between folds has few.

        Args:
          level: how often all looks together may be wrong, one-sided.
          looks: how many are planned, one after each repeat.
        """
        return self._quantile(norm.sf(critical(self.repeats, level, looks))) * np.sqrt(
            self.variance()
        )

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns lower and upper bounds for one look, two-sided: both together err by `level`."""
        half = self._quantile(level / 2) * np.sqrt(self.variance())
        return self.mean - half, self.mean + half

    def _quantile(self, tail: float) -> np.ndarray:
        variance, runs = self.variance(), self.folds * self.repeats
        at_images = (self.lasting + self.passing / self.repeats) / self.images
        doubt = self.doubt / runs**2 + at_images**2 / (self.groups - 1)
        return student.isf(tail, variance**2 / doubt)

    def after(self, repeats: int, images: int) -> 'Estimate':
        """Returns what is to be expected after as many repeats on as many images."""
        return self._replace(
            doubt=self.doubt * self.repeats / repeats,
            repeats=repeats,
            images=images,
            groups=max(2, round(self.groups * images / self.images)),
        )


def estimate(contrasts: np.ndarray, design: Design, floor: float, unit: float) -> Estimate:
    """Returns the mean of the first contrast and its variance.

    The images' part is the variance of each image's mean over repeats, D_i: what stays however many
    repeats there are (`lasting`), and what they average (`passing`), told apart by the variance of
    one repeat. It is at least that of two groups that differ, one each way: no disagreement seen is
    no proof of none (as Bonett and Price 2012, "Adjusted Wald confidence interval for a difference
    of binomial proportions based on paired data", add one to both counts).

    The runs' part is the variance of fold means within repeats, less what the images of a fold
    explain, with M * (K - 1) degrees of freedom; drawn to that of the other contrasts as if they
    had four degrees of freedom.

    Args:
      contrasts: [..., Q, M, N], of which runs have the same variance in expectation.
      design: of the first M repeats at least.
      floor: least variance of runs.
      unit: by how much one image's score may change.
    """
    Q, M, N = contrasts.shape[-3:]
    one = design.variance(contrasts).mean(axis=-1)
    image_means = contrasts[..., 0, :, :].mean(axis=-2)
    least = 2 * unit**2 * design.group_weight
    at_images = np.maximum(design.variance(image_means), least)
    if M > 1:
        passing = ((one[..., 0] - at_images) * M / (M - 1)).clip(0, M * at_images)
    else:
        passing = _HALF * at_images
    means = design.fold_means(contrasts)
    freedom = M * (design.folds - 1)
    squares = means.var(axis=-1, ddof=1).mean(axis=-1)
    runs = squares - one * design.per_fold
    others = freedom * (Q - 1)
    share = freedom / (freedom + min(_PRIOR, others))
    run, doubt = runs[..., 0], squares[..., 0] ** 2 / freedom
    if others:
        run = share * run + (1 - share) * runs[..., 1:].mean(axis=-1)
        lent = squares[..., 1:].mean(axis=-1) ** 2 / others
        doubt = share**2 * doubt + (1 - share) ** 2 * lent
    return Estimate(
        mean=design.mean(image_means),
        lasting=at_images - passing / M,
        passing=passing,
        run=np.maximum(run, floor),
        doubt=doubt,
        repeats=M,
        images=N,
        folds=design.folds,
        groups=design.groups,
    )
