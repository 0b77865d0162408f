"""Many runs in one process with one compiled program: `train_many`.

They may differ in what is an argument of the program or happens outside of it: seed, split,
learning rate, weight decay, length. Data are read and programs compiled once. The runs train one
after another, or one on each device, or together as one program mapped over runs; where there is a
choice, a few steps of each are measured.
"""

import collections
import contextlib
import functools
import itertools
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax

from configs import default
from console import Console
from errors import UserError
from training import results
from training.data_parallel import DataParallel
from training.follower import Follower
from training.interruption import Interruption
from training.loop import train
from training.once import Once
from training.prepared import FREE, Prepared, open_devices
from training.run_folder import FINAL, HOW, RunFolder
from training.together import Together

SEQUENTIAL, ONE_PER_DEVICE, VMAPPED = WAYS = ('sequential', 'one_per_device', 'vmapped')
_IN_WORDS = {
    SEQUENTIAL: 'one after another',
    ONE_PER_DEVICE: 'one on each device',
    VMAPPED: 'together as one program',
}
_MOST_TOGETHER = 16  # Each is an argument of the program with all its arrays.
# Of the measurement, on each thread: dispatches, and seconds at least.
_WARM_UP, _TIMED, _TIMED_SECONDS = 2, 5, 0.3


class ManyRuns(NamedTuple):
    """What `train_many` did.

    Attributes:
      results: `result.json` of each run, in the order of the configs; None where an interruption
        came before the run began.
      how: one of `WAYS`; which one says nothing where an interruption came before any run began.
      step_seconds: what was measured to choose it: seconds of a step of one run while as many
        train as can at a time, by way; empty where there was nothing to choose.
      choosing_seconds: what that took, with compiling what was not chosen.
    """

    results: list[dict[str, Any] | None]
    how: str
    step_seconds: dict[str, float]
    choosing_seconds: float


def train_many(
    configs: Sequence[Any],
    workdirs: Sequence[str | os.PathLike],
    quiet: bool = False,
    how: str | None = None,
    once: Once | None = None,
    signals: Interruption | None = None,
    follow: Callable[[int], Follower] | None = None,
) -> ManyRuns:
    """Trains the nets of `configs`, or goes on with them; those that have ended are only read.

    Each run leaves the run folder that `train_and_evaluate` would. One after another the results
    are the same bits as there; one per device, as there on one device; mapped over runs, the same
    up to rounding. A run that diverges or stops early leaves the others as they are. After Ctrl-C,
    SIGTERM or an error, all that train are saved, no more are begun, and the same call goes on;
    after a `UserError` of one run the others are trained first. A second Ctrl-C is raised as
    KeyboardInterrupt once they are saved.

    Args:
      configs: as from `configs/default.py`; they differ in the fields `FREE` alone.
      workdirs: a run folder for each.
      quiet: print nothing but the headline and how each run ended.
      how: one of `WAYS`; None goes on as a run that was interrupted, or else measures and chooses.
      once: shared with other calls of this process: what they have in common is made once.
      signals: says when to stop, in place of Ctrl-C and SIGTERM.
      follow: from the number of a run, in the order of the configs, to who follows it.

    Raises:
      UserError: something the user can mend, with the remedy.
    """
    _check(configs, workdirs, how)
    once = once or Once()
    every = open_devices(configs[0], once)
    for config in configs[1:]:
        default.validate(config)
    console = Console(quiet)
    with contextlib.ExitStack() as stack:
        folders = [RunFolder(workdir) for workdir in workdirs]
        claims = zip(folders, configs, strict=True)
        ended = [stack.enter_context(folder.claim(config)) for folder, config in claims]
        batch = _Batch(configs, folders, ended, console, once, follow or (lambda _: Follower()))
        console.line(
            f'Leadline  {len(configs)} runs of {configs[0].dataset.name} on {every.describe()}'
            f'{batch.ended_before()}',
            always=True,
        )
        # What breaks one run stops the others of this call, and nobody else's.
        signals = Interruption(signals) if signals else stack.enter_context(Interruption())
        plans = _plans(configs[0], every, len(batch.waiting), how or batch.begun_as(), once)
        waiting = [configs[i] for i in batch.waiting]
        plan, seconds, choosing = _choose(plans, waiting, batch.once, signals)
        if not signals.received:
            words = f'{_IN_WORDS[plan.how]}{_compared(seconds, choosing)}'
            console.line(f'Runs      {words}', always=True)
        batch.train(plan, signals)
        return ManyRuns(batch.results, plan.how, seconds, choosing)


def check_alike(configs: Sequence[Any]) -> None:
    """Checks that the configs differ in the fields `FREE` alone.

    Raises:
      UserError: names the first field that differs, and its values.
    """
    first = default.flatten(configs[0])
    for number, config in enumerate(configs[1:], 2):
        other = default.flatten(config)
        for name in (*first, *other):
            if name not in FREE and first.get(name) != other.get(name):
                raise UserError(
                    f'Runs of one program cannot differ in config.{name}: it is '
                    f'{first.get(name)!r} in the first and {other.get(name)!r} in number {number}. '
                    'Train those apart.'
                )


