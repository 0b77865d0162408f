"""What a worker does with a job: look at the net, refuse it, or train its runs."""

import functools
import queue
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from configs import default
from configs.sweeps.objectives import MEASURED, TIMED
from console import Console
from errors import BusyError, DataError, DoesNotFitError, SweepError, UserError
from evaluation import latency
from sweeping.protocol import BUSY, DATA, ERROR, FILES, MEMORY, MISTAKE, SWEEP, UNFIT, Job
from training.data_parallel import DataParallel
from training.follower import Follower
from training.interruption import Interruption
from training.many import train_many
from training.once import Once
from training.prepared import Prepared, open_devices


class Jobs:
    """The jobs of a worker.

    Args:
      send: takes name and content of a message to the parent.
    """

    def __init__(self, send: Callable[[str, Any], None]):
        self.send = send
        self._once = Once()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._signals = Interruption()  # Never entered: the parent alone says when to stop.
        self._dropped: set[int] = set()  # Runs of the job.

    def hear(self, name: str, content: Any) -> None:
        """Takes a message of the parent, on any thread; `end` says that there will be no more."""
        if name == 'job':
            self._waiting.put(content)
        elif name == 'drop':
            self._dropped.add(content)
        else:
            self._signals.received = True
            if name == 'end':
                self._waiting.put(None)

    def next(self) -> Job | None:
        """Waits for the next job; None where there will be none."""
        return self._waiting.get()

    def do(self, job: Job) -> None:
        """Does a job, and sends how it ended."""
        self._dropped.clear()
        try:
            configs = [default.unflatten(default.flatten(fields)) for fields in job.configs]
            self._look(configs[0], job)
            runs = train_many(
                configs,
                job.workdirs,
                quiet=True,
                once=self._once,
                signals=self._signals,
                follow=functools.partial(_Reporter, self),
            )
            self.send('done', runs.results)
        except DoesNotFitError as error:
            self.send('failed', (UNFIT, str(error)))
        except BusyError as error:
            self.send('failed', (BUSY, str(error)))
        except DataError as error:
            self.send('failed', (DATA, str(error)))
        except SweepError as error:
            self.send('failed', (SWEEP, str(error)))
        except UserError as error:
            self.send('failed', (MISTAKE, str(error)))
        except OSError as error:
            self.send('failed', (FILES, f'{error.strerror}: {error.filename}'))
        except jax.errors.JaxRuntimeError as error:
            kind = MEMORY if 'RESOURCE_EXHAUSTED' in str(error) else ERROR
            self.send('failed', (kind, ' '.join(str(error).split())[:300]))
        except Exception as error:
            traceback.print_exc()  # Into the worker's log.
            text = ' '.join(str(error).split())[:300]
            self.send('failed', (ERROR, f'{type(error).__name__}: {text}'))

    def dropped(self, run: int) -> bool:
        """Tells whether a run of the job shall end."""
        return run in self._dropped

    def _look(self, config: Any, job: Job) -> None:
        """Sends what is known of the net before it is trained.

        Raises:
          DataError: its data set cannot be read or split.
          DoesNotFitError: it is beyond a limit, or cannot be trained here.
          SweepError: the sweep aims at a figure that it does not have.
        """
        self.send('look', None)
        devices = open_devices(config, self._once)
        run = Prepared(config, devices, Console(quiet=True), self._once)
        run.close()
        facts: dict[str, Any] = {**size_of(run, job.objectives, job.limits)}
        if any(name in job.objectives or name in job.limits for name in TIMED):
            facts |= self._once(
                (run.program_key, 'measured', job.predict_batch),
                lambda: _measured(run, devices.devices[0], job.predict_batch),
            )
        self.send('net', facts | {'steps': run.total_steps})
        _check_limits(facts, job.limits)


def _measured(run: Prepared, device: Any, batch: int) -> dict[str, float]:
    """Returns median latency and planned memory of predicting a batch, by fresh weights.

    Nothing in a net's arithmetic depends on the values of its weights.
    """
    devices = DataParallel('shard_map', [device])
    variables = devices.replicate(run.initial_state().reported())
    shape = tuple(run.pipeline.input_shape)
    figures = latency.of_batch(run.recipe, shape, devices, variables, batch)
    return {
        'latency_ms': 1e3 * figures['p50_seconds'],
        'memory_mb': (figures['program_bytes'] or 0) / 1e6,
    }


def size_of(
    run: Prepared, objectives: Sequence[str], limits: Mapping[str, float]
) -> dict[str, int]:
    """Returns `parameters` and `flops` of a net that the sweep may train.

    Args:
      run: of the net.
      objectives: of the sweep.
      limits: as in `Job`.

    Raises:
      DoesNotFitError: the net is beyond a limit.
      SweepError: the sweep aims at a figure that the run does not have.
    """
    _check_objectives(objectives, run)
    size = {
        'parameters': sum(row.parameters for row in run.layers),
        'flops': sum(row.flops for row in run.layers),
    }
    _check_limits(size, limits)
    return size


def _check_objectives(objectives: Sequence[str], run: Prepared) -> None:
    known = [f'validation_{name}' for name, _, _ in run.recipe.task.columns]
    for name in objectives:
        if name in MEASURED and name not in known:
            raise SweepError(
                f'config.objective={name} does not exist for {run.config.dataset.name}: choose '
                f'one of {", ".join(known)}.'
            )


def _check_limits(facts: Mapping[str, float], limits: Mapping[str, float]) -> None:
    """Refuses a net that is beyond a limit, as far as the facts of it are known."""
    for name, most in limits.items():
        if name in facts and facts[name] > most:
            raise DoesNotFitError(f'{name} {facts[name]:,.4g} is above limits.{name}={most:,g}')


class _Reporter(Follower):
    """Sends how a run of a job gets on."""

    def __init__(self, jobs: Jobs, run: int):
        self._jobs, self._run = jobs, run

    def stepped(self, step: int) -> bool:
        self._jobs.send('step', (self._run, step))
        return self._jobs.dropped(self._run)

    def evaluated(self, line: dict[str, Any]) -> None:
        self._jobs.send('evaluation', (self._run, line))
