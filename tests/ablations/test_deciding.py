"""When there is a verdict, and what a diverged trial does to it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.contrasts import ScoreKey
from ablations.deciding import claims_of, decide, places


def verdicts(plan, scores, diverged=()):
    """Verdicts on the claims of a plan; `diverged` are stages."""
    claims = claims_of(plan)
    return decide(
        claims,
        scores,
        seeds=plan.seeds,
        alpha=plan.alpha,
        tasks=plan.tasks,
        diverged=places(plan, diverged),
    )


def test_of_perplexities_the_lowest_is_the_best(studies):
    design = {"one_at_a_time": {"encoder.image_size": [32, 16, 48, 64]}}
    claims = {
        f"best{size}": f"best(encoder.image_size, task=held_out_text) == {size}"
        for size in (32, 48, 64)
    }
    plan = studies.plan(design=design, claims=claims, seeds=6)
    level = {"base": 30, "16": 25, "48": 20, "64": 40}
    scores = {
        ScoreKey(arm.name, "held_out_text", "perplexity", 0, "intact"): {
            seed: level[arm.name.rpartition("=")[2]] + 0.0001 * seed * sum(arm.name.encode())
            for seed in plan.seeds
        }
        for arm in plan.arms
    }
    found = {one.name: one.verdict for one in verdicts(plan, scores)}
    assert found == {"best32": "refuted", "best48": "supported", "best64": "refuted"}


CLAIMS = {
    "bigger-is-better": "effect(encoder.image_size, 16 -> 32) > 0",
    "sees": "score(base) > score(base, condition=shuffled)",
    "reads": "score(base, task=held_out_text) < 20",
}


@pytest.fixture
def plan(studies):
    return studies.plan(claims=CLAIMS)


def table(plan, noise=0.1):
    """Complete scores: base 80, small 70, shuffled 50, perplexity 10."""
    rng = np.random.default_rng(0)
    found = {}
    for trial in plan.trials:
        for e in plan.answers(trial):
            mean = {"base": 80.0}.get(trial.arm, 70.0) - (30 if e.condition == "shuffled" else 0)
            metrics = {
                "easy_vqa": {"accuracy": mean, "blind_accuracy": 67.0},
                "emoji_caption": {"cider": 30.0},
                "held_out_text": {"perplexity": 10.0},
            }[e.task]
            for metric, level in metrics.items():
                key = ScoreKey(trial.arm, e.task, metric, e.shots, e.condition)
                found.setdefault(key, {})[trial.seed] = level + rng.normal(0, noise)
    return found


def test_all_seeds_in_gives_verdicts_in_the_order_of_the_file(plan):
    found = verdicts(plan, table(plan))
    assert [v.name for v in found] == list(CLAIMS)
    assert [v.verdict for v in found] == ["supported"] * 3
    assert [v.n for v in found] == [3, 3, 3]
    assert found[0].effect == pytest.approx(10, abs=0.5)


def test_swapped_levels_are_refuted(studies):
    claims = {"smaller": "effect(encoder.image_size, 32 -> 16) > 0"}
    plan = studies.plan(claims=claims)
    assert [v.verdict for v in verdicts(plan, table(plan))] == ["refuted"]


def test_a_constant_per_seed_changes_nothing(plan):
    scores = table(plan)
    shifted = {
        key: {seed: v + 7.0 * seed for seed, v in values.items()} for key, values in scores.items()
    }
    for one, other in zip(verdicts(plan, scores)[:2], verdicts(plan, shifted)[:2], strict=True):
        assert other.verdict == one.verdict
        assert other.p_value == pytest.approx(one.p_value)


def test_no_verdict_before_all_registered_seeds_are_in(plan):
    scores = table(plan)
    del scores[ScoreKey("encoder.image_size=16", "easy_vqa", "accuracy", 0, "intact")][2]
    first, sees, _ = verdicts(plan, scores)
    assert (first.verdict, first.reason, first.n) == ("undecided", "2 of 3 seeds", 2)
    assert first.p_value is None
    assert first.effect == pytest.approx(10, abs=0.5)
    assert sees.verdict == "supported"


def test_nothing_in_yet(plan):
    found = verdicts(plan, {})
    assert {v.reason for v in found} == {"0 of 3 seeds"}
    assert {v.effect for v in found} == {None}


def training(plan, arm, seed):
    return next(plan.main(t) for t in plan.trials if (t.arm, t.seed) == (arm, seed))


def test_a_diverged_trial_has_the_worst_value_and_the_verdict_stands_with_and_without_it(plan):
    lost = training(plan, "encoder.image_size=16", 1)
    first = verdicts(plan, table(plan), diverged={lost})[0]
    assert first.n == 3
    assert first.verdict == "undecided"
    assert first.effect == pytest.approx((10 + 80 + 10) / 3, abs=0.5)
    assert first.warnings[0] == "encoder.image_size=16 seed 1 diverged"
    assert first.warnings[1] == (
        "without what diverged: supported (2 seeds), effect(encoder.image_size, 16 -> 32) = "
        "+10.04 against 0"
    )


def test_the_blind_answerer_never_diverges(studies):
    plan = studies.plan(claims={"beats": "score(base) > blind(easy_vqa)"})
    (beats,) = verdicts(plan, table(plan), diverged={training(plan, "base", 1)})
    assert beats.effect == pytest.approx((13 - 67 + 13) / 3, abs=0.5)


def test_a_diverged_trial_without_worst_value_leaves_the_claim_undecided(plan):
    reads = verdicts(plan, table(plan), diverged={training(plan, "base", 1)})[2]
    assert reads.verdict == "undecided"
    assert reads.reason == "base seed 1 diverged and perplexity has no worst value"
    assert (reads.effect, reads.n) == (None, 3)


def test_where_both_sides_diverged_in_a_seed_nothing_is_shown_to_be_equal(studies):
    same = "score(encoder.image_size=16) == score(base) within 30"
    plan = studies.plan(claims={"same": same, "low": "score(base) < 90"})
    lost = {training(plan, arm, 1) for arm in ("base", "encoder.image_size=16")}
    assert verdicts(plan, table(plan))[0].verdict == "supported"
    same, low = verdicts(plan, table(plan), diverged=lost)
    assert (same.verdict, same.reason) == (
        "undecided",
        "all that it compares diverged in seed 1",
    )
    assert low.reason != same.reason  # one score and a number: its worst value counts


def test_what_was_scored_before_a_divergence_stands(studies):
    studies.recipe["encoder_pretraining"] = {}
    studies.recipe["evaluation"]["emoji_probe"] = {}
    plan = studies.plan(claims={"probe": "score(base, task=emoji_probe) > 40"})
    scores = {
        ScoreKey("base", "emoji_probe", "accuracy", 0, "intact"): {
            seed: 50.0 + seed for seed in plan.seeds
        }
    }
    (probe,) = verdicts(plan, scores, diverged={training(plan, "base", 1)})
    assert (probe.effect, probe.warnings) == (51.0, ())
    encoder = plan.trials[0].stages["encoder"]
    (probe,) = verdicts(plan, scores, diverged={encoder})
    assert probe.by_seed[0] == 0.0


def test_a_score_that_is_no_number_leaves_the_claim_undecided_and_is_named(plan):
    scores = table(plan)
    scores[ScoreKey("base", "held_out_text", "perplexity", 0, "intact")][0] = math.inf
    reads = verdicts(plan, scores)[2]
    assert reads.verdict == "undecided"
    assert reads.reason == "base seed 0: held_out_text.perplexity is inf"
