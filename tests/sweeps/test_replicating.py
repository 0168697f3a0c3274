"""Runs whose seeds are added: what is run is what the rule decides, whoever runs it and how."""

from __future__ import annotations

import threading

import pytest
from noop_stage import a_plan

from ablations.adaptive_seeds import Replication
from ablations.deciding import claims_of
from sweeps import leases
from sweeps.replicating import Adding, as_registered, decided, replicated
from sweeps.run import run_plan
from sweeps.scheduler import Scheduler
from sweeps.store import Store
from sweeps.worker import execute

ARMS = {
    "base": {"score": 50, "noise": 1.0},
    "good": {"score": 56, "noise": 1.0},
    "alike": {"score": 50, "noise": 1.0},
}
CLAIMS = {"better": "effect(arm, base -> good) > 0", "other": "effect(arm, base -> alike) > 0"}
RULE = Replication(initial=3, most=8, lookahead=2, seconds=dict.fromkeys(ARMS, 1.0))


def adaptive(study="adaptive", **changes):
    arms = {**ARMS, **changes.pop("arms", {})}
    rule = RULE.model_copy(update=changes)
    return a_plan(study, arms, seeds=range(8), claims=CLAIMS, replication=rule)


def do(store, plan, trials, tmp_path):
    for trial in trials:
        for stage in trial.stages.values():
            if not store.is_done(stage):
                execute(store, plan.stages[stage], tmp_path, threading.Event(), "revision")


def of(plan, keys):
    by_key = {(trial.arm, trial.seed): trial for trial in plan.trials}
    return [by_key[key] for key in keys]


def looked_at(plan, store):
    return replicated(plan, store, store.look(plan.stages))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store in which the rule came to its end, trial by trial."""
    folder = tmp_path_factory.mktemp("whole")
    store, plan = Store(folder / "store"), adaptive()
    while not (made := looked_at(plan, store)).ended:
        do(store, plan, of(plan, made.trials), folder)
    return store, plan, made


def test_the_driver_runs_what_the_rule_decides_and_ends_with_it(
    ray_session, whole, tmp_path, capsys
):
    _, plan, made = whole
    options = {"data": tmp_path / "data", "mlflow_uri": "off"}
    assert run_plan(plan, tmp_path / "store", workers=3, **options) == 0
    store = Store(tmp_path / "store")
    again = looked_at(plan, store)
    assert again.ended
    assert again.trials == made.trials
    assert store.done(plan.stages) == set(decided(plan, store).plan.stages)
    left = len(plan.trials) - len(made.trials)
    assert left > 0
    told = f"all {len(made.trials)} trials are there, each exactly once; {left} more were not"
    assert told in capsys.readouterr().out
    found = {one.name: one for one in again.verdicts(claims_of(plan))}
    assert found["better"].verdict == "supported"
    assert run_plan(plan, store, **options) == 0  # nothing is left to run
    assert looked_at(plan, store).trials == made.trials


def test_a_scheduler_offers_nothing_that_was_not_decided_on(whole, tmp_path):
    store, plan, made = Store(tmp_path / "store"), whole[1], whole[2]
    adding = Adding(plan, store, ())
    scheduler = Scheduler(plan, (), ["one", "two"], withheld=adding.withheld)
    first = {one for trial in plan.trials[:9] for one in trial.stages.values()}
    before = scheduler.remaining_seconds(0.0)
    started, now = [], 0.0
    while not scheduler.complete:
        stages = [scheduler.next(worker, now) for worker in ("one", "two")]
        for stage in filter(None, stages):
            started.append(stage)
            execute(store, plan.stages[stage], tmp_path, threading.Event(), "revision")
            scheduler.finished(stage)
            now += 1.0
            adding.release(scheduler)
    assert set(started) == {one for trial in adding.trials for one in trial.stages.values()}
    assert [(trial.arm, trial.seed) for trial in adding.trials] == made.trials
    assert set(started[:12]) <= first
    withheld = Scheduler(plan, (), ["one", "two"]).remaining_seconds(0.0)
    assert before < withheld  # what may not come is in no estimate


@pytest.mark.parametrize("there", [0, 5, 9, 11, 14])
def test_a_driver_that_comes_later_decides_the_same(whole, tmp_path, there):
    _, plan, made = whole
    store = Store(tmp_path / "store")
    do(store, plan, of(plan, made.trials[:there]), tmp_path)
    adding = Adding(plan, store, store.done(plan.stages))
    found = [(trial.arm, trial.seed) for trial in adding.trials]
    assert found == made.trials[: len(found)]
    assert len(found) >= max(9, min(there + 1, len(made.trials)))


def test_results_that_others_have_made_wait_for_their_turn(whole, tmp_path):
    _, plan, made = whole
    store = Store(tmp_path / "store")
    early = [trial for trial in plan.trials if trial.seed == 7]
    do(store, plan, early, tmp_path)
    assert looked_at(plan, store).trials == made.trials[:9]
    while not (again := looked_at(plan, store)).ended:
        do(store, plan, of(plan, again.trials), tmp_path)
    assert again.trials == made.trials


def test_what_failed_blocks_its_claim_once_nobody_tries_it_again(tmp_path):
    store, plan = Store(tmp_path / "store"), adaptive(arms={"good": {"score": 56, "fails": 99}})
    lease = leases.acquire(store.objects, leases.study_lease(plan.study))
    do(store, plan, of(plan, looked_at(plan, store).trials), tmp_path)
    waiting = {one.name: one for one in looked_at(plan, store).verdicts(claims_of(plan))}
    assert waiting["better"].is_open
    lease.release()
    while not (made := looked_at(plan, store)).ended:
        do(store, plan, of(plan, made.trials), tmp_path)
    found = {one.name: one for one in made.verdicts(claims_of(plan))}
    assert found["better"].reason == "good seed 0 failed"
    assert found["other"].n > 3
    assert not any(arm == "good" and seed > 2 for arm, seed in made.trials)


def test_planned_costs_are_those_of_the_first_registration(tmp_path):
    store, plan = Store(tmp_path / "store"), adaptive()
    store.register(plan)
    dearer = adaptive(seconds={"base": 9.0, "good": 1.0, "alike": 1.0})
    assert as_registered(dearer, store).replication == plan.replication
    fixed = a_plan("fixed", ARMS)
    assert as_registered(fixed, store) is fixed
