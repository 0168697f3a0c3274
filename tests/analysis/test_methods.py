"""The methods of a report say what is on record, and nothing that was not done."""

from __future__ import annotations

from typing import Any

import pytest

from ablations.adaptive_seeds import METHOD, Budget, Replication
from analysis.compare import comparison
from analysis.report.content import MOST_CURVES, MOST_ROWS, Source, _few, document
from analysis.report.document import Figure, Grid
from analysis.report.html import html
from analysis.report.methods import listed, methods
from analysis.results import StudyResults, load_results
from sweeps.store import Store


def told(results: StudyResults) -> str:
    return "\n".join(methods(comparison(results), results.table, results))


def test_a_registered_study_says_design_seeds_measure_tests_and_record(lab: Any) -> None:
    plan = lab.run()
    text = told(lab.results())
    assert "compares 2 arms that differ in one factor: encoder.image_size (32, 16)." in text
    assert "Every arm has the same 3 seeds (0, 1 and 2)." in text
    assert "All 6 planned trials (2 arms × 3 seeds) are there exactly once." in text
    assert "The primary metric is easy_vqa.accuracy, in %, higher is better, over 10 items." in text
    assert "better: effect(encoder.image_size, 16 -> 32) > 0." in text
    assert "Holm's correction" in text
    assert f"registered as {plan.hash} on 2026-11-02 00:0" in text
    assert "UTC, before any of its stages had a result in this store." in text
    assert "Standing of the claims: registered: better." in text
    assert "No other registration of its name is on record" in text
    assert "No trial was excluded." in text
    assert "no trial diverged" in text
    assert "first weights and the order of the data follow from it" in text
    assert "18 stages took 9 s of work in all, imports and compilation included, on:" in text
    assert "Planned for the whole study: 1.16 TFLOP." in text


def test_what_all_seeds_share_is_not_said_to_follow_from_them(make_plan, fill, tmp_path) -> None:
    plan = make_plan(seeds=2)
    arms = [
        arm.model_copy(
            update={
                "shared": ("these first weights",),
                "answers": tuple(
                    one.model_copy(update={"drawn": ("this draw of the questions",)})
                    for one in arm.answers
                ),
            }
        )
        for arm in plan.arms
    ]
    store = Store(tmp_path)
    plan = plan.model_copy(update={"arms": tuple(arms)})
    store.register(plan)
    fill(store, plan)
    text = told(load_results("demo", store))
    assert "follow from it" not in text
    assert "in common: these first weights and this draw of the questions." in text


def test_what_was_changed_after_results_is_told(lab: Any) -> None:
    lab.run()
    lab.run(claims={"worse": "effect(encoder.image_size, 16 -> 32) < 0"}, seeds=[0, 1, 2, 3])
    text = told(lab.results())
    assert "No other registration" not in text
    assert "It was registered anew on 2026-11-02" in text
    assert "after 18 results" in text
    assert "claims added: worse" in text
    assert "seeds added: 3" in text
    assert "when 18 of its 24 stages had results" in text


def test_what_was_left_out_is_told_with_its_reason(lab: Any) -> None:
    lab.run(exclude={"base seed 1": "its node had memory errors"})
    text = told(lab.results())
    assert "Left out: base seed 1 is excluded, decided before any result: its node had" in text
    assert "No trial was excluded" not in text


def test_without_claims_nothing_is_said_of_tests(lab: Any) -> None:
    lab.run(claims={})
    text = told(lab.results())
    for word in ("Holm", "t tests", "claim", "two one-sided", "Standing"):
        assert word not in text
    assert "95 % t intervals that are unadjusted" in text


def test_with_one_seed_nothing_is_said_of_intervals(lab: Any) -> None:
    lab.run(seeds=[4])
    text = told(lab.results())
    assert "Every arm has the same 1 seed (4)." in text
    assert "with one seed there is no interval" in text
    assert "With one seed there is nothing to test" in text
    for word in ("Holm", "paired", "t intervals"):
        assert word not in text


