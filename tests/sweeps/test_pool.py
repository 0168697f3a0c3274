"""Workers that do not start: a stage is given to those that are there, and somebody is told."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import thread_workers
from noop_stage import a_plan

from ablations.errors import UserError
from ablations.resources import Shape
from sweeps import pool
from sweeps.run import run_plan
from sweeps.store import Store


@pytest.fixture
def starts(monkeypatch):
    """What becomes of workers that are started, in their order: an error, or None; then None."""
    answers: list[Exception | None] = []

    class Worker(thread_workers.ThreadWorker):
        def ready(self):
            error = answers.pop(0) if answers else None
            if error is None:
                return super().ready()
            future: Future = Future()
            future.set_exception(error)
            return future

    thread_workers.use(monkeypatch)
    monkeypatch.setattr("sweeps.pool.ActorWorker", Worker)
    monkeypatch.setattr(pool, "AGAIN_SECONDS", 0.1)
    return answers


def run(tmp_path, **options):
    plan, store = a_plan("starting", {"base": {}}, seeds=(1, 2)), Store(tmp_path / "store")
    code = run_plan(plan, store, data="data", mlflow_uri="off", **options)
    return code, plan, store


def test_a_worker_that_does_not_start_is_tried_again_and_no_stage_has_failed(
    starts, tmp_path, capsys
):
    starts += [pool.LostError("the machine hides")] * 2
    code, plan, store = run(tmp_path, workers=1)
    assert code == 0
    assert [store.failures(stage) for stage in plan.stages] == [[]] * len(plan.stages)
    said = "".join(capsys.readouterr())
    assert said.count("a worker did not start: the machine hides; it is tried again") == 1


def test_others_go_on_beside_one_that_never_starts(starts, tmp_path):
    starts += [None, *[pool.LostError("the machine hides")] * 1000]
    assert run(tmp_path, workers=2)[0] == 0


def test_a_run_whose_workers_do_not_start_ends_with_why(starts, tmp_path):
    starts += [pool.LostError("the machine hides")] * 1000
    with pytest.raises(UserError, match="a worker did not start: the machine hides; what was fin"):
        run(tmp_path, workers=2)


def test_one_whose_machine_went_as_it_started_is_tried_for_as_long_as_that_takes(starts, tmp_path):
    starts += [pool.LostError("it was taken", cause="taken away")] * (2 * pool.STARTS)
    assert run(tmp_path, workers=1)[0] == 0


def test_one_that_was_ended_as_its_stage_was_done_is_given_no_other(starts, tmp_path):
    """The next stage would be said to have hung."""
    plan, store = a_plan("ending", {"base": {}}, seeds=(1, 2)), Store(tmp_path / "store")
    first, second = (plan.stages[trial.stages["multimodal"]] for trial in plan.trials)
    nothing, session = lambda shape: {}, thread_workers.Session()
    with pool.Pool(store, tmp_path, nothing, session, "run", print) as workers:
        workers.add("worker 1", Shape(), ["here"])
        workers.wait(1.0)
        workers.start("worker 1", first)
        workers.end("worker 1", "hang", "it hung", "")
        ((worker, outcome),) = workers.wait(60.0)
        assert (worker, outcome.renewed) == ("worker 1", True)
        workers.wait(1.0)
        workers.start("worker 1", second)  # its process is another one
        ((_, outcome),) = workers.wait(60.0)
        assert (outcome.stage, outcome.state, outcome.error) == (second.id, "done", "")
