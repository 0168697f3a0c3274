from __future__ import annotations

import dataclasses

import pytest

from ablations.verdicts import Verdict
from analysis.claim_words import numbers, plain, sentence


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (
            "score(base, shots=8) > score(base, shots=8, condition=wrong_demonstrations)",
            "the score of base with 8 shots is higher than the score of base with wrong "
            "demonstrations with 8 shots",
        ),
        (
            "score(base) > score(base, condition=shuffled)",
            "the score of base is higher than the score of base with shuffled images",
        ),
        (
            "score(base) > blind(easy_vqa) by 5",
            "the score of base is more than 5 above the best answerer of easy_vqa that never sees "
            "the image",
        ),
        ("score(a=1) == score(base) within 3", "the score of a=1 is within 3 of the score of base"),
        (
            "score(a=1) >= score(base) within 1",
            "the score of a=1 is less than 1 below the score of base",
        ),
        (
            "effect(a, 1 -> 2) > abs(effect(b, x -> y, at: {a: 1}))",
            "the effect of a from 1 to 2 is larger than the size of the effect of b from x to y "
            "with a at 1",
        ),
        (
            "slope(a, task=held_out_text) < 0 and peak(b)",
            "the slope over a on held_out_text is smaller than 0, and a level of b between its "
            "ends is better than both",
        ),
        ("best(kind, shots=4) == mlp", "mlp is the best level of kind with 4 shots"),
    ],
)
def test_claims_read_as_clauses(claim: str, words: str) -> None:
    assert plain(claim) == words


def test_a_minimum_effect_is_told() -> None:
    assert plain("score(a=1) > score(base)", 2.0) == (
        "the score of a=1 is more than 2 above the score of base"
    )


VERDICT = Verdict(
    name="sees",
    text="score(base) > 60",
    verdict="supported",
    contrast="score(base)",
    effect=72.34,
    ci_low=68.06,
    ci_high=76.52,
    ci_level=0.9,
    p_value=0.004,
    p_adjusted=0.004,
    alpha=0.05,
    n=3,
    scope="on these benchmarks",
    reason="",
    sensitive=False,
    warnings=(),
    boundary=60.0,
    below=False,
    is_difference=False,
    by_seed={0: 70.1, 1: 72.3, 2: 74.62},
    extreme_seeds=(),
)


def test_sentences_carry_effect_interval_seeds_and_p() -> None:
    assert sentence(VERDICT, 3, interim=False) == (
        "Supported: the score of base is higher than 60: score(base) = 72.3, above 60 "
        "(90 % interval 68.1 to 76.5, 3 seeds, adjusted p = 0.004)."
    )
    assert numbers(VERDICT).by_seed == "70.1 72.3 74.6"
    refuted = dataclasses.replace(VERDICT, verdict="refuted", p_adjusted=1e-6)
    assert sentence(refuted, 3, interim=False).startswith("Refuted: it is not so that the score")
    assert "adjusted p < 0.0001" in sentence(refuted, 3, interim=False)


def test_an_interim_sentence_gives_no_verdict() -> None:
    early = dataclasses.replace(VERDICT, verdict="undecided", n=2, p_value=None, p_adjusted=None)
    told = sentence(early, 3, interim=True)
    assert told.startswith("Not yet: 2 of 3 seeds are in for whether the score of base")
    assert "p =" not in told
    nothing = dataclasses.replace(early, n=0, effect=None, ci_low=None, ci_high=None)
    assert sentence(nothing, 3, interim=True).endswith("higher than 60.")


def test_a_refuted_claim_says_on_which_side_its_contrast_lies() -> None:
    refuted = dataclasses.replace(
        VERDICT,
        text="score(a=1) < score(base)",
        verdict="refuted",
        contrast="score(a=1) − score(base)",
        is_difference=True,
        effect=3.0,
        ci_low=1.0,
        ci_high=5.0,
        boundary=-0.0,
        below=True,
    )
    told = sentence(refuted, 3, interim=False)
    assert "score(a=1) − score(base) = +3.0, above 0 (90 % interval +1.0 to +5.0" in told


def test_an_interval_that_leaves_the_boundary_out_is_seen_to_do_so() -> None:
    close = dataclasses.replace(VERDICT, effect=62.0, ci_low=60.004, ci_high=64.1)
    assert numbers(close).interval == "60.004 to 64.100"
    touching = dataclasses.replace(VERDICT, effect=62.0, ci_low=59.996, ci_high=64.1)
    assert numbers(touching).interval == "60.0 to 64.1"


def test_an_undecided_sentence_gives_the_reason() -> None:
    undecided = dataclasses.replace(VERDICT, verdict="undecided", reason="adjusted p 0.2 > 0.05")
    assert sentence(undecided, 3, interim=False).endswith("3 seeds); adjusted p 0.2 > 0.05.")
