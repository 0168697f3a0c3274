"""Hand back what is freed, for a process that stays and answers in many threads."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_ARENA_MAX = -1, -8  # malloc.h
_KEPT_BYTES = 1_000_000


def hand_back_freed_memory() -> None:
    """Let freed memory go back to the system, where the C library is glibc.

    Each thread else gets an arena of its own, in which what it freed stays, and Arrow's pool keeps
    what it was given: of a study of 10,000 trials a fifth of the process was nobody's. Arenas that
    threads have already stay theirs.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            library.mallopt(_M_ARENA_MAX, 1)
            library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    import pyarrow  # whose threads come with it

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
