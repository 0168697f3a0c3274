"""Who is working on what: a lease per stage and per running study, instead of a lock.

A lease is a folder of numbered records, each put only if absent; the highest number holds it. It
ends by release, at once when its process is known to be dead, so that a run that was killed goes
on without waiting, or by a heartbeat that stopped. Whether it stopped is seen by watching the
record with one's own clock: the clocks of two machines may be hours apart. Two processes that
claim the same lease race for the same number, and one loses.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ablations.errors import UserError
from sweeps.objects import Objects
from sweeps.records import study_folder

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # many heartbeats: a machine may be paused or its disk slow
# Enough to see that a record does not change, where it says itself that its last beat is long ago.
DOUBT_SECONDS = 15.0

_NUMBERED = re.compile(r"(\d{1,18})\.json")
# Records of holders on other machines: place → what it was, and since when by our clock.
_watched: dict[str, tuple[bytes, float]] = {}

Standing = Literal["free", "silent", "held"]


class Lease:
    """A held lease, kept alive by this process's heart until it is released or lost."""

    def __init__(self, objects: Objects, folder: str, key: str, record: dict[str, Any]):
        self._objects, self._folder, self._key, self._record = objects, folder, key, record
        self._beating = threading.Lock()  # while it beats, it does not end
        self._ended = False
        self._lost = False
        _heart.add(self)

    def beat(self) -> None:
        """Say that its holder lives, or find out that it is lost.

        A beat that fails, for whatever reason a disk, network or client library finds, is tried
        again. Where all fail for long, somebody else takes over, and the first that succeeds sees
        it.
        """
        with self._beating, contextlib.suppress(Exception):
            if self._ended or self._lost:
                return
            if _names(self._objects, self._folder)[-1:] != [self._key]:
                self._lost = True  # we were thought dead, and somebody else took over
                return
            self._record["beat_at"] = time.time()
            self._objects.write(f"{self._folder}/{self._key}", _encoded(self._record))

    @property
    def token(self) -> str:
        """What no other lease has."""
        return self._record["token"]

    @property
    def lost(self) -> bool:
        """Whether somebody else holds it now; whoever had it should stop."""
        return self._lost

    def release(self) -> None:
        """Let the next one have it."""
        self._end()
        if not self.lost:
            record = {**self._record, "released": True}
            with contextlib.suppress(OSError, UserError):  # else it ends with its heartbeat
                self._objects.write(f"{self._folder}/{self._key}", _encoded(record))

    def remove(self) -> None:
        """Release and forget it, when what it protected is done for good."""
        self._end()
        if not self.lost:
            with contextlib.suppress(OSError):
                self._objects.remove(self._folder)

    def _end(self) -> None:
        _heart.remove(self)
        with self._beating:
            self._ended = True


class _Heart:
    """Beats for all leases of this process, in one thread that ends when there are none.

    One for each lease would cost a stage that does nothing a good part of its time.
    """

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        self._changed = threading.Condition()
        self._next = 0.0  # when it beats
        self._runs = False

    def add(self, lease: Lease) -> None:
        with self._changed:
            self._leases[id(lease)] = lease
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._beat, daemon=True, name="leases").start()
            elif time.monotonic() + HEARTBEAT_SECONDS < self._next:
                self._changed.notify()

    def remove(self, lease: Lease) -> None:
        with self._changed:
            self._leases.pop(id(lease), None)

    def _beat(self) -> None:
        while True:
            with self._changed:
                self._runs = bool(self._leases)
                if not self._runs:
                    return
                self._next = time.monotonic() + HEARTBEAT_SECONDS
                self._changed.wait(HEARTBEAT_SECONDS)
                leases = list(self._leases.values())
            for lease in leases:
                lease.beat()


_heart = _Heart()
os.register_at_fork(after_in_child=_heart.__init__)  # its thread and its leases stay behind


def acquire(objects: Objects, folder: str, *, watch_silent: bool = False) -> Lease | None:
    """Take the lease of a folder for this process; None if it has a living holder.

    A holder on another machine that has been silent for long by its own clock, or has a clock
    ahead of ours, is only known to be dead after it was watched for a while. `watch_silent` waits
    for that, and says so; else ask again.
    """
    names = _names(objects, folder)
    standing, record = _holder(objects, folder, names)
    if watch_silent and standing == "silent" and record is not None:
        print(
            f"mm1: process {record['pid']} on {record['host']} holds {folder} and may be dead; "
            "watching it for up to a minute",
            file=sys.stderr,
        )
        until = time.monotonic() + STALE_SECONDS + 2 * HEARTBEAT_SECONDS
        while standing == "silent" and time.monotonic() < until:
            time.sleep(min(1.0, HEARTBEAT_SECONDS))
            before, names = record, _names(objects, folder)
            standing, record = _holder(objects, folder, names)
            if standing == "silent" and record != before:
                return None  # it beats, whatever its clock says
    if standing != "free":
        return None
    # Of the same look: whoever came in between has this number, and we lose.
    key = f"{_number(names[-1]) + 1 if names else 1:06d}.json"
    now = time.time()
    record = {**_this_process(), "acquired_at": now, "beat_at": now, "released": False}
    if not objects.create(f"{folder}/{key}", _encoded(record)):
        return None
    if _names(objects, folder)[-1:] != [key]:  # we looked before a removal, and came late
        return None
    return Lease(objects, folder, key, record)