def _check(configs: Sequence[Any], workdirs: Sequence[Any], how: str | None) -> None:
    if not configs or len(configs) != len(workdirs):
        raise UserError(
            f'{len(configs)} configs and {len(workdirs)} run folders: give one folder for each.'
        )
    paths = [pathlib.Path(workdir).resolve() for workdir in workdirs]
    if twice := [path for path, count in collections.Counter(paths).items() if count > 1]:
        raise UserError(f'Two runs have the run folder {twice[0]}: give one folder for each.')
    if how not in (None, *WAYS):
        raise UserError(f'There is no way {how!r} of training many runs; there are {WAYS}.')
    check_alike(configs)
    if configs[0].profile_steps:
        raise UserError('config.profile_steps traces a single run: set it to 0.')
    if how == VMAPPED and configs[0].debug_nans:
        raise UserError('config.debug_nans looks at a single run: train sequentially.')


class _Plan(NamedTuple):
    """One way to train.

    Attributes:
      how: one of `WAYS`.
      devices: for each thread, what its runs train on; the same for all threads where `together`.
      together: those devices, where each dispatch waits for those of the other threads.
    """

    how: str
    devices: list[DataParallel]
    together: Together | None = None

    def on_threads(self, runs: int, work: Callable[[DataParallel], None]) -> None:
        """Calls `work` on as many threads as runs can train at a time, and waits for all of them.

        Raises:
          Exception: what one of them raised.
          KeyboardInterrupt: a signal came meanwhile.
        """
        count = min(runs, len(self.devices))
        if self.together:
            self.together.expect(count)

        def thread(devices: DataParallel) -> None:
            try:
                work(devices)
            finally:
                if self.together:
                    self.together.leave()

        with ThreadPoolExecutor(count, 'run') as pool:
            futures = [pool.submit(thread, devices) for devices in self.devices[:count]]
            _wait(futures)
        errors = [error for error in (future.exception() for future in futures) if error]
        for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
            raise error


def _wait(futures: Sequence[Future]) -> None:
    """Waits for all threads, and raises a signal that came meanwhile only then.

    Until they have saved, nobody else may have their run folders.
    """
    signal: KeyboardInterrupt | None = None
    while not all(future.done() for future in futures):
        try:
            # Not for ever: Python answers a signal that another thread was given only when this one
            # goes on.
            wait(futures, timeout=0.1)
        except KeyboardInterrupt as error:
            signal = error
    if signal:
        raise signal


def _plans(config: Any, every: DataParallel, runs: int, how: str | None, once: Once) -> list[_Plan]:
    """Returns the ways there are to train so many runs, or the one that is asked for."""
    kind = config.parallel
    plans = [_Plan(SEQUENTIAL, [every])]
    if how is None and config.debug_nans:
        return plans  # Nothing that runs piece by piece is worth timing.
    if how == ONE_PER_DEVICE or (how is None and min(runs, every.count) > 1):
        single = [
            once(('one device', kind, i), functools.partial(DataParallel, kind, [d]))
            for i, d in enumerate(every.devices[: max(1, runs)])
        ]
        plans.append(_Plan(ONE_PER_DEVICE, single))
    # On CPU a kernel for each run makes convolutions that XLA runs many times slower; those of
    # oneDNN would be done one run after another all the same.
    if how == VMAPPED or (how is None and runs > 1 and every.platform != 'cpu'):
        count = max(1, min(runs, _MOST_TOGETHER))
        together = once(('together', kind, count), lambda: Together(kind, count, every.devices[0]))
        plans.append(_Plan(VMAPPED, [together] * count, together))
    return plans if how is None else [plan for plan in plans if plan.how == how]


def _choose(
    plans: Sequence[_Plan], configs: Sequence[Any], once: Once, signals: Interruption
) -> tuple[_Plan, dict[str, float], float]:
    """Returns the fastest plan, the seconds of a step of a run by way, and those of measuring.

    After a signal no more is measured. What the plans left in `once` that nobody follows goes.
    """
    if len(plans) == 1 or not configs:
        return plans[0], {}, 0.0
    begun = time.perf_counter()
    seconds = {}
    for plan in plans:
        if signals.received:
            break
        # Memory cannot hold it, or the batch does not divide.
        with contextlib.suppress(UserError, jax.errors.JaxRuntimeError):
            seconds[plan.how] = _step_seconds(plan, configs, once)
    known = [plan for plan in plans if plan.how in seconds] or plans[:1]  # Which says why.

    def cost(plan: _Plan) -> float:
        # In the last round there may be fewer runs than threads, and it takes no less.
        at_a_time = len(plan.devices)
        return math.ceil(len(configs) / at_a_time) * at_a_time * seconds.get(plan.how, 0.0)

    best = min(known, key=cost)
    for devices in itertools.chain(*(plan.devices for plan in plans if plan is not best)):
        once.forget(devices)
    return best, seconds, time.perf_counter() - begun


