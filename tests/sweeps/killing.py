"""The processes of a run, found from outside, as whoever kills them would."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from sweeps import leases
from sweeps.store import Store


def worker_pids(store: Store) -> list[int]:
    """Processes that hold a lease on a stage of a store."""
    found = []
    for path in Path(store.root).glob("stages/*/*/lease/[0-9]*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # removed, or being written
            continue
        if not record["released"] and leases._alive(record["pid"], record["started"]):
            found.append(record["pid"])
    return sorted(set(found))


def processes_below(pid: int) -> dict[int, str]:
    """All processes that a process started, and those that these did → how each was called."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = (place / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        parents[int(place.name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    for process in parents:
        above = process
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and process != pid:
            try:
                words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            found[process] = words[0].decode(errors="replace")
    return found


def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
