"""Ctrl-C and SIGTERM as a flag that the loop reads between dispatches."""

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """While the block runs, the first signal sets `received`; a second one acts as usual.

    Outside the main thread Python delivers no signals, and nothing is installed.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> 'Interruption':
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
