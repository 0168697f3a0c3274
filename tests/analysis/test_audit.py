"""The history of a study has every registration, change, look, failure and left-out result."""

from __future__ import annotations

import shutil
from typing import Any

from analysis.audit import audit, told
from analysis.compare import comparison

BETTER = "effect(encoder.image_size, 16 -> 32) > 0"


def events(lab: Any, study: str = "sizes") -> list[tuple[str, str]]:
    return [(event.what, event.told) for event in audit(lab.results(study)).events]


def test_one_study_from_registration_to_its_last_result(lab: Any) -> None:
    lab.run()
    assert [what for what, _ in events(lab)] == ["registered", "first result", "last result"]
    assert f"better: {BETTER}" in events(lab)[0][1]
    assert audit(lab.results()).standings == {"better": "registered"}


def test_what_changed_and_whether_results_were_there(lab: Any) -> None:
    lab.register(question="Which?")
    lab.run()
    lab.run(
        question="Why is it better?",
        labels={"encoder.image_size=16": "tiny"},
        seeds=[0, 1],
        claims={"better": f"{BETTER} by 1"},
    )
    amended = [text for what, text in events(lab) if what.startswith("amended")]
    (notice,) = comparison(lab.results()).notices
    assert "after 18 results: the question was 'Is it better?'" in notice
    assert amended[0] == "before any result: the question was 'Which?'"
    assert amended[1].startswith("after 18 results: the question was 'Is it better?'")
    for part in ("was labelled", "seeds left out: 2", f"claim better was '{BETTER}'"):
        assert part in amended[1]
    left = [text for what, text in events(lab) if what == "left out"]
    assert left == ["the result of base seed 2", "the result of encoder.image_size=16 seed 2"]


def test_looks_are_on_record_once_for_each_state(lab: Any) -> None:
    plan = lab.register()
    lab.finish(plan, seeds=1)
    for _ in range(3):
        lab.results().looked("mm1 compare")
    lab.finish(plan)
    lab.results().looked("mm1 status")
    looked = [text for what, text in events(lab) if what == "looked"]
    assert looked == ["with 6 of 18 stages (mm1 compare)", "with 18 of 18 stages (mm1 status)"]


def test_failed_attempts_and_other_studies_on_these_arms(lab: Any) -> None:
    plan = lab.run()
    stage = plan.trials[0].stages["multimodal"]
    lab.store.record_failure(stage, "one", {"error": "it broke", "traceback": ""})
    lab.run("again", seeds=[7, 8, 9])
    found = told(audit(lab.results()))
    assert any("base seed 0" in line and "1 attempts; the last: it broke" in line for line in found)
    assert any("again: as" in line for line in found)
    assert found[-1] == "claim better: registered"


def test_results_whose_registration_was_removed_and_results_that_were_set_aside(lab: Any) -> None:
    lab.run(seeds=[7, 8, 9])
    shutil.rmtree(lab.folder / "store/studies/sizes")
    plan = lab.run()
    stage = plan.trials[0].stages["multimodal"]
    lab.store.set_aside(stage)
    found = dict(events(lab))
    assert found["nobody's"].startswith("18 results have no registration here; 12 of them")
    assert found["set aside"] == f"{plan.stages[stage].label}: once"


def test_the_contrast_on_another_config_is_part_of_the_history(lab: Any) -> None:
    recipe = {"training": {"steps": 100, "batch_size": 4}, "optimizer": {"b2": 0.5}}
    lab.run("elsewhere", recipe=recipe, seeds=[7, 8, 9])
    lab.run()
    assert any("elsewhere: as" in line for line in told(audit(lab.results())))


def test_stages_that_failed_before_they_gave_a_result_are_told_with_the_verdicts(lab: Any) -> None:
    plan = lab.register()
    for attempt in ("one", "two"):
        lab.store.record_failure(plan.trials[0].stages["multimodal"], attempt, {"error": "not yet"})
    lab.finish(plan)
    told_ = "1 stage gave a result after 2 attempts that failed: mm1 audit says why"
    assert told_ in comparison(lab.results()).warnings
