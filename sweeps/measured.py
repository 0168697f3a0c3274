"""How long stages took on this machine: a better source for an estimate than any formula."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable

from ablations.errors import UserError
from ablations.plan import Plan
from sweeps.records import once_seconds
from sweeps.store import Store

ENOUGH = 3  # of one compile class


def measured_seconds(store: Store, plan: Plan, done: Iterable[str]) -> dict[str, float]:
    """Stage → seconds of work, of some finished stages of each class that ran on this host."""
    counts: Counter[str] = Counter()
    found = {}
    for stage_id in sorted(done):
        compile_class = plan.stages[stage_id].compile_class
        if counts[compile_class] >= ENOUGH:
            continue
        try:
            execution = store.execution(stage_id)
        except UserError:  # damaged: whoever reads its result says so
            continue
        counts[compile_class] += 1
        if execution.get("host") == socket.gethostname():
            found[stage_id] = float(execution["seconds"]) - once_seconds(execution)
    return found


def compile_seconds(store: Store, stage_id: str) -> float | None:
    """What a finished stage spent on compilation; None where its runner did not measure it."""
    try:
        seconds = store.execution(stage_id).get("compilation_seconds")
    except UserError:  # damaged: whoever reads its result says so
        return None
    return None if seconds is None else float(seconds)
