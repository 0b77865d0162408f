"""What the benchmarks share: steps by the clock, slopes, and where figures come from."""

import json
import pathlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats
from absl import flags

from training import results
from training.data_parallel import DataParallel
from training.prepared import Prepared

_JSON = flags.DEFINE_string('json', None, 'File for the figures, with versions and hardware.')
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

    It works as the loop does: a dispatch is waited for when the next one is on its way. The first
    call compiles, and the second still touches memory for the first time.

    Args:
      run: with data in place; evaluations should be far apart, since dispatches end there.
    """
    state, step = run.devices.replicate(run.initial_state()), 0

    def measure() -> float:
        nonlocal state, step
        begun, first, before = time.perf_counter(), step, None
        while step == first or time.perf_counter() - begun < _ENOUGH_SECONDS:
            count = run.dispatch_length(step)
            program, arguments = run.train_program(state, step, count)
            state, values = program(*arguments)
            jax.block_until_ready(before)
            before, step = values, step + count
        jax.block_until_ready(state)
        return (time.perf_counter() - begun) / (step - first)

    return measure


def write_json(figures: Mapping[str, Any]) -> None:
    """Writes the figures with versions and hardware to the file of `--json`, if any.

    Called at the end: it opens the devices, which processes started before may hold.
    """
    if not _JSON.value:
        return
    device = DataParallel('shard_map', jax.device_count()).facts() | {'processor': processor()}
    content = {**figures, **results.environment(device)}
    pathlib.Path(_JSON.value).write_text(json.dumps(content, indent=1) + '\n')


def processor() -> str:
    """Returns the name of the CPU."""
    info = pathlib.Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()
