"""The process of a worker: a child that trains one batch of runs after another, as its parent asks.

It lives for many trials, so that imports are paid once, and data and programs are shared where
points have them in common. It knows nothing of the study; `sweeping.worker` is its other end. Run
as `python -m sweeping.child FILE_DESCRIPTOR`.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

_STEPS_SECONDS = 0.1
_ORPHAN_SECONDS = 60.0  # To save in, once the parent is gone.


class _Sender:
    """The sending end of a connection, for several threads; once the parent is gone, for nobody."""

    def __init__(self, connection: Connection):
        self._connection, self._lock = connection, threading.Lock()
        self._stepped = 0.0

    def __call__(self, name: str, content: Any) -> None:
        """Sends a message; of steps only some."""
        now = time.monotonic()
        if name == 'step':
            if now - self._stepped < _STEPS_SECONDS:
                return
            self._stepped = now
        # Once the parent is gone, the listener ends the job.
        with self._lock, contextlib.suppress(OSError):
            self._connection.send((name, content))


def _listen(connection: Connection, jobs: Any) -> None:
    """Hands on what the parent sends, also while a job is being done."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            jobs.hear(*connection.recv())
    jobs.hear('end', None)
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)  # It hangs, and nobody is there to notice.


def main(descriptor: int) -> None:
    """Does jobs until the connection ends."""
    connection = Connection(descriptor)
    from absl import logging

    from training import compilation_cache

    logging.set_verbosity(logging.FATAL)
    compilation_cache.enable()
    import jax

    from sweeping.jobs import Jobs

    jobs = Jobs(_Sender(connection))
    jobs.send('ready', (jax.default_backend(), jax.local_device_count()))
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    while (job := jobs.next()) is not None:
        jobs.do(job)


if __name__ == '__main__':
    try:
        main(int(sys.argv[1]))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # XLA's threads may still compile, and crash in an orderly end.
