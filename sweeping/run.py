"""One call of a sweep: workers take points from the study until there are none, or time is up."""

import functools
import math
import pathlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

from console import Console, duration
from errors import SweepError, UserError
from sweeping import tracking
from sweeping.control import Control, Running
from sweeping.reading import summary, words
from sweeping.reading.summary import Estimate
from sweeping.study import WAIT, WORK, Study, total_points
from sweeping.table import FINAL, Table
from sweeping.trials import NoAnswerError, Objective
from sweeping.worker import Worker
from training.interruption import Interruption

# How a call ends, and what goes on.
DONE, INTERRUPTED = 'Done', 'Interrupted; the same command goes on'
SPENT = 'The budget of time is spent; the same command goes on'
EPOCHS_SPENT = 'The budget of epochs is spent; a larger config.budget.epochs goes on'
_LOOK_SECONDS = 0.2
_STORAGE_SECONDS = 120.0  # Without an answer of the database, after which the call ends.
_WAIT_SECONDS = 1.0  # Between looks for what other hosts leave over.


def run(
    config: Any, folder: pathlib.Path, storage: str, console: Console, started: float
) -> tuple[Table, str]:
    """Trains what is left of a sweep, or what its budget allows.

    Ctrl-C and SIGTERM save what trains; a second one does not wait for it.

    Args:
      config: of the sweep, validated.
      folder: of the study; made where it is not there.
      storage: URL of the study's database; '' for SQLite in the folder.
      console: says what happens.
      started: `time.monotonic()` when the budget of time began.

    Returns:
      What came of it, and how the call ended: `DONE`, `SPENT`, `EPOCHS_SPENT` or `INTERRUPTED`.

    Raises:
      UserError: something the user can mend, with the remedy.
    """
    study = Study(config, folder, storage)
    deadline = started + 3600 * config.budget.hours if config.budget.hours else math.inf
    with Interruption() as signals, Call(study, signals, console, deadline) as call:
        call.introduce()
        try:
            call.to_the_end()
        except SweepError:
            study.discard()
            raise
        ended = call.ended() if not signals.received else INTERRUPTED
    return study.table(), ended


