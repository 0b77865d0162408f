"""How the C library keeps memory, set for programs that ask for the same much at each step."""

import ctypes
import sys

# mallopt's numbers, of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep() -> None:
    """Lets freed memory stay with the process, to be used again.

    XLA asks for the temporary memory of a program at each call. glibc fetches such an amount from
    the system and gives it back each time, so that every page is cleared and mapped anew: 70,000
    of them in a step of ResNet-20, a third of its time (docs/performance.md). Only glibc on Linux
    does so; elsewhere nothing is set. Call it before JAX starts its threads.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    if mallopt:
        mallopt(_ARENA_MAX, 1)  # Other arenas than the first fetch large amounts all the same.
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
