"""A stage that ran out of memory: told from other failures, and tried once more with more room.

How much a stage needs is an estimate. Where it was too low, the same again beside the same
neighbours would only fail again, so the stage is tried once with nothing beside it on its machine.
Where that is too little as well, it has failed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.pool import Pool
    from sweeps.scheduler import Scheduler

# XLA's status, CUDA's and PyTorch's, and ROCm's words; each is of an allocation that failed.
_SAYS_SO = re.compile(r"\bRESOURCE_EXHAUSTED\b|\b(?:CUDA|HIP|XPU|MPS)\b.*\bout of memory\b")


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, the host's or a device's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return True
        try:
            if type(seen).__name__ == "OutOfMemoryError" or _SAYS_SO.search(str(seen)):
                return True
        except BaseException:  # of its text
            return False
        seen = seen.__cause__
    return False


def peak_bytes() -> int | None:
    """The most memory that this process has held at once; None where nobody counts it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


class Room:
    """Gives a stage that ran out of memory a machine of its own, once.

    While it waits for that, and runs, its neighbours start nothing; what they run is finished.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}  # stages, in the order in which they ran out
        self._given: set[str] = set()
        self._kept: tuple[str, frozenset[str]] | None = None  # the stage's worker, its neighbours
        self._stage = ""

    @property
    def waiting(self) -> bool:
        """Whether a stage waits for room, or has it."""
        return bool(self._waiting) or self._kept is not None

    def is_promised(self, stage_id: str) -> bool:
        """Whether a stage waits for room, and is not to be started beside others."""
        return stage_id in self._waiting

    def promise(self, stage_id: str) -> bool:
        """Take in a stage that ran out; False if it has had all the room there is."""
        if stage_id in self._given:
            return False
        self._waiting[stage_id] = None
        self._given.add(stage_id)
        return True

    def has_had(self, stage_id: str) -> bool:
        """Whether a stage was promised room before."""
        return stage_id in self._given

    def is_free_for_others(self, worker: str) -> bool:
        """Whether a worker may start what the scheduler gives it."""
        return self._kept is None or (worker != self._kept[0] and worker not in self._kept[1])

    def over(self, stage_id: str) -> None:
        """The stage that had room has come to an end, whichever."""
        if self._kept is not None and stage_id == self._stage:
            self._kept, self._stage = None, ""

    def give(self, pool: Pool, scheduler: Scheduler, now: float) -> None:
        """Keep a machine free for the first stage that waits, and start it once it is."""
        if self._kept is None and self._waiting:
            first = next(iter(self._waiting))
            worker = next((one for one in pool.idle if scheduler.suits(one, first)), None)
            if worker is not None:
                self._kept = worker, pool.beside(worker)
        if self._kept is None or self._stage:
            return
        worker, beside = self._kept
        if worker not in pool.idle:
            self._kept = None  # its process ended meanwhile: another one
        elif not any(pool.is_busy(one) for one in beside):
            self._stage = next(iter(self._waiting))
            del self._waiting[self._stage]
            scheduler.start(worker, self._stage, now)
            pool.start(worker, scheduler.stages[self._stage])
