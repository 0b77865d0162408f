"""A study as its readers see it: points, their runs, what came of them."""

import dataclasses
import pathlib
from typing import Any

from errors import UserError

# What came of a point; what is not final goes on when the sweep does.
FINAL = ('complete', 'pruned', 'diverged', 'infeasible', 'failed')
OUTCOMES = (*FINAL, 'running', 'interrupted', 'waiting')


@dataclasses.dataclass(frozen=True)
class Replicate:
    """One run of a point that has ended.

    Attributes:
      folder: of the run, from the study folder; its name is the number of the replicate.
      seed: of the run.
      status: of `result.json`.
      validation: figures of the validation split, as in `result.json`; without the test split's,
        which a sweep leaves sealed.
      seconds: as in `result.json`.
    """

    folder: str
    seed: int
    status: str
    validation: dict[str, Any]
    seconds: dict[str, Any]

    @property
    def number(self) -> int:
        """From 0 on; at all points the same seed and split."""
        return int(pathlib.PurePath(self.folder).name)


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the space.

    Attributes:
      number: from 0 on, in the order of the study; what `--rerun` and `--export` take.
      values: of the factors that are varied there, by dotted name.
      outcome: one of `OUTCOMES`.
      reason: why it did not complete, in words; '' where it did.
      objectives: means over the replicates, in the order of `Table.objectives`; empty where the
        point is not complete.
      replicates: its runs that have ended.
      facts: what is known of the net: `parameters`, `flops`, and where it was measured
        `latency_ms`, `memory_mb`.
      session: where it was tried last: `host`; `attempts`, how often it was begun; `seconds` of
        all of them.
    """

    number: int
    values: dict[str, Any]
    outcome: str
    reason: str = ''
    objectives: tuple[float, ...] = ()
    replicates: tuple[Replicate, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    session: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """All of a study.

    Attributes:
      folder: of the study.
      factors: dotted names, in the order of the space.
      objectives: their names, such as `validation_accuracy`, `validation_loss`, `flops`.
      maximize: for each objective, whether more is better.
      dataset: full name of the data set.
      replicates: runs asked for of each point.
      points: in their order.
    """

    folder: pathlib.Path
    factors: tuple[str, ...]
    objectives: tuple[str, ...]
    maximize: tuple[bool, ...]
    dataset: str
    replicates: int
    points: tuple[Point, ...]

    def point(self, number: int) -> Point:
        """Returns the point of a number.

        Raises:
          UserError: there is none.
        """
        if not 0 <= number < len(self.points):
            known = f': they are numbered 0 to {len(self.points) - 1}' if self.points else ''
            raise UserError(f'There is no point {number} in {self.folder}{known}.')
        return self.points[number]
