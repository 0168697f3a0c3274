"""What a stage prints in a worker, and where it is when it says nothing; for `mm1 logs`.

Both lie in the stage's scratch folder while it runs. What it printed is then kept with its result,
or with the record of its failure.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import math
import os
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO

from ablations.shown_text import visible
from ablations.stage import PRINTED
from sweeps.silence import QUIET_SECONDS

STACK = "stack.txt"  # of all threads, `QUIET_SECONDS` after the last report
MOST_BYTES = 2**20  # that are kept of what a stage printed: its end


class WorkerOutput:
    """Takes in what this process prints while a stage runs; as a context."""

    def __init__(self, scratch: Path):
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch = scratch
        self._stack: IO[bytes] | None = None  # open while output is taken in
        for name in (PRINTED, STACK):
            (scratch / name).unlink(missing_ok=True)  # of an attempt before

    @contextlib.contextmanager
    def taken(self) -> Generator[None]:
        """Send file descriptors 1 and 2, so that of libraries in C too, into `PRINTED`."""
        kept = os.dup(1), os.dup(2)
        with (
            open(self._scratch / PRINTED, "wb") as printed,
            open(self._scratch / STACK, "ab") as stack,
        ):
            _flush()
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            self._stack = stack
            _alarm().writes_to(stack.fileno())
            self.heard()
            try:
                yield
            finally:
                self._stack = None
                _alarm().writes_to(None)
                _flush()
                for number, copy in enumerate(kept, start=1):
                    os.dup2(copy, number)
                    os.close(copy)

    def heard(self) -> None:
        """The stage has reported: the stack is of interest only after another silence."""
        if self._stack is not None:
            self._stack.truncate(0)
            _alarm().set()

    def keep(self, folder: Path) -> None:
        """Put what was printed, if anything was, beside the result."""
        text = printed(self._scratch)
        if text:
            (folder / PRINTED).write_text(text, encoding="utf-8")


class _Alarm:
    """Writes down where this process is, some `QUIET_SECONDS` after it was last set.

    To set it takes milliseconds, so it is not set again at once, nor for each stage: it writes to
    a descriptor of its own, which leads to the file of the stage that runs.
    """

    def __init__(self) -> None:
        self._nothing = os.open(os.devnull, os.O_WRONLY)
        self._descriptor = os.dup(self._nothing)
        self._set = -math.inf

    def writes_to(self, descriptor: int | None) -> None:
        """Lead it to another file; None: to nothing."""
        source = self._nothing if descriptor is None else descriptor
        os.dup2(source, self._descriptor, inheritable=False)

    def set(self) -> None:
        """Set it anew, unless that was done just before."""
        now = time.monotonic()
        if now - self._set > QUIET_SECONDS / 20:
            self._set = now
            faulthandler.dump_traceback_later(QUIET_SECONDS, file=self._descriptor)


@functools.cache
def _alarm() -> _Alarm:
    return _Alarm()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def printed(scratch: Path) -> str:
    """The end of what a stage has printed, "" where it printed nothing."""
    return _end(scratch / PRINTED)


def stack(scratch: Path) -> str:
    """Where a silent stage is, as Python tells it; "" where it reports as usual."""
    return _end(scratch / STACK)


def stack_now() -> str:
    """Where all threads of this process are."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return visible(file.read().decode("utf-8", "replace"))


def _end(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            opened.seek(max(0, file.stat().st_size - MOST_BYTES))
            return visible(opened.read().decode("utf-8", "replace"))
    except FileNotFoundError:
        return ""
