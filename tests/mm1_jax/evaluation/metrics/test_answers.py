"""Known answers of the readings and metrics that are compared in full in test_official_parity."""

from __future__ import annotations

import pytest

from mm1_jax.evaluation.metrics.anls import anls
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.likelihood import chosen
from mm1_jax.evaluation.metrics.multiple_choice import letters, mmmu_reading
from mm1_jax.evaluation.metrics.relaxed import relaxed_match
from mm1_jax.evaluation.metrics.yes_no import (
    mme_reading,
    pope_reading,
    strict_reading,
    yes_no_metrics,
)


def test_anls_gives_the_known_answers():
    assert anls("1,250 kg", ["1250 kg"]) == 0.875
    assert anls("Apple Inc.", ["apple"]) == 0.5  # kept: the threshold is below a half
    assert anls("Apple Incs", ["appl"]) == 0
    assert anls("b", ["a", "B"]) == 1


def test_relaxed_match_is_within_five_per_cent_of_the_answer():
    assert relaxed_match("10.5", "10")
    assert not relaxed_match("10.51", "10")
    assert relaxed_match("5%", "0.05")
    assert not relaxed_match("0.01", "0")
    assert relaxed_match("Germany", "germany")


def test_mme_looks_at_the_first_four_characters_only():
    assert mme_reading("Yes, there is") == "yes"
    assert mme_reading("The answer is yes") is None
    assert mme_reading("nope") == "no"


def test_pope_takes_what_says_neither_for_yes_and_the_strict_reading_for_nothing():
    assert pope_reading("There is a dog. No cat.") == "yes"
    assert pope_reading("There is not a dog.") == "no"
    assert strict_reading("Yes.") is None
    assert strict_reading(" YES\n") == "yes"


def test_what_is_neither_yes_nor_no_is_wrong_but_no_false_positive():
    found = yes_no_metrics(["yes", None, None, "no"], ["yes", "yes", "no", "no"])
    assert found == {"accuracy": 50, "f1": 100, "precision": 100, "recall": 100, "yes_ratio": 25}
    assert set(yes_no_metrics([None], ["yes"]).values()) == {0}


def test_a_letter_that_is_not_named_is_none_and_not_drawn():
    options = letters(["a red dog", "a blue cat"])
    assert mmmu_reading("I do not know", options) is None
    assert mmmu_reading("I think that this is a blue cat", options) == "B"
    assert mmmu_reading("(A) or rather (B)", options) == "B"


def test_ties_between_choices_go_to_the_first():
    assert chosen([(-1.0, False), (-1.0, True)], ["ab", "cd"]) == (0, 0, 0)


def test_likelihood_is_divided_by_characters_or_by_bytes():
    # 6 nats over 3 characters (6 bytes), 8 nats over 5.
    assert chosen([(-6.0, False), (-8.0, False)], ["äöü", "abcde"]) == (0, 1, 0)


def test_groups_have_means_of_their_own_and_no_value_is_no_group():
    found = group_means("accuracy", [0, 100, 100], {"type": ["a", "b", ""]})
    assert found == {
        "accuracy": pytest.approx(200 / 3),
        "accuracy/type:a": 0,
        "accuracy/type:b": 100,
    }
