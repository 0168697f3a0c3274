"""Asking something of a run from elsewhere: it hears it within seconds, and only that run does."""

from __future__ import annotations

import threading
import time

import pytest
import thread_workers
from noop_stage import a_plan

from ablations.errors import UserError
from sweeps import control, live, progress
from sweeps.control import ask
from sweeps.live import driver, read_live, token_of
from sweeps.run import run_plan
from sweeps.store import Store

SLOW = {"steps": 150, "seconds": 0.05}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(control, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(live, "LIVE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.1)


@pytest.fixture
def workers(monkeypatch):
    thread_workers.use(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


class Running:
    """A run in a thread of its own."""

    def __init__(self, plan, store, **options):
        self.plan, self.store, self.code = plan, store, None
        self.thread = threading.Thread(target=self._run, kwargs=options)
        self.thread.start()

    def _run(self, **options):
        options = {"workers": 1, "mlflow_uri": "off", "data": "data", **options}
        self.code = run_plan(self.plan, Store(self.store.root), **options)

    def until(self, condition, seconds=60):
        """The first record of the run of which a condition is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = read_live(self.store.objects, self.plan.study)
            if record is not None and condition(record):
                return record
            time.sleep(0.05)
        raise AssertionError(f"never so: {record}")

    def end(self):
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.code


def step_of(record):
    return max((one.step or 0 for one in record.stages), default=0)


def test_a_paused_run_stops_its_stages_and_goes_on_with_them(workers, store):
    plan = a_plan("paused", {"base": SLOW}, seeds=(1,))
    run = Running(plan, store)
    run.until(lambda record: step_of(record) >= 5)
    assert "1 running stage saves itself" in ask(store.objects, "paused", "pause")
    run.until(lambda record: record.state == "paused" and not record.stages)
    training = plan.trials[0].stages["multimodal"]
    reports = len(store.progress(training))
    assert "paused already" in ask(store.objects, "paused", "pause")
    assert len(store.progress(training)) == reports < 150
    assert ask(store.objects, "paused", "resume") == "it goes on"
    assert run.end() == 0
    first = (store.stage_folder(training) / "first_step").read_text(encoding="utf-8")
    assert int(first) == reports  # where it was stopped
    ended = read_live(store.objects, "paused")
    assert (ended.state, ended.code, ended.done) == ("ended", 0, 1)
    assert not store.objects.children(f"{live.folder('paused')}/asked")


def test_a_trial_that_is_left_out_is_stopped_and_the_others_are_done(workers, store):
    plan = a_plan("less", {"base": {}, "long": SLOW}, seeds=(1, 2))
    run = Running(plan, store)
    run.until(lambda record: step_of(record) >= 2)
    answer = ask(store.objects, "less", "leave out", [("long", 1), ("long", 2), ("base", 9)])
    assert answer == "long seed 1, long seed 2 are not run further"
    assert run.end() == 1
    done = {
        (t.arm, t.seed)
        for t in plan.trials
        if store.done(t.stages.values()) >= {*t.stages.values()}
    }
    assert done == {("base", 1), ("base", 2)}
    record = store.cancelled(plan)["long", 2]
    assert record.by == control.who()
    assert read_live(store.objects, "less").cancelled == 2


def test_a_cancelled_run_ends_as_an_interrupted_one_and_a_later_one_has_not_heard(workers, store):
    plan = a_plan("ended", {"base": {"steps": 60, "seconds": 0.05}}, seeds=(1,))
    with pytest.raises(UserError, match="not being run"):
        ask(store.objects, "ended", "pause")
    run = Running(plan, store)
    run.until(lambda record: step_of(record) >= 2)
    asked = f"{live.folder('ended')}/asked/{token_of(driver(store.objects, 'ended'))}"
    assert "what was finished is kept" in ask(store.objects, "ended", "cancel")
    assert run.end() == 130
    assert not store.is_done(plan.trials[0].stages["multimodal"])
    late = control.Asked(action="cancel", by="somebody", at="2026-12-01T00:00:00+00:00")
    store.objects.create(f"{asked}/1.json", live.sealed(late))  # by whoever came late
    again = Running(plan, store)
    assert again.end() == 0
