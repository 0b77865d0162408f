"""The parent's end of a worker: starts it, talks with it, tells whether it lives, ends it."""

import contextlib
import copy
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from errors import UserError
from sweeping.protocol import Job

_ROOT = pathlib.Path(__file__).parent.parent
_PATIENT_SECONDS = 1800.0  # Sets are downloaded, and photos decoded.


class Worker:
    """A worker process: the first one of a host, which finds out what devices there are.

    Args:
      logs: folder for the files that take what processes and their libraries print.

    Attributes:
      platform: of JAX, such as 'cpu' or 'gpu'.
      devices: how many there are.

    Raises:
      UserError: JAX does not start.
    """

    def __init__(self, logs: pathlib.Path):
        self._logs, self._number = logs, 0
        self._process: subprocess.Popen | None = None
        self._connection: Any = None
        self._heard = time.monotonic()  # When it last gave a sign of getting on.
        self._patient = True  # While it starts, and while it reads data.
        self._start({})
        try:
            message = self.receive(_PATIENT_SECONDS)
        except EOFError:
            message = None
        if message is None:
            self.kill()
            raise UserError(
                f'JAX does not start: {self._log()} says why, or '
                'python -c "import jax; print(jax.devices())".'
            )
        self.platform, self.devices = message[1]

    def with_others(self, count: int) -> 'list[Worker]':
        """Returns so many workers of this host, each with a device of its own.

        They start when their first job comes. This one keeps running on CPU, which all share; of
        other devices it has opened all, and starts again with its own.
        """
        if self.platform != 'cpu':
            self.kill()
        others = [copy.copy(self) for _ in range(count - 1)]
        for number, other in enumerate(others, 1):
            other._number, other._process = number, None
        return [self, *others]

    def _log(self) -> pathlib.Path:
        return self._logs / f'{socket.gethostname()}-{os.getpid()}-{self._number}.log'

    def _start(self, environment: dict[str, str]) -> None:
        self._patient = True
        self._process, self._connection = _start(self._log(), environment)

    def send(self, name: str, content: Any = None) -> None:
        """Sends a message; who is no longer there hears nothing, which `receive` will tell."""
        with contextlib.suppress(OSError):
            self._connection.send((name, content))

    def begin(self, job: Job) -> None:
        """Starts the process where there is none, and sends it a job."""
        if self._process is None or self._process.poll() is not None:
            self.kill()
            number = self._number % self.devices
            self._start(_device_environment(self.platform, number))
        self._heard = time.monotonic()
        self.send('job', job)

    def hangs(self, seconds: float) -> bool:
        """Tells whether it gave no sign of getting on for so long.

        To start and to read data for the first time may take longer.
        """
        patience = max(seconds, _PATIENT_SECONDS) if self._patient else seconds
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
        self._heard, self._patient = time.monotonic(), message[0] == 'look'
        return message

    def died_of(self) -> str:
        """Says how the process ended, in words."""
        assert self._process
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return 'killed (signal 9); the system kills what takes too much memory'
        if status < 0:
            return f'ended by signal {-status} ({signal.Signals(-status).name})'
        return f'ended with status {status}; see {self._log()}'

    def kill(self) -> None:
        """Ends the process at once, if there is one."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._process = None


def _device_environment(platform: str, number: int) -> dict[str, str]:
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


def _start(log: pathlib.Path, environment: dict[str, str]) -> tuple[subprocess.Popen, Any]:
    """Starts a worker process; returns it and the connection with it.

    On CPU workers share all cores, for XLA's sums depend on how many there are: so a run has the
    same bits in a sweep as by `train.py`.

    Args:
      log: takes what it prints.
      environment: beside that of this process.
    """
    ours, theirs = multiprocessing.Pipe()
    paths = [str(_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), **environment}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('ab') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', 'sweeping.child', str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which says when to stop.
        )
    theirs.close()
    return process, ours
