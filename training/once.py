"""What runs of one process make once and share."""

import threading
from collections.abc import Callable, Hashable
from typing import Any

_GROUPS = 8  # Of keys that are kept: the latest programs and data.


class Once:
    """Makes things by key, each once, also where several threads ask for it at the same time.

    A key that is a tuple belongs to the group of its first part, where `use` was told of that.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._made: dict[Hashable, Any] = {}
        self._groups: dict[Hashable, None] = {}  # The latest one last.

    def use(self, group: Hashable) -> None:
        """Says that the keys of a group are in use.

        What belongs to the groups used longest ago is let go: a process may train thousands of
        nets, and cannot keep all their programs.
        """
        with self._guard:
            self._groups.pop(group, None)
            self._groups[group] = None
            for old in list(self._groups)[:-_GROUPS]:
                del self._groups[old]
                for key in [k for k in self._made if isinstance(k, tuple) and k[0] == old]:
                    del self._made[key]
                    self._locks.pop(key, None)

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
                self._locks.pop(key, None)
