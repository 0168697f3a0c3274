"""A trial that is left out: its seed drops from the claims about its arm, and all forms say so."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ablations.errors import UserError
from analysis.audit import audit
from analysis.compare import comparison, render
from analysis.report.writing import write_report
from sweeps.mlflow_mirror import verdict_tags

REASON = "its node had memory errors"
EXCLUDE = {"base seed 1": REASON}


def test_its_stages_are_not_planned_and_the_plan_says_who_is_left_out(lab: Any) -> None:
    whole, without = lab.plan(), lab.plan(exclude=EXCLUDE)
    assert ("base", 1) in {(trial.arm, trial.seed) for trial in whole.trials}
    assert ("base", 1) not in {(trial.arm, trial.seed) for trial in without.trials}
    assert set(whole.stages) - set(without.stages) == set(without.excluded[0].stages)
    assert without.hash != whole.hash
    assert lab.plan(exclude={}).hash == whole.hash
    read = type(without).model_validate_json(without.model_dump_json())
    assert read.excluded == without.excluded


def test_the_claims_of_its_arm_are_decided_without_its_seed(lab: Any) -> None:
    claims = {
        "better": "effect(encoder.image_size, 16 -> 32) > 0",
        "good": "score(encoder.image_size=16) > 50",
    }
    lab.run(claims=claims, exclude=EXCLUDE)
    verdicts = {one.name: one for one in lab.results().verdicts}
    assert verdicts["better"].n == 2
    assert verdicts["good"].n == 3
    assert "1 excluded" in lab.results().completeness
    assert not lab.results().interim
    assert set(lab.results().score("base", "easy_vqa", "accuracy")) == {0, 2}


def test_left_out_before_any_result_is_told_and_keeps_the_standing(lab: Any) -> None:
    lab.run(exclude=EXCLUDE)
    assert lab.standing() == "registered"
    assert f"base seed 1 is excluded, decided before any result: {REASON}" in lab.told()


def test_left_out_when_its_result_was_known_is_a_deviation_beside_the_verdict(lab: Any) -> None:
    lab.run()
    lab.run(exclude=EXCLUDE)
    assert lab.standing() == "exploratory"
    told = lab.told()
    assert "excluded late: base seed 1 is excluded, decided when its result was known" in told
    assert REASON in told
    assert any(
        "amended late" in event.what and f"excluded base seed 1: {REASON}" in event.told
        for event in audit(lab.results()).events
    )


def test_left_out_when_others_were_known_is_a_deviation_too(lab: Any) -> None:
    whole = lab.register()
    lab.finish(whole, seeds=1)
    later = lab.register(exclude={"base seed 2": REASON})
    lab.finish(later)
    assert "base seed 2 is excluded, decided when 6 results or curves" in lab.told()


def test_every_form_prints_the_reason(lab: Any) -> None:
    lab.run(exclude=EXCLUDE)
    results = lab.results()
    for form in ("text", "markdown", "latex", "json"):
        assert REASON in " ".join(re.sub(r"[│|]", " ", render(results, form)).split())


def test_report_and_mlflow_print_the_reason(lab: Any, tmp_path: Any) -> None:
    lab.run(exclude=EXCLUDE, claims={})
    assert REASON in write_report(lab.results(), tmp_path / "r.html").read_text(encoding="utf-8")
    tags = verdict_tags(comparison(lab.results()).model_dump(mode="json"))
    assert REASON in tags["mm1.warnings"]


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ({"base seed 7": "why"}, r"exclude: no trial 'base seed 7'.*did you mean 'base seed"),
        ({"bsae seed 1": "why"}, r"no trial 'bsae seed 1'.*did you mean 'base seed 1'"),
        ({"base seed 1": "  "}, "'base seed 1' has no reason"),
        ({f"base seed {seed}": "why" for seed in (0, 1, 2)}, "nothing is left of 'base'"),
    ],
)
def test_impossible_exclusions_are_refused_in_one_line(
    lab: Any, exclude: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        lab.plan(exclude=exclude)
    assert "sizes.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_drawn_seeds_cannot_be_left_out_by_name(lab: Any) -> None:
    with pytest.raises(UserError, match="seeds that are drawn"):
        lab.plan(seeds={"from": "fresh", "count": 3}, exclude=EXCLUDE)


def test_a_claim_with_no_seed_left_is_undecided_and_says_so(lab: Any) -> None:
    lab.run(exclude={"base seed 0": "a", "encoder.image_size=16 seed 1": "b", "base seed 2": "c"})
    (verdict,) = lab.results().verdicts
    assert verdict.verdict == "undecided"
    assert "no seed is left" in verdict.reason
