"""Several runs as one program: their steps are mapped over runs by `vmap`.

Each run is an ordinary loop on a thread of its own. Its dispatch waits until every other run is at
one too; then one program does them all, and each loop goes on with its own state and metrics. So
runs may begin, evaluate, diverge and end when they like.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from input_pipeline import OF_THE_SET
from training.data_parallel import DataParallel


class Together(DataParallel):
    """One device, on which so many threads train one run each, in step.

    One device, since of two programs over several, begun by two threads, each may wait for the
    other's devices.

    Args:
      kind: as in `DataParallel`.
      runs: how many threads there are at most.
      device: on which they train.
    """

    def __init__(self, kind: str, runs: int, device: Any):
        super().__init__(kind, [device])
        self.runs, self._there = runs, 0
        self._change = threading.Condition()
        self._waiting: list[_Dispatch] = []

    def map_train(self, steps: Callable, donate: bool = True) -> Any:
        """Maps `steps` as `DataParallel` does, and over runs.

        Compiled for the arguments of one run, it waits at every call for the other threads. Nothing
        is donated, since runs that are not there are filled up with the arguments of another.
        """
        return _Mapped(self, super().map_train(functools.partial(_over_runs, steps), donate=False))

    def expect(self, threads: int) -> None:
        """Says how many threads will train; each calls `leave` when it trains no more."""
        self._there = threads

    def dispatch(self, program: Any, arguments: tuple[Any, ...]) -> Any:
        """Does one dispatch of this thread's run, together with those of the others."""
        mine = _Dispatch(program, arguments)
        with self._change:
            self._waiting.append(mine)
            self._dispatch_if_all_wait()
            self._change.wait_for(lambda: mine.done)
        if mine.error:
            raise mine.error
        return mine.result

    def leave(self) -> None:
        """Says that this thread trains no more, so that nobody waits for it."""
        with self._change:
            self._there -= 1
            self._dispatch_if_all_wait()

    def _dispatch_if_all_wait(self) -> None:
        """Does the dispatches that are of the same program as the first one."""
        if not self._waiting or len(self._waiting) < self._there:
            return
        program = self._waiting[0].program
        group = [each for each in self._waiting if each.program is program]
        self._waiting = [each for each in self._waiting if each.program is not program]
        filled = group + group[:1] * (self.runs - len(group))
        results: Any = [None] * len(group)
        error = None
        try:
            outputs = program(*zip(*(each.arguments for each in filled), strict=True))
            results = zip(*outputs, strict=True)
        except Exception as raised:  # Every run must hear of it, each on its thread.
            error = raised
        for each, result in zip(group, results, strict=False):
            each.result, each.error, each.done = result, error, True
        self._change.notify_all()


class _Dispatch:
    """A call of one run that waits for those of the others."""

    def __init__(self, program: Any, arguments: tuple[Any, ...]):
        self.program, self.arguments = program, arguments
        self.result: Any = None
        self.error: Exception | None = None
        self.done = False


class _Mapped:
    """Steps of several runs before they are compiled; used as what `jax.jit` returns."""

    def __init__(self, devices: Together, mapped: Any):
        self._devices, self._mapped = devices, mapped
        self._lowered: Any = None

    def lower(self, *arguments: Any) -> Any:
        """Lowers for runs whose arguments all look like these."""
        self._lowered = self._mapped.lower(*((each,) * self._devices.runs for each in arguments))
        return self

    def compile(self) -> Any:
        """Compiles what was lowered."""
        return _Compiled(self._devices, self._lowered.compile())


class _Compiled:
    """The compiled program of several runs, called with the arguments of one."""

    def __init__(self, devices: Together, program: Any):
        self._devices, self._program = devices, program
        self.memory_analysis = program.memory_analysis

    def __call__(self, *arguments: Any) -> Any:
        return self._devices.dispatch(self._program, arguments)


def _over_runs(steps: Callable, states: Any, residents: Any, rates: Any, batches: Any) -> Any:
    """Does `steps` of several runs; takes tuples with one entry for each, and returns such."""
    common = {name: array for name, array in residents[0].items() if name in OF_THE_SET}
    own = [{n: a for n, a in each.items() if n not in common} for each in residents]

    def one(state: Any, own: Any, rates: Any, batches: Any) -> Any:
        return steps(state, common | own, rates, batches)

    stacked = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
        for runs in (states, own, rates, batches)
    )
    return tuple(  # States, then metrics.
        tuple(jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(len(states)))
        for tree in jax.vmap(one)(*stacked)
    )
