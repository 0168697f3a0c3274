"""Where core time went: every second of every worker is told, and none twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations.errors import UserError
from ablations.stage import StageStopped
from ablations.timeline import doing
from analysis import timeline, timeline_picture
from analysis.timeline import IDLE, UNKNOWN, Lane, Run, Span, Timeline, load_timeline
from mm1.cli import cli
from sweeps.records import sealed
from sweeps.run_times import RunRecorder, StageTimes, WorkerEnd, WorkerTimes
from sweeps.store import Store
from sweeps.worker import execute

sys.path.append(str(Path(__file__).parents[1] / "sweeps"))
from noop_stage import a_plan

HOSTILE = "<script>alert(1)</script>]]>\x1b[31m&\u202e"


def total(spent):
    return sum(spent.values())


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_study_that_was_stopped_and_gone_on_with(store, tmp_path):
    plan = a_plan("resumed", {HOSTILE: {}}, seeds=(1,))
    store.register(plan)
    training = plan.stages[plan.trials[0].stages["multimodal"]]
    stop = threading.Event()

    def stopped(config, seed, inputs, context):
        with doing("steps"):
            stop.set()
            raise StageStopped

    def whole(config, seed, inputs, context):
        with doing("steps"):
            (context.output / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return []

    cores = {"worker 1": 1.0, "worker 2": 1.0}
    with RunRecorder(store, plan, began_at=0.0) as recorder:
        recorder.joined(cores)
        times = WorkerTimes(recorder.run, "worker 1")
        recorder._began_at = times.free_since - 2.0
        ended = execute(store, training, tmp_path, stop, "", run=stopped, times=times)
        assert ended.state == "stopped"
        recorder.heard("worker 1", ended)
    with RunRecorder(store, plan, began_at=times.free_since) as recorder:
        recorder.joined(cores)
        times = WorkerTimes(recorder.run, "worker 2")
        for stage in plan.stages.values():
            run = whole if stage is training else None
            ended = execute(store, stage, tmp_path, threading.Event(), "", run=run, times=times)
            assert ended.state == "done", ended.error
            recorder.heard("worker 2", ended)
    found = load_timeline(store, "resumed")
    assert [run.ended for run in found.runs] == [True, True]
    for run in found.runs:
        for lane in run.lanes:
            assert total(lane.core_seconds()) == pytest.approx(run.seconds, abs=1e-3)
            assert all(a.end == b.start for a, b in zip(lane.spans, lane.spans[1:], strict=False))
    first, second = found.runs
    assert first.lanes[0].core_seconds()["start"] >= 2.0
    assert {"start", "steps", IDLE} <= set(first.lanes[0].core_seconds())
    assert set(first.lanes[1].core_seconds()) == {IDLE}
    assert {"steps", "run", "save", "start"} <= set(second.lanes[1].core_seconds())
    assert UNKNOWN not in found.core_seconds()
    # A stage's record has the seconds that the stage took.
    execution = store.execution(training.id)
    times = StageTimes.model_validate(execution["timeline"])
    assert sum(map(total, times.stretches)) >= execution["seconds"] - 0.01

    picture = timeline_picture.svg(found)
    ET.fromstring(picture)
    page = timeline_picture.page(found)
    trace = json.dumps(timeline.as_chrome_trace(found))
    assert "<script" not in picture + page
    assert {"\x1b", "\u202e"}.isdisjoint(picture + page + trace)
    events = json.loads(trace)["traceEvents"]
    assert {event["name"] for event in events} >= {training.label, "steps", IDLE}


def test_what_nobody_recorded_is_neither_idle_nor_work(store, tmp_path):
    plan = a_plan("gaps", {"base": {}}, seeds=(1,))
    store.register(plan)
    training, evaluation = plan.stages.values()
    recorder = RunRecorder(store, plan, began_at=1_000.0)
    place = {"run": recorder.run, "worker": "worker 1", "process_began_at": 1_001.0}

    def at(began, free, after, seconds):
        times = {"began_at": began, "free_since": free, "after": after}
        return {**place, **times, "stretches": [{"steps": seconds}]}

    for stage, record in (
        (training, at(1_010.0, 1_008.0, "", 20.0)),
        (evaluation, at(1_050.0, 1_045.0, "of a stage that is gone", 10.0)),
    ):
        execute(store, stage, tmp_path, threading.Event(), "")
        file = store.stage_folder(stage.id).parent / "execution.json"
        execution = json.loads(file.read_text(encoding="utf-8"))
        replaced(store, stage.id, file, {**execution, "timeline": record})
    recorder._ends = {
        "worker 1": WorkerEnd(
            worker="worker 1",
            cores=2.0,
            clock_behind_seconds=-1.0,
            free_since=1_063.0,
            after=evaluation.id,
        )
    }
    recorder._write(1_070.0)
    (lane,) = load_timeline(store, "gaps").runs[0].lanes
    told = [(span.kind, span.start, span.end) for span in lane.spans]
    assert told == [
        ("start", 0, 7),  # the worker's clock is a second before the driver's
        (IDLE, 7, 9),
        ("steps", 9, 29),
        (UNKNOWN, 29, 44),
        (IDLE, 44, 49),
        ("steps", 49, 59),
        ("save", 59, 62),
        (IDLE, 62, 70),
    ]
    assert total(lane.core_seconds()) == 2 * 70

    recorder._ends = {}
    recorder._write(None)  # as it is when the driver is killed
    found = load_timeline(store, "gaps")
    assert [lane.end for lane in found.runs[0].lanes] == [60]
    assert "was killed" in found.notes[0]
    said = CliRunner().invoke(cli, ["timeline", "gaps", "--store", store.root]).output
    assert "its end is not on record" in said
    assert "50.0 % of 1 min 00 s core time in training steps and evaluation batches" in said


def test_two_hundred_workers_are_a_picture_of_bearable_size(store, tmp_path):
    spans = [Span(("steps", "data")[n % 2], n, n + 1.0, "stage") for n in range(400)]
    lanes = tuple(Lane(f"worker {number} {HOSTILE}", "a host", 1.0, spans) for number in range(200))
    plan = a_plan("large", {"base": {}}, seeds=(1,))
    made = Timeline("large", (Run(1, "r", 0.0, True, lanes, plan),), ())
    picture = timeline_picture.svg(made)
    assert int(ET.fromstring(picture).get("height")) < 1_200
    two = dataclasses.replace(made.runs[0], lanes=lanes[:2])
    assert (
        int(
            ET.fromstring(timeline_picture.svg(dataclasses.replace(made, runs=(two,)))).get(
                "height"
            )
        )
        > 100
    )
    assert "<script" not in picture


def test_the_command_writes_what_the_file_is_called(store, tmp_path):
    plan = a_plan("asked", {"base": {}}, seeds=(1,))
    store.register(plan)
    for name, begins in (
        ("a.html", "<!doctype html>"),
        ("a.svg", "<svg"),
        ("a.txt", "note: no run"),
    ):
        asked = ["timeline", "asked", "--store", store.root, "--out", str(tmp_path / name)]
        assert CliRunner().invoke(cli, asked).exit_code == 0
        assert (tmp_path / name).read_text(encoding="utf-8").lstrip().startswith(begins)
    for form in ("json", "chrome"):
        asked = ["timeline", "asked", "--store", store.root, "--format", form]
        json.loads(CliRunner().invoke(cli, asked).output)
    asked = ["timeline", "asked", "--store", store.root, "--out", "a.pdf"]
    with pytest.raises(UserError, match=r"a\.pdf.*--format"):
        CliRunner().invoke(cli, asked, catch_exceptions=False)


def replaced(store, stage_id, file, execution):
    """Put another execution record into a stage that is done, with its checksum."""
    file.write_text(json.dumps(execution), encoding="utf-8")
    done = store.done_record(stage_id)
    files = {**done.files, file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    record = sealed(done.model_copy(update={"files": files}))
    file.parent.with_name("done.json").write_bytes(record)
