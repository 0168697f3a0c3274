"""Gangs: several processes are one worker, one lost process ends and restarts all of them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from noop_stage import HERE, a_stage, having

from ablations.identity import code_fingerprint
from ablations.workload import Code
from sweeps.gang import GangWorker, HostsPlacement
from sweeps.pool import LostError
from sweeps.store import Store

pytestmark = pytest.mark.usefixtures("ray_session")


def a_gang_stage(seed=1, **config):
    stage = a_stage("train", {"steps": 5, **config}, seed)
    return having(
        stage,
        run="gang_stage:train",
        code=Code(module="gang_stage", function="train"),
        code_fingerprint=code_fingerprint("gang_stage", "train"),
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def gang(store, tmp_path):
    """A gang of two processes on this host."""
    worker = GangWorker(
        lambda: HostsPlacement(2, {"CPU": 1}, apart=False),
        (store.root, str(tmp_path / "data"), "revision"),
        {"PYTHONPATH": os.pathsep.join([HERE, str(Path(HERE).parent.parent)])},
        [].append,
    )
    worker.ready().result(120)
    yield worker
    worker.kill()


def run_again(gang, stage):
    """Another gang in its place, as a pool has it."""
    gang.kill()
    again = GangWorker(gang._place, gang._arguments, gang._variables, gang._say)
    again.ready().result(120)
    try:
        return again.run(stage).result(120)
    finally:
        again.kill()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def value(store, stage):
    (row,) = store.rows([stage.id]).to_dict("records")
    return row["value"]


def test_a_lost_process_restarts_the_gang_from_its_last_checkpoint(gang, store):
    whole, broken = a_gang_stage(), a_gang_stage(kills=1)
    assert gang.run(whole).result(120).state == "done"
    assert store.execution(whole.id)["processes"] == 2
    lost = gang.run(broken).result(120)
    assert lost.state == "failed"
    assert lost.renewed  # it is not to be given another stage
    assert lost.error.startswith("process 2 of the gang's 2, on 127.0.0.1, died (the worker")
    assert "goes on from its last checkpoint" in lost.error
    assert "\n" not in lost.error
    (failure,) = store.failures(broken.id)  # told once, though two have noticed it
    assert failure["error"] == (
        "RuntimeError: process 2 of the gang's 2 died, the first noticed it as EOFError"
    )
    assert run_again(gang, broken).state == "done"
    assert (store.stage_folder(broken.id) / "first_step").read_text(encoding="utf-8") == "2"
    assert value(store, broken) == value(store, whole)


@pytest.mark.slow
def test_a_process_that_fails_alone_is_told_and_ends_the_others(gang, store):
    broken = a_gang_stage(fails=1)
    try:
        outcome = gang.run(broken).result(120)
        said, again = outcome.error, outcome.again
        assert outcome.state == "failed"
    except LostError as error:  # where the first process waits on
        said, again = str(error), True
    assert again
    failures = store.failures(broken.id)
    told = said + json.dumps(failures)
    assert "told to fail" in told
    assert "process 2" in told
    assert run_again(gang, broken).state == "done"


def test_a_gang_that_is_asked_to_stop_saves_itself(gang, store):
    stage = a_gang_stage(waits=True)
    running = gang.run(stage)
    scratch = store.scratch(stage.id)
    wait_for(lambda: (scratch / "waits-0").exists() and (scratch / "waits-1").exists())
    gang.stop()
    assert running.result(60).state == "stopped"
    assert json.loads((scratch / "state.json").read_text(encoding="utf-8"))["step"] == 3


@pytest.mark.slow
def test_the_death_of_the_first_is_told_too(gang, store):
    stage = a_gang_stage(waits=True)
    running = gang.run(stage)
    pid = store.scratch(stage.id) / "pid-0"
    wait_for(lambda: (store.scratch(stage.id) / "waits-0").exists())
    os.kill(int(pid.read_text(encoding="utf-8")), signal.SIGKILL)
    with pytest.raises(LostError, match="process 1 of the gang's 2"):
        running.result(60)


def test_what_a_gang_waits_for_is_told_in_a_line_and_it_ends_when_it_is_to(store, monkeypatch):
    monkeypatch.setattr("sweeps.gang.QUIET_SECONDS", 0)
    said = []
    arguments = ((store.root, "data", "revision"), {}, said.append)
    worker = GangWorker(lambda: HostsPlacement(2, {"CPU": 3}), *arguments)
    ready = worker.ready()
    (told,) = wait_for(lambda: said)
    assert told.startswith("a gang waits for room: it needs 2 hosts with CPU 3 each; ")
    assert told.endswith("of 1 hosts that are alive 1 have that, 1 of them free")
    assert not ready.done()
    worker.kill()
    with pytest.raises(LostError, match="the gang was ended"):
        ready.result(0)
