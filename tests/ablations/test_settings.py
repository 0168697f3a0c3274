"""What setting a path means: of a mapping of a user's own, and which paths decide nothing."""

from __future__ import annotations

import pytest

from ablations.errors import UserError
from ablations.settings import MappingSchema, ModelSchema, written_at
from mm1_jax.config.recipe import Recipe
from mm1_jax.workload import SCHEMA

BASE = {
    "optimizer": {"name": "adamw", "lr": 0.001, "nesterov": False},
    "epochs": 3,
    "layers": [64, 64],
    "resume": None,
}


def refuse(path, message):
    raise UserError(message)


def test_a_mapping_sets_what_it_names_and_the_base_stays():
    changed, dropped = MappingSchema().assign(BASE, {"optimizer": {"lr": 1}, "epochs": 5}, refuse)
    assert changed["optimizer"] == {"name": "adamw", "lr": 1, "nesterov": False}
    assert (changed["epochs"], dropped) == (5, ())
    assert BASE["optimizer"]["lr"] == 0.001
    assert MappingSchema().assign(BASE, {"resume": "a.ckpt"}, refuse)[0]["resume"] == "a.ckpt"
    assert MappingSchema().assign(BASE, {"layers": [8]}, refuse)[0]["layers"] == [8]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"optimiser.lr": 1}, "unknown path 'optimiser.lr'; did you mean 'optimizer.lr'?"),
        ({"optimizer.rate": 1}, "unknown path 'optimizer.rate'; valid: lr, name, nesterov"),
        ({"optimizer.nesterov": 1}, "1 is not valid: the base has true or false .false."),
        ({"optimizer.lr": "high"}, "high is not valid: the base has a number"),
        ({"epochs": [1]}, r"\[1\] is not valid: the base has a number .3."),
        ({"layers": 64}, "64 is not valid: the base has a list"),
        ({"optimizer": {"lr": 1}, "optimizer.lr": 2}, "optimizer.lr is set twice"),
        ({"epochs": 10**12}, "a whole number is at most"),
    ],
)
def test_what_the_base_has_is_what_may_be_set(written, message):
    with pytest.raises(UserError, match=message):
        MappingSchema().assign(BASE, written, refuse)


def test_a_group_may_be_replaced_by_no_scalar():
    with pytest.raises(UserError, match="the base has a mapping"):
        MappingSchema().assign(BASE, {"optimizer": 3}, refuse)


def test_paths_that_decide_nothing_are_those_left_out_of_the_identity():
    assert {"training.log_every", "initial_weights"} <= SCHEMA.free
    assert "training.steps" not in SCHEMA.free
    assert ModelSchema(Recipe).free == SCHEMA.free


def test_where_a_path_was_written_is_found_through_nested_groups():
    written = {"data": {"mixture": {"text": 0.5}}, "training.steps": 3}
    assert written_at(written, "data.mixture.text") == ("data", "mixture", "text")
    assert written_at(written, "training.steps") == ("training.steps",)
