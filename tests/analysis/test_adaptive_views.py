"""How a study is shown whose seeds are added: the path of each claim; nothing is called missing."""

from __future__ import annotations

import json

import pytest

from ablations.adaptive_seeds import Replication
from ablations.contrasts import ScoreKey
from analysis.compare import comparison, render
from analysis.dashboard.overview import verdicts
from analysis.report.writing import report
from analysis.results import load_results
from mm1.status_text import summaries
from sweeps.replicating import Numbers
from sweeps.store import Store

CLAIMS = {
    "small-is-better": "score(encoder.image_size=16) > score(base)",
    "type-better": "score(connector.kind=c_abstractor) > score(base)",
}


def adaptive(make_plan, most=8, **changes):
    plan = make_plan(seeds=most, claims=CLAIMS)
    seconds = {arm.name: 66.0 for arm in plan.arms}
    rule = Replication(initial=3, most=most, seconds=seconds, **changes)
    return plan.model_copy(update={"replication": rule, "hash": f"adaptive{most}"})


def run(store, plan, fill, rounds=100):
    """Do what the rule asks for; the rounds of it that were needed."""
    store.register(plan)
    for number in range(rounds):
        found = load_results("demo", store)
        if found.replicated.ended:
            return number
        fill(store, found.plan)
    return rounds


@pytest.fixture(scope="module")
def results(make_plan, fill, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    run(store, adaptive(make_plan), fill)
    return load_results("demo", store)


def test_nothing_is_missing_that_was_not_asked_for(results):
    made = comparison(results)
    assert not made.interim
    assert made.completeness.missing == {}
    assert made.completeness.planned == made.completeness.there < len(results.whole.trials) == 32
    assert "3 to at most 8 seeds, of 32 trials at most" in made.completeness.line
    assert not any("interim" in notice for notice in made.notices)
    (status,) = summaries("demo", results.store.root)
    assert (status["done"], status["waiting"]) == (made.completeness.planned, 0)


def test_each_claim_shows_its_path(results):
    made = comparison(results)
    worse = next(claim for claim in made.claims if claim.name == "small-is-better")
    assert worse.verdict == "refuted"
    assert [look.n for look in worse.path] == list(range(3, worse.n + 1))
    assert worse.path[-1].t >= worse.path[-1].boundary_t
    assert worse.standing == "registered"
    assert "repeated interval" in worse.sentence
    found = json.loads(render(results, "json"))
    assert found["replication"]["most"] == 8
    assert found["claims"][0]["path"][0].keys() >= {"n", "effect", "p_value", "t", "boundary_t"}
    for form in ("text", "markdown", "latex"):
        page = render(results, form)
        assert "How the claims came about" in page
        assert "sequential p" in page
        assert "too large on average" in " ".join(page.split())
    assert "look by look: 3 seeds" in report(results)
    assert "look by look: 3 seeds" in str(verdicts(made, results))


def test_the_numbers_of_the_driver_are_those_of_the_tables(make_plan, fill, tmp_path):
    store, plan = Store(tmp_path), adaptive(make_plan)
    store.register(plan)
    first = {(trial.arm, trial.seed) for trial in plan.beginning.trials}
    fill(store, plan.only(first), diverged=[("base", 2)])
    numbers = Numbers(plan)
    numbers.take(store.look(plan.stages))
    found = load_results("demo", store)
    for key, by_seed in found.scores().items():
        for seed, value in by_seed.items():
            if key.at(seed) in found.table.diverged and found.table.is_score(key.task, key.metric):
                assert key.at(seed) in numbers.diverged
            else:
                assert numbers.scores[key][seed] == value
    assert numbers.diverged == found.table.diverged
    assert ScoreKey("base", "easy_vqa", "accuracy", 0, "intact") in numbers.scores


def test_a_study_under_way_shows_verdicts_that_stand_and_calls_the_others_open(
    make_plan, fill, tmp_path
):
    store, plan = Store(tmp_path), adaptive(make_plan, most=12, lookahead=1)
    run(store, plan, fill, rounds=2)
    made = comparison(load_results("demo", store))
    assert made.interim
    assert "seeds are still being added" in " ".join(made.notices)
    (open_,) = (claim for claim in made.claims if claim.name == "type-better")
    assert open_.interim
    assert open_.sentence.startswith("Open: whether")
    assert "of at most 12 seeds" in open_.sentence


def test_other_studies_later_do_not_take_away_the_standing(results, make_plan, fill):
    """A rule that has ended has an end, although not all of its trials were run."""
    history = results.histories["small-is-better"]
    assert history.standing == "registered"
    own = results.claim_stages["small-is-better"]
    assert own <= results.done
    counted = results.registry._own(results._now)["small-is-better"]
    assert counted == own


def test_more_seeds_than_were_registered_are_another_registration(make_plan, fill, tmp_path):
    store = Store(tmp_path)
    run(store, adaptive(make_plan, most=4), fill)
    before = comparison(load_results("demo", store))
    assert {claim.standing for claim in before.claims} == {"registered"}
    run(store, adaptive(make_plan, most=5), fill)
    after = comparison(load_results("demo", store))
    assert not {"registered"} & {claim.standing for claim in after.claims}


def test_a_fixed_study_has_no_path(full_store):
    made = comparison(load_results("demo", full_store))
    assert made.replication is None
    assert all(claim.path == () for claim in made.claims)
    assert "sequential" not in render(load_results("demo", full_store))


def test_a_seed_that_was_never_asked_for_has_no_examples(results):
    assert results.examples("base", results.plan.seeds[-1], "easy_vqa") is None
    assert results.examples("base", results.plan.seeds[0], "easy_vqa") is not None
