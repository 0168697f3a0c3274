"""More workers where a cluster has got more cores since the run began.

A worker whose machine is gone needs nothing of this: its new process waits until there is room
(`sweeps.pool`), so a machine that comes in the place of another is used at once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sweeps.ray_session import cores_now

if TYPE_CHECKING:
    from sweeps.pool import Pool
    from sweeps.scheduler import Scheduler

LOOK_SECONDS = 5.0


class Growth:
    """Adds a worker for each new core, unless the user has said how many there are to be."""

    def __init__(self, workers: int | None):
        self._is_fixed = workers is not None
        self._looked = 0.0

    def look(self, pool: Pool, scheduler: Scheduler, now: float) -> list[str]:
        """Add workers where there is room for more, and stages; who they are. Call it often."""
        if self._is_fixed or pool.session.embedded or now - self._looked < LOOK_SECONDS:
            return []
        self._looked = now
        cores = 0
        with contextlib.suppress(Exception):  # the control store is being restarted, say
            cores = cores_now()
        waiting = len(scheduler.in_state("ready"))
        new = [
            f"worker {len(pool.names) + number}"
            for number in range(1, min(cores - len(pool.names), waiting) + 1)
        ]
        for worker in new:
            scheduler.join(worker)
            pool.add(worker)
        return new
