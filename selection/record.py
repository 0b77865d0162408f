"""What the runs of a choice came to, and what follows: means, evidence for verdicts, the net."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from selection.candidates import Net
from selection.verdict import Evidence

TUNING = 4000  # From this number on runs tune learning rates: no verdict reads them.
FINAL = 3  # Runs of each net on all data, of other seeds.
_FIRST_SECONDS = 5.0  # Guessed, of any net before one was trained.
_COMPILE_SECONDS = 3.0  # Guessed, of a net that was not trained before.
_GROWTH = 0.85  # Seconds grow with FLOPs to this power, where nothing better is known.


class Run(NamedTuple):
    """A run of a net.

    Run j leaves out fold j % K of repeat j // K, and has seed j, whatever the net: so nets are
    compared in pairs.
    """

    net: Net
    number: int

    @property
    def key(self) -> tuple[str, int]:
        """Equal for equal runs."""
        return self.net.name, self.number


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
      images: index [n] of the images that it was judged by, of those that are not the test's.
      scores: float [n] of each of them; more is better.
      seconds: that it took; without what a net of the same shape has compiled before.
      compile_seconds: of these.
      facts: of the net: `parameters`, `flops`, and where it was measured `latency_ms`.
      folder: of the run.
      failed: why there are no scores; '' where there are.
      status: `complete`, `infeasible` or `failed`.
    """

    images: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))
    scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    seconds: float = 0.0
    compile_seconds: float = 0.0
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    folder: str = ''
    failed: str = ''
    status: str = 'complete'


class Record:
    """All outcomes.

    Args:
      folds: K.
      groups_N: number of each image's group.
      weights_N: of each image in a mean, 1 on average.
      scale: as in `verdict.Evidence`.
      cost: fact by which nets are cheaper: `flops`, `parameters` or `latency_ms`.

    Attributes:
      outcomes: by net and number.
    """

    def __init__(
        self,
        folds: int,
        groups_N: np.ndarray,
        weights_N: np.ndarray,
        scale: float = 1.0,
        cost: str = 'flops',
    ):
        self.folds, self.groups_N, self.weights_N = folds, groups_N, weights_N
        self._scale, self._cost = scale, cost
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        self._nets: dict[str, Net] = {}  # That were trained.

    def add(self, run: Run, outcome: Outcome) -> None:
        """Takes what came of a run."""
        self.outcomes[run.key] = outcome
        self._nets[run.net.name] = run.net

    def numbers(self, name: str) -> list[int]:
        """Returns which runs of a net have scores."""
        return sorted(n for (of, n), o in self.outcomes.items() if of == name and not o.failed)

    def failure(self, name: str) -> Outcome | None:
        """Returns why a net was not trained, or one of its runs; None where all went well."""
        failed = (o for (of, _), o in self.outcomes.items() if of == name and o.failed)
        return next(failed, None)

    def fact(self, name: str, fact: str) -> float | None:
        """Returns a fact of a net; None where it is not known."""
        known = (o.facts[fact] for (of, _), o in self.outcomes.items()
                 if of == name and fact in o.facts)  # fmt: skip
        return next(known, None)

    def price(self, net: Net) -> float:
        """Returns what makes a net cheaper than another one."""
        known = self.fact(net.name, self._cost)
        return net.cost if known is None else known

    def score(self, name: str, numbers: Iterable[int] | None = None) -> float:
        """Returns the mean over the images that runs of a net were judged by.

        Args:
          name: of the net.
          numbers: of runs; all but those that tune where None.
        """
        if numbers is None:
            numbers = [n for n in self.numbers(name) if n < TUNING]
        outcomes = [self.outcomes[name, n] for n in numbers]
        if not outcomes:
            return math.nan
        images = np.concatenate([o.images for o in outcomes])
        scores = np.concatenate([o.scores for o in outcomes])
        return float(np.average(scores, weights=self.weights_N[images]))

    def repeats(self, name: str) -> int:
        """Returns how many repeats of a net are complete, from the first one on."""
        numbers, count = {*self.numbers(name)}, 0
        while numbers.issuperset(range(count * self.folds, (count + 1) * self.folds)):
            count += 1
        return count

    def evidence(self, names: Sequence[str]) -> Evidence:
        """Returns the scores of nets of which at least one repeat is complete."""
        counts = {name: self.repeats(name) for name in names}
        most = max(counts.values())
        folds_MN = np.zeros((most, len(self.groups_N)), int)
        scores = {}
        for name, count in counts.items():
            scores[name] = np.zeros((count, len(self.groups_N)))
            for number in range(count * self.folds):
                repeat, fold = divmod(number, self.folds)
                outcome = self.outcomes[name, number]
                scores[name][repeat, outcome.images] = outcome.scores
                folds_MN[repeat, outcome.images] = fold
        return Evidence(scores, folds_MN, self.groups_N, self.weights_N, self._scale)

    def seconds(self, net: Net) -> float:
        """Predicts how long a run of a net takes: as its others, or those of a similar net."""
        known: dict[str, list[Outcome]] = {}
        for (of, _), outcome in self.outcomes.items():
            if outcome.seconds and not outcome.failed:
                known.setdefault(of, []).append(outcome)
        if net.name in known:
            return _training(known[net.name])
        if not known:
            return _FIRST_SECONDS
        for of, outcomes in known.items():
            if self._nets[of].same_program(net):  # It is compiled.
                return _training(outcomes)
        near = min(known, key=lambda of: abs(math.log(self._nets[of].cost / net.cost)))
        factor = max(0.2, (net.cost / self._nets[near].cost) ** _GROWTH)
        compiling = max(outcome.compile_seconds for outcome in known[near])
        return max(compiling, _COMPILE_SECONDS) + factor * _training(known[near])


def _training(outcomes: Sequence[Outcome]) -> float:
    """Returns the mean seconds of runs, without compiling."""
    return float(np.mean([outcome.seconds - outcome.compile_seconds for outcome in outcomes]))


def recommend(record: Record, nets: Sequence[Net], delta: float) -> Net | None:
    """Returns the cheapest net whose mean is within delta / 2 of the highest; of equals the best.

    Nets are judged on equally many runs, the first ones: as many as two of them have at least, so
    that no net is chosen for having been trained more often than the others. None where none has
    any run.
    """
    counts = {net.name: _comparable(record, net) for net in nets}
    enough = sorted(counts.values(), reverse=True)[:2]
    if not any(enough):
        return None
    runs = enough[-1] or enough[0]
    finalists = [net for net in nets if counts[net.name] >= runs]
    scores = {net.name: record.score(net.name, range(runs)) for net in finalists}
    highest = max(scores.values())
    good = [net for net in finalists if scores[net.name] >= highest - delta / 2]
    return min(good, key=lambda net: (record.price(net), -scores[net.name], net.name))


def _comparable(record: Record, net: Net) -> int:
    """Returns how many runs of a net there are from the first one on; none where one failed."""
    if record.failure(net.name):
        return 0
    there, count = {*record.numbers(net.name)}, 0
    while count in there:
        count += 1
    return count
