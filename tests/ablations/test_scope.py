"""A verdict says what it is limited to: whatever all seeds share."""

from __future__ import annotations

import pytest

from ablations.deciding import claims_of


def scopes(studies, claim, **changes):
    (found,) = claims_of(studies.plan(claims={"c": claim}, **changes))
    return found.scope


def test_benchmarks_are_always_fixed(studies):
    assert scopes(studies, "score(base) > 60") == "on these benchmarks"


@pytest.mark.parametrize(
    ("key", "what"),
    [("initialisation", "these first weights"), ("data_order", "this data order")],
)
def test_randomness_that_the_recipe_fixes(studies, key, what):
    plan = studies.plan(claims={"c": "score(base) > 60"}, overrides={f"seeds.{key}": 0})
    assert claims_of(plan)[0].scope == f"on these benchmarks, {what}"
    assert f"seeds.{key} is fixed: claims hold for {what} only" in plan.warnings


def test_what_evaluations_drew_once(studies):
    studies.recipe["evaluation"]["easy_vqa"] |= {"items": 100, "shots": [0, 2]}
    assert scopes(studies, "score(base) > score(base, condition=shuffled)") == (
        "on these benchmarks, this draw of the questions, this shuffle of the images"
    )
    assert scopes(studies, "score(base, shots=2) > 60").endswith("this draw of the demonstrations")
