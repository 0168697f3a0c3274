"""Notice that a worker, or its whole machine, is about to be taken away.

A cloud that takes a machine back, or an administrator who drains it, gives notice: SIGTERM to the
worker, or a node that Ray marks as draining. The stage then saves itself and yields, and goes on
elsewhere from there. That is no failure of the stage, nor is it one where its worker was ended
before it could yield.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.pool import Pool

NOTICE = "taken-away.txt"  # in the scratch folder of a stage whose worker had notice
LOOK_SECONDS = 2.0


def listen(notice: Callable[[], bool]) -> None:
    """Call `notice` on SIGTERM; where it returns False, nothing runs and the process ends.

    Does nothing outside the main thread, where no handler can be put in place.
    """
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        if notice():
            return
        if callable(before):
            before(number, frame)
        else:
            raise SystemExit(128 + number)

    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, handle)


def mark(scratch: Path) -> None:
    """Write down that a stage's worker had notice, for whoever finds it dead."""
    with contextlib.suppress(OSError):
        (scratch / NOTICE).write_text(f"{time.time()}\n", encoding="utf-8")


def had_notice(scratch: Path) -> bool:
    """Whether the worker that ran a stage last had notice."""
    return (scratch / NOTICE).exists()


class Draining:
    """Asks what runs on machines that are being drained to yield."""

    def __init__(self) -> None:
        self._looked = 0.0
        self._known: set[str] = set()  # nodes whose workers were asked already

    def look(self, pool: Pool, now: float) -> int:
        """Ask the workers of nodes that are newly drained; how many. To be called often."""
        if pool.session.embedded or now - self._looked < LOOK_SECONDS:
            return 0
        self._looked = now
        new = _draining() - self._known
        if not new:
            return 0
        self._known |= new
        asked = [worker for worker, nodes in pool.nodes.items() if not new.isdisjoint(nodes)]
        for worker in asked:
            pool.leave(worker)
        return len(asked)


def _draining() -> set[str]:
    """Ids of the nodes that Ray is draining; what Ray does not say is taken for none."""
    from ray._private.state import state

    with contextlib.suppress(Exception):  # the control store is being restarted, say
        return set(state.get_draining_nodes())
    return set()
