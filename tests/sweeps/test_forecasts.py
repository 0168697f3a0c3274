"""What a run was estimated to take is kept beside what it took."""

from __future__ import annotations

import time

import pytest
from noop_stage import a_plan, having

from analysis import forecast_words
from sweeps.forecasts import (
    Forecast,
    Forecaster,
    Part,
    forecasts_folder,
    forecasts_of,
    off_by,
    start_seconds,
)
from sweeps.records import sealed
from sweeps.scheduler import START_SECONDS, Scheduler
from sweeps.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def planned(seeds=tuple(range(10))):
    plan = a_plan("p", {"base": {}}, seeds=seeds, seconds=10.0)
    stages = {
        one.id: having(one, compile_seconds=4.0, seconds=10.0 if not one.inputs else 2.0)
        for one in plan.stages.values()
    }
    return plan.model_copy(update={"stages": stages})


def follow(store, plan, most=None, pause=False):
    """A run of one worker in which stages take three times, evaluations half as long as planned."""
    scheduler = Scheduler(plan, (), ["w"])
    with Forecaster(store, plan, scheduler, "run-1", time.time(), {}) as forecaster:
        begun = next(one for one in forecasts_of(store, plan) if one.run == "run-1")
        assert begun.seconds is None
        if pause:
            forecaster.disturbed()
        while not scheduler.complete and len(scheduler.done) != most:
            stage_id = scheduler.next("w", time.monotonic())
            seconds = 30.0 if not plan.stages[stage_id].inputs else 1.0
            scheduler.finished(stage_id, seconds, 1.0 if scheduler.compiles(stage_id) else None)
            forecaster.finished(stage_id, seconds)
    return next(one for one in forecasts_of(store, plan) if one.run == "run-1")


def test_each_kind_of_work_is_beside_what_was_estimated_of_it(store):
    plan = planned()
    found = follow(store, plan)
    assert found.stages == 20
    assert found.estimated_seconds == pytest.approx(START_SECONDS + 10 * 12 + 2 * 4)
    assert found.seconds is not None
    assert found.seconds < 60  # the stages only say that they took so long
    # Two stages of twenty are a tenth: nine trials at 31 s are left.
    assert found.estimated_after_a_tenth == pytest.approx(9 * 31, abs=10)
    assert {
        part.what: (part.stages, part.estimated_seconds, part.seconds) for part in found.parts
    } == {
        "multimodal": (10, 100.0, 300.0),
        "evaluation": (10, 20.0, 10.0),
    }
    assert found.compilation == Part(
        what="compilation", stages=2, estimated_seconds=8.0, seconds=2.0
    )


@pytest.mark.parametrize("how", [{"most": 5}, {"pause": True}])
def test_a_run_that_was_stopped_or_paused_says_nothing_of_the_whole(store, how):
    found = follow(store, planned(), **how)
    assert found.seconds is None
    assert found.parts
    assert forecast_words.last_whole([found]) is None
    assert forecast_words.summary(None) is None


def test_the_next_run_starts_from_how_long_the_last_one_took_to_be_at_work(store):
    plan = planned()
    assert start_seconds(store, plan) == START_SECONDS
    for run, seconds in (("a", 30.0), ("b", 40.0), ("c", None)):
        forecast = Forecast(
            run=run, began_at=ord(run), workers=1, stages=1, measured_before=0,
            estimated_start_seconds=1.0, estimated_seconds=1.0, start_seconds=seconds,
        )  # fmt: skip
        store.objects.write(f"{forecasts_folder(plan)}/{run}.json", sealed(forecast))
    assert start_seconds(store, plan) == 40
    assert follow(store, plan).estimated_start_seconds == 40


def test_a_damaged_forecast_hides_no_other(store):
    plan = planned()
    follow(store, plan)
    folder = next((store.objects.local / "studies").glob("*/*/forecasts"))
    (folder / "run-2.json").write_text("{", encoding="utf-8")
    assert len(forecasts_of(store, plan)) == 1


def test_words_say_which_way_an_estimate_was_off():
    forecast = Forecast(
        run="r", began_at=0.0, workers=2, stages=40, measured_before=0, start_seconds=24.0,
        estimated_start_seconds=12.0, estimated_seconds=100.0, estimated_after_a_tenth=190.0,
        seconds=200.0, parts=(Part(what="train", stages=3, estimated_seconds=90, seconds=30),),
    )  # fmt: skip
    told = forecast_words.line(forecast)
    assert "(40 stages, 2 workers) took 3 min 20 s" in told
    assert "1 min 40 s were estimated from planned times (50 % too little)" in told
    assert "after a tenth of its stages 3 min 10 s (5 % too little)" in told
    start, train = forecast_words.rows(forecast)
    assert start == ("start-up", "", "12 s", "24 s", "50 % too little")
    assert train == ("train", "3", "1 min 30 s", "30 s", "3.0 times too much")
    slow = forecast.model_copy(update={"seconds": 6000.0})
    assert "(60.0 times too little)" in forecast_words.line(slow)
    summary = forecast_words.summary(forecast)
    assert (summary["off_by"], summary["off_by_after_a_tenth"]) == (-0.5, -0.05)
    assert off_by(1.0, 0.0) == 0.0
