"""What the benchmarks share: steps by the clock, and slopes."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats

from training.prepared import Prepared

_ENOUGH_SECONDS = 0.1  # A measurement is repeated until it has taken so long.


class Slope(NamedTuple):
    """A fitted slope and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f'{self.value:.2f} ± {self.error:.2f}'


def log_log_slope(sizes: Sequence[float], costs: Sequence[float]) -> Slope:
    """Fits log(cost) = slope * log(size) + constant by least squares; 1 is in proportion.

    Args:
      sizes: three at least, positive and not all equal.
      costs: of each size, positive.
    """
    fit = scipy.stats.linregress(np.log(sizes), np.log(costs))
    return Slope(float(fit.slope), float(fit.stderr))


def seconds_to(lines: Sequence[Mapping[str, Any]], batch_size: int, target: float) -> float | None:
    """Returns the seconds of training until the validation accuracy first reached a target.

    Compiling, evaluating and saving are not among them: `images_per_second` is of training alone.

    Args:
      lines: of `metrics.jsonl`, of a run that was not interrupted.
      batch_size: of the run.
      target: a share of 1.

    Returns:
      None where no evaluation reached it.
    """
    seconds, step = 0.0, 0
    for line in lines:
        seconds += (line['step'] - step) * batch_size / line['images_per_second']
        step = line['step']
        if line['validation_accuracy'] >= target:
            return seconds
    return None


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measures all in each round, so that what else the machine does meets them alike."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return figures


def repeated(do: Callable[[], Any]) -> Callable[[], float]:
    """Returns a function that does it as often as it takes to tell its seconds, and returns these.

    What `do` returns is waited for.
    """

    def measure() -> float:
        begun, count = time.perf_counter(), 0
        while (seconds := time.perf_counter() - begun) < _ENOUGH_SECONDS:
            jax.block_until_ready(do())
            count += 1
        return seconds / count

    return measure


def training_step(run: Prepared) -> Callable[[], float]:
    """Returns a function that trains for a while and returns the seconds of a step.

    The first call compiles, and the second still touches memory for the first time.

    Args:
      run: with data in place.
    """
    count = run.dispatch_length(0)
    dispatches = run.dispatches(run.devices.replicate(run.initial_state()))

    def measure() -> float:
        begun, done = time.perf_counter(), 0
        while not done or time.perf_counter() - begun < _ENOUGH_SECONDS:
            state, _ = next(dispatches)
            done += count
        jax.block_until_ready(state)
        return (time.perf_counter() - begun) / done

    return measure
