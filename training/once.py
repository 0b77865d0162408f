"""What runs of one process make once and share."""

import threading
from collections.abc import Callable, Hashable
from typing import Any


class Once:
    """Makes things by key, each once, also where several threads ask for it at the same time.

    Runs that share one must do the same with a key: see `training.many.check_alike`.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._made: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Returns what `make` gave when the key was first asked for."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]

    def forget(self, last: Hashable) -> None:
        """Lets go of what was made by keys that are tuples with this as their last part."""
        with self._guard:
            for key in [k for k in self._made if isinstance(k, tuple) and k[-1] is last]:
                del self._made[key]
