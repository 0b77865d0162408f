"""How long steps and evaluations of a run take, by a few real ones whose state is thrown away."""

import itertools
import math
import statistics
import time
from typing import Any

import jax

from training.prepared import Prepared

# The first dispatches are slower: memory is touched for the first time, caches are cold.
_WARM_UP = 2
_AT_LEAST, _AT_MOST, _ENOUGH_SECONDS = 5, 60, 4.0


def step_seconds(run: Prepared, state: Any, count: int) -> tuple[float, Any]:
    """Returns the median seconds of a training step, and the state, which the steps use up.

    Reading the next batch is in the time only where it takes longer than the step.
    """
    times: list[float] = []
    begun = last = time.perf_counter()
    dispatches = run.dispatches(state)
    while len(times) < _WARM_UP + _AT_LEAST or (
        len(times) < _AT_MOST and time.perf_counter() - begun < _ENOUGH_SECONDS
    ):
        state, _ = next(dispatches)
        now = time.perf_counter()
        times.append((now - last) / count)
        last = now
    jax.block_until_ready(state)
    return statistics.median(times[_WARM_UP:]), state


def batch_seconds(run: Prepared, state: Any) -> float:
    """Returns the median seconds of evaluating a batch."""
    variables = state.reported()
    first, _ = next(run.pipeline.eval_batches('validation'))
    program, arguments = run.eval_program(variables, first)
    jax.block_until_ready(program(*arguments))  # Not among the times: it is compiled here.
    times: list[float] = []
    begun = last = time.perf_counter()
    while not times or (len(times) < _AT_LEAST and last - begun < _ENOUGH_SECONDS):
        for plan, _ in itertools.islice(run.pipeline.eval_batches('validation'), _AT_LEAST):
            program, arguments = run.eval_program(variables, plan)
            run.devices.gather(program(*arguments))
            now = time.perf_counter()
            times.append(now - last)
            last = now
    return statistics.median(times)


def evaluations(run: Prepared) -> int:
    """Returns how often a run is evaluated while it trains."""
    return math.ceil(run.total_steps / run.evaluation_steps)


def evaluated_batches(run: Prepared) -> tuple[int, int]:
    """Returns the batches of an evaluation while a run trains, and of that of the result."""

    def batches(*splits: str) -> int:
        sizes = [run.pipeline.sizes.get(split, 0) for split in splits]
        return sum(math.ceil(examples / run.config.batch_size) for examples in sizes)

    result = ('validation', 'test') if run.config.evaluate_test else ('validation',)
    return batches('stopping', 'validation'), batches(*result)
