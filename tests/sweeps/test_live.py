"""What a run says of itself is what its scheduler estimates, in a record that others can read."""

from __future__ import annotations

import math
import time

import pytest
from noop_stage import a_plan, having

from mm1.watching import run_of
from sweeps import progress as module
from sweeps.live import Publisher, read_live
from sweeps.progress import Progress
from sweeps.scheduler import Scheduler
from sweeps.store import Store

SECONDS = {"train": 40.0, "evaluate": 6.0}  # what stages take; planned is another thing


@pytest.fixture
def simulated(tmp_path, monkeypatch):
    """A schedule on two workers on a clock of its own: (time, shown time to go) now and then."""
    plan = a_plan("simulated", {f"arm{n}": {} for n in range(5)}, seeds=(1, 2, 3, 4))
    stages = {one.id: having(one, seconds=9.0) for one in plan.stages.values()}
    plan = plan.model_copy(update={"stages": stages})
    store, clock = Store(tmp_path), [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    workers = ("w", "v")
    progress = Progress(plan, store, quiet=True)
    scheduler = progress.scheduler = Scheduler(plan, (), workers, compile_seconds=0.0)
    publisher = Publisher(store.objects, plan.study, plan.hash, "token")
    ends: dict[str, float] = {}
    shown = []
    while not scheduler.complete:
        for worker in workers:
            if worker not in scheduler.running:
                stage = scheduler.next(worker, clock[0])
                if stage is not None:
                    ends[stage] = clock[0] + SECONDS[plan.stages[stage].run.split(":")[1]]
        snapshot = progress.snapshot()
        publisher.write(snapshot)
        live = read_live(store.objects, plan.study)
        assert live is not None
        expected = snapshot.remaining
        assert live.remaining == pytest.approx(expected)
        assert expected == pytest.approx(
            scheduler.remaining_seconds(clock[0]) + max(0.0, module.START_SECONDS - clock[0] + 1000)
        )
        run = run_of(live, {"token": "token"}, age=3.0)
        assert run.remaining == pytest.approx(max(0.0, expected - 3.0))
        shown.append((clock[0], run.remaining + 3.0))
        clock[0] = min(ends.values())
        for stage in [one for one, end in ends.items() if end == clock[0]]:
            del ends[stage]
            scheduler.finished(stage, SECONDS[plan.stages[stage].run.split(":")[1]])
    return shown, clock[0]


def test_the_time_to_go_that_is_shown_is_the_schedulers_and_right_after_a_tenth(simulated):
    shown, end = simulated
    begun, whole = shown[0][0], end - shown[0][0]
    late = [(at, left) for at, left in shown if (at - begun) >= 0.1 * whole]
    assert len(late) > 10
    for at, left in late:
        assert abs(left - (end - at)) <= 0.2 * whole


def test_a_number_that_is_none_is_told_as_none(tmp_path):
    plan = a_plan("odd", {"base": {}}, seeds=(1,))
    store = Store(tmp_path)
    progress = Progress(plan, store, quiet=True)
    progress.scheduler = Scheduler(plan, (), ["w"])
    stage = progress.scheduler.next("w", time.monotonic())
    assert stage is not None
    store.scratch(stage).mkdir(parents=True)
    line = '{"step": 3, "time": 1.0, "loss": NaN, "rate": 0.5}\n'
    (store.scratch(stage) / "reports.jsonl").write_text(line, encoding="utf-8")
    progress.update()
    assert progress.shown is not None
    Publisher(store.objects, "odd", plan.hash, "token").write(progress.shown)
    live = read_live(store.objects, "odd")
    assert live is not None
    assert math.isnan(dict(progress.shown.stages[0].metrics)["loss"])
    assert live.stages[0].metrics == {"loss": None, "rate": 0.5}
    store.objects.write("runs/odd/live.json", b"{")
    assert read_live(store.objects, "odd") is None
