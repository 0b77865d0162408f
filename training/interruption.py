"""Ctrl-C and SIGTERM as a flag that the loop reads between dispatches."""

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """While the block runs, the first signal sets `received`; a second one acts as usual.

    Outside the main thread Python delivers no signals, and nothing is installed.

    Args:
      outer: what it receives is received here too, and not the other way.
    """

    def __init__(self, outer: 'Interruption | None' = None) -> None:
        self._received, self._outer = False, outer
        self._previous: dict[int, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal came, or somebody has set this as if one had."""
        return self._received or (self._outer is not None and self._outer.received)

    @received.setter
    def received(self, value: bool) -> None:
        self._received = value

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