def study_lease(study: str) -> str:
    """Where the lease of a study's run is."""
    return f"{study_folder(study)}/lease"


def holder(objects: Objects, folder: str) -> dict[str, Any] | None:
    """The record of the living holder of a lease (host, pid, acquired_at), or None.

    For people: who takes a lease over watches it first.
    """
    standing, record = _holder(objects, folder, _names(objects, folder))
    return record if standing == "held" else None


def may_be_taken(objects: Objects, folder: str) -> bool:
    """Whether nobody holds a lease, as far as one look tells."""
    return _holder(objects, folder, _names(objects, folder))[0] == "free"


def is_record(objects: Objects, folder: str, name: str) -> bool:
    """Whether a file in a lease's folder is a record of it."""
    found = _NUMBERED.fullmatch(name) is not None
    return found and _read(objects, f"{folder}/{name}")[1] is not None


def earlier_are_dead(objects: Objects, folder: str) -> bool:
    """Whether all who had this lease before its present holder are known to be gone for good.

    Whoever was only thought dead may wake up and write on.
    """
    records = [_read(objects, f"{folder}/{name}")[1] for name in _names(objects, folder)[:-1]]
    return all(r is not None and (r["released"] or _is_dead_here(r)) for r in records)


def _holder(
    objects: Objects, folder: str, names: Sequence[str]
) -> tuple[Standing, dict[str, Any] | None]:
    if not names:
        return "free", None
    place = f"{objects.root}/{folder}/{names[-1]}"
    data, record = _read(objects, f"{folder}/{names[-1]}")
    if record is None or record["released"] or _is_dead_here(record):
        _watched.pop(place, None)
        return "free", record
    now = time.monotonic()
    if _watched.get(place, (b"", 0.0))[0] != data:
        _watched[place] = data, now
    unchanged = now - _watched[place][1]
    behind = time.time() - record["beat_at"]
    if unchanged > (DOUBT_SECONDS if behind > STALE_SECONDS else STALE_SECONDS):
        return "free", record
    return ("silent" if abs(behind) > STALE_SECONDS else "held"), record


def _names(objects: Objects, folder: str) -> list[str]:
    """Its records, the one that holds it last."""
    return sorted(filter(_NUMBERED.fullmatch, objects.children(folder)), key=_number)


def _number(name: str) -> int:
    return int(name.removesuffix(".json"))


def _read(objects: Objects, key: str) -> tuple[bytes, dict[str, Any] | None]:
    """A record's bytes and content; None where it is gone or damaged, which a beat would mend."""
    try:
        data = objects.read(key)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b"", None
    return data, parsed(data)


def parsed(data: bytes) -> dict[str, Any] | None:
    """A lease's record; None if it is damaged."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not all(
        isinstance(record.get(field), kind) and (kind is bool or record[field] is not True)
        for field, kind in _FIELDS.items()
    ):
        return None
    return record if 0 < record["pid"] < 2**31 else None


_FIELDS: dict[str, Any] = {
    "host": str,
    "machine": str,
    "pid": int,
    "started": str | None,
    "acquired_at": int | float,
    "beat_at": int | float,
    "released": bool,
}


def _encoded(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "schema_version": 1,
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _start(pid),
        "token": uuid.uuid4().hex,  # so that no two records are the same
    }


@functools.cache
def _machine() -> str:
    """Where process numbers mean the same: host, boot and, in containers, name space."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text(encoding="utf-8").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


@functools.cache
def _start(pid: int) -> str | None:
    return _process(pid)[1]


def _is_dead_here(record: dict[str, Any]) -> bool:
    return record["machine"] == _machine() and not _alive(record["pid"], record["started"])


def _alive(pid: int, started: str | None) -> bool:
    exists, start = _process(pid)
    # Another start: the number was used again. None: of somebody else's process we may not know.
    return exists and (start == started or start is None)


def _process(pid: int) -> tuple[bool, str | None]:
    """Whether a process runs, and when it started in ticks since boot (Linux; else None)."""
    try:
        # After the name, which is in parentheses and may hold anything: state, …, flags (9), …,
        # start (22).
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
        ended = fields[0] in "ZX" or int(fields[6]) & _EXITING or _is_killed(pid)
        return not ended, fields[19]
    except OSError:  # it is gone, or this is no Linux, or nobody else's processes are shown
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False, None
    except PermissionError:
        pass
    return True, None


_EXITING = 0x4  # the kernel's PF_EXITING


def _is_killed(pid: int) -> bool:
    """Whether a process never runs again, though it is still there: its memory is being given
    back, or written to a core file, which takes a while."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    pending = int(facts.get("ShdPnd", "0"), 16) | int(facts.get("SigPnd", "0"), 16)
    return facts.get("CoreDumping") == "1" or bool(pending >> (signal.SIGKILL - 1) & 1)
