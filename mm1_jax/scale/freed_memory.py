"""Keep what the allocator frees, for programs that take the same buffers at every call."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of handing it back to the system.

    XLA's CPU client takes its scratch memory anew at every call. glibc maps blocks above 32 MB
    from the system and unmaps them after, so each training step of the mini model paid 16,000 page
    faults, a third of its time. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 2**26)
