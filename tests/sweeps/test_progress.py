"""What a run shows: counts, times, first metric, latest scores; lines without a terminal."""

from __future__ import annotations

import copy
import time

import pytest
from noop_stage import a_plan

from ablations.stage import ResultRow
from sweeps import progress as module
from sweeps.display import table
from sweeps.progress import Progress
from sweeps.scheduler import Scheduler
from sweeps.store import Store

PLAN = a_plan("shown", {"base": {}, "other": {}}, seeds=(1, 2))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOOK_SECONDS_AT_MOST", 0.0)
    return Store(tmp_path)


def follow(store, workers=("w", "v"), **options):
    progress = Progress(PLAN, store, **options)
    progress.scheduler = Scheduler(PLAN, (), workers, compile_seconds=0)
    return progress


def finish(store, scheduler, stage_id, value=0.0):
    attempt = store.begin(PLAN.stages[stage_id])
    store.finish(
        attempt, [ResultRow("easy_vqa", "accuracy", value, split="test")], {"seconds": 0.1}
    )
    scheduler.finished(stage_id, 1.0)


def now():
    return time.monotonic()


def report(store, stage_id, step, loss):
    store.scratch(stage_id).mkdir(parents=True, exist_ok=True)
    with open(store.scratch(stage_id) / "reports.jsonl", "a", encoding="utf-8") as file:
        file.write(f'{{"step": {step}, "time": 0, "loss": {loss}}}\n')


def test_trials_are_counted_by_state(store):
    progress = follow(store)
    scheduler = progress.scheduler
    none = dict.fromkeys(("done", "running", "waiting", "failed", "cancelled"), 0)
    assert progress.trials() == {**none, "waiting": 4}
    first = scheduler.next("w", now())
    second = scheduler.next("v", now())
    assert progress.trials() == {**none, "running": 2, "waiting": 2}
    finish(store, scheduler, first)
    finish(store, scheduler, scheduler.next("w", now()))
    scheduler.failed(second, again=False)
    assert progress.trials() == {**none, "done": 1, "waiting": 2, "failed": 1}
    left = next(one for one in scheduler.in_state("ready", "waiting") if PLAN.stages[one].inputs)
    scheduler.leave_out(left)
    assert progress.trials() == {**none, "done": 1, "waiting": 1, "failed": 1, "cancelled": 1}
    assert "1 done, 0 running, 1 waiting, 1 failed, 1 cancelled" in progress.snapshot().headline()


def test_first_metric_is_printed_as_soon_as_it_is_there(store, capsys):
    progress = follow(store)
    stage_id = progress.scheduler.next("w", now())
    progress.update()
    assert "first metric" not in capsys.readouterr().out
    report(store, stage_id, 25, 1.5)
    progress.update()
    progress.update()
    out = capsys.readouterr().out
    assert out.count("first metric after 0 s") == 1
    assert "step 25 loss 1.5" in out


def test_without_a_terminal_there_is_a_line_every_ten_seconds(store, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = follow(store)
    for _ in range(31):
        progress.update()
        now[0] += 1.0
    lines = [line for line in capsys.readouterr().out.split("\n") if line]
    assert len(lines) == 4
    assert lines[-1].startswith("trials: 0 done, 0 running, 4 waiting · elapsed 0:30 · remaining")


def test_latest_score_of_each_arm_and_its_mean_are_shown(store):
    progress = follow(store, workers=("w",))
    scheduler = progress.scheduler
    scores = iter([60.0, 50.0, 70.0])
    for _ in range(6):
        stage_id = scheduler.next("w", now())
        finish(store, scheduler, stage_id, next(scores) if PLAN.stages[stage_id].inputs else 0)
    progress.update()
    arms = [trial.arm for trial in PLAN.trials]
    line = progress.snapshot().line()
    assert all(arm in line for arm in arms)
    assert "65.0 ± 7.1, 2 of 2 seeds" in line
    assert "50.0, 1 of 2 seeds, latest 50.0 (seed 1)" in line


def test_table_of_a_terminal_shows_runs_and_scores(store):
    from rich.console import Console, Group

    progress = follow(store, workers=("w",))
    finish(store, progress.scheduler, progress.scheduler.next("w", now()))
    finish(store, progress.scheduler, progress.scheduler.next("w", now()), 66.0)
    running = progress.scheduler.next("w", now() - 61.0)
    report(store, running, 50, 0.25)
    progress.update()
    console = Console(width=120)
    with console.capture() as capture:
        console.print(Group(*table(progress.snapshot(), 120, 30)))
    text = capture.get()
    assert "easy_vqa.accuracy" in text
    assert "66.0 (seed 1)" in text
    assert f"{PLAN.stages[running].label}  1:01  step 50 loss 0.25" in text


def test_drawing_reads_and_changes_nothing_of_the_scheduler(store):
    """What broke the live table: it asked a scheduler that was being changed."""
    progress = follow(store)
    first = progress.scheduler.next("w", now())
    shown = progress.snapshot()
    state = copy.deepcopy(vars(progress.scheduler))
    progress.scheduler.next("v", now())  # busy, and nobody has said since when
    list(table(shown.later(shown.taken + 5), 100, 30))
    assert [one.label for one in shown.stages] == [PLAN.stages[first].label]
    progress.scheduler.__dict__.update(copy.deepcopy(state))
    progress.snapshot()
    assert vars(progress.scheduler) == state


def test_quiet_prints_nothing_but_failures(store, capsys):
    progress = follow(store, quiet=True)
    progress.say("all is well")
    progress.update()
    progress.warn("failed: one")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "failed: one\n"


def test_a_silent_stage_is_named_once_with_how_long_and_how_to_look(store, capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    progress = follow(store)
    stage_id = progress.scheduler.next("w", 100.0)
    report(store, stage_id, 25, 1.5)
    for seconds in range(0, 400, 2):
        clock[0] = 100.0 + seconds
        progress.update()
    out = capsys.readouterr().out
    label = PLAN.stages[stage_id].label
    assert out.count("look at it with") == 1
    assert f"no report for 2:02: {label}; it may hang" in out
    assert f"mm1 logs {stage_id[:8]} --store {store.root}" in out
    assert f"{label} step 25 loss 1.5 no report for 6:30" in out
    report(store, stage_id, 50, 1.4)
    clock[0] += 10
    progress.update()
    assert "step 50 loss 1.4 |" in progress.snapshot().line() + " |"


def test_a_stage_is_projected_by_the_pace_of_its_own_reports():
    def said(*pairs):
        return [{"step": step, "time": time} for step, time in pairs]

    assert module.projected(said((25, 100.0)), 1000, 30.0) is None  # one report is no pace
    assert module.projected(said((25, 100.0), (125, 110.0)), 1000, 30.0) == 30 + 0.1 * 875
    resumed = said((25, 100.0), (500, 9000.0), (600, 9020.0))
    assert module.projected(resumed, 1000, 60.0) == 60 + 0.2 * 400
    assert module.projected(said((25, 1.0), (50, 2.0)), 0, 9.0) is None  # nobody knows its steps
