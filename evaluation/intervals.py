"""Intervals of 95 %: of proportions by formula, of other figures by the bootstrap.

Images of one group (near duplicates, a plant, a patient) are no independent evidence: wherever
`groups` are given, whole groups are what is drawn or counted.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

LEVEL = 0.95
REPLICATES = 2000
_BLOCK = 2**24  # Numbers that are held at once.


def effective_counts(
    hits_NC: np.ndarray, counted_NC: np.ndarray, groups_N: np.ndarray
) -> np.ndarray:
    """Returns how many independent images each proportion is worth, [C].

    The number of images divided by the design effect, as of Rao and Scott 1992, "A simple method
    for the analysis of clustered binary data", section 2: the variance of a ratio of group sums
    over that of as many independent images. Where all images are right, or none, or there is one
    group alone, nothing can be estimated, and a group counts as one image.

    Args:
      hits_NC: what is counted as right, 0 or 1.
      counted_NC: what it is counted among, 0 or 1.
      groups_N: number of each image's group.
    """
    counts_C = counted_NC.sum(axis=0)
    number, group_N = np.unique(groups_N, return_inverse=True)
    if len(number) == len(groups_N):
        return counts_C.astype(float)
    hits_GC, counted_GC = (group_sums(values, group_N) for values in (hits_NC, counted_NC))
    with np.errstate(all='ignore'):
        share_C = hits_NC.sum(axis=0) / counts_C
        there_C = (counted_GC > 0).sum(axis=0)
        spread_C = ((hits_GC - share_C * counted_GC) ** 2).sum(axis=0)
        clustered_C = there_C / (there_C - 1) * spread_C / counts_C**2
        alone_C = share_C * (1 - share_C) / counts_C
        as_one_C = (counted_GC**2).sum(axis=0) / counts_C
        estimated_C = (alone_C > 0) & (there_C > 1)
        effect_C = np.where(estimated_C, clustered_C / alone_C, as_one_C)
    return counts_C / np.clip(np.nan_to_num(effect_C, nan=1.0), 1.0, np.maximum(as_one_C, 1.0))


def wilson(
    share: np.ndarray, counts: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Returns lower and upper bounds of proportions (Wilson 1927, as SciPy's `binomtest`).

    Args:
      share: the proportions; NaN where nothing was counted.
      counts: how many independent images each rests on, whole numbers or not.
      level: of the interval.
    """
    z = norm.ppf((1 + level) / 2)
    with np.errstate(all='ignore'):
        middle = (share + z**2 / (2 * counts)) / (1 + z**2 / counts)
        half = np.sqrt(share * (1 - share) / counts + z**2 / (4 * counts**2))
        half *= z / (1 + z**2 / counts)
    # Rounding must not put a share of 0 or 1 outside of its own interval.
    return np.minimum(middle - half, share).clip(0, 1), np.maximum(middle + half, share).clip(0, 1)