def _step_seconds(plan: _Plan, configs: Sequence[Any], once: Once) -> float:
    """Times a few steps on states that are thrown away, as many runs at a time as there will be."""
    waiting = collections.deque(configs)
    rates: list[float] = []
    ready = threading.Barrier(min(len(configs), len(plan.devices)))

    def work(devices: DataParallel) -> None:
        try:
            run = Prepared(waiting.popleft(), devices, Console(quiet=True), once)
            with contextlib.closing(run):
                rates.append(_steps_per_second(run, ready))
        except BaseException:
            ready.abort()  # The others would wait for ever.
            raise

    plan.on_threads(len(configs), work)
    return 1 / sum(rates)


def _steps_per_second(run: Prepared, ready: threading.Barrier) -> float:
    """Times dispatches from when every thread has done its first ones."""
    run.place_data()
    state = run.devices.replicate(run.initial_state())
    count = run.dispatch_length(0)
    run.check_program(run.train_program(state, 0, count)[0])
    dispatches = run.dispatches(state)
    for _ in range(_WARM_UP):
        state, _ = next(dispatches)
    jax.block_until_ready(state)
    ready.wait()
    begun, done = time.perf_counter(), 0
    while done < _TIMED or time.perf_counter() - begun < _TIMED_SECONDS:
        state, _ = next(dispatches)
        done += 1
    jax.block_until_ready(state)
    return count * done / (time.perf_counter() - begun)


def _compared(seconds: dict[str, float], choosing: float) -> str:
    """Says what the choice was made by; nothing where there was none."""
    if not seconds:
        return ''
    times = [f'{_IN_WORDS[how]} {1000 * each:.3g} ms' for how, each in seconds.items()]
    return f' (a step of a run: {", ".join(times)}; measured in {choosing:.0f} s)'


# Training.


def _how(folder: RunFolder) -> str:
    """Returns how the run of a folder was trained last; what a command of its own does, if none."""
    return (folder.read_json(HOW) or {'how': SEQUENTIAL})['how']


class _Batch:
    """The runs of one call: which have ended, and what the others share."""

    def __init__(
        self,
        configs: Sequence[Any],
        folders: Sequence[RunFolder],
        ended: list[dict[str, Any] | None],
        console: Console,
        once: Once,
        follow: Callable[[int], Follower],
    ):
        self.configs, self.folders, self.results = configs, folders, ended
        self.console, self.once, self.follow = console, once, follow
        self.waiting = [i for i, result in enumerate(ended) if result is None]

    def begun_as(self) -> str | None:
        """Returns how the first run with a checkpoint was trained, for the rest to be the same."""
        begun = (self.folders[i] for i in self.waiting if self.folders[i].has_checkpoints())
        return next((_how(folder) for folder in begun), None)

    def ended_before(self) -> str:
        """Says how many runs need no training; nothing where there are none."""
        return f'; {self._ended()} have ended before' if self._ended() else ''

    def train(self, plan: _Plan, signals: Interruption) -> None:
        """Trains what has not ended, until a signal comes."""
        queue = iter(self.waiting)
        errors: list[UserError] = []

        def work(devices: DataParallel) -> None:
            try:
                while not signals.received and (run := next(queue, None)) is not None:
                    try:
                        self._train(run, plan.how, devices, signals)
                    except UserError as error:  # The runs behind it may be right.
                        errors.append(error)
                    advance(self._ended())
            except BaseException:
                signals.received = True  # The others save and end too.
                raise

        with self.console.progress('Training', len(self.results), self._ended()) as advance:
            if self.waiting:
                plan.on_threads(len(self.waiting), work)
        if errors:
            raise errors[0]
        if self._ended() < len(self.results):
            self.console.line(
                f'Interrupted: {self._ended()} of {len(self.results)} runs have ended. The same '
                'call goes on from there.',
                always=True,
            )

    def _train(self, run: int, how: str, devices: DataParallel, signals: Interruption) -> None:
        config, folder = self.configs[run], self.folders[run]
        if how != _how(folder):
            folder.write_json(HOW, {'how': how})
        result = train(
            config,
            folder,
            devices,
            Console(quiet=True, prefix=f'{folder.path}: '),
            time.perf_counter(),
            contextlib.nullcontext(signals),
            self.once,
            self.follow(run),
        )
        self.results[run] = result
        self.console.line(f'{folder.path}: {results.in_a_line(result)}', always=True)

    def _ended(self) -> int:
        return sum(r is not None and r['status'] in FINAL for r in self.results)
