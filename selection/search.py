"""The state of a choice while its stages go on; what they propose, train and are told."""

import dataclasses
import math
from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from selection.candidates import Net, Question, Space
from selection.choice import Answered
from selection.record import TUNING, Record, Run, recommend
from selection.verdict import LEVEL, Evidence, Verdict, holm

# What a stage is: it yields runs that shall be trained next, and finds in the record what came.
Stage = Generator[list[Run], None, None]


class Budget(Protocol):
    """What may be spent, and what was: in seconds, or in runs."""

    def left(self) -> float:
        """Returns what is left for the search, without what the final fit will take."""

    @property
    def total(self) -> float:
        """What there was for the search and the final fit."""

    def price(self, runs: Sequence[Run], record: Record) -> float:
        """Returns what runs will take, as far as that can be said."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user decides.

    Attributes:
      delta: the smallest difference that matters.
      folds: K.
      rate: learning rate of the base config.
      decay: weight decay of the base config.
      subset: `dataset.subset` of the base config.
      constant: score of who always says the same; None where that is not known.
      points: what stands for a percentage point: 0.01 of shares.
    """

    delta: float = 0.01
    folds: int = 4
    rate: float = 0.1
    decay: float = 0.0
    subset: float = 1.0
    points: float = 0.01
    constant: float | None = None


class Search:
    """What all stages share.

    Attributes:
      stage: the one at work.
      nets: proposed, by name, in their order.
      roles: of each, as in `choice.Candidate`.
      gone: of nets that were left, why.
      answers: verdicts, in their order.
      rates: learning rate that was found, by name of a rung; '' for the others.
      decay: weight decay that was found; None for that of the base.
      spent: by stage, runs and the seconds that they took.
      decided: what `fits` has told, in its order.

    Args:
      space, settings, record, budget: what is searched, as wanted, known and affordable.
      before: `decided` of an earlier call that was interrupted. A clock that has gone on would not
        tell the same of runs that are there; so it is not asked again.
    """

    def __init__(
        self,
        space: Space,
        settings: Settings,
        record: Record,
        budget: Budget,
        before: Sequence[bool] = (),
    ):
        self.space, self.settings, self.record, self.budget = space, settings, record, budget
        self.stage = 'audit'
        self.nets: dict[str, Net] = {}
        self.roles: dict[str, str] = {}
        self.gone: dict[str, str] = {}
        self.answers: list[Answered] = []
        self.rates: dict[str, float] = {'': settings.rate}
        self.decay: float | None = None
        self.spent: dict[str, tuple[int, float]] = {}
        self.decided = [*before]
        self._asked = 0

    def spend(self, runs: int, seconds: float) -> None:
        """Counts what runs have taken."""
        before = self.spent.get(self.stage, (0, 0.0))
        self.spent[self.stage] = (before[0] + runs, before[1] + seconds)

    def tuned(self, net: Net) -> Net:
        """Returns a net with the learning rate that was found for it or for its like."""
        if 'optimizer.learning_rate' in net.fields:
            return net
        return net.at_rate(self.rates.get(net.name, self.rates['']), self.decay)

    def propose(self, nets: Sequence[Net], role: str) -> None:
        """Adds nets to those among which one is chosen."""
        for net in nets:
            self.nets[net.name] = net
            if role == 'baseline' or net.name not in self.roles:  # A rung may be a baseline too.
                self.roles[net.name] = role

    def known(self, net: Net) -> Net:
        """Returns the net among those proposed that is the same, whatever its name; else this."""
        if net.name in self.nets:
            return self.nets[net.name]
        return next((there for there in self.nets.values() if there.equals(net)), net)

    def fits(self, runs: Sequence[Run], share: float) -> bool:
        """Tells whether runs can be had within a share of the budget."""
        new = [run for run in runs if run.key not in self.record.outcomes]
        if not new:
            return True
        if self._asked == len(self.decided):
            total, left = self.budget.total, self.budget.left()
            price = self.budget.price(new, self.record)
            self.decided.append(total - left + price <= share * total and price <= left)
        self._asked += 1
        return self.decided[self._asked - 1]

    def train(self, runs: Sequence[Run]) -> Stage:
        """Has those runs trained whose outcome is not known, in their order, each once."""
        new = {run.key: run for run in runs if run.key not in self.record.outcomes}
        if new:
            yield list(new.values())

    def alive(self) -> list[Net]:
        """Returns the nets that were not left and did not fail."""
        return [
            net for name, net in self.nets.items()
            if name not in self.gone and not self.record.failure(name)
        ]  # fmt: skip

    def first(self, net: Net) -> float:
        """Returns the score of a net in its first run; NaN where there is none."""
        there = 0 in self.record.numbers(net.name)
        return self.record.score(net.name, [0]) if there else float('nan')

    def judged(self) -> list[Net]:
        """Returns the nets that have their first run, also those that were left."""
        return [net for net in self.nets.values() if not math.isnan(self.first(net))]

    def repeated(self) -> list[Net]:
        """Returns the nets of which a repeat is complete, that are still there."""
        return [net for net in self.alive() if self.record.repeats(net.name)]

    def recommended(self) -> Net | None:
        """Returns the net to take as far as is known."""
        found = recommend(self.record, self.alive(), self.settings.delta)
        constant = self.settings.constant
        if found and constant is not None and self.record.repeats(found.name):
            # The best of many guesses looks better than a guess (Bonferroni).
            coverage = 1 - 0.05 / len(self.repeated())
            low, _ = self._evidence().interval(found.name, coverage)
            if low <= constant:  # Nothing is learned: of nets that only guess the smallest.
                return min(self.alive(), key=lambda net: (self.record.price(net), net.name))
        return found

    def runs(self, net: Net, look: int) -> list[Run]:
        """Returns the runs of a net up to a look: 1 for the first repeat."""
        return [Run(net, number) for number in range(look * self.settings.folds)]

    def tuning_runs(self, net: Net) -> list[Run]:
        """Returns the run of a net by which recipes are chosen, and no verdict is given."""
        return [Run(net, TUNING)]

    def answer_all(self, questions: Sequence[Question], looked_at: int = 0) -> None:
        """Gives and keeps the verdicts on questions that are asked together, by Holm's rule.

        Args:
          questions: of one stage.
          looked_at: among how many nets those in question were the best-looking; asking about the
            best of many is asking about all of them.
        """
        pairs = [(question.net.name, question.reference.name) for question in questions]
        asked = [name for pair in pairs for name in pair]  # Some were left meanwhile.
        level = LEVEL * len(pairs) / max(len(pairs), looked_at)
        verdicts = holm(self._evidence(asked), pairs, self.settings.delta, level)
        for question, verdict in zip(questions, verdicts, strict=True):
            self._keep(question.text, question.key, verdict)

    def _evidence(self, asked: Iterable[str] = ()) -> Evidence:
        names = [net.name for net in self.repeated()]
        return self.record.evidence([*dict.fromkeys([*names, *asked])])

    def _keep(self, text: str, idea: str, verdict: Verdict) -> None:
        pair = (self.stage, verdict.name, verdict.reference)
        self.answers = [a for a in self.answers if (a.stage, a.name, a.reference) != pair]
        self.answers.append(
            Answered(
                stage=self.stage,
                question=text,
                name=verdict.name,
                reference=verdict.reference,
                difference=verdict.difference,
                half_width=min(verdict.half_width, 100 * self.settings.points),  # No share is more.
                runs=verdict.runs,
                answer=verdict.answer,
                settle=verdict.settle.sentence,
                idea=idea,
            )
        )