def mean_of_classes(
    statistic: Callable[[np.ndarray], np.ndarray],
    values_NC: np.ndarray,
    labelled_NK: np.ndarray,
    groups_N: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns lower and upper bounds [S] of means over classes of figures between 0 and 1.

    NaN where there is one group alone: it shows no variance.

    Wilson's interval with the number of images at which a proportion would have the variance that
    the jackknife gives the figure, as Korn and Graubard 1998, "Confidence intervals for proportions
    with small expected number of positive counts estimated from survey data", do for surveys; at
    most the number that the mean of equal proportions of the classes is worth, since a class
    without an error shows no variance.

    Args:
      statistic: from sums [..., C] over images to figures [..., S].
      values_NC: what is summed up of each image.
      labelled_NK: 1 where an image has the label, of the classes that occur.
      groups_N: number of each image's group.
    """
    sums_GC, rows = _sums_by_group(values_NC, groups_N)
    total_C, count = sums_GC.sum(axis=0), len(sums_GC)
    values_S = statistic(total_C)
    if count < 2:
        return np.full_like(values_S, np.nan), np.full_like(values_S, np.nan)
    jackknife_GS = np.concatenate(
        [statistic(total_C - sums_GC[i : i + rows]) for i in range(0, count, rows)]
    )
    variance_S = (count - 1) / count * ((jackknife_GS - jackknife_GS.mean(axis=0)) ** 2).sum(axis=0)
    of_class_K = (_sums_by_group(labelled_NK, groups_N)[0] > 0).sum(axis=0)
    most = len(of_class_K) ** 2 / (1 / of_class_K).sum()
    with np.errstate(all='ignore'):
        worth_S = values_S * (1 - values_S) / variance_S
    return wilson(values_S, np.fmin(worth_S, most))


def _sums_by_group(values_NC: np.ndarray, groups_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the sums [G, C] by group, and how many such rows to work on at once."""
    sums_GC = group_sums(values_NC.astype(float), np.unique(groups_N, return_inverse=True)[1])
    return sums_GC, max(1, _BLOCK // sums_GC.shape[1])


def group_sums(values_NC: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Returns the sums [G, C] of the rows of each group, numbered from 0."""
    sums = np.zeros((int(group_N.max()) + 1, values_NC.shape[1]))
    np.add.at(sums, group_N, values_NC)
    return sums


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    values_NC: np.ndarray,
    groups_N: np.ndarray,
    seed: int = 0,
) -> np.ndarray:
    """Returns the bounds [2, S] of figures that follow from sums over the images.

    NaN where there is one group alone: it shows no variance.

    Efron 1987, "Better bootstrap confidence intervals" (BCa): whole groups are drawn with
    replacement, and percentiles corrected for bias and skewness, by the jackknife.

    Args:
      statistic: from sums [..., C] to figures [..., S]; sums may hold no image of a class.
      values_NC: what is summed up of each image.
      groups_N: number of each image's group.
      seed: of the drawing.
    """
    sums_GC, rows = _sums_by_group(values_NC, groups_N)
    count = len(sums_GC)
    total_C = sums_GC.sum(axis=0)
    if count < 2:
        return np.full((2, len(statistic(total_C))), np.nan)
    generator = np.random.default_rng(seed)

    def draws(replicates: int) -> np.ndarray:
        drawn = generator.integers(count, size=(replicates, count))
        return np.stack([np.bincount(row, minlength=count) for row in drawn]) @ sums_GC

    block = max(1, _BLOCK // count)
    sizes = [min(block, REPLICATES - start) for start in range(0, REPLICATES, block)]
    with np.errstate(all='ignore'):
        replicates_RS = np.concatenate([statistic(draws(size)) for size in sizes])
        jackknife_GS = np.concatenate(
            [statistic(total_C - sums_GC[i : i + rows]) for i in range(0, count, rows)]
        )
        return _corrected(statistic(total_C), replicates_RS, jackknife_GS)


def _corrected(
    estimate_S: np.ndarray, replicates_RS: np.ndarray, jackknife_GS: np.ndarray
) -> np.ndarray:
    """Returns the percentiles [2, S] that BCa takes."""
    below_S = (replicates_RS < estimate_S).mean(axis=0)
    below_S += (replicates_RS == estimate_S).mean(axis=0) / 2
    bias_S = norm.ppf(np.clip(below_S, 1 / REPLICATES, 1 - 1 / REPLICATES))
    apart_GS = jackknife_GS.mean(axis=0) - jackknife_GS
    cubes_S, squares_S = (apart_GS**3).sum(axis=0), (apart_GS**2).sum(axis=0)
    skew_S = np.nan_to_num(cubes_S / (6 * squares_S**1.5))
    bounds = []
    for z in norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2]):
        place_S = norm.cdf(bias_S + (bias_S + z) / (1 - skew_S * (bias_S + z)))
        bounds.append([np.nanquantile(column, place) for column, place in
                       zip(replicates_RS.T, place_S, strict=True)])  # fmt: skip
    return np.asarray(bounds)


def paired_difference(
    more_N: np.ndarray, less_N: np.ndarray, groups_N: np.ndarray, level: float = LEVEL
) -> tuple[float, float]:
    """Returns the bounds of the share that is right in `more_N` minus that in `less_N`.

    The score interval of Tango 1998, "Equivalence test and confidence interval for the difference
    in proportions for the paired-sample design", section 3: at a difference of 0 it is McNemar's
    test, and where no image differs it still has a width. Groups count by the design effect of
    the differences; where there are none, a group counts as one image.

    Args:
      more_N: bool.
      less_N: bool, of the same images.
      groups_N: number of each image's group.
      level: of the interval.
    """
    apart_N1 = (more_N.astype(float) - less_N.astype(float))[:, None]
    sums_G = group_sums(apart_N1, np.unique(groups_N, return_inverse=True)[1])[:, 0]
    sizes_G = np.unique(groups_N, return_counts=True)[1]
    count, share = len(apart_N1), float(apart_N1.mean())
    alone = float(((apart_N1 - share) ** 2).sum())
    clustered = float(((sums_G - share * sizes_G) ** 2).sum())
    as_one = float((sizes_G**2).sum()) / count
    effect = min(max(clustered / alone, 1.0), max(as_one, 1.0)) if alone else as_one
    gained, lost = (float((apart_N1 == sign).sum()) / effect for sign in (1, -1))
    z = float(norm.ppf((1 + level) / 2))
    upper = _score_bound(gained, lost, count / effect, z)
    return -_score_bound(lost, gained, count / effect, z), upper


def _score_bound(gained: float, lost: float, count: float, z: float) -> float:
    """Returns the upper bound of (gained - lost) / count."""

    def beyond(difference: float) -> float:
        # The likeliest share of `lost` at this difference: Tango's equation 8.
        linear = (2 * count - gained + lost) * difference - gained - lost
        product = 8 * count * lost * difference * (1 - difference)
        share = (np.sqrt(max(0.0, linear**2 + product)) - linear) / (4 * count)
        variance = count * max(0.0, 2 * share + difference * (1 - difference))
        return gained - lost - count * difference + z * np.sqrt(variance)

    start = (gained - lost) / count + 1e-9
    if start >= 1 - 1e-9 or beyond(1 - 1e-9) > 0:
        return 1.0
    return float(brentq(beyond, start, 1 - 1e-9))
