"""The live table: drawn from a frozen snapshot, in real (pseudo-)terminals of all kinds."""

from __future__ import annotations

import dataclasses
import re
import sys
import time

import pytest
from noop_stage import HERE
from rich.console import Console, Group

from sweeps.display import Running, Screen, Snapshot, clock, table

# A tiny study, on Ray as it is run, or (much quicker) stage after stage in one process.
DRIVER = f"""
import sys, threading, time
from pathlib import Path
sys.path.insert(0, {HERE!r})
from noop_stage import a_plan
store, how, *names = sys.argv[1:]
plan = a_plan("tiny", {{name: {{"steps": 4, "seconds": 0.4}} for name in names}}, seeds=(1, 2))
if how == "ray":
    from sweeps.run import run_plan
    sys.exit(run_plan(plan, store, data="data", workers=2, mlflow_uri="off"))
from sweeps.progress import Progress
from sweeps.scheduler import Scheduler
from sweeps.store import Store
from sweeps.worker import execute
progress = Progress(plan, Store(store))
progress.scheduler = Scheduler(plan, (), ["worker 1"])
with progress:
    while not progress.scheduler.complete:
        stage = plan.stages[progress.scheduler.next("worker 1", time.monotonic())]
        work = threading.Thread(
            target=execute, args=(Store(store), stage, Path("data"), threading.Event(), "revision")
        )
        work.start()
        while work.is_alive():
            work.join(0.2)
            progress.update()
        progress.scheduler.finished(stage.id, 1.0)
progress.say("the end")
"""


def snapshot(**changes):
    values = {
        "study": "demo",
        "taken": 0.0,
        "elapsed": 65.0,
        "remaining": 130.0,
        "done": 1,
        "running": 2,
        "waiting": 3,
        "failed": 0,
        "stages": (Running("base seed 1: train", 12.0, 50, (("loss", 0.25), ("rate", 0.1))),),
        "metric": "easy_vqa.accuracy",
        "scores": (("base", "66.0, 1 of 2 seeds, latest 66.0 (seed 1)"),),
    }
    return Snapshot(**{**values, **changes})


def drawn(shown, width=100, height=30):
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(Group(*table(shown, width, height)))
    return [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]


def test_a_snapshot_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot().done = 2  # ty: ignore[invalid-assignment]


def test_table_shows_trials_times_stages_and_scores():
    text = "\n".join(drawn(snapshot()))
    assert "1 of 6 trials" in text
    assert "1 done, 2 running, 3 waiting · elapsed 1:05 · remaining about 2:10" in text
    assert "base seed 1: train  0:12  step 50 loss 0.25 rate 0.1" in text
    assert "66.0, 1 of 2 seeds" in text


def test_clocks_go_on_between_snapshots_and_never_below_zero():
    later = snapshot(taken=100.0).later(250.0)
    assert (later.elapsed, later.remaining, later.stages[0].seconds) == (215.0, 0.0, 162.0)


@pytest.mark.parametrize(("width", "height"), [(40, 10), (20, 5), (10, 3), (300, 80), (80, 24)])
def test_table_fits_any_terminal_and_says_what_it_leaves_out(width, height):
    shown = snapshot(
        stages=tuple(Running(f"factor={n},other=1 seed 3: train", n, n) for n in range(64)),
        scores=tuple((f"factor={n}", "66.0 ± 1.2, 4 of 4 seeds") for n in range(50)),
    )
    lines = drawn(shown, width, height)
    assert len(lines) < max(height, 8)
    assert all(len(line) <= width for line in lines)
    if (width, height) == (80, 24):
        assert any("… and 55 more" in line for line in lines)
        assert any("… and 41 more arms" in line for line in lines)


def test_a_line_names_a_few_stages_and_arms_and_counts_the_rest():
    line = snapshot(scores=tuple((f"arm {n}", "mean 1") for n in range(20))).line()
    assert "base seed 1: train step 50 loss 0.25 |" in line
    assert "arm 7 mean 1 | and 12 more arms" in line
    assert "arm 8" not in line


def test_nothing_but_a_snapshot_reaches_the_screen():
    assert list(vars(Screen())) == ["snapshot"]
    types = {field.type for field in dataclasses.fields(Snapshot)}
    assert types <= {
        "str", "float", "int", "tuple[Running, ...]", "tuple[tuple[str, str], ...]",
        "tuple[Fault, ...]",
    }  # fmt: skip


def test_clock():
    assert [clock(s) for s in (5, 65, 3_723)] == ["0:05", "1:05", "1:02:03"]


def follow(terminal, tmp_path, *arms, how="here", **options):
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "store"), how, *arms]
    return terminal(command, cwd=tmp_path, **options)


def healthy(shown, code):
    text = shown.bytes.decode(errors="replace")
    assert code == 0, text[-3000:]
    assert "Traceback" not in text
    assert "Error" not in text


def test_a_study_in_a_terminal_is_drawn_to_its_end(terminal, tmp_path):
    shown = follow(terminal, tmp_path, "base", "other", how="ray")
    healthy(shown, shown.finish())
    frames = "\n".join(shown.frames)
    done = [int(count) for count in re.findall(r"(\d) of 4 trials", frames)]
    assert (done[0], done[-1]) == (0, 4)  # the bar moves with the trials, from none to all
    assert done == sorted(done)
    assert re.search(r"(base|other) seed \d: train", frames)
    assert "loss" in frames
    last = shown.text
    assert "4 of 4 trials" in last
    assert "4 done, 0 running, 0 waiting" in last
    assert last.count("51.5 ± 0.7, 2 of 2 seeds") == 2
    assert last.count("of 4 trials") == 1  # drawn over itself, not below
    assert "tiny: all 4 trials are there, each exactly once" in last


def test_a_narrow_and_low_terminal_of_another_encoding_that_changes_its_size(terminal, tmp_path):
    arms = [f"connector.kind=attention_pooling_{n}" for n in range(4)]
    environment = {"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}
    shown = follow(terminal, tmp_path, *arms, columns=40, rows=8, env=environment)
    sizes = iter([(120, 40), (30, 6), (60, 12)])
    resized = time.monotonic()
    while shown.read():
        if time.monotonic() - resized > 1:
            resized = time.monotonic()
            size = next(sizes, None)
            if size:
                shown.resize(*size)
    healthy(shown, shown.finish())
    assert shown.bytes.isascii()
    assert b"\x1b[3" not in shown.bytes  # no colour
    assert "8 of 8 trials" in "\n".join(shown.frames)
    assert "the end" in shown.text


def test_a_dumb_terminal_gets_lines(terminal, tmp_path):
    shown = follow(terminal, tmp_path, "base", env={"TERM": "dumb", "FORCE_COLOR": "1"})
    healthy(shown, shown.finish())
    text = shown.bytes.decode()
    assert "trials: 0 done" in text
    assert "of 2 trials\x1b" not in text
    assert "\x1b[2K" not in text