def test_a_study_under_way_does_not_say_that_it_is_done(lab: Any) -> None:
    lab.finish(lab.register(), seeds=2)
    text = told(lab.results())
    assert "4 of 6 planned trials" in text
    assert "The claim is without a verdict while seeds are missing." in text


def test_trials_that_diverged_or_failed_before_are_told(make_plan, fill, tmp_path) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    again = plan.trials[0].stages["multimodal"]
    store.record_failure(again, "one", {"error": "out of memory", "traceback": ""})
    fill(store, plan, diverged=[("base", 2)])
    text = told(load_results("demo", store))
    assert "1 trial diverged (base seed 2); where a metric declares a worst value" in text
    assert "1 stage gave a result after 1 attempt that failed" in text
    assert "no trial diverged" not in text


def test_seeds_that_were_added_are_told_with_the_registered_rule(make_plan, fill, tmp_path) -> None:
    claims = {"small-is-better": "score(encoder.image_size=16) > score(base)"}
    plan = make_plan(seeds=6, claims=claims)
    rule = Replication(
        initial=3,
        most=6,
        budget=Budget(trials=90, money=300, on="a100-8"),
        seconds={arm.name: 66.0 for arm in plan.arms},
    )
    plan = plan.model_copy(update={"replication": rule, "hash": "adaptive"})
    store = Store(tmp_path)
    store.register(plan)
    fill(store, plan)
    text = told(load_results("demo", store))
    assert "every arm began with 3 and no claim has more than 6" in text
    assert METHOD in text
    assert "budget 90 trials, budget a price of 300 on a100-8" in text
    assert "looked at after every seed from 3 to 6" in text
    assert "Every arm has the same" not in text


@pytest.mark.parametrize(
    ("names", "told_"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        ([*"abcdefghijkl"], "a, b, c, d, e, f, g, h, i, j and 2 more"),
    ],
)
def test_lists_are_sentences(names: list[str], told_: str) -> None:
    assert listed(names) == told_


def many(results: StudyResults, count: int) -> Source:
    """The same with so many arms: copies of what is there, with other scores."""
    made = comparison(results)
    base, other = made.arms[0], made.arms[1]
    arms = [base]
    for number in range(1, count):
        scores = tuple(
            one.model_copy(update={"mean": one.mean + (number * 7919) % count / count})
            for one in other.scores
        )
        name = f"encoder.image_size={number}"
        arms.append(other.model_copy(update={"name": name, "label": name, "scores": scores}))
    effects = tuple(
        made.effects[0].model_copy(update={"level": str(number), "mean": float(number)})
        for number in range(1, count)
    )
    return Source(made.model_copy(update={"arms": tuple(arms), "effects": effects}), results.table)


@pytest.mark.parametrize("count", [100, 1_000])
def test_of_many_arms_the_base_the_best_and_the_worst_are_shown_and_the_rest_is_told(
    lab: Any, count: int
) -> None:
    lab.run(claims={})
    source = many(lab.results(), count)
    named = _few(source)
    assert len(named) == MOST_CURVES
    assert named[0] == "base"
    means = {arm.name: arm.scores[0].mean for arm in source.made.arms[1:]}
    order = sorted(means, key=lambda name: -means[name])
    assert set(named[1:]) == {*order[:4], *order[-3:]}
    made = document(source)
    blocks = [block for section in made.sections for block in section.blocks]
    (arms,) = [b for b in blocks if isinstance(b, Grid) and b.table.title.startswith("Scores")]
    assert len(arms.table.rows) == MOST_ROWS
    assert len(arms.table.rows) + len(arms.rest) == count
    assert f"Of {count:,} arms {MOST_ROWS} are named" in arms.left_out
    (figure,) = [b for b in blocks if isinstance(b, Figure)]
    assert f"the {MOST_ROWS} largest effects of {count - 1:,}" in figure.caption
    assert figure.numbers is not None
    assert len(figure.numbers.rows) == MOST_ROWS
    assert str(count - 1) in figure.svg  # the largest is there
    assert html(made).count("<tr>") < count + 3 * MOST_ROWS
