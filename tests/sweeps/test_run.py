"""Running plans on Ray: what is missing runs, what fails is recorded, kills lose nothing."""

from __future__ import annotations

import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from noop_stage import HERE, a_plan, having

from ablations.errors import UserError
from analysis.timeline import load_timeline
from sweeps import leases
from sweeps.forecasts import forecasts_of
from sweeps.run import run_plan
from sweeps.store import Store
from sweeps.worker import execute

DRIVER = f"""
import sys
sys.path.insert(0, {HERE!r})
from noop_stage import a_plan
from sweeps.run import run_plan
plan = a_plan("long", {{"base": {{"steps": 60, "seconds": 0.1}}}}, seeds=(1,))
sys.exit(run_plan(plan, sys.argv[1], data="data", workers=1, mlflow_uri="off"))
"""


@pytest.fixture
def run(ray_session, tmp_path):
    def run(plan, **options):
        options = {"workers": 1, "mlflow_uri": "off", **options}
        return run_plan(plan, tmp_path / "store", data=tmp_path / "data", **options)

    return run


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_every_stage_runs_once_and_results_are_in_the_table(run, store, capsys):
    plan = a_plan("two-arms", {"base": {"score": 60}, "worse": {"score": 40}})
    assert run(plan, workers=2) == 0
    rows = store.rows(plan.stages)
    scores = rows[rows["task"] == "easy_vqa"]
    assert sorted(scores["value"]) == [41, 42, 61, 62]
    assert set(rows["status"]) == {"ok"}
    assert "all 4 trials are there" in capsys.readouterr().out
    execution = store.execution(plan.trials[0].stages["multimodal"])
    assert execution["threads"] == 1  # devices and libraries are for the runner to record
    assert execution["python"] == platform.python_version()
    assert len(execution["git_revision"]) >= 7
    (forecast,) = forecasts_of(store, plan)
    assert 0 < forecast.start_seconds < forecast.seconds
    assert {part.what: part.stages for part in forecast.parts} == {"multimodal": 4, "evaluation": 4}


def test_only_what_is_missing_runs(run, store, tmp_path):
    first = a_plan("first", {"base": {}}, seeds=(1,))
    for stage in first.stages.values():
        execute(store, stage, tmp_path, threading.Event(), "revision")
    before = {one: store.execution(one)["attempt"] for one in first.stages}
    more = a_plan("more", {"base": {}, "new": {}}, seeds=(1,))
    assert run(more) == 0
    assert {one: store.execution(one)["attempt"] for one in first.stages} == before
    assert store.done(more.stages) == set(more.stages)
    assert set(store.snapshot("more")[1].known_stages) == set(first.stages)


