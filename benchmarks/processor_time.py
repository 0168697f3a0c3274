"""Seconds of the processor in a process and all that it starts, for benchmarks."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path


class Processor:
    """Seconds of the processor of this process and of all it starts, looked up again and again.

    (Ray does not wait for its workers, so what they took is known only while they live.)
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}  # process → so far
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.seconds()
            time.sleep(0.25)

    def seconds(self) -> float:
        """Of all that ever lived, so far."""
        parents: dict[str, str] = {}
        seconds: dict[str, float] = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (place / "stat").read_text(encoding="utf-8", errors="replace")
                told = fields.rpartition(")")[2].split()
                parents[place.name] = told[1]
                ticks = int(told[11]) + int(told[12])  # user and system
                seconds[place.name] = ticks / os.sysconf("SC_CLK_TCK")
        ours = {str(os.getpid())}
        while more := {one for one, parent in parents.items() if parent in ours} - ours:
            ours |= more
        self._seconds |= {one: seconds[one] for one in ours if one in seconds}
        return sum(self._seconds.values())
