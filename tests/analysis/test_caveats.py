"""No form of output drops a caveat: each standing is read in text, Markdown, LaTeX, JSON, HTML."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import claims_table, comparison, effect_words, render
from analysis.dashboard.overview import effects_figure, verdicts
from analysis.escaping import in_latex
from analysis.report.writing import report
from analysis.results import load_results
from sweeps.store import Store

BETTER = "effect(encoder.image_size, 16 -> 32) > 0"


def exploratory(lab: Any) -> None:
    lab.run(claims={})
    lab.run()


def partly_known(lab: Any) -> None:
    lab.run(design={"one_at_a_time": {"connector.tokens": [4, 9]}}, study="types", claims={})
    lab.run()


def repeated(lab: Any) -> None:
    lab.run(seeds=[5, 6, 7])
    lab.run()


def own_family(lab: Any) -> None:
    lab.run(claims={"better": BETTER, "good": "score(base) > 60"})
    lab.run()


OTHER = {
    "training": {"steps": 100, "batch_size": 4},
    "optimizer": {"b2": 0.5},
    "evaluation": {"easy_vqa": {}, "held_out_text": {}},
}


def elsewhere(lab: Any) -> None:
    lab.run("elsewhere", recipe=OTHER, seeds=[5, 6, 7])
    lab.run()


def again_since(lab: Any) -> None:
    lab.run()
    lab.run("again", seeds=[5, 6, 7])


def gap(lab: Any) -> None:
    lab.run(seeds=[5, 6, 7])
    (first,) = (lab.folder / "store/studies/sizes").glob("*-*")
    lab.run()
    shutil.rmtree(first)


def lax(lab: Any) -> None:
    lab.run(alpha=0.4)


WAYS = {
    "seen on other configs": elsewhere,
    "asked again since": again_since,
    "gaps in the record": gap,
    "alpha 40 %": lax,
    "exploratory": exploratory,
    "partly known": partly_known,
    "repeated": repeated,
    "own family": own_family,
}


def test_the_standing_is_beside_a_plain_verdict_in_every_form(lab: Any) -> None:
    lab.run()
    results = lab.results()
    assert lab.standing() == "registered"
    for form in ("text", "markdown", "latex"):
        assert "registered" in render(results, form)
    assert json.loads(render(results, "json"))["claims"][0]["standing"] == "registered"
    assert "registered" in str(verdicts(comparison(results), results))
    assert '<p class="note">registered' in report(results)


@pytest.mark.parametrize("word", WAYS)
def test_a_caveat_stands_beside_the_verdict_in_every_form(lab: Any, word: str) -> None:
    WAYS[word](lab)
    results = lab.results()
    (claim,) = [one for one in comparison(results).claims if one.name == "better"]
    (told,) = [caveat.told for caveat in claim.caveats if caveat.word == word]
    for form in ("text", "markdown", "latex"):
        text = re.sub(r"\s+", " ", render(results, form)).replace("\\%", "%")
        assert word in text
        assert told[:25] in text, form
    assert [word, told] in json.loads(render(results, "json"))["claims"][0]["caveats"]
    page = str(verdicts(comparison(results), results))
    assert f"{word}: {told[:25]}" in page.replace("\\'", "'")
    assert told[:25] in report(results).replace("&#x27;", "'").replace("&#39;", "'")


def test_two_arms_that_learnt_nothing_are_not_simply_equal(lab: Any) -> None:
    plan = lab.register(claims={"same": "score(encoder.image_size=16) == score(base) within 99"})
    lab.finish(plan, blind=80.0)
    told = lab.told(claim="same")
    assert "base does not beat its control on easy_vqa (blind_accuracy: lead −" in told
    assert "control not beaten" in render(lab.results(), "latex")


def test_arms_that_beat_their_control_have_no_such_caveat(lab: Any) -> None:
    plan = lab.register(claims={"same": "score(encoder.image_size=16) == score(base) within 99"})
    lab.finish(plan, blind=20.0)
    assert "control" not in lab.told(claim="same")


def test_what_was_corrected_for_is_said_once(lab: Any) -> None:
    lab.run()
    for form in ("text", "markdown", "latex"):
        text = re.sub(r"\s+", " ", render(lab.results(), form))
        assert text.count("they are not simultaneous") == 1
        assert "interval, unadjusted" in text


def test_a_verdict_at_another_alpha_than_the_study_now_has_says_so(lab: Any) -> None:
    lab.run(alpha=0.4)
    lab.run(alpha=0.05)
    assert "to a chance of 40 % for any wrong verdict, not 5 %" in lab.told()
    (claim,) = comparison(lab.results()).claims
    assert claim.alpha == 0.4
    text = re.sub(r"\s+", " ", render(lab.results()))
    assert "among the claims registered together to 40 %" in text


def test_notices_and_warnings_of_latex_are_set_not_commented_out(lab: Any) -> None:
    lab.run()
    lab.plan(question="Is it worse?")
    results = lab.results()
    made = comparison(results)
    assert made.notices
    lines = [line for line in render(results, "latex").splitlines() if not line.startswith("%")]
    page = re.sub(r"\s+", " ", "\n".join(lines))
    assert "has changed since this was run" in page
    assert made.warnings
    assert all(in_latex(warning) in page for warning in made.warnings)
    lab.run(study="unclaimed", claims={})
    lab.plan(study="unclaimed", claims={}, question="Is it worse?")
    page = render(lab.results("unclaimed"), "latex")
    assert any("has changed" in line and line[0] != "%" for line in page.splitlines() if line)


def test_claims_name_the_metric_and_shots_that_they_read(lab: Any) -> None:
    recipe = {
        "training": {"steps": 100, "batch_size": 4},
        "evaluation": {"easy_vqa": {"shots": [4, 0]}, "held_out_text": {}},
    }
    lab.run(recipe=recipe)
    results = lab.results()
    made = comparison(results)
    assert made.primary_shots == 4
    assert made.claims[0].metrics == ("easy_vqa.accuracy 4-shot",)
    assert (made.effects[0].metric, made.effects[0].shots) == ("accuracy", 4)
    for page in (*(render(results, f) for f in ("text", "markdown", "latex")), report(results)):
        assert "accuracy 4-shot" in page.replace("\\_", "_").replace("<wbr>", "")
    assert "easy_vqa.accuracy 4-shot" in str(verdicts(made, results))
    assert "change of easy_vqa.accuracy 4-shot" in str(effects_figure(made))
    assert len(effects_figure(made).data[0].x) + len(effects_figure(made).data[1].x) == 1


def test_chance_is_the_control_of_recall(lab: Any) -> None:
    recipe = {
        "training": {"steps": 100, "batch_size": 4},
        "evaluation": {"emoji_retrieval": {}},
        "encoder_pretraining": {"objective": {"kind": "clip"}},
    }
    keys = {
        "recipe": recipe,
        "primary_metric": "emoji_retrieval.recall_at_1",
        "claims": {"same": "score(encoder.image_size=16) == score(base) within 5"},
    }
    plan = lab.register(**keys)
    rows = {"recall_at_1": 0.5, "chance_at_1": 0.6}
    lab.finish(plan, tasks={"emoji_retrieval": rows})
    assert "(chance_at_1: lead −0.1" in lab.told(claim="same")


def test_a_part_that_was_trained_on_another_device_is_told_beside_the_claim(lab: Any) -> None:
    recipe = {
        "training": {"steps": 100, "batch_size": 4},
        "evaluation": {"easy_vqa": {}},
        "encoder_pretraining": {"objective": {"kind": "clip"}},
    }
    plan = lab.register(recipe=recipe)
    parts = {trial.stages["encoder"]: trial.arm for trial in plan.trials}
    device = {one: "gpu" if arm == "base" else "cpu" for one, arm in parts.items()}
    lab.finish(plan, devices=device)
    assert "mixed devices: stages ran with unlike device kind" in lab.told()


def test_arms_that_saw_other_images_are_told_beside_the_claim(
    tmp_path: Path, make_plan: Any, fill: Any
) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    skip = {(trial.arm, trial.seed) for trial in plan.trials if trial.arm != "base"}
    fill(store, plan, skip=skip, images="a" * 32)
    fill(store, plan, images="b" * 32)
    made = {claim.name: claim for claim in comparison(load_results("demo", store)).claims}
    assert "other images" in [caveat.word for caveat in made["type-better"].caveats]
    assert "other images" not in [caveat.word for caveat in made["sees"].caveats]


@pytest.mark.parametrize(
    "more",
    [
        "",
        " and blind(easy_vqa) < 101",  # silences nothing
        " and score(base) >= blind(easy_vqa) within 90",
        " and score(base, metric=oracle_accuracy) < 101",
    ],
)
def test_naming_a_control_in_a_claim_does_not_hide_that_it_is_not_beaten(
    lab: Any, more: str
) -> None:
    same = f"score(encoder.image_size=16) == score(base) within 99{more}"
    plan = lab.register(claims={"same": same})
    lab.finish(plan, blind=80.0)
    assert "base does not beat its control on easy_vqa" in lab.told(claim="same")


def test_arms_that_are_alike_without_a_control_may_have_learnt_nothing(lab: Any) -> None:
    claims = {
        "same": "score(encoder.image_size=16) == score(base) within 99",
        "better": "score(base) > score(encoder.image_size=16)",
    }
    lab.run(claims=claims)
    assert "no control: nothing that has not learnt was scored on easy_vqa.accuracy" in (
        lab.told(claim="same")
    )
    assert "no control" not in lab.told(claim="better")


def test_the_standing_is_beside_every_verdict(lab: Any) -> None:
    lab.run(claims={"better": "slope(encoder.image_size, task=held_out_text) > 0"})
    (row,) = claims_table(comparison(lab.results())).rows
    assert row[-1] == "registered, lower is better"


def test_a_small_sure_effect_beside_large_ones_is_not_shown_as_nothing(lab: Any) -> None:
    lab.run()
    made = comparison(lab.results())
    (line,) = [one for one in made.effects if one.metric == "accuracy"]
    wide = line.model_copy(update={"mean": 3.0, "ci_low": -5.0, "ci_high": 11.0})
    small = line.model_copy(update={"mean": 0.012, "ci_low": 0.0115, "ci_high": 0.0125})
    assert effect_words(small, [wide, wide, small]) == ("+0.01", "+0.01 to +0.01")
    assert effect_words(wide, [wide, wide, small]) == ("+3.0", "−5.0 to +11.0")
