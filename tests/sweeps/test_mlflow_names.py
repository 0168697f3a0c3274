"""Any name is made valid for MLflow, and had back."""

from __future__ import annotations

import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

from sweeps.mlflow_names import distinct_names, original, valid_name

ODD = [
    "",
    " ",
    ".",
    "..",
    "...",
    "/",
    "//",
    "/a",
    "a/",
    "a//b",
    "../a",
    "./a",
    "..a",
    "a/../b",
    "a/./b",
    "a b ",
    "50% colour",
    "lower rate > base? (größer)",
    "50_x0025_ colour",
    "a_x",
    "_x_",
    "_x005F_x",
    "max_xent_x41_",
    "🐶",
    "a\nb\n",
    "a\x00b",
    "a'b\"c`d\\e",
    "e\u0301",
    "é",
    "\ud800",
]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_taken_and_had_back(name):
    valid = valid_name(name)
    _validate_metric_name(valid)
    _validate_tag_name(valid)
    assert original(valid) == name
    assert valid == valid.strip()


def test_no_two_names_become_one():
    pairs = [a + b for a in ODD for b in ODD]
    assert len({valid_name(name) for name in pairs}) == len(set(pairs))


@pytest.mark.parametrize(
    "name", ["easy_vqa.accuracy", "optimizer.peak_lr", "accuracy/answer_type:number", "größer"]
)
def test_a_valid_name_stays(name):
    assert valid_name(name) == original(name) == name


def test_a_long_name_is_cut_and_stays_distinct():
    one, other = valid_name("a" * 300 + "1"), valid_name("a" * 300 + "2")
    assert one != other
    assert len(one) == len(other) <= 250
    _validate_metric_name(one)


def test_equal_names_of_different_things_are_told_apart():
    assert distinct_names([(1, "a.b"), (2, "a.b"), (3, "a.b"), (4, "c")]) == {
        1: "a.b",
        2: "a.b_x_2",
        3: "a.b_x_3",
        4: "c",
    }
