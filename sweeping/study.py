"""A study: the points of a sweep and what came of them, in an Optuna storage.

A point is tried by one trial after another until one of them ends for good: a trial that was
interrupted, or whose process died, is followed by another one of the same point, which finds its
run folders. So trials are many and points few; whoever reads a study reads points (`table`).
"""

import contextlib
import dataclasses
import datetime
import itertools
import json
import math
import pathlib
import secrets
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import filelock
import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from configs import default
from configs.sweeps.factors import Factor, grid_size
from configs.sweeps.objectives import OBJECTIVES, names
from errors import UserError
from sweeping import host, points, pruners
from sweeping.definition import config_of, definition
from sweeping.storage import open_storage, shown, sqlite_url, user_errors
from sweeping.table import FINAL, Point, Replicate, Table
from training.run_folder import RunFolder

# How often a point may be lost with its process before it is given up.
_MOST_LOST = {'crashed': 2, 'lost': 5}
_FILE = 'sweep.json'
# What there is to do, as `Study.prepare` says.
WORK, WAIT, OVER = 'work', 'wait', 'over'
_UNBORN_SECONDS = 120  # Within which a trial that was taken tells who is at it.
# Attributes of trials.
END = 'end'  # What it leaves behind, see `Study.end`.
NUMBER = 'number'  # Of the point, where the trial was queued.
VALUES = 'values'  # Of a point that was asked for, as JSON.
BEGUN = 'begun'  # The process that began it, see `host.here`.
_ANSWERS = tuple(outcome for outcome in FINAL if outcome != 'failed')  # Whatever comes later.
_HIDDEN = ('surplus', 'duplicate')  # Trials that are of no point of their own.


@dataclasses.dataclass
class _Tries:
    """The trials of a point, in their order."""

    values: dict[str, Any]
    trials: list[FrozenTrial] = dataclasses.field(default_factory=list)

    def last(self) -> FrozenTrial:
        """The one that says what came of the point: one that answers it, or else the latest."""
        return min(reversed(self.trials), key=lambda t: _outcome(t) not in _ANSWERS)

    def outcome(self) -> tuple[str, str]:
        """Returns one of `table.OUTCOMES`, and why."""
        last = self.last()
        outcome = _outcome(last)
        if outcome in FINAL or _alive(last):
            return outcome, _end(last).get('reason', '')
        counts = Counter(_outcome(trial) for trial in self.trials)
        for name, most in _MOST_LOST.items():
            if counts[name] >= most:
                reason = _end(last).get('reason') or 'its process died'
                return 'failed', f'{reason} ({counts[name]} times)'
        return 'interrupted', ''

    def shall_be_tried_again(self, opened: datetime.datetime) -> bool:
        """Tells whether another trial has to follow: also of what failed before this call."""
        ended = self.last().datetime_complete
        return self.outcome()[0] == 'interrupted' or (
            self.outcome()[0] == 'failed' and ended is not None and ended < opened
        )


