"""How long stages took on a machine: a better source for an estimate than any formula."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ablations.errors import UserError
from ablations.estimates import devices_of
from ablations.machine import Machine
from ablations.plan import Plan
from ablations.workload import Work
from sweeps.records import once_seconds
from sweeps.store import Store

ENOUGH = 3  # of one compile class


def measured_seconds(
    store: Store, plan: Plan, done: Iterable[str], machine: Machine | None = None
) -> dict[str, float]:
    """Stage → seconds of work, of some finished stages of each class that ran on this host.

    With an accelerator's `machine`, of those that ran on as many of its devices, wherever.
    """
    counts: Counter[str] = Counter()
    found = {}
    for stage_id in sorted(done):
        work = plan.stages[stage_id].work
        if counts[work.compile_class] >= ENOUGH:
            continue
        try:
            execution = store.execution(stage_id)
        except UserError:  # damaged: whoever reads its result says so
            continue
        counts[work.compile_class] += 1
        if _ran_on(execution, work, machine):
            found[stage_id] = float(execution["seconds"]) - once_seconds(execution)
    return found


def _ran_on(execution: Mapping[str, Any], work: Work, machine: Machine | None) -> bool:
    """Whether a stage ran on such a machine; of a CPU's kind, on this host with as many devices."""
    here = execution.get("host") == socket.gethostname()
    if machine is None:
        return here
    count = execution.get("device_count", 1)
    if machine.kind == "cpu":
        on_cpu = execution.get("device_kind", "cpu") in machine.accelerator.device_kinds
        return here and on_cpu and count == machine.devices_per_host
    kinds = machine.accelerator.device_kinds
    return execution.get("device_kind") in kinds and count == devices_of(work)


def compile_seconds(store: Store, stage_id: str) -> float | None:
    """What a finished stage spent on compilation; None where its runner did not measure it."""
    try:
        seconds = store.execution(stage_id).get("compilation_seconds")
    except UserError:  # damaged: whoever reads its result says so
        return None
    return None if seconds is None else float(seconds)


def started_working_at(store: Store, stage_id: str) -> float | None:
    """When a finished stage had imported what it needs, by its host's clock; None if not told."""
    try:
        execution = store.execution(stage_id)
        return float(execution["started_at"]) + float(execution.get("import_seconds", 0.0))
    except (UserError, KeyError, TypeError, ValueError):
        return None
