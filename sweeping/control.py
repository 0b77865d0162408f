"""What the workers of one call share: when to stop, what runs, how far it is."""

import contextlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sweeping import host
from training.interruption import Interruption

# Points that fail alike with none between them that ends well, until nobody believes in the others:
# before any has completed, and later.
_SAME_AT_FIRST, _SAME_LATER = 3, 10
_MOST_REPEATED = 50  # Of the sampler in a row, after which it has nothing new.


class Running:
    """How far a point is that trains.

    Attributes:
      values: of its factors.
      steps: of one of its runs; 0 as long as that is not known.
      ended: runs of the point that ended before the current job.
    """

    def __init__(self, values: Mapping[str, Any], replicates: int):
        self.values, self.steps, self.ended = values, 0, 0
        self._replicates, self._now = replicates, 0.0
        self._begun = time.monotonic()

    def stepped(self, run: int, step: int) -> None:
        """Says that a run of the job is at a step."""
        if self.steps:
            self._now = run + step / self.steps

    def seconds(self) -> float:
        """Returns how long it has been trained in this call."""
        return time.monotonic() - self._begun

    def share(self) -> float:
        """Returns how much of the point is done, from 0 to 1."""
        return min(1.0, (self.ended + self._now) / self._replicates)


class Control:
    """Shared by the threads of one call.

    Args:
      signals: of the process.
      deadline: by `time.monotonic()`, when the call shall end; infinite where there is none.
      replicates: of each point.
      say: prints how a point ended.

    Attributes:
      process: this one.
      impatient: whether a second signal came: workers are ended at once.
      has_completed: whether a point of the study has, ever.
      seconds_of: of the points that have completed in this call.
    """

    def __init__(
        self,
        signals: Interruption,
        deadline: float,
        replicates: int,
        say: Callable[..., None],
    ):
        self._signals, self._say, self._replicates = signals, say, replicates
        self._deadline = deadline
        self._lock = threading.RLock()  # What is said of an end looks at what runs.
        self._running: list[Running] = []
        self._mistakes: Counter[str] = Counter()
        self._repeated = 0
        self._ended_early = False
        self.process = host.here()
        self.impatient = False
        self.has_completed = False
        self.seconds_of: list[float] = []

    def until(self, deadline: float) -> None:
        """Sets another deadline, by `time.monotonic()`."""
        self._deadline = deadline

    def stopping(self) -> bool:
        """Tells whether what trains shall be saved, and nothing more begun."""
        return self._ended_early or self._signals.received or self.out_of_time()

    def out_of_time(self) -> bool:
        """Tells whether the budget of time is spent."""
        return time.monotonic() >= self._deadline

    def seconds_left(self) -> float:
        """Returns what is left of the budget of time; infinite where there is none."""
        return max(0.0, self._deadline - time.monotonic())

    def stop(self) -> None:
        """Ends the call early, as a signal does."""
        self._ended_early = True

    @contextlib.contextmanager
    def running(self, values: Mapping[str, Any]) -> Iterator[Running]:
        """Counts a point as one that trains while the block runs."""
        running = Running(values, self._replicates)
        with self._lock:
            self._running.append(running)
        try:
            yield running
        finally:
            self._leave(running)

    def _leave(self, running: Running) -> None:
        with self._lock:
            if running in self._running:
                self._running.remove(running)

    def at_work(self) -> list[Running]:
        """Returns the points that train now."""
        with self._lock:
            return list(self._running)

    def ended(
        self,
        outcome: str,
        running: Running,
        scores: Sequence[float],
        reason: str = '',
    ) -> None:
        """Counts a point whose trial has ended, and says so."""
        with self._lock:
            self._leave(running)
            self._repeated = 0
            if outcome == 'complete':
                self.seconds_of.append(running.seconds())
                self.has_completed = True
                self._mistakes.clear()
            self._say(outcome, running, scores, reason)

    def failed(self, text: str) -> str:
        """Counts an error; says so where all points fail alike, else ''."""
        with self._lock:
            self._mistakes[text] += 1
            count = self._mistakes[text]
            most = _SAME_LATER if self.has_completed else _SAME_AT_FIRST
        if count < most:
            return ''
        return f'{count} points have failed alike, and none between them was well: {text}'

    def draw_was_repeated(self) -> bool:
        """Counts a point that the sampler drew again; returns whether it has nothing new."""
        with self._lock:
            self._repeated += 1
            return self._repeated >= _MOST_REPEATED

    def seconds_to_go(self, waiting: int, workers: int, spent: Sequence[float]) -> float | None:
        """Predicts how long so many points and those that train will take.

        Args:
          waiting: points that are not begun.
          workers: that train at a time.
          spent: seconds of points that completed before this call.

        Returns:
          None while nothing is known.
        """
        known = [*spent, *self.seconds_of]
        if not known:
            return None
        each = statistics.fmean(known)
        running = [each * (1 - r.share()) for r in self.at_work()]
        even = (waiting * each + sum(running)) / max(1, workers)
        return min(max([even, *running]), self.seconds_left())
