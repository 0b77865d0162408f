"""One trial of a point: its runs are trained by a worker, watched, and weighed."""

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from configs.sweeps.objectives import COSTS
from errors import SweepError, UserError
from sweeping import points
from sweeping.control import Control, Running
from sweeping.protocol import BUSY, DATA, ERROR, FILES, MEMORY, SWEEP, UNFIT, Job
from sweeping.pruners import by_epochs, stages
from sweeping.study import BEGUN, NUMBER, Study
from sweeping.worker import Worker
from training.run_folder import RunFolder

# How the names of the fields begin that decide whether a data set can be read and split.
_OF_DATA = ('dataset.', 'scale.', 'early_stopping.', 'augment', 'evaluate_mirrored')
_BUSY_SECONDS = 5.0
_LOOK_SECONDS = 0.2  # Between looks at the clock and at signals.


class NoAnswerError(Exception):
    """A trial has ended without a value; what came of it is stored."""


class Objective:
    """What `study.optimize` calls for each trial of one worker.

    Args:
      study: of the sweep.
      worker: that trains the runs; nobody else talks with it.
      control: of the sweep.
      log: where else runs that have ended are logged: takes folder, point, replicate and factors.

    Attributes:
      taken: whether the trial has begun.
      error: what went wrong in it and is nobody's answer.
    """

    _trial: optuna.Trial | None
    taken: bool
    error: Exception | None

    def __init__(
        self,
        study: Study,
        worker: Worker,
        control: Control,
        log: Callable[..., Any] | None = None,
    ):
        self._study, self._worker, self._control, self._log = study, worker, control, log
        self.begin()

    def __call__(self, trial: optuna.Trial) -> float | Sequence[float]:
        """Trains the replicates of a point and returns the means of its objectives.

        Raises:
          TrialPruned: it was pruned, diverged or does not fit.
          NoAnswerError: nothing can be said of the point, now or ever.
        """
        self._trial, self.taken = trial, True
        try:
            trial.set_user_attr(BEGUN, self._control.process)
        finally:
            self._study.took()
        try:
            return self._answer(trial)
        except (NoAnswerError, optuna.TrialPruned, UpdateFinishedTrialError):
            raise
        except Exception as error:
            self.error = error
            raise

    def _answer(self, trial: optuna.Trial) -> float | Sequence[float]:
        queued = NUMBER in trial.user_attrs
        if not queued and self._study.is_surplus(trial):
            self._end(trial, 'surplus')
        values = self._study.suggest(trial)
        if not queued and (same := self._study.same(trial, values)) is not None:
            return self._as_before(trial, same)
        with self._control.running(values) as running:
            work = _PointRuns(self._study, self._worker, self._control, trial, values, running)
            try:
                return work.values()
            finally:
                self._log_all(work)

    def _log_all(self, work: '_PointRuns') -> None:
        """Logs the runs of a trial that have ended; those that were logged before are known."""
        if self._log:
            number = self._study.number(work.point)
            for replicate in work.results:
                self._log(work.folder / str(replicate), number, replicate, work.point)

    def begin(self) -> None:
        """Says that another trial follows."""
        self._trial, self.taken, self.error = None, False, None

    def was_taken_over(self) -> bool:
        """Tells whether nothing went wrong but that somebody took the trial for lost."""
        if self.error or not self._trial:
            return False
        trials = self._study.optuna.get_trials(deepcopy=False)
        return trials[self._trial.number].state.is_finished()

    def _as_before(self, trial: optuna.Trial, same: Any) -> Sequence[float]:
        """Gives the sampler the result of a point that it has drawn again."""
        if self._control.draw_was_repeated():
            self._study.exhausted = True
        for step, value in same.intermediate_values.items():
            trial.report(value, step)
        self._study.end(trial, 'duplicate', reason=f'of trial {same.number}')
        if same.values:
            return same.values
        raise NoAnswerError

    def _end(self, trial: optuna.Trial, outcome: str, **what: Any) -> None:
        self._study.end(trial, outcome, **what)
        raise NoAnswerError(outcome)