class Study:
    """A study, opened. Several processes may have it open, each with all its threads.

    Args:
      config: of the sweep, validated.
      folder: of the study; run folders and plots lie there. All hosts see the same one.
      storage: URL of a database; '' for SQLite in the folder.
      reading: whether it must be there, and is only read.

    Raises:
      UserError: the storage cannot be opened, or holds a study of another sweep.
    """

    def __init__(self, config: Any, folder: pathlib.Path, storage: str = '', reading: bool = False):
        self.config, self.folder, self._url = config, folder, storage
        self._opened = datetime.datetime.now()
        self.factors: tuple[Factor, ...] = config.space
        self.objectives = names(config.objective)
        self.planned = config.sampler in (*points.PLANNED, points.ASKED)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._guard = threading.Lock()  # Between threads; the file between processes.
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(folder / '.study.lock')
        self._plan: Iterator[dict[str, Any]] | None = None
        if config.sampler == points.ASKED:
            self._plan = iter(())
        elif self.planned:
            self._plan = points.planned(config.sampler, self.factors, config.seed)
        self._drawn: list[dict[str, Any]] = []
        self._taking = 0  # Threads of this process that were told of a point and have not taken it.
        self.exhausted = False  # The sampler draws nothing new.
        self._unborn: dict[int, float] = {}  # Trials that nobody has begun, and since when.
        with self._lock:
            there = RunFolder(folder).read_json(_FILE)
            with user_errors(storage):
                self.optuna = self._load(there, storage) if there else self._create(storage)
            if reading:
                return
            self._check_definition()
            calls = self.optuna.user_attrs.get('calls', 0)
            self.optuna.set_user_attr('calls', calls + 1)
        # A call that joins or goes on shall not draw what another one has drawn.
        self.optuna.sampler = points.sampler(config.sampler, config.seed + calls)
        self.optuna.pruner = pruners.pruner(config)

    def _load(self, there: dict[str, Any], storage: str) -> optuna.Study:
        """Opens the study that was begun in the folder."""
        if there['storage'] != shown(storage):
            raise UserError(
                f'{self.folder} holds a study whose database is {there["storage"] or "SQLite"}: '
                f'{"give that" if there["storage"] else "leave out"} --storage, or choose another '
                '--workdir.'
            )
        try:
            return optuna.load_study(study_name=there['name'], storage=self._open(storage))
        except KeyError as error:
            raise UserError(
                f'The database of {self.folder} no longer holds its study: choose another '
                '--workdir.'
            ) from error

    def _create(self, storage: str) -> optuna.Study:
        """Makes a study, of a name that none of another folder has."""
        name = f'{self.folder.resolve().name}-{secrets.token_hex(4)}'
        made = optuna.create_study(
            study_name=name,
            storage=self._open(storage),
            directions=['maximize' if more else 'minimize' for more in self.maximize()],
        )
        made.set_user_attr('definition', definition(self.config))
        what = {'name': name, 'storage': shown(storage), **definition(self.config)}
        RunFolder(self.folder).write_json(_FILE, what)
        return made

    def _open(self, storage: str) -> optuna.storages.RDBStorage:
        return open_storage(storage or sqlite_url(self.folder / 'study.db'))

    def _check_definition(self) -> None:
        now = json.loads(json.dumps(definition(self.config)))
        before = self.optuna.user_attrs['definition']
        differing = [name for name in now if before.get(name) != now[name]]
        if not differing:
            return
        old, new = (default.flatten(d['base']) for d in (before, now))
        changed = (n for n in sorted(old.keys() | new.keys()) if old.get(n) != new.get(n))
        fields = [f'base.{n}' for n in changed]
        names = [*fields, *(name for name in differing if name != 'base')]
        raise UserError(
            f'{self.folder} holds a study of another sweep; it differs in {", ".join(names[:6])}. '
            'Choose another --workdir, or delete that folder.'
        )

    # Points.

    def ask(self, asked: Sequence[dict[str, Any]]) -> None:
        """Sets what shall be tried next, of a study whose sampler is `asked`.

        Points that were asked for before and not ended are let go of; each host asks for the same.

        Args:
          asked: values of training fields, by dotted name, of each point.
        """
        self._drawn = [dict(values) for values in asked]

    def points(self) -> dict[str, _Tries]:
        """Returns the points that were begun or queued, by key, in their order."""
        found: dict[str, _Tries] = {}
        for trial in self.optuna.get_trials(deepcopy=False):
            values = self._values(trial)
            if values:
                found.setdefault(points.key(values), _Tries(values)).trials.append(trial)
        return found

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Returns the point of a trial; {} where it has none, or died while it was drawn."""
        if _outcome(trial) in _HIDDEN:
            return {}
        if VALUES in trial.user_attrs:
            return default.flatten(json.loads(trial.user_attrs[VALUES]))
        params = trial.system_attrs.get('fixed_params', {}) | trial.params
        values = points.values_of(params, self.factors)
        whole = all(f.name in values for f in self.factors if f.applies(values))
        return values if whole or _alive(trial) else {}

    def prepare(self) -> str:
        """Queues what has to be tried, and says what there is to do.

        Points of the plan are queued in their order, and once more those whose trial has ended
        without an answer.

        Returns:
          `WORK`: a point; `WAIT`: none now, but some train that may be lost; `OVER`: none any more.
        """
        with self._guard:
            return self._prepare()

    def _prepare(self) -> str:
        self._fail_lost_trials()
        if self._missing():
            with self._lock:  # Of several processes one queues a point.
                for number, values in self._missing():
                    self._queue(number, values)
        outcomes = Counter(tries.outcome()[0] for tries in self.points().values())
        most, size = most_points(self.config), grid_size(self.factors)
        all_begun = (
            self.planned
            or self.exhausted
            or 0 < most <= outcomes.total()
            or outcomes.total() == size
        )
        if outcomes['waiting'] > self._taking or not all_begun:
            self._taking += 1
            return WORK
        return WAIT if outcomes['running'] else OVER

    def _queue(self, number: int, values: dict[str, Any]) -> None:
        attributes: dict[str, Any] = {NUMBER: number}
        if self.config.sampler == points.ASKED:  # Optuna's own spaces name all values beforehand.
            self.optuna.enqueue_trial({}, user_attrs=attributes | {VALUES: json.dumps(values)})
        else:
            self.optuna.enqueue_trial(points.stored(values), user_attrs=attributes)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Returns the point of a trial that begins."""
        if VALUES in trial.user_attrs:
            return default.flatten(json.loads(trial.user_attrs[VALUES]))
        return points.suggest(trial, self.factors)

    def took(self) -> None:
        """Says that a thread which `prepare` told of a point is at it."""
        with self._guard:
            self._taking -= 1

    def _fail_lost_trials(self) -> None:
        """Lets go of the trials whose process has given no sign for long."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.optuna)
        # A process may die before its first heartbeat, of which Optuna thinks nothing; and for that
        # of one of this machine nobody has to wait.
        now, running = time.monotonic(), (TrialState.RUNNING,)
        trials = self.optuna.get_trials(deepcopy=False, states=running)
        unborn = {trial.number for trial in trials if BEGUN not in trial.user_attrs}
        self._unborn = {number: self._unborn.get(number, now) for number in unborn}
        lost = {n for n, since in self._unborn.items() if now - since > _UNBORN_SECONDS}
        lost |= {t.number for t in trials if host.is_gone(t.user_attrs.get(BEGUN, {}))}
        for number in lost:
            with contextlib.suppress(
                ValueError, UpdateFinishedTrialError
            ):  # Somebody else has done so.
                self.optuna.tell(number, state=TrialState.FAIL)

    def _missing(self) -> list[tuple[int, dict[str, Any]]]:
        """Returns the points that should wait and do not, with their numbers.

        Those that were lost, and of the plan the next ones.
        """
        known = self.points()
        lost = [
            (number, tries.values)
            for number, (key, tries) in enumerate(known.items())
            if tries.shall_be_tried_again(self._opened) and self._wanted(key)
        ]
        if not self._plan:
            return lost
        # Not more than are taken now: what is interrupted shall not wait behind the whole plan.
        waiting = sum(tries.outcome()[0] == 'waiting' for tries in known.values()) + len(lost)
        most = most_points(self.config) or math.inf
        new = (each for each in self._in_order() if points.key(each[1]) not in known)
        count = max(0, self._taking + 1 - waiting)
        return lost + [each for each in itertools.islice(new, count) if each[0] < most]

    def _wanted(self, key: str) -> bool:
        asks = self.config.sampler == points.ASKED
        return not asks or key in map(points.key, self._drawn)

    def _in_order(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Gives the points of the plan, with their numbers, and draws them as they are needed."""
        yield from enumerate(self._drawn)
        assert self._plan
        for values in self._plan:
            self._drawn.append(values)
            yield len(self._drawn) - 1, values

    def maximize(self) -> tuple[bool, ...]:
        """Returns, for each objective, whether more is better."""
        return tuple(OBJECTIVES[name] for name in self.objectives)

    def epochs(self) -> float:
        """Returns the epochs that all runs have trained together."""
        return sum(
            max((_end(trial).get('epochs', 0.0) for trial in tries.trials), default=0.0)
            for tries in self.points().values()
        )

    def is_surplus(self, trial: optuna.Trial) -> bool:
        """Tells whether a trial that nobody queued is one too many.

        Of two workers that look for the last point one comes too late.
        """
        if self.planned:
            return True
        drawn = [
            other
            for other in self.optuna.get_trials(deepcopy=False)
            if NUMBER not in other.user_attrs
            and other.number < trial.number
            and (_alive(other) or self._values(other))
        ]
        return 0 < most_points(self.config) <= len(drawn)

    def same(self, trial: optuna.Trial, values: dict[str, Any]) -> FrozenTrial | None:
        """Returns the other trial of the same point that runs or has ended, if there is one."""
        tries = self.points().get(points.key(values))
        # Of two that were drawn at the same time the second one gives way.
        others = [
            t
            for t in (tries.trials if tries else ())
            if t.number < trial.number or t.state != TrialState.RUNNING
        ]
        others = [t for t in others if t.number != trial.number]
        if not others:
            return None
        last = _Tries(values, others).last()
        return last if _outcome(last) in FINAL or _alive(last) else None

    def number(self, values: dict[str, Any]) -> int:
        """Returns the number of a point that was begun."""
        return list(self.points()).index(points.key(values))

    def end(self, trial: optuna.Trial, outcome: str, **what: Any) -> None:
        """Stores how a trial ended, before its state is.

        Args:
          trial: that runs.
          outcome: of `table.OUTCOMES`; or crashed (its worker died), surplus, duplicate.
          what: `reason`, `replicates`, `facts`, `seconds`, `host`, as `table` reads them.
        """
        trial.set_user_attr(END, {'outcome': outcome, **what})

    def discard(self) -> None:
        """Removes a study in which nothing was trained, unless another call has opened it too.

        So its folder is free for the sweep that was meant.
        """
        runs, logs = self.folder / 'runs', self.folder / 'workers'
        with self._lock, contextlib.suppress(OSError, StorageInternalError):
            if any(runs.glob('*/*/config.json')) or self.optuna.user_attrs['calls'] > 1:
                return
            optuna.delete_study(study_name=self.optuna.study_name, storage=self._open(self._url))
            for path in (*logs.glob('*.log'), *self.folder.glob('study.db*')):
                path.unlink()
            for name in (_FILE, '.study.lock'):
                (self.folder / name).unlink()
            for path in (*runs.glob('*'), runs, logs, self.folder):
                if path.is_dir():
                    path.rmdir()

    def table(self) -> Table:
        """Returns what came of all points."""
        return Table(
            folder=self.folder,
            factors=tuple(f.name for f in self.factors),
            objectives=self.objectives,
            maximize=self.maximize(),
            dataset=self.config.base.dataset.name,
            replicates=self.config.replicates,
            points=tuple(_point(n, t) for n, t in enumerate(self.points().values())),
        )


