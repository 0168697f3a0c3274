"""A dashboard that stays hands back what it has freed."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

ARENAS = """
import ctypes, sys, threading
if sys.argv[1] == "handed back":
    from analysis.dashboard.lasting_memory import hand_back_freed_memory
    hand_back_freed_memory()
import pyarrow
kept, gate = [], threading.Barrier(4)
def work():
    gate.wait()
    kept.append([bytearray(2_000) for _ in range(1_000)])
    gate.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for one in threads: one.start()
for one in threads: one.join()
print(pyarrow.default_memory_pool().backend_name, flush=True)
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fdopen(1, b"w"))
library.malloc_info(0, file)
library.fflush(file)
"""


def arenas(how: str) -> tuple[str, int]:
    """Arrow's pool, and the arenas that the threads of a new process have."""
    told = subprocess.run(
        [sys.executable, "-c", ARENAS, how], capture_output=True, encoding="utf-8", check=True
    ).stdout
    return told.partition("\n")[0], told.count("<heap nr=")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc"
)
def test_threads_share_what_is_freed():
    pool, usual = arenas("as it is")
    assert pool != "system"
    assert usual > 4  # of the process, and of each thread
    pool, few = arenas("handed back")
    assert pool == "system"
    assert few <= 2  # what is imported has begun a thread before
