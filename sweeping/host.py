"""This process, so that others can tell when it is gone."""

import os
import pathlib
import socket
from typing import Any

_BOOT = pathlib.Path('/proc/sys/kernel/random/boot_id')
_NAMESPACE = pathlib.Path('/proc/self/ns/pid')


def here() -> dict[str, Any]:
    """Returns what a trial stores of the process that begins it."""
    return {
        'host': socket.gethostname(),
        'machine': _machine(),
        'pid': os.getpid(),
        'began': _began(os.getpid()),
    }


def is_gone(process: dict[str, Any]) -> bool:
    """Tells whether a process that was `here` has ended; False where nobody can tell."""
    machine = _machine()
    if not machine or process.get('machine') != machine:
        return False
    return _began(process['pid']) != process['began']


def _began(pid: int) -> int | None:
    """Returns when a process began, in ticks since the machine did; None where there is none.

    The time of day will not do: clocks are set.
    """
    try:
        text = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    return int(text.rpartition(')')[2].split()[19])


def _machine() -> str:
    """Returns what only processes that see each other's numbers have in common; '' if unknown.

    Names of hosts will not do: many are called localhost, and containers count for themselves.
    """
    try:
        return f'{_BOOT.read_text().strip()}/{_NAMESPACE.stat().st_ino}'
    except OSError:
        return ''
