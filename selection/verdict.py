"""Is one net better than another? The answer, how sure it is, and what would settle it.

All candidates are judged on the same folds with the same seeds, so every comparison is paired. The
rule is in `Evidence.compare`; docs/verdict.md has it in words, and its errors in simulation beside
those of other rules.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.linalg import helmert
from scipy.special import softmax

from errors import UserError, did_you_mean
from evaluation import costs as cost_matrix
from evaluation import metrics
from selection import spread
from selection.answers import Answer, Settle, answers, settle
from selection.looks import LOOKS

Measure = Literal['accuracy', 'balanced_accuracy', 'log_loss', 'cost']

LEVEL = 0.05  # Of wrong answers of one kind, all looks together.
_NEAR = 5 * spread.POINT  # Candidates whose runs vary alike.


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer to: is `name` better than `reference`?

    Attributes:
      difference: of the mean scores.
      half_width: how far the true difference may be from it, on either side.
      runs: of each candidate that were compared.
    """

    name: str
    reference: str
    difference: float
    half_width: float
    runs: int
    answer: Answer
    settle: Settle


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Scores of candidates over shared folds. Claims hold for nets trained on this set.

    Attributes:
      scores: of each candidate float [M, N]: of image i in repeat m, by the run that left it out.
        More is better. Candidates that left early have fewer repeats, the first ones.
      folds_MN: int, the fold of image i in repeat m, for all repeats; from 0 to K - 1.
      groups_N: int; images of one group (a plant, a patient) are in one fold and are one piece of
        evidence.
      weights_N: of the images; all 1 but for balanced accuracy (`weights_of`).
      looks: after how many repeats, one after the other, verdicts are planned to be read; never
        more than planned, see `looks.critical`.
      scale: of one point times 100: 1 for shares; for losses and costs what they are measured in.

    Raises:
      ValueError: of shapes that do not fit, scores that are no numbers, fewer than two folds or
        groups, a fold without images, or a group in more than one fold.
    """

    scores: Mapping[str, np.ndarray]
    folds_MN: np.ndarray
    groups_N: np.ndarray
    weights_N: np.ndarray
    scale: float = 1.0
    looks: int = LOOKS

    def __post_init__(self):
        M, N = np.shape(self.folds_MN)
        if np.shape(self.groups_N) != (N,) or np.shape(self.weights_N) != (N,):
            raise ValueError(f'Groups and weights must be of the {N} images that are in folds.')
        for name, scores in self.scores.items():
            shape = np.shape(scores)
            if len(shape) != 2 or shape[1] != N or not 1 <= shape[0] <= M:
                raise ValueError(f'{name!r} has scores {shape}, not of 1 to {M} repeats x {N}.')
            if shape[0] > self.looks:
                raise ValueError(
                    f'{name!r} has {shape[0]} repeats; {self.looks} looks are planned.'
                )
            if not np.isfinite(scores).all():
                raise ValueError(f'{name!r} has scores that are no numbers: leave it out.')
        if not (np.all(np.asarray(self.weights_N) > 0) and self.scale > 0):
            raise ValueError('Weights and the scale are above 0.')
        _check_folds(np.asarray(self.folds_MN), np.asarray(self.groups_N))

    @functools.cached_property
    def _design(self) -> spread.Design:
        return spread.Design(
            np.asarray(self.folds_MN), np.asarray(self.groups_N), np.asarray(self.weights_N, float)
        )

    def _of(self, name: str) -> np.ndarray:
        if name not in self.scores:
            raise ValueError(f'There are no scores of {name!r}.{did_you_mean(name, self.scores)}')
        return np.asarray(self.scores[name], float)

    def mean(self, name: str) -> float:
        """Returns the weighted mean score over all repeats of the candidate."""
        return float(self._design.mean(self._of(name)).mean())

    def interval(self, name: str, coverage: float = 0.95) -> tuple[float, float]:
        """Returns bounds of the mean score of nets trained like this on this set.

        The candidate's own variance over images, and over runs as `compare` has it; Student's t.
        Between 0 and 1 where all scores are, as shares.

        Args:
          name: of the candidate.
          coverage: how often the true mean is between the bounds.
        """
        own = self._of(name)
        near = self._near([name], len(own))
        stacked = np.stack([own, *(self._of(other)[: len(own)] for other in near)])
        found = self._estimate(stacked, pairs=1)
        low, high = (float(bound) for bound in found.interval(1 - coverage))
        shares = all(np.min(s) >= 0 and np.max(s) <= 1 for s in self.scores.values())
        return (max(low, 0.0), min(high, 1.0)) if shares else (low, high)

    def _near(self, names: Sequence[str], repeats: int) -> list[str]:
        """Returns other candidates with so many repeats, within five points of one of these."""
        means = [self.mean(name) for name in names]
        return [
            name
            for name in self.scores
            if name not in names
            and len(self.scores[name]) >= repeats
            and min(abs(self.mean(name) - mean) for mean in means) <= _NEAR * self.scale
        ]

    def _estimate(self, contrasts: np.ndarray, pairs: int) -> spread.Estimate:
        floor = pairs * (spread.FLOOR * self.scale) ** 2
        return spread.estimate(contrasts, self._design, floor, self.scale)

    def difference(self, name: str, reference: str) -> spread.Estimate:
        """Returns the paired difference over the repeats that both have, and its variance.

        The runs' variance is drawn to that between the other candidates near them: of the contrasts
        of C candidates that are orthogonal (Helmert's), the first is the pair's and the other C - 2
        are what all the others show, so that what both say is independent.

        Raises:
          ValueError: there are no scores of one, or the two are the same.
        """
        if name == reference:
            raise ValueError(f'{name!r} is compared with itself.')
        pair = [self._of(name), self._of(reference)]
        repeats = min(map(len, pair))
        near = [self._of(other) for other in self._near([name, reference], repeats)]
        return self._estimate(
            differences(np.stack([scores[:repeats] for scores in pair + near])), pairs=2
        )

    def compare(self, name: str, reference: str, delta: float, level: float = LEVEL) -> Verdict:
        """Returns whether one candidate is better than another.

        With d the difference of mean scores after M repeats, J = M * K runs of each, and
        D_i the difference of image i averaged over repeats:

          V = var(D_i) / N + v / J          d +- h,  h = t(df) * sqrt(V)

        v is the variance of the difference of two runs: that of the fold means of the differences,
        within repeats, less var(d_i) / (N / K), shrunk to that of other candidates and at least
        2 * (0.3 points)**2 (`spread.estimate`). Nadeau and Bengio 2003, "Inference for the
        generalization error", correct the variance between runs for images in common by a factor;
        here they are a term of their own, which is why the error falls with runs. t is at
        Satterthwaite's degrees of freedom (`Estimate.half_width`), beyond the boundary for the
        looks that are planned (`looks.critical`), so that looking after each repeat is allowed for.

        Answers, the first that holds: `better` where d - h > 0 (though it may be by less than
        delta), `worse` where d + h < 0, `no better` where d + h < delta, else `cannot tell`. To be
        worse is to be no better, and the stronger word is said.

        Args:
          name: of the candidate in question, usually the larger.
          reference: of what it is compared with.
          delta: the smallest difference that matters, in units of the score.
          level: how often `better` may be said where there is no gain, and `no better` where the
            gain is delta, all looks together.

        Raises:
          UserError: of a delta that is not above 0.
          ValueError: there are no scores of one, the two are the same, or of the level.
        """
        found = self.difference(name, reference)
        return _verdict((name, reference), found, delta, (level, level), self.looks)

    def resolution(self) -> float:
        """Returns the difference that can typically be seen: 2 * sqrt(V).

        The median over the candidates within five points of the best, each compared with it.

        Raises:
          ValueError: of fewer than two candidates.
        """
        if len(self.scores) < 2:
            raise ValueError('A resolution is of two candidates at least.')
        best = max(self.scores, key=self.mean)
        near = self._near([best], 1) or [max(set(self.scores) - {best}, key=self.mean)]
        found = [self.difference(name, best).variance() for name in near]
        return float(2 * np.sqrt(np.median(found)))


def _check_folds(folds_MN: np.ndarray, groups_N: np.ndarray) -> None:
    K = int(folds_MN.max()) + 1
    counts = [np.bincount(folds_N, minlength=K) for folds_N in folds_MN]
    if K < 2 or np.min(counts) < 1 or folds_MN.min() < 0:
        raise ValueError('Each repeat has two folds or more, numbered from 0, none without images.')
    _, first, group_N = np.unique(groups_N, return_index=True, return_inverse=True)
    if len(first) < 2:
        raise ValueError('There must be two groups of images at least.')
    if (folds_MN[:, first][:, group_N] != folds_MN).any():
        raise ValueError('Images of one group must be in one fold.')


def differences(scores: np.ndarray) -> np.ndarray:
    """Returns contrasts [..., C - 1, M, N] of candidates' scores [..., C, M, N].

    The first is the first candidate's less the second's; all are orthogonal and of the same size.
    """
    rows_QC = math.sqrt(2) * helmert(scores.shape[-3])
    return np.einsum('qc,...cmn->...qmn', rows_QC, scores)


def _verdict(
    pair: tuple[str, str],
    found: spread.Estimate,
    delta: float,
    levels: tuple[float, float],
    planned: int,
) -> Verdict:
    """Returns the verdict at the levels of `better` and of `no better`."""
    if not delta > 0:
        raise UserError(f'The smallest difference that matters is above 0, not {delta:g}.')
    if not all(0 < level < 0.5 for level in levels):
        raise ValueError(f'The level is between 0 and 0.5, not {max(levels):g}.')
    halves = (found.half_width(levels[0], planned), found.half_width(levels[1], planned))
    answer: Answer = str(answers(found.mean, halves, delta))  # type: ignore[assignment]
    half = {'better': halves[0], 'cannot tell': max(halves)}.get(answer, halves[1])
    open_ = answer == 'cannot tell'
    settled = settle(found, delta, levels, planned) if open_ else Settle()
    runs = found.repeats * found.folds
    return Verdict(*pair, float(found.mean), float(half), runs, answer, settled)


def holm(
    evidence: Evidence, pairs: Sequence[tuple[str, str]], delta: float, level: float = LEVEL
) -> list[Verdict]:
    """Returns verdicts of several questions of one stage, in their order.

    Holm 1979, "A simple sequentially rejective multiple test procedure", for `better`, and apart
    from it for `no better`: the surest of Q questions must be so at level / Q, the next at
    level / (Q - 1), and so on to the first that is not. So the probability that the stage says
    `better` where there is no gain, even once, is at most `level`; that of `no better` likewise.
    Also for the best-looking of several candidates: all that were looked at are its questions.

    Args:
      evidence: of all.
      pairs: name and reference of each question.
      delta: as of `Evidence.compare`.
      level: of all questions together.

    Raises:
      UserError, ValueError: as `Evidence.compare`.
    """
    found = [evidence.difference(*pair) for pair in pairs]
    planned = evidence.looks
    better = _levels(found, [float(each.mean) for each in found], level, planned)
    no_better = _levels(found, [delta - float(each.mean) for each in found], level, planned)
    return [
        _verdict(pair, found[i], delta, (better[i], no_better[i]), planned)
        for i, pair in enumerate(pairs)
    ]


def _levels(
    found: Sequence[spread.Estimate], distances: Sequence[float], level: float, planned: int
) -> list[float]:
    """Returns the level of each question, by its distance from what is to be excluded."""
    sure = [d / each.half_width(level, planned) for d, each in zip(distances, found, strict=True)]
    levels, proved = [0.0] * len(found), 0
    for i in np.argsort(sure)[::-1]:
        levels[i] = level / (len(found) - proved)
        proved += distances[i] > found[i].half_width(levels[i], planned)
    return levels


def scores_of(
    logits_NK: np.ndarray,
    labels_N: np.ndarray,
    measure: Measure,
    costs: cost_matrix.Costs | None = None,
) -> np.ndarray:
    """Returns the score of each image, float64 [N]; more is better.

    Right or wrong for accuracy and balanced accuracy (with `weights_of`); minus the cross-entropy
    in nats; minus the cost of the decision that is expected to cost least.

    Args:
      logits_NK: for costs, of probabilities that are calibrated.
      labels_N: the truth.
      measure: what is measured.
      costs: what decisions cost; for `cost` alone.

    Raises:
      ValueError: of a measure that is unknown, or costs without a matrix.
    """
    if measure in ('accuracy', 'balanced_accuracy'):
        return (logits_NK.argmax(axis=1) == labels_N).astype(float)
    if measure == 'log_loss':
        return -metrics.losses(logits_NK, labels_N)
    if measure == 'cost' and costs is not None:
        probabilities_NK = softmax(logits_NK.astype(np.float64), axis=1)
        return -costs.matrix_KD[labels_N, cost_matrix.decide(probabilities_NK, costs)]
    if measure == 'cost':
        raise ValueError('The measure `cost` needs a cost matrix.')
    raise ValueError(f'There is no measure {measure!r}.')


def weights_of(labels_N: np.ndarray, measure: Measure) -> np.ndarray:
    """Returns the weight of each image, mean 1, float64 [N].

    N / (classes * count of its class) for balanced accuracy, over the classes that occur, else 1.
    """
    if measure != 'balanced_accuracy':
        return np.ones(len(labels_N))
    _, class_N, counts = np.unique(labels_N, return_inverse=True, return_counts=True)
    return (len(labels_N) / (len(counts) * counts))[class_N]
