from __future__ import annotations

import dataclasses

import pytest

from ablations.verdicts import Verdict
from analysis.claim_words import plain, sentence


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
            "ends is above both",
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
    effect=12.34,
    ci_low=8.06,
    ci_high=16.52,
    ci_level=0.9,
    p_value=0.004,
    p_adjusted=0.004,
    n=3,
    scope="on these benchmarks",
    reason="",
    sensitive=False,
    warnings=(),
    boundary=0.0,
)


def test_sentences_carry_effect_interval_seeds_and_p() -> None:
    assert sentence(VERDICT, 3, interim=False) == (
        "Supported: the score of base is higher than 60: +12.3 (90 % interval +8.1 to +16.5, "
        "3 seeds, adjusted p = 0.004)."
    )
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


def test_an_undecided_sentence_gives_the_reason() -> None:
    undecided = dataclasses.replace(VERDICT, verdict="undecided", reason="adjusted p 0.2 > 0.05")
    assert sentence(undecided, 3, interim=False).endswith("3 seeds); adjusted p 0.2 > 0.05.")
