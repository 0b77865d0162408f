"""The parent's end of a worker: starts it, talks with it, tells whether it lives, ends it."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from errors import UserError
from sweeping.protocol import Job

_ROOT = pathlib.Path(__file__).parent.parent
_START_SECONDS = 300.0  # A machine that swaps imports slowly.


class Worker:
    """A worker process; started when the first job comes, and again after it was lost.

    Args:
      number: from 0 on, of the workers of this host.
      count: of the workers of this host, which share its cores and devices.
      log: file that takes what the process and its libraries print.
      platform: of JAX, such as 'cpu' or 'gpu'; where devices are shared out.
    """

    def __init__(self, number: int, count: int, log: pathlib.Path, platform: str):
        self._number, self._count, self._log, self._platform = number, count, log, platform
        self._process: subprocess.Popen | None = None
        self._connection: Any = None
        self._heard = time.monotonic()  # When it last gave a sign of getting on.
        self._ready = False

    def send(self, name: str, content: Any = None) -> None:
        """Sends a message; who is no longer there hears nothing, which `receive` will tell."""
        with contextlib.suppress(OSError):
            self._connection.send((name, content))

    def begin(self, job: Job) -> None:
        """Starts the process where there is none, and sends it a job."""
        if self._process is None or self._process.poll() is not None:
            self.kill()
            self._ready = False
            self._process, self._connection = start(
                self._log, device_environment(self._platform, self._number), self._cores()
            )
        self._heard = time.monotonic()
        self.send('job', job)

    def hangs(self, seconds: float) -> bool:
        """Tells whether it gave no sign of getting on for so long; to start may take longer."""
        patience = seconds if self._ready else max(seconds, _START_SECONDS)
        return time.monotonic() - self._heard > patience

    def receive(self, seconds: float) -> tuple[str, Any] | None:
        """Waits so long for a message; None where none came.

        Raises:
          EOFError: the process has died.
        """
        try:
            if not self._connection.poll(seconds):
                return None
            message = self._connection.recv()
        except OSError as error:
            raise EOFError from error
        self._heard, self._ready = time.monotonic(), True
        return message

    def died_of(self) -> str:
        """Says how the process ended, in words."""
        assert self._process
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return 'killed (signal 9); the system kills what takes too much memory'
        if status < 0:
            return f'ended by signal {-status} ({signal.Signals(-status).name})'
        return f'ended with status {status}; see {self._log}'

    def kill(self) -> None:
        """Ends the process at once, if there is one."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._process = None

    def _cores(self) -> set[int]:
        """Returns the cores of this worker, where those of the host are shared out."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
        if self._platform != 'cpu' or self._count > len(cores):
            return set(cores)
        return set(cores[self._number :: self._count])


def devices_here() -> tuple[str, int]:
    """Returns the platform and the number of devices of this host.

    A process of its own looks, for JAX takes the memory of the devices that it opens.

    Raises:
      UserError: JAX does not start.
    """
    process, connection = start(None, {}, set())
    try:
        if connection.poll(_START_SECONDS):
            return connection.recv()[1]
    except EOFError:
        pass
    finally:
        process.kill()
        process.wait()
    raise UserError('JAX does not start: python -c "import jax; print(jax.devices())" says why.')


def device_environment(platform: str, number: int) -> dict[str, str]:
    """Returns the environment in which a process sees one device alone."""
    if platform == 'gpu':
        visible = [n for n in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if n]
        return {'CUDA_VISIBLE_DEVICES': visible[number] if number < len(visible) else str(number)}
    if platform == 'tpu':
        return {
            'TPU_VISIBLE_CHIPS': str(number),
            'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1',
            'TPU_PROCESS_BOUNDS': '1,1,1',
        }
    return {}


def start(
    log: pathlib.Path | None, environment: dict[str, str], cores: set[int]
) -> tuple[subprocess.Popen, Any]:
    """Starts a worker process; returns it and the connection with it.

    Args:
      log: takes what it prints; None: nobody does.
      environment: beside that of this process.
      cores: that it may use; all where empty.
    """
    ours, theirs = multiprocessing.Pipe()
    paths = [str(_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), **environment}
    with contextlib.ExitStack() as stack:
        output: Any = subprocess.DEVNULL
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(log.open('ab'))
        process = subprocess.Popen(
            [sys.executable, '-m', 'sweeping.worker', str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which says when to stop.
        )
    theirs.close()
    if cores and hasattr(os, 'sched_setaffinity'):
        # Before its imports: the libraries make as many threads as it has cores.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(process.pid, cores)
    return process, ours
