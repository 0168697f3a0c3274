from __future__ import annotations

import pytest

from mm1_jax.evaluation.metrics.vqa import (
    agreement,
    normalised,
    normalised_as_textvqa,
    textvqa_accuracy,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("equal", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_agreement_leaves_each_answer_out_once(equal, score):
    assert agreement("red", ["red"] * equal + ["blue"] * (10 - equal)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("The Yes.", "yes"),
        ("1,000", "1000"),
        ("red,blue", "red blue"),
        ("1,000 a,b", "1000 ab"),
        ("t-shirt", "t shirt"),
        ("a.m.", "am"),
        ("10.", "10"),
        ("2.5", "2.5"),
        ("-1", "1"),
        ("A", ""),
        ("ten dogs", "10 dogs"),
        ("eleven", "eleven"),
        ("Dont", "don't"),
        ("somebody'd", "somebodyd"),
        ("." * 40, "." * 8),
    ],
)
def test_normalisation_gives_the_known_answers(text, compared):
    assert normalised(text) == compared


def test_undisputed_answers_are_compared_as_they_are():
    assert vqa_accuracy("Yes.", ["yes"] * 10) == 0
    assert vqa_accuracy(" yes\n", ["yes"] * 10) == 1
    assert vqa_accuracy("Yes.", ["yes"] * 9 + ["no"]) == 1
    assert textvqa_accuracy("Yes.", ["yes"] * 10) == 1


def test_textvqa_deletes_commas_and_splits_off_possessives():
    assert normalised_as_textvqa("Red,blue") == "redblue"
    assert normalised_as_textvqa("the man's hat?") == "man 's hat"
