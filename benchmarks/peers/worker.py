"""A process for each contender: it builds its net, then does rounds of steps when it is asked to.

A contender is a class with the methods of `Contender`; it imports its library itself, so that no
other process has that library's threads.
"""

import importlib
import math
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np

# What configs/default.py says; the learning rate is low, so that no net diverges on noise.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
_BATCHES = 4  # Different ones, which are used in turn.
_WARM_UP = 5  # Steps after the first at most; they tell how many make a round.


class Case(NamedTuple):
    """A net to train, in one row of the table.

    Attributes:
      name: in the table.
      net: by which the peers know it.
      config: of ours: a file in configs/, and the net where that file has several.
      fields: of the config, where they differ.
      size: height and width of the images in pixels.
      batch: images in a step.
      classes: of the labels.
      dtype: of the computation; parameters are float32.
      gpu: whether it is too much for a CPU.
    """

    name: str
    net: str
    config: str
    size: int
    batch: int
    fields: Mapping[str, Any] = {}
    classes: int = 10
    dtype: str = 'float32'
    gpu: bool = False

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images of noise, uint8 [N, H, W, 3], and labels, int32 [N]."""
        generator = np.random.default_rng(0)
        count = _BATCHES * self.batch
        shape = (count, self.size, self.size, 3)
        labels = generator.integers(0, self.classes, count, np.int32)
        return generator.integers(0, 256, shape, np.uint8), labels

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the same as the batches of a peer, which has no input pipeline to be timed."""
        images, labels = self.data()
        return list(zip(np.split(images, _BATCHES), np.split(labels, _BATCHES), strict=True))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation of the levels of each channel, float32 [3]."""
        images, _ = self.data()
        mean, deviation = images.mean((0, 1, 2)), images.std((0, 1, 2))
        return mean.astype(np.float32), deviation.astype(np.float32)


class Kind(NamedTuple):
    """How to start a contender: a module of benchmarks/peers/, its option, its environment."""

    module: str
    option: str = ''
    environment: Mapping[str, str] = {}


class Contender(Protocol):
    """What trains a case; made from the case and the option of its `Kind`."""

    def facts(self) -> dict[str, Any]:
        """Returns trainable `parameters`, `platform` (cpu, gpu), `device` and `versions`."""

    def start(self) -> None:
        """Does the first step, with all that is compiled for it."""

    def steps(self, count: int) -> tuple[int, float]:
        """Does so many steps or a few more, waits for them; returns their number and a loss."""

    def device_peak_bytes(self) -> int | None:
        """Returns the peak of the device's own memory; None where it has none."""


def serve(
    connection: Connection, kind: Kind, case: Case, round_seconds: float, log: pathlib.Path
) -> None:
    """Is what a worker process does: builds, warms up, then a round for each word it gets.

    It sends `facts`, then the figures of each round; or, in place of either, `absent` (the library
    that is not installed) or `error` (one line). What libraries print goes to `log`.
    """
    os.environ.update(kind.environment)
    with log.open('w') as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())
    begun = time.perf_counter()
    try:
        module = importlib.import_module(f'benchmarks.peers.{kind.module}')
        contender: Contender = module.Contender(case, kind.option)
        built = time.perf_counter()
        contender.start()
        started = time.perf_counter()
        length = max(1, math.ceil(round_seconds / _warm_up(contender, round_seconds)))
        facts = contender.facts()
        seconds = {'import_and_build': built - begun, 'first_step': started - built}
        connection.send({'facts': facts | {'seconds': seconds}})
        while connection.recv() == 'round':
            connection.send(_round(contender, length))
    except EOFError:  # The benchmark has ended.
        return
    except ModuleNotFoundError as error:
        connection.send({'absent': (error.name or str(error)).partition('.')[0]})
    except Exception as error:
        traceback.print_exc()
        # Whatever a library raises, torch.compile without a compiler for one, is shown as it is.
        first = next((line for line in str(error).splitlines() if line.strip()), '')
        connection.send({'error': f'{type(error).__name__}: {first.strip()}'[:120]})


def _warm_up(contender: Contender, enough_seconds: float) -> float:
    """Does some steps and returns the seconds of the fastest."""
    times: list[float] = []
    while len(times) < _WARM_UP and sum(times) <= enough_seconds:
        begun = time.perf_counter()
        count, _ = contender.steps(1)
        times.append((time.perf_counter() - begun) / count)
    return min(times)


def _round(contender: Contender, length: int) -> dict[str, Any]:
    cpu, begun = time.process_time(), time.perf_counter()
    count, loss = contender.steps(length)
    seconds = time.perf_counter() - begun
    return {
        'seconds': seconds,
        'cpu_seconds': time.process_time() - cpu,
        'steps': count,
        'loss': loss,
        'host_peak_bytes': _host_peak_bytes(),
        'device_peak_bytes': contender.device_peak_bytes(),
    }


def _host_peak_bytes() -> int:
    """Returns the peak of this process so far; libraries, data and compiling are in it."""
    status = pathlib.Path(f'/proc/{os.getpid()}/status').read_text()
    return 1024 * int(status.partition('VmHWM:')[2].split()[0])
