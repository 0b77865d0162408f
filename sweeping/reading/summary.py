"""What the points of a study came to: means and spreads, their order, which are as good."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from evaluation.intervals import LEVEL
from evaluation.metrics import SHARES
from sweeping.table import Point, Table

OF_RUNS = 'validation_'  # Objectives of this name differ from run to run; the others are facts.
# How far from the best a point may be whose runs say how much runs differ there: by so much of
# shares, which are fractions of 1, and of other figures by so much of the best.
_NEAR_SHARE, _NEAR_OTHER = 0.03, 0.5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure of a point, over its runs.

    Attributes:
      mean: of the runs; None where none has it.
      runs: the figure of each run that has it; empty for a fact of the net, such as its FLOPs.
    """

    mean: float | None
    runs: tuple[float, ...] = ()

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the runs; None with fewer than two."""
        return float(np.std(self.runs, ddof=1)) if len(self.runs) > 1 else None

    @property
    def half_width(self) -> float | None:
        """Half of the t interval of 95 % of the mean; None with fewer than two runs."""
        if self.deviation is None:
            return None
        quantile = student.ppf((1 + LEVEL) / 2, len(self.runs) - 1)
        return float(quantile * self.deviation / math.sqrt(len(self.runs)))


def estimate(table: Table, point: Point, objective: str) -> Estimate:
    """Returns an objective of a point; of an unfinished one over the runs that have ended."""
    runs: list[float] = []
    if objective.startswith(OF_RUNS):
        figures = (r.validation.get(objective.removeprefix(OF_RUNS)) for r in point.replicates)
        runs = [float(x) for x in figures if x is not None and math.isfinite(x)]
    if point.objectives:
        return Estimate(float(point.objectives[table.objectives.index(objective)]), tuple(runs))
    if runs:
        return Estimate(float(np.mean(runs)), tuple(runs))
    return Estimate(None if objective.startswith(OF_RUNS) else point.facts.get(objective))


def complete(table: Table) -> list[Point]:
    """Returns the complete points, best first by the first objective, then by their number."""
    sign = -1 if table.maximize[0] else 1
    points = [point for point in table.points if point.outcome == 'complete']
    return sorted(points, key=lambda point: (sign * point.objectives[0], point.number))


def seconds(point: Point) -> float:
    """Returns the seconds of all its runs together."""
    return sum(run.seconds.get('total') or 0.0 for run in point.replicates)


def front(values_NC: np.ndarray, maximize: Sequence[bool]) -> np.ndarray:
    """Tells which rows are on the Pareto front, bool [N].

    A row is off it where another one is at least as good in all columns and better in one.
    """
    costs_NC = np.where(np.asarray(maximize), -1.0, 1.0) * np.asarray(values_NC, float)
    return np.asarray([
        not ((costs_NC <= row).all(axis=1) & (costs_NC < row).any(axis=1)).any()
        for row in costs_NC
    ], bool)  # fmt: skip


def on_front(table: Table) -> list[Point]:
    """Returns the complete points on the Pareto front, best first by the first objective."""
    points = complete(table)
    if not points:
        return []
    chosen_N = front(np.asarray([point.objectives for point in points]), table.maximize)
    return [point for point, chosen in zip(points, chosen_N, strict=True) if chosen]


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much worse a point is than the best, run by run.

    Attributes:
      point: that is compared.
      mean: over the runs that both have; positive where it is worse.
      half_width: of the t interval of 95 % of the mean.
    """

    point: Point
    mean: float
    half_width: float

    @property
    def open(self) -> bool:
        """Whether the interval includes 0, so that the two cannot be told apart."""
        return self.mean <= self.half_width


def near(table: Table) -> list[Point]:
    """Returns the points whose runs say how much runs differ near the best; it is the first.

    Nets that are far worse differ far more from run to run: 54 % ± 5 beside 99 % ± 0.5. So it is
    those within 3 percentage points of the best, of losses and errors those within half of it, and
    where there is no other one the next best.
    """
    points = complete(table)
    if not points:
        return []
    best = points[0].objectives[0]
    reach = _NEAR_SHARE if is_share(table.objectives[0]) else _NEAR_OTHER * abs(best)
    found = [point for point in points if abs(point.objectives[0] - best) <= reach]
    return found if len(found) > 1 else points[:2]


def is_share(objective: str) -> bool:
    """Tells whether an objective is a fraction of 1, which is shown in per cent."""
    return objective.removeprefix(OF_RUNS) in SHARES


def spread(table: Table) -> tuple[float, int] | None:
    """Returns the standard deviation of the difference of two points in one run, and its freedom.

    Run r has the same seed and split at all points, so points are compared run by run. The variance
    of the paired differences is pooled over all pairs of the points that are `near`: twice the mean
    square of the residuals of points x runs, a randomised block design (Montgomery, "Design and
    analysis of experiments", section 4.1), with (points - 1)(runs - 1) degrees of freedom. That of
    one pair, with two degrees for three runs, would be a number of chance. None where two points
    do not have two runs in common.
    """
    figures = [_by_run(table, point) for point in near(table)]
    shared = sorted(set.intersection(*map(set, figures))) if len(figures) > 1 else []
    if len(shared) < 2:
        return None
    values_PR = np.asarray([[each[run] for run in shared] for each in figures])
    rest_PR = values_PR - values_PR.mean(axis=1, keepdims=True) - values_PR.mean(axis=0)
    rest_PR += values_PR.mean()
    freedom = (len(figures) - 1) * (len(shared) - 1)
    return math.sqrt(2 * float((rest_PR**2).sum()) / freedom), freedom


def differences(table: Table) -> list[Difference]:
    """Returns by how much the other complete points are worse than the best; [] where unknown.

    The intervals are those of Fisher's least significant difference: each for one point alone,
    without a correction for how many points there are or for the choice of the best among them.
    """
    points, found = complete(table), spread(table)
    if found is None:
        return []
    deviation, freedom = found
    quantile = float(student.ppf((1 + LEVEL) / 2, freedom))
    best, sign = _by_run(table, points[0]), 1 if table.maximize[0] else -1
    told = []
    for point in points[1:]:
        runs = _by_run(table, point)
        worse = [sign * (best[run] - runs[run]) for run in best.keys() & runs.keys()]
        if worse:
            half_width = quantile * deviation / math.sqrt(len(worse))
            told.append(Difference(point, float(np.mean(worse)), half_width))
    return told


def _by_run(table: Table, point: Point) -> dict[int, float]:
    """Returns the first objective of each run, by its number; of a fact of the net none."""
    name = table.objectives[0]
    figures = {
        run.number: run.validation.get(name.removeprefix(OF_RUNS)) for run in point.replicates
    }
    known = {n: float(x) for n, x in figures.items() if x is not None and math.isfinite(x)}
    return known if name.startswith(OF_RUNS) else {}


def recommended(table: Table) -> list[Point]:
    """Returns the points to go on with, best first.

    Of several objectives the Pareto front. Of one the cheapest net that cannot be told from the
    best; the best where costs, or how much runs differ, are not known. Empty where no point is
    complete.
    """
    if len(table.objectives) > 1:
        return on_front(table)
    best = complete(table)[:1]
    found = cheapest([*best, *(each.point for each in differences(table) if each.open)])
    return [found] if found else best


def cheapest(points: Sequence[Point]) -> Point | None:
    """Returns the point of the fewest FLOPs, then parameters; None where these are not known."""
    known = [point for point in points if point.facts.get('flops') is not None]
    return min(known, key=lambda p: (p.facts['flops'], p.facts.get('parameters', 0)), default=None)
