"""Ends stages that hang: nothing was heard of them for much longer than anything known explains.

A slow stage must never be taken for one that hangs: not on a busy machine, in a compilation, in an
evaluation that reports nothing. So a silence counts only where the stage has neither reported nor
printed nor written into its scratch folder, and has lasted longer than

- `--patience` (half an hour), and
- `TIMES` times what is known: its longest pause between reports so far; where it has not reported
  yet, the time that the whole stage takes, as measured here or planned, and
- where it has not reported yet and no stage of its class was measured here, `UNKNOWN` times the
  patience (a day), because then nobody knows what is usual.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweeps.worker_output import STACK

if TYPE_CHECKING:
    from sweeps.pool import Pool
    from sweeps.scheduler import Scheduler
    from sweeps.silence import Listening

PATIENCE_SECONDS = 1800.0
TIMES = 20.0
UNKNOWN = 48.0
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 10.0  # that a worker has to say what it is at


class Signs(NamedTuple):
    """What a worker says of the stage that it runs."""

    silent_seconds: float  # since it last reported, printed or wrote into its scratch folder
    stack: str  # of all its threads


class Watchdog:
    """Ends the worker of a stage that hangs. With a patience of 0 it ends none."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS):
        self._patience = patience_seconds
        self._looked = 0.0
        self._seen: dict[str, float] = {}  # stage → when it is known to have lived, by our clock

    def look(
        self, pool: Pool, scheduler: Scheduler, listening: Mapping[str, Listening], now: float
    ) -> None:
        """End what hangs; the pool then says that it failed. To be called often."""
        if not self._patience or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for worker, stage_id in list(scheduler.running.items()):
            heard = listening.get(stage_id)
            reported = heard is not None and heard.step is not None
            # Of an attempt before this one nothing counts.
            last = max(scheduler.since[worker], heard.heard if heard and reported else 0.0)
            most = self.most_seconds(
                heard.longest if heard and reported else None,
                scheduler.measured(stage_id),
                scheduler.seconds(stage_id) + scheduler.stages[stage_id].compile_seconds,
            )
            if now - max(last, self._seen.get(stage_id, 0.0)) <= most:
                continue
            signs = pool.signs(worker, ANSWER_SECONDS)
            if signs.silent_seconds <= most:  # it printed, or saved; or is of another machine
                self._seen[stage_id] = now - signs.silent_seconds
                continue
            from sweeps.display import clock  # which a worker does without

            told = f"it hung: no report, print or saved file for {clock(now - last)}"
            place = innermost(signs.stack)
            told += f", at {place}" if place else ""
            pool.end(worker, "hang", told, signs.stack or "nobody knows where it was")

    def most_seconds(self, longest: float | None, measured: float | None, planned: float) -> float:
        """Of silence, from `longest` pause between reports (None: none yet), and how long the whole
        stage takes."""
        if longest is not None:
            return max(self._patience, TIMES * longest)
        if measured is not None:
            return max(self._patience, TIMES * max(measured, planned))
        return max(UNKNOWN * self._patience, TIMES * planned)


def silent_seconds(scratch: Path) -> float:
    """Since anything in a stage's scratch folder was written; infinite where there is nothing."""
    newest = 0.0
    with contextlib.suppress(OSError):
        for path in (scratch, *scratch.rglob("*")):
            if path.name != STACK:  # written because it is silent
                with contextlib.suppress(OSError):
                    newest = max(newest, path.lstat().st_mtime)
    return max(0.0, time.time() - newest) if newest else math.inf


def innermost(stack: str) -> str:
    """`trainer.py:40 in step`: where a stage is, of its process's stack as `faulthandler` writes
    it; the first line of the stage's thread that is not Python's own. "" where it is not told."""
    for thread in re.split(r"^(?:Current thread|Thread) ", stack, flags=re.MULTILINE):
        frames = re.findall(r'File "([^"]+)", line (\d+) in (.+)', thread)
        if any(Path(path).name == "worker.py" and name == "execute" for path, _, name in frames):
            own = [frame for frame in frames if not _PYTHON.search(frame[0])]
            path, line, name = own[0]
            return f"{Path(path).name}:{line} in {name}"
    return ""


_PYTHON = re.compile(r"^<|/lib/python3\.\d+/(?!site-packages/)")
