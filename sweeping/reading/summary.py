"""What the points of a study came to: means and spreads, their order, which are as good."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from sweeping.table import Point, Table

_LEVEL = 0.95
OF_RUNS = 'validation_'  # Objectives of this name differ from run to run; the others are facts.


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
        quantile = student.ppf((1 + _LEVEL) / 2, len(self.runs) - 1)
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


def standard_error(table: Table) -> float | None:
    """Returns the standard error of the first objective of the best point.

    The deviation is pooled over the complete points, since that of a few runs is itself poorly
    known. None where no point has two runs.
    """
    points = complete(table)
    squares, freedom = 0.0, 0
    for point in points:
        found = estimate(table, point, table.objectives[0])
        if found.deviation is not None:
            squares += found.deviation**2 * (len(found.runs) - 1)
            freedom += len(found.runs) - 1
    if not freedom:
        return None
    runs = max(len(estimate(table, points[0], table.objectives[0]).runs), 1)
    return math.sqrt(squares / freedom / runs)


def as_good(table: Table) -> list[Point]:
    """Returns the points within one standard error of the best, with the best, best first.

    Of these the cheapest is worth a look: the one-standard-error rule of Breiman et al. 1984,
    "Classification and regression trees", section 3.4.3. It is a rule of thumb and no test. Where
    replicates have splits of their own, what these do to all points alike widens it.
    """
    points, error = complete(table), standard_error(table)
    if error is None:
        return points[:1]
    best = points[0].objectives[0]
    return [point for point in points if abs(point.objectives[0] - best) <= error]


def cheapest(points: Sequence[Point]) -> Point | None:
    """Returns the point of the fewest FLOPs, then parameters; None where these are not known."""
    known = [point for point in points if point.facts.get('flops') is not None]
    return min(known, key=lambda p: (p.facts['flops'], p.facts.get('parameters', 0)), default=None)