def _point(number: int, tries: _Tries) -> Point:
    last = tries.last()
    outcome, reason = tries.outcome()
    end = _end(last)
    values = tuple(last.values or ()) if last.state == TrialState.COMPLETE else ()
    return Point(
        number=number,
        values=tries.values,
        outcome=outcome,
        reason=reason,
        objectives=values,
        replicates=tuple(Replicate(**each) for each in end.get('replicates', ())),
        facts=end.get('facts', {}),
        session={
            'host': end.get('host', ''),
            'attempts': sum(_outcome(trial) != 'waiting' for trial in tries.trials),
            'seconds': sum(_end(trial).get('seconds', 0.0) for trial in tries.trials),
        },
    )


def _end(trial: FrozenTrial) -> dict[str, Any]:
    return trial.user_attrs.get(END, {})


def _alive(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.RUNNING, TrialState.WAITING)


def _outcome(trial: FrozenTrial) -> str:
    """Returns what came of a trial; 'lost' of one whose process died."""
    if trial.state == TrialState.COMPLETE:
        return _end(trial).get('outcome', 'complete')
    if _alive(trial):
        return trial.state.name.lower()
    outcome = _end(trial).get('outcome', 'lost')
    return 'lost' if outcome == 'complete' else outcome  # It died before its state was stored.


# What a study is of.


def most_points(config: Any) -> int:
    """Returns how many points the budget of runs allows; 0: any number."""
    runs = config.budget.runs
    return max(1, runs // config.replicates) if runs else 0


def total_points(config: Any) -> int:
    """Returns how many points there will be; 0: nobody knows."""
    if config.sampler == 'grid':
        everything = sum(1 for _ in points.planned('grid', config.space, 0))
        return min(everything, most_points(config) or everything)
    return min(most_points(config), grid_size(config.space) or most_points(config))


def reopen(folder: pathlib.Path, storage: str = '') -> Study:
    """Opens the study of a folder for reading.

    Args:
      folder: of the study.
      storage: URL of its database, where the folder does not hold it or its password.

    Raises:
      UserError: there is none.
    """
    there = RunFolder(folder).read_json(_FILE) if folder.is_dir() else None
    if there is None:
        raise UserError(f'{folder} holds no study: there is no {_FILE} in it.')
    return Study(config_of(there), folder, storage or there['storage'], reading=True)