def test_finished_study_answers_without_ray(store, tmp_path):
    plan = a_plan("done", {"base": {}}, seeds=(1,))
    for stage in plan.stages.values():  # training first
        execute(store, stage, tmp_path, threading.Event(), "revision")
    code = (
        f"import sys; sys.path.insert(0, {HERE!r}); from sweeps.run import run_plan;"
        "from noop_stage import a_plan;"
        "plan = a_plan('done', {'base': {}}, seeds=(1,));"
        f"code = run_plan(plan, {store.root!r}, data='x', mlflow_uri='off');"
        "sys.exit(code or 10 * bool({'ray', 'jax', 'mlflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def troubled(ray_session, tmp_path_factory):
    """A study in which all kinds of things happen, its store and the exit code."""
    arms = {
        "good": {},
        "bad": {"fails": 9},
        "flaky": {"fails": 1},
        "dying": {"dies": 1},
        "diverging": {"diverges": True},
        "typo": {},
    }
    plan = a_plan("troubled", arms, seeds=(1,))
    train = {trial.arm: trial.stages["multimodal"] for trial in plan.trials}
    typo = having(plan.stages[train["typo"]], run="noop_stage:trian")
    plan = plan.model_copy(update={"stages": {**plan.stages, typo.id: typo}})
    store = Store(tmp_path_factory.mktemp("troubled"))
    code = run_plan(plan, store, data="data", workers=1, mlflow_uri="off")
    return code, train, store


def test_failing_stage_is_retried_and_recorded_with_its_traceback(troubled):
    _, train, store = troubled
    failures = store.failures(train["bad"])
    assert [one["error"] for one in failures[:3]] == [
        f"ValueError: told to fail ({number})" for number in (1, 2, 3)
    ]
    assert "_misbehave" in failures[0]["traceback"]
    assert not store.is_done(train["bad"])


def test_every_second_of_the_worker_is_on_record(troubled):
    _, train, store = troubled
    run = load_timeline(store, "troubled").runs[0]
    (lane,) = run.lanes
    assert run.ended
    assert sum(lane.core_seconds().values()) == pytest.approx(run.seconds)
    assert all(one.end == other.start for one, other in itertools.pairwise(lane.spans))
    of_stages = {span.stage: span.kind for span in lane.spans if span.kind == "lost"}
    assert {train["bad"], train["flaky"], train["dying"]} <= set(of_stages)
    assert {"start", "run", "save", "idle", "lost"} <= set(lane.core_seconds())
    assert "unknown" not in lane.core_seconds()
    assert any(span.stage == train["good"] and span.kind == "run" for span in lane.spans)


def test_what_is_missing_is_named_and_tried_again_by_the_next_run(troubled, capsys):
    _, train, store = troubled
    plan, _ = store.snapshot("troubled")
    assert run_plan(plan, store, data="data", workers=1, mlflow_uri="off") == 1
    assert "4 of 6 trials are there; missing: bad seed 1, typo seed 1" in capsys.readouterr().out
    assert len(store.failures(train["bad"])) == 6
    assert len(store.failures(train["flaky"])) == 1


def test_others_finish_and_the_exit_code_tells_of_the_failure(troubled):
    code, train, store = troubled
    assert code == 1
    assert store.done(train.values()) == {
        train[arm] for arm in ("good", "flaky", "dying", "diverging")
    }
    assert len(store.failures(train["flaky"])) == 1


def test_worker_that_dies_is_replaced_and_its_stage_tried_again(troubled):
    _, train, store = troubled
    (failure,) = store.failures(train["dying"])
    assert "process died" in failure["error"]


def test_divergence_is_passed_on_as_a_status(troubled):
    _, train, store = troubled
    table = store.rows(store.stage(path.parent.name).id for path in _records(store))
    diverged = set(table.loc[table["status"] == "diverged", "task"])
    assert diverged == {"training", "easy_vqa"}
    assert store.status(train["good"]) == "ok"


def test_wrong_import_path_fails_once_with_a_hint(troubled):
    _, train, store = troubled
    failure = store.failures(train["typo"])[0]
    assert "did you mean 'train'?" in failure["error"]


def test_second_run_of_a_running_study_is_refused(run, store):
    plan = a_plan("twice", {"base": {}}, seeds=(1,))
    lease = leases.acquire(store.objects, "studies/twice/lease")
    with pytest.raises(UserError, match=f"already being run by process {os.getpid()}"):
        run(plan)
    lease.release()


def test_stage_that_another_run_is_doing_is_awaited(run, store):
    plan = a_plan("shared", {"base": {}}, seeds=(1,))
    lease = leases.acquire(store.objects, store.lease_folder(plan.trials[0].stages["multimodal"]))
    timer = threading.Timer(2.0, lease.release)
    timer.start()
    assert run(plan) == 0
    assert timer.finished.is_set()


def test_driver_imports_no_jax():
    code = "import sys, sweeps.run, sweeps.worker; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kill_and_interrupt_lose_nothing(run, store, tmp_path):
    """kill -9 of the driver, then Ctrl-C, then to the end: training goes on where it was."""
    plan = a_plan("long", {"base": {"steps": 60, "seconds": 0.1}}, seeds=(1,))
    (trial,) = plan.trials

    killed = _driver(tmp_path)
    _until(lambda: len(store.progress(trial.stages["multimodal"])) >= 5)
    killed.kill()
    killed.wait()
    _until(lambda: not _workers_of(store))
    after_kill = len(store.progress(trial.stages["multimodal"]))
    assert not store.is_done(trial.stages["multimodal"])

    def interrupt():
        _until(lambda: len(store.progress(trial.stages["multimodal"])) >= after_kill + 5)
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=interrupt)
    user.start()
    assert run(plan) == 130
    user.join()
    after_stop = len(store.progress(trial.stages["multimodal"]))
    assert after_kill + 5 <= after_stop < 60

    assert run(plan) == 0
    first_step = int(
        (store.stage_folder(trial.stages["multimodal"]) / "first_step").read_text(encoding="utf-8")
    )
    assert first_step >= after_stop - 1
    assert not store.scratch(trial.stages["multimodal"]).exists()


def _records(store: Store) -> list[Path]:
    return sorted(Path(store.root).glob("stages/*/*/done.json"))


def _driver(tmp_path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "store")],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )


def _until(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def _workers_of(store: Store) -> list[int]:
    """Processes other than this one that hold a lease on a stage of the store."""
    pids = []
    for path in Path(store.root).glob("stages/*/*/lease/*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not record["released"] and leases._alive(record["pid"], record["started"]):
            pids.append(record["pid"])
    return pids
