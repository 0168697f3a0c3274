"""How long stages took on this machine: a better source for an estimate than any formula."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ablations.errors import UserError
from ablations.plan import Plan
from sweeps.store import Store

ENOUGH = 3  # of one compile class
# What only the first stage of a class spends in a process.
ONCE = ("import_seconds", "compilation_seconds")


def once_seconds(execution: Mapping[str, Any]) -> float:
    """Of an execution record: what went into imports and compilation; 0 where nobody measured."""
    return sum(float(execution.get(name, 0.0)) for name in ONCE)


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