class Call:
    """The threads of a call, each with a worker; a context manager that ends the workers.

    Args:
      study: opened to be trained.
      signals: of the process, entered.
      console: says what happens.
      deadline: by `time.monotonic()`; infinite where there is none.
      said: how a point is called, from its values; by default by its factors.
      workers_on_cpu: how many there are on a CPU where the config leaves it open.

    Attributes:
      control: what the threads share.
      total: points that there will be; 0 where nobody knows.
    """

    def __init__(
        self,
        study: Study,
        signals: Interruption,
        console: Console,
        deadline: float,
        said: Callable[[Mapping[str, Any]], str] | None = None,
        workers_on_cpu: int = 1,
    ):
        first = Worker(study.folder / 'workers')
        config = study.config
        self.study, self.console = study, console
        self.platform, self.devices = first.platform, first.devices
        self.control = Control(signals, deadline, config.replicates, self._say)
        table = study.table()
        before, self.factors = table.points, table.factors
        self._called = said or functools.partial(words.chosen, self.factors)
        self.spent = [p.session['seconds'] for p in before if p.outcome == 'complete']
        self.control.has_completed = bool(self.spent)
        self.outcomes = Counter(p.outcome for p in before if p.outcome in FINAL)
        self.best: tuple[float, ...] = ()
        for point in before:
            if point.outcome == 'complete':
                found = summary.estimate(table, point, study.objectives[0])
                self._take_if_best(found.runs or point.objectives[:1])
        self.total = total_points(config)
        mlflow = tracking.MLflow(study.folder, console) if config.tracking == 'mlflow' else None
        self.log = mlflow.log if mlflow else None
        least = workers_on_cpu if first.platform == 'cpu' else 1
        self.processes = first.with_others(config.workers or max(least, first.devices))

    def __enter__(self) -> 'Call':
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_workers()

    def _end_workers(self) -> None:
        for worker in self.processes:
            worker.kill()

    def introduce(self) -> None:
        """Says what will be tried, and how."""
        config, before = self.study.config, sum(self.outcomes.values())
        workers = words.count(len(self.processes), 'worker')
        devices = words.count(self.devices, f'{self.platform} device')
        self.console.line(
            f'Leadline  sweep of {", ".join(self.factors)} on {config.base.dataset.name}, '
            f'{workers} on {devices}, study folder {self.study.folder}'
            + (f'; {words.count(before, "point")} ended before' if before else ''),
            always=True,
        )
        budget = [f'{v:g} {n}' for n, v in config.budget.items() if v and n != 'hours']
        if config.budget.hours:
            budget.append(duration(3600 * config.budget.hours))
        self.console.line(
            f'Plan      {f"{self.total} points" if self.total else "points"} by {config.sampler}, '
            f'{words.count(config.replicates, "run")} each, for {config.objective}; pruner '
            f'{config.pruner}; budget {", ".join(budget) or "without limit"}',
            always=True,
        )

    def to_the_end(self) -> None:
        """Lets all workers work, until there is no more to do or they shall stop.

        Raises:
          UserError: something the user can mend, with the remedy.
        """
        with ThreadPoolExecutor(len(self.processes), 'worker') as pool:
            futures = [pool.submit(self._work, worker) for worker in self.processes]
            with self.console.status() as show:
                while not all(future.done() for future in futures):
                    try:
                        time.sleep(_LOOK_SECONDS)
                        show(self._progress())
                        if any(future.done() and future.exception() for future in futures):
                            self.control.stop()
                    except KeyboardInterrupt:  # The second one: the first sets a flag.
                        self.control.impatient = True
        if self.control.stopping():
            self._end_workers()  # One that was told to stop stops for good.
        errors = [error for future in futures if (error := future.exception())]
        if errors:
            raise errors[0]

    def _work(self, worker: Worker) -> None:
        """What the thread of a worker does."""
        since = time.monotonic()
        objective = Objective(self.study, worker, self.control, self.log)
        while not self.control.stopping() and not self.epochs_are_spent():
            try:
                if not self._one_more(objective):
                    return
                since = time.monotonic()
            except StorageInternalError as error:  # A database may be started anew.
                if time.monotonic() - since > _STORAGE_SECONDS:
                    reason = str(error.__cause__ or error).strip().splitlines()[0]
                    raise UserError(
                        f'The database of the study does not answer ({reason}); the same '
                        'command goes on.'
                    ) from error
                time.sleep(_WAIT_SECONDS)

    def _one_more(self, objective: Objective) -> bool:
        """Does a trial, or waits for a while; returns whether there is more to do."""
        todo = self.study.prepare()
        if todo == WAIT:
            time.sleep(_WAIT_SECONDS)  # Others train; what they lose is taken over.
        if todo != WORK:
            return todo == WAIT
        objective.begin()
        try:
            self.study.optuna.optimize(objective, n_trials=1, catch=(NoAnswerError,))
        except (ValueError, UpdateFinishedTrialError):
            if not objective.was_taken_over():
                raise
        finally:
            if not objective.taken:
                self.study.took()
        return True

    def ended(self) -> str:
        """Says what ended the call."""
        if self.control.out_of_time():
            return SPENT
        return EPOCHS_SPENT if self.epochs_are_spent() else DONE

    def epochs_are_spent(self) -> bool:
        """Tells whether the budget of epochs holds no further point, beside those that train."""
        config = self.study.config
        promised = len(self.control.at_work()) * config.replicates * config.base.epochs
        return 0 < config.budget.epochs <= self.study.epochs() + promised

    # What is said.

    def _say(self, outcome: str, running: Running, scores: Sequence[float], reason: str) -> None:
        """Prints how a point ended."""
        if outcome in FINAL:
            self.outcomes[outcome] += 1
        if outcome == 'complete':
            self._take_if_best(scores)
        said = self._figure(scores) if outcome == 'complete' else f'{outcome} {reason}'.strip()
        done = sum(self.outcomes.values())
        width = len(str(self.total or 100))
        count = f'{done:{width}}/{self.total}' if self.total else f'{done:{width}}'
        point, seconds = self._called(running.values), running.seconds()
        self.console.line(f'{count}  {point}  {said}  {seconds:.0f} s{self._eta()}')

    def _take_if_best(self, scores: Sequence[float]) -> None:
        sign = 1 if self.study.maximize()[0] else -1
        if not self.best or sign * statistics.fmean(scores) > sign * statistics.fmean(self.best):
            self.best = tuple(scores)

    def _figure(self, scores: Sequence[float]) -> str:
        found = Estimate(statistics.fmean(scores), tuple(scores))
        return words.figure(self.study.objectives[0], found)

    def _eta(self) -> str:
        at_work = len(self.control.at_work())
        waiting = self.total - sum(self.outcomes.values()) - at_work if self.total else 0
        left: float | None = self.control.seconds_left()
        if self.total:
            left = self.control.seconds_to_go(max(0, waiting), len(self.processes), self.spent)
        if left is None or left == math.inf:
            return ''
        minutes, seconds = divmod(round(left), 60)
        return f'  ETA {minutes}:{seconds:02}'

    def _progress(self) -> str:
        """Returns the line that a terminal shows while points train."""
        at_work = self.control.at_work()
        shares = ', '.join(f'{self._called(r.values)} {r.share():.0%}' for r in at_work)
        counts = ', '.join(f'{count} {outcome}' for outcome, count in self.outcomes.items())
        best = f'; best {self._figure(self.best)}' if self.best else ''
        return f'{counts or "0 complete"}; {len(at_work)} running ({shares}){best}{self._eta()}'