class _PointRuns:
    """The runs of a point, in one trial."""

    def __init__(
        self,
        study: Study,
        worker: Worker,
        control: Control,
        trial: optuna.Trial,
        values: dict[str, Any],
        running: Running,
    ):
        self.study, self.worker, self.control = study, worker, control
        self.trial, self.point, self.running = trial, values, running
        self.sweep = study.config
        self.facts: dict[str, Any] = {}
        self.results: dict[int, dict[str, Any]] = {}  # By replicate.
        self.reported: set[int] = set()
        self.pruned = False
        self.heard_out = True  # Whether the worker has ended its job.
        self.folder = self.study.folder / 'runs' / points.folder_name(values)

    def values(self) -> float | Sequence[float]:
        """Trains, stores what came of it and returns the means of the objectives."""
        for replicates in stages(self.sweep.pruner, self.sweep.replicates):
            self._train(replicates)
            if self.sweep.pruner == 'wilcoxon':
                self._report(replicates[0], self._score(self.results[replicates[0]]))
            if self.pruned:
                count = len(self.results)
                self._end('pruned', f'after {count} of its runs' if count else 'in its first run')
        means = [
            statistics.fmean(self._figure(name, r) for r in self.results.values())
            for name in self.study.objectives
        ]
        self.study.end(self.trial, 'complete', **self._what())
        self.control.ended('complete', self.running, self._scores())
        return means

    def _train(self, replicates: Sequence[int]) -> None:
        """Lets the worker train these replicates, and answers what it says."""
        configs = points.configs(self.sweep, self.point, replicates)
        limits = {name: most for name, most in self.sweep.limits.items() if most}
        self.running.ended = len(self.results)
        self.worker.begin(
            Job(
                configs=[config.to_dict() for config in configs],
                workdirs=[str(self.folder / str(r)) for r in replicates],
                objectives=self.study.objectives,
                limits=limits,
                predict_batch=self.sweep.predict_batch,
            )
        )
        self.heard_out = False
        try:
            self._listen(replicates)
        finally:
            if not self.heard_out:
                self.worker.kill()  # Or what it still says would be taken for the next point's.

    def _listen(self, replicates: Sequence[int]) -> None:
        """Hears the worker out, and answers it."""
        stopping = False
        while True:
            if self.control.stopping() and not stopping:
                stopping = True
                self.worker.send('stop')
            try:
                message = self.worker.receive(_LOOK_SECONDS)
            except EOFError:
                self._lost(self.worker.died_of())
            if message is None:
                self._look_at_the_clock(stopping)
            elif message[0] == 'done':
                self.heard_out = True
                return self._take(replicates, message[1])
            elif message[0] == 'failed':
                self.heard_out = True
                self._failed(*message[1])
            else:
                self._hear(replicates, *message)

    def _look_at_the_clock(self, stopping: bool) -> None:
        if self.worker.hangs(self.sweep.hang_seconds):
            if stopping:
                self._end('interrupted', '')
            self._fail(f'hung: no sign of life for {self.sweep.hang_seconds:g} s')
        if stopping and self.control.impatient:
            self._end('interrupted', '')

    def _hear(self, replicates: Sequence[int], name: str, content: Any) -> None:
        if name == 'ready' and content[0] != self.worker.platform:
            raise UserError(
                f'A worker runs on {content[0]}, the first one on {self.worker.platform}: set '
                '--config.workers to the number of devices, or to 0.'
            )
        if name == 'net':
            self.running.steps = content.pop('steps')
            self.facts = content
        elif name == 'step':
            run, step = content
            self.running.stepped(run, step)
        elif name == 'evaluation' and by_epochs(self.sweep.pruner):
            run, line = content
            # The last evaluation spares nothing where there is no other run.
            spares = self.sweep.replicates > 1 or line['step'] < self.running.steps
            if replicates[run] == 0 and spares:
                base = self.sweep.base
                number = max(1, round(line['epoch'] / base.evaluate_every_epochs))
                self._report(number, line[self.study.objectives[0]])
                if self.pruned:
                    self.worker.send('drop', run)

    def _report(self, step: int, score: float) -> None:
        """Tells the pruner a figure, once, and asks it."""
        if step in self.reported or self.pruned:
            return
        self.reported.add(step)
        self.trial.report(score, step)
        self.pruned = self.trial.should_prune()

    def _take(self, replicates: Sequence[int], results: Sequence[Any]) -> None:
        """Takes the results of a job."""
        for r, result in zip(replicates, results, strict=True):
            if result is None or result['status'] == 'interrupted':
                if not self.pruned:
                    self._end('interrupted', '')
                continue
            if result['status'] == 'diverged':
                # The others tell no more: a mean without this one would flatter the point.
                self._end('diverged', f'at step {result["diverged_step"]} of replicate {r}')
            if any(self._figure(name, result) is None for name in self.study.objectives):
                self._end('diverged', f'a figure of replicate {r} is no number')
            self.results[r] = result

    def _failed(self, kind: str, text: str) -> None:
        if kind == UNFIT:
            self._end('infeasible', text)
        if kind == BUSY:
            time.sleep(_BUSY_SECONDS)  # A process of a parent that was killed still saves.
            self._end('interrupted', '')
        if kind == DATA and not any(f.name.startswith(_OF_DATA) for f in self.study.factors):
            kind = SWEEP
        if kind in (FILES, SWEEP):
            # Not the point's fault. The database may be on the same full disk.
            with contextlib.suppress(optuna.exceptions.StorageInternalError):
                self._record('interrupted', '')
            if kind == SWEEP:
                raise SweepError(text)
            raise UserError(f'{text}: mend that; the same command goes on.')
        if kind == MEMORY:  # Earlier jobs may have left less of it than a new process has.
            self.worker.kill()
            self._fail(f'out of memory: {text}', 'crashed')
        if kind == ERROR:
            self.worker.kill()
            self._fail(text)
        self._fail(text, error=SweepError)

    def _fail(self, text: str, outcome: str = 'failed', error: type[UserError] = UserError) -> None:
        """Ends the trial by what went wrong, and the call where that is wrong with all points."""
        self._record(outcome, text)
        if said := self.control.failed(text.replace(str(self.folder), 'its folder')):
            raise error(said)
        raise NoAnswerError

    def _lost(self, how: str) -> None:
        self._fail(f'its worker was {how}', 'crashed')

    # What is stored.

    def _end(self, outcome: str, reason: str) -> None:
        self._record(outcome, reason)
        if outcome in ('pruned', 'diverged', 'infeasible') and len(self.study.objectives) == 1:
            raise optuna.TrialPruned(reason)  # Which tells the sampler to keep away.
        raise NoAnswerError(outcome)

    def _record(self, outcome: str, reason: str) -> None:
        self.study.end(self.trial, outcome, reason=reason, **self._what())
        self.control.ended(outcome, self.running, self._scores(), reason)

    def _what(self) -> dict[str, Any]:
        return {
            'replicates': [
                {
                    'folder': str((self.folder / str(r)).relative_to(self.study.folder)),
                    'seed': self.sweep.base.seed + r,
                    'status': result['status'],
                    'validation': result['validation'],
                    'seconds': result['seconds'],
                }
                for r, result in sorted(self.results.items())
            ],
            'facts': self.facts,
            'seconds': self.running.seconds(),
            'epochs': self._epochs(),
            'host': self.control.process['host'],
        }

    def _epochs(self) -> float:
        """Returns the epochs that all runs of the point have trained."""
        lines = (RunFolder(path).read_metrics() for path in sorted(self.folder.glob('[0-9]*')))
        return sum(of_run[-1]['epoch'] for of_run in lines if of_run)

    def _scores(self) -> list[float]:
        return [self._score(result) for _, result in sorted(self.results.items())]

    def _score(self, result: dict[str, Any]) -> float:
        return self._figure(self.study.objectives[0], result)

    def _figure(self, name: str, result: dict[str, Any]) -> Any:
        """Returns an objective of a run."""
        if name in COSTS:
            return float(self.facts[name])
        return result['validation'][name.removeprefix('validation_')]
