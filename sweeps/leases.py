"""Who is working on what: a lease per stage and per running study, instead of a lock.

A lease is a folder of numbered records, each put only if absent; the highest number holds it. It
ends by release, by a heartbeat that stopped, or at once when its process is known to be dead, so
that a run that was killed goes on without waiting. Two processes that claim the same lease race
for the same number, and one loses.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from mm1_jax.errors import UserError
from sweeps.objects import Objects

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # many heartbeats: a machine may be paused or its disk slow


class Lease:
    """A held lease, kept alive by a thread until it is released or lost."""

    def __init__(self, objects: Objects, folder: str, key: str, record: dict[str, Any]):
        self._objects, self._folder, self._key, self._record = objects, folder, key, record
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True, name=key)
        self._thread.start()

    def _keep_alive(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A beat that fails (full disk, network) is tried again. Where all fail for long,
            # somebody else takes over, and the first that succeeds sees it.
            with contextlib.suppress(OSError, UserError):
                if self._objects.children(self._folder)[-1:] != [self._key]:
                    self._lost.set()  # we were thought dead, and somebody else took over
                    return
                self._record["beat_at"] = time.time()
                self._objects.write(f"{self._folder}/{self._key}", _encoded(self._record))

    @property
    def lost(self) -> bool:
        """Whether somebody else holds it now; whoever had it should stop."""
        return self._lost.is_set()

    def release(self) -> None:
        """Let the next one have it."""
        self._end()
        if not self.lost:
            record = {**self._record, "released": True}
            self._objects.write(f"{self._folder}/{self._key}", _encoded(record))

    def remove(self) -> None:
        """Release and forget it, when what it protected is done for good."""
        self._end()
        if not self.lost:
            self._objects.remove(self._folder)

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()


def acquire(objects: Objects, folder: str) -> Lease | None:
    """Take the lease of a folder for this process; None if it has a living holder."""
    names = objects.children(folder)
    if names and _holder(objects, f"{folder}/{names[-1]}") is not None:
        return None
    key = f"{int(names[-1].removesuffix('.json')) + 1 if names else 1:06d}.json"
    now = time.time()
    record = {**_this_process(), "acquired_at": now, "beat_at": now, "released": False}
    if not objects.create(f"{folder}/{key}", _encoded(record)):
        return None
    if objects.children(folder)[-1:] != [key]:  # we looked before a removal, and came late
        return None
    return Lease(objects, folder, key, record)


def holder(objects: Objects, folder: str) -> dict[str, Any] | None:
    """The record of the living holder of a lease (host, pid, acquired_at), or None."""
    names = objects.children(folder)
    return _holder(objects, f"{folder}/{names[-1]}") if names else None


def _holder(objects: Objects, key: str) -> dict[str, Any] | None:
    try:
        record = json.loads(objects.read(key))
    except (FileNotFoundError, ValueError):  # removed meanwhile, or torn by a loss of power
        return None
    if record["released"] or time.time() - record["beat_at"] > STALE_SECONDS:
        return None
    if record["machine"] == _machine() and not _alive(record["pid"], record["started"]):
        return None
    return record


def _encoded(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "schema_version": 1,
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _process(pid)[1],
    }


def _machine() -> str:
    """Where process numbers mean the same: host, boot and, in containers, name space."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text(encoding="utf-8").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _alive(pid: int, started: str | None) -> bool:
    exists, start = _process(pid)
    return exists and start == started  # another start: the number was used again


def _process(pid: int) -> tuple[bool, str | None]:
    """Whether a process runs, and when it started in ticks since boot (Linux; else None)."""
    if Path("/proc/self/stat").exists():
        try:
            # After the name, which is in parentheses and may hold anything: state, …, start (22).
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            fields = stat.rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False, None
        return fields[0] not in "ZX", fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False, None
    except PermissionError:
        pass
    return True, None
