"""What may be spent on a choice: seconds by the clock, or runs."""

import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from errors import UserError
from selection.record import FINAL, Record, Run

_UNITS = {'s': 1.0, 'm': 60.0, 'h': 3600.0}
_LEAST_RUNS = FINAL + 1
FINAL_SHARE = 0.1  # Of the budget, kept at least for the final fit and its evaluation.


class Amount(NamedTuple):
    """A budget: seconds or runs, the other one None."""

    seconds: float | None = None
    runs: int | None = None


def parse(text: str) -> Amount:
    """Reads a budget such as `60m`, `1.5h`, `90s` or `200runs`.

    Raises:
      UserError: it is none.
    """
    if match := re.fullmatch(r'(\d+) ?runs?', text):
        if int(match.group(1)) < _LEAST_RUNS:
            raise UserError(
                f'--budget={text} is too little: the smallest net takes one run and the final fit '
                f'{FINAL}; at 50 runs and more there is something to compare.'
            )
        return Amount(runs=int(match.group(1)))
    match = re.fullmatch(r'(\d+(?:\.\d+)?) ?([smh])', text)
    if match is None or float(match.group(1)) == 0:
        raise UserError(
            f'--budget={text} is no budget: write minutes, hours or seconds, such as 60m, 2h, 90s, '
            'or runs, such as 200runs.'
        )
    return Amount(seconds=float(match.group(1)) * _UNITS[match.group(2)])


class Clock:
    """A budget as the stages see it: what is for the search, and what of that is left.

    Args:
      amount: of the whole choice.
      spent_before: seconds that earlier calls took.
      started: `time.monotonic()` when this call began.
      final: what the final fit will take, in seconds or runs, as far as it is known.
      workers: that train at a time.
      count: runs that were trained.
    """

    def __init__(
        self,
        amount: Amount,
        spent_before: float,
        started: float,
        final: Callable[[], float],
        workers: int,
        count: Callable[[], int],
    ):
        self._amount, self._before, self._started = amount, spent_before, started
        self._final, self._workers, self._count = final, workers, count

    def seconds(self) -> float:
        """Returns the seconds that all calls have taken."""
        return self._before + time.monotonic() - self._started

    def spent(self) -> float:
        """Returns what is spent, in the unit of the budget."""
        return self.seconds() if self._amount.runs is None else float(self._count())

    @property
    def whole(self) -> float:
        """All of the budget."""
        return float(self._amount.runs or self._amount.seconds or 0.0)

    @property
    def total(self) -> float:
        """What there is for the search, without the final fit."""
        return self.whole - max(FINAL_SHARE * self.whole, self._final())

    def left(self) -> float:
        """Returns what is left for the search."""
        return max(0.0, self.total - self.spent())

    def price(self, runs: Sequence[Run], record: Record) -> float:
        """Returns what runs will take: the longest at least, whatever the number of workers."""
        if self._amount.runs is not None:
            return float(len(runs))
        seconds = [record.seconds(run.net) for run in runs]
        return max(sum(seconds) / self._workers, *seconds, 0.0)

    def deadline(self, part: float) -> float:
        """Returns by `time.monotonic()` when so much of the budget is spent; infinite for runs."""
        if self._amount.seconds is None:
            return float('inf')
        return self._started + part - self._before
