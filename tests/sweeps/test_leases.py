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


def test_who_comes_between_our_look_and_our_claim_has_it(objects, monkeypatch):
    children, others = objects.children, []

    def look_and_be_late(folder: str):
        names = children(folder)
        if not others:
            monkeypatch.setattr(objects, "children", children)
            others.append(leases.acquire(objects, "one"))
        return names

    monkeypatch.setattr(objects, "children", look_and_be_late)
    assert leases.acquire(objects, "one") is None
    assert others[0] is not None
    assert objects.children("one") == ["000001.json"]
    others[0].release()


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


@pytest.fixture
def clock(monkeypatch):
    """Our own clock, put forward by hand."""
    now = [time.monotonic()]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(leases, "_watched", {})

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def on_another_machine(objects, ahead: float = 0.0) -> None:
    """A lease of a process elsewhere, whose clock is ahead of ours."""
    lease = leases.acquire(objects, "one")
    assert lease is not None
    lease._end()
    change(objects, machine="another", pid=1, beat_at=time.time() + ahead)


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -30.0])
def test_dead_holder_on_another_machine_loses_it_after_a_minute_of_ours(objects, clock, ahead):
    on_another_machine(objects, ahead)
    assert leases.acquire(objects, "one") is None
    clock(leases.STALE_SECONDS - 1)
    assert leases.acquire(objects, "one") is None
    clock(2)
    taken = leases.acquire(objects, "one")
    assert taken is not None
    taken.release()


def test_holder_that_says_itself_that_it_is_long_silent_is_watched_for_less(objects, clock):
    on_another_machine(objects, -3600)
    assert leases.holder(objects, "one") is None
    assert leases.acquire(objects, "one") is None
    clock(leases.DOUBT_SECONDS + 1)
    taken = leases.acquire(objects, "one")
    assert taken is not None
    taken.release()


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -3600.0])
def test_living_holder_on_another_machine_keeps_it_whatever_its_clock_says(objects, clock, ahead):
    on_another_machine(objects, ahead)
    for beat in range(30):
        change(objects, beat_at=time.time() + ahead + beat)
        assert leases.acquire(objects, "one") is None
        clock(leases.HEARTBEAT_SECONDS)


@pytest.mark.parametrize("beats", [True, False])
def test_who_asks_once_may_wait_for_a_doubtful_holder(objects, monkeypatch, capsys, beats):
    for name, seconds in (("HEARTBEAT", 0.02), ("STALE", 0.5), ("DOUBT", 0.2)):
        monkeypatch.setattr(leases, f"{name}_SECONDS", seconds)
    on_another_machine(objects, 3600)
    ended = threading.Event()

    def beat():
        while beats and not ended.wait(0.02):
            change(objects, beat_at=time.time() + 3600)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        taken = leases.acquire(objects, "one", watch_silent=True)
    finally:
        ended.set()
        thread.join()
    assert "may be dead" in capsys.readouterr().err
    assert (taken is None) == beats
    if taken is not None:
        taken.release()


def test_process_of_another_user_that_is_hidden_from_us_is_alive(monkeypatch):
    def hidden(*_, **__):
        raise FileNotFoundError

    def not_ours(*_):
        raise PermissionError

    monkeypatch.setattr(leases.Path, "read_text", hidden)
    monkeypatch.setattr(leases.os, "kill", not_ours)
    assert leases._alive(4711, "12345")


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\0\0", b"{", b"[]", b"7", b"{}", b'{"released": 1}', b"\xff\xfe", b"[" * 100_000],
)
def test_rubbish_in_a_lease_holds_nobody_up(objects, rubbish):
    objects.write("one/000001.json", rubbish)
    objects.write("one/readme.txt", b"")
    objects.write("one/zzz.json", b"")
    assert leases.holder(objects, "one") is None
    lease = leases.acquire(objects, "one")
    assert lease is not None
    assert "000002.json" in objects.children("one")
    assert leases.acquire(objects, "one") is None
    lease.remove()


def test_a_heartbeat_outlives_every_kind_of_error(objects, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    write = objects.write
    errors = [RuntimeError("closed loop"), ValueError("odd answer"), KeyError("x"), EOFError()]
    went_on = threading.Event()

    def odd(key: str, data: bytes) -> None:
        if errors:
            raise errors.pop()
        write(key, data)
        went_on.set()

    lease = leases.acquire(objects, "one")
    monkeypatch.setattr(objects, "write", odd)
    assert went_on.wait(10)
    assert not errors
    assert not lease.lost
    lease.release()


def test_a_lease_that_cannot_be_released_ends_with_its_heartbeat(objects, monkeypatch):
    def down(*_, **__):
        raise OSError(errno.EIO, "storage is down")

    for name in ("write", "remove"):
        monkeypatch.setattr(objects, name, down)
    leases.acquire(objects, "one").release()
    leases.acquire(objects, "two").remove()


def test_acquiring_while_others_remove_raises_nothing(objects):
    ended, raised = threading.Event(), []

    def hammer():
        try:
            while not ended.is_set():
                lease = leases.acquire(objects, "one")
                if lease is not None:
                    lease.remove()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    ended.set()
    for thread in threads:
        thread.join()
    assert raised == []


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
    assert failed.wait(120)
    full.clear()
    before = leases.holder(objects, "one")["beat_at"]
    deadline = time.monotonic() + 120
    while leases.holder(objects, "one")["beat_at"] == before:
        assert time.monotonic() < deadline, "no beat after the disk had room again"
        time.sleep(0.01)
    lease.release()
