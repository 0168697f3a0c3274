"""Whatever a stage or its worker does is an outcome: recorded, tried a few times, others go on."""

from __future__ import annotations

import json

import pytest
from noop_stage import a_plan, having
from unruly_stage import DIES, FAILS, WORKS

from ablations.identity import code_fingerprint
from ablations.workload import Code
from sweeps.run import run_plan
from sweeps.scheduler import MAX_ATTEMPTS
from sweeps.store import Store
from sweeps.worker import ERROR_CHARACTERS, TRACEBACK_CHARACTERS

ONCE = {name: {"does": name, "once": True} for name in DIES}
ARMS = {
    **{name: {"does": name} for name in (*FAILS, *WORKS)},
    **ONCE,
    "exits each time": {"does": "exit"},
}


def unruly_plan(study, arms):
    plan = a_plan(study, arms, seeds=(1,))
    stages = {}
    for stage in plan.stages.values():
        function = "look" if stage.inputs else "train"
        code = code_fingerprint("unruly_stage", function)
        at = Code(module="unruly_stage", function=function)
        stages[stage.id] = having(
            stage, run=f"unruly_stage:{function}", code=at, code_fingerprint=code
        )
    return plan.model_copy(update={"stages": stages})


@pytest.fixture(scope="module")
def unruly(ray_session, tmp_path_factory):
    """All of it in one study on two workers: exit code, training by arm, store and output."""
    store = Store(tmp_path_factory.mktemp("unruly"))
    plan = unruly_plan("unruly", ARMS)
    code = run_plan(plan, store, data="data", workers=2, mlflow_uri="off")
    return code, {trial.arm: trial for trial in plan.trials}, store


def test_the_others_are_finished_and_the_run_ends_with_one(unruly):
    code, trials, store = unruly
    assert code == 1
    finished = {arm for arm, trial in trials.items() if len(store.done(trial.stages.values())) == 2}
    assert finished == {*WORKS, *ONCE}


@pytest.mark.parametrize("arm", FAILS)
def test_what_a_runner_raises_is_recorded_each_time(unruly, arm):
    _, trials, store = unruly
    records = store.failures(trials[arm].stages["multimodal"])
    mistakes = ("stopped", "nothing", "numbers")  # the same again would only fail again
    assert len(records) == (1 if arm in mistakes else MAX_ATTEMPTS)
    for record in records:
        assert len(record["error"]) <= ERROR_CHARACTERS
        assert len(record["traceback"]) <= TRACEBACK_CHARACTERS
        json.dumps(record, ensure_ascii=False).encode()  # no lone surrogates
        assert record["error"].isprintable()


def test_an_error_keeps_its_text(unruly):
    _, trials, store = unruly
    errors = {arm: store.failures(trials[arm].stages["multimodal"])[0]["error"] for arm in FAILS}
    assert errors["own"] == "OwnError: mine"
    assert errors["interrupt"] == "KeyboardInterrupt"
    assert errors["system exit"] == "SystemExit: 3"
    assert errors["surrogate"] == r"ValueError: caf\udce9 \x1b[31mred"
    assert "characters left out" in errors["long"]
    assert errors["nothing"] == "unruly_stage:train returned NoneType, not a list of ResultRow"
    assert "OwnError" in errors["mute"]


def test_a_process_that_dies_is_a_failure_and_counts(unruly):
    _, trials, store = unruly
    assert len(store.failures(trials["exits each time"].stages["multimodal"])) == MAX_ATTEMPTS
    for arm in ONCE:
        (record,) = store.failures(trials[arm].stages["multimodal"])
        assert record["error"].startswith("the worker process died")


def test_rows_of_a_generator_are_kept(unruly):
    _, trials, store = unruly
    assert store.rows([trials["threads"].stages["multimodal"]])["step"].tolist() == [1, 2]
