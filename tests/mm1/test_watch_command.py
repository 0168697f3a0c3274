"""`mm1 watch` as a user has it: in a terminal of any size, in a pipe, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "sweeps"))
from noop_stage import a_plan  # ty: ignore[unresolved-import]

from ablations.errors import UserError
from analysis.results import load_results
from mm1.watching import Watching, chosen
from sweeps import leases
from sweeps.leases import study_lease
from sweeps.live import Publisher
from sweeps.records import Cancelled
from sweeps.store import Store
from sweeps.worker import execute


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One arm that is done, one that diverged, one that failed, one that nobody did."""
    arms = {"base": {}, "odd": {"diverges": True}, "bad": {"fails": 1}, "late": {}}
    plan = a_plan("watched", arms, seeds=(1,))
    store = Store(tmp_path_factory.mktemp("watched"))
    store.register(plan)
    for trial in plan.trials:
        for stage in trial.stages.values():
            if trial.arm != "late" and not (trial.arm == "bad" and plan.stages[stage].inputs):
                execute(store, plan.stages[stage], Path("data"), threading.Event(), "revision")
    return store


def mm1(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mm1", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)


def test_elsewhere_it_prints_lines_or_events_and_ends(store):
    told = mm1("watch", "--json", "--store", store.root)
    assert told.returncode == 0, told.stderr
    events = [json.loads(line) for line in told.stdout.splitlines()]
    assert {event["study"] for event in events} == {"watched"}
    assert events[0]["event"] == "run"
    assert events[0]["state"] == "idle"
    states = {event["arm"]: event["state"] for event in events if event["event"] == "trial"}
    assert states == {"base": "done", "odd": "diverged", "bad": "failed"}
    assert [look.by for look in store.looks(store.snapshot("watched")[0])] == ["mm1 watch"]


def test_in_a_terminal_it_takes_the_whole_screen_follows_its_size_and_a_key_leaves(store, terminal):
    command = [sys.executable, "-m", "mm1", "watch", "watched", "--store", store.root]
    shown = terminal(command, columns=60, rows=14)
    while "q leaves" not in shown.text:
        assert shown.read(), shown.text
    assert "watched  nobody runs it" in shown.text
    assert "base  ✓" in shown.text
    assert "late  ." in shown.text
    assert shown.text.split("\n")[13] == "q leaves, the run goes on"
    shown.resize(120, 30)
    # The frame drawn for the old size may still be under way: its last line is not the screen's.
    while not (shown.text.count("\n") == 29 and "Does it run?" in shown.text):
        assert shown.read(), shown.text
    assert shown.text.split("\n")[29] == "q leaves, the run goes on"
    shown.press("q")
    assert shown.finish() == 0
    assert b"\x1b[?1049h" in shown.bytes  # the other screen
    assert shown.bytes.rindex(b"\x1b[?1049l") > shown.bytes.rindex(b"q leaves")  # and back
    assert b"\x1b[?25h" in shown.bytes  # the cursor is there again


def test_a_run_is_of_the_driver_that_has_the_lease(store):
    watching = Watching(store, chosen(store, None))
    assert watching.look().run.state == "idle"
    lease = leases.acquire(store.objects, study_lease("watched"))
    assert lease is not None
    plan = store.snapshot("watched")[0]
    publisher = Publisher(store.objects, "watched", plan.hash, lease.token)
    assert watching.look().run.state == "starting"
    publisher.again("paused")
    assert watching.look().run.state == "paused"
    assert watching.look().run.pid == os.getpid()
    record = Cancelled(trials=(("late", 1),), by="me", at="2026-12-01T00:00:00", token=lease.token)
    store.record_cancelled(plan, record)
    assert watching.look().counts["cancelled"] == 1
    lease.release()
    assert watching.look().run.state == "gone"
    told = load_results("watched", store).problems["late", 1]
    assert told == "cancelled on 2026-12-01 00:00 UTC by me; not there yet"
    again = leases.acquire(store.objects, study_lease("watched"))
    assert again is not None
    Publisher(store.objects, "watched", plan.hash, again.token).again("running")
    assert watching.look().counts["cancelled"] == 0  # this one was not told so
    again.release()
    with pytest.raises(UserError, match="no study 'nothing'"):
        Watching(store, chosen(store, "nothing")).look()
