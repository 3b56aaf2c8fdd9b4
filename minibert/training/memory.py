"""Memory that an update has freed is kept for the next one, which needs as much again.

glibc takes every large block from the system by itself and gives it back when it is freed, or when
enough of the heap's end is free.  A training step does that with all of its activations and
gradients, some hundred megabytes: each of their pages is then taken, filled with zeros and mapped
anew at every update, which costs more than the gradients' arithmetic.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# From malloc.h. Setting one of them ends that glibc adapts its thresholds by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_MIB = 1 << 20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within the block, what is freed stays with the process; at its end the system has it back.

    Of the whole process, and of Linux with glibc: elsewhere nothing changes.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)  # no block by itself
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        # glibc's own, where its adapting ends up after some large blocks were freed.
        libc.mallopt(_MMAP_MAX, 65536)
        libc.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        libc.mallopt(_TRIM_THRESHOLD, 64 * _MIB)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
