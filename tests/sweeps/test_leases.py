"""Leases: one holder at a time, dead holders lose at once, silent ones after a while."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import time

import pytest

from sweeps import leases
from sweeps.objects import open_objects


@pytest.fixture
def objects(tmp_path):
    return open_objects(tmp_path)


def change(objects, **fields) -> None:
    name = objects.children("one")[-1]
    record = json.loads(objects.read(f"one/{name}"))
    objects.write(f"one/{name}", json.dumps(record | fields).encode())


def test_a_held_lease_is_refused_and_a_released_one_is_not(objects):
    first = leases.acquire(objects, "one")
    assert first is not None
    assert leases.acquire(objects, "one") is None
    assert leases.holder(objects, "one")["pid"] > 0
    first.release()
    assert leases.holder(objects, "one") is None
    second = leases.acquire(objects, "one")
    assert second is not None
    second.remove()
    assert objects.children("one") == []


def test_of_many_that_ask_at_once_one_gets_it(objects):
    got = []
    start = threading.Barrier(8)

    def ask():
        start.wait()
        got.append(leases.acquire(objects, "one"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [lease for lease in got if lease is not None]
    assert len(held) == 1
    held[0].release()


def test_lease_of_a_dead_process_is_taken_over_at_once(tmp_path, objects):
    code = (
        "import os; from sweeps import leases; from sweeps.objects import open_objects;"
        f"leases.acquire(open_objects({str(tmp_path)!r}), 'one'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert objects.children("one") == ["000001.json"]
    taken = leases.acquire(objects, "one")
    assert taken is not None
    taken.release()


def test_number_of_a_dead_process_used_again_is_not_its_holder(objects):
    lease = leases.acquire(objects, "one")
    change(objects, started="12345")
    assert leases.holder(objects, "one") is None
    lease.release()


def test_silent_holder_on_another_machine_loses_it_only_after_a_while(objects):
    lease = leases.acquire(objects, "one")
    change(objects, machine="another", pid=1)
    assert leases.acquire(objects, "one") is None
    change(objects, beat_at=time.time() - leases.STALE_SECONDS - 1)
    taken = leases.acquire(objects, "one")
    assert taken is not None
    taken.release()
    lease.release()


def test_heartbeat_keeps_it_and_notices_when_it_is_lost(objects, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.02)
    lease = leases.acquire(objects, "one")
    before = leases.holder(objects, "one")["beat_at"]
    time.sleep(0.2)
    assert leases.holder(objects, "one")["beat_at"] > before
    assert not lease.lost

    objects.create("one/000002.json", b"{}")  # somebody thought us dead
    time.sleep(0.2)
    assert lease.lost
    lease.release()
    assert objects.read("one/000002.json") == b"{}"


def test_a_full_disk_costs_a_beat_and_not_the_lease(objects, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    write, full = objects.write, threading.Event()
    failed = threading.Event()

    def maybe_full(key: str, data: bytes) -> None:
        if full.is_set():
            failed.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        write(key, data)

    monkeypatch.setattr(objects, "write", maybe_full)
    lease = leases.acquire(objects, "one")
    assert lease is not None
    full.set()
    assert failed.wait(10)
    full.clear()
    before = leases.holder(objects, "one")["beat_at"]
    deadline = time.monotonic() + 10
    while leases.holder(objects, "one")["beat_at"] == before:
        assert time.monotonic() < deadline, "no beat after the disk had room again"
        time.sleep(0.01)
    lease.release()
