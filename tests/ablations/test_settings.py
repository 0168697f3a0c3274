"""What setting a path means: of a mapping of a user's own, and which paths decide nothing."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from ablations.errors import UserError
from ablations.settings import MappingSchema, ModelSchema, check_model, written_at
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
        ({"optimizer.lr": float("inf")}, "a number is finite"),
        ({"layers": [64, [float("inf")]]}, "a number is finite"),
    ],
)
def test_what_the_base_has_is_what_may_be_set(written, message):
    with pytest.raises(UserError, match=message):
        MappingSchema().assign(BASE, written, refuse)


def test_a_group_may_be_replaced_by_no_scalar():
    with pytest.raises(UserError, match="the base has a mapping"):
        MappingSchema().assign(BASE, {"optimizer": 3}, refuse)


def test_a_number_is_written_as_the_base_has_it():
    def optimizer(written):
        return MappingSchema().assign(BASE, written, refuse)[0]

    lr = optimizer({"optimizer.lr": 1})["optimizer"]["lr"]
    assert (lr, type(lr)) == (1.0, float)
    epochs = [optimizer({"epochs": value})["epochs"] for value in (1e3, 2.5)]
    assert [(one, type(one)) for one in epochs] == [(1000, int), (2.5, float)]


def test_an_empty_mapping_names_nothing_so_everything_stays():
    assert MappingSchema().assign(BASE, {"optimizer": {}}, refuse)[0] == BASE
    assert MappingSchema().assign(BASE, {"optimizer": None}, refuse)[0]["optimizer"] is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.yaml", "x: 1\nmodel.lr: 0.1", r"b\.yaml:2: the key 'model\.lr': .* has no dot"),
        ("b.yaml", "a:\n  b.c: 1", r"b\.yaml:2: the key 'b\.c'"),
        ("b.yaml", "'': 1", "b.yaml:1: the key ''"),
        ("b.json", '{"a.b": 1}', r"the key 'a\.b'"),
        ("b.yaml", "w: {0: 0.5, 1: 2}", "the key '0' is text here and a number to other readers"),
        ("b.yaml", "on: 3", "the key 'on' is text here and true or false to other readers"),
        ("b.yaml", "a: &a {x: 1}\nb:\n  <<: *a", "b.yaml:3: the key '<<' is text here and a merge"),
        ("b.yaml", "augment: no", "'no' is text here and true or false to other readers"),
        ("b.yaml", "steps: 1_000", "'1_000' is text here and a number to other"),
        ("b.yaml", "l: [3, 0x10]", "'0x10' is text here and a number to other"),
        ("b.yaml", "mode: 010", "'010' is a number here and another number to other"),
        ("b.yaml", "at: 12:30", "'12:30' is text here and a number to other"),
        ("b.yaml", "on_day: 2020-01-01", "is text here and a date to other"),
        ("b.yaml", "clip: .inf", "'.inf' is text here and a number to other"),
        ("b.yaml", "clip: 1e999", "too large a number"),
        ("b.json", '{"clip": NaN}', "'NaN' is text here and a number to other"),
    ],
)
def test_a_base_means_the_same_to_us_and_to_the_script_that_reads_it(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        MappingSchema().load(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "lr: 1e-3\nn: 0\nx: -0.5\ny: ~\nz: True",
            {"lr": 0.001, "n": 0, "x": -0.5} | {"y": None, "z": True},
        ),
        ("a: 'no'\n'0': \"1_000\"\n'on': abc", {"a": "no", "0": "1_000", "on": "abc"}),
        ("l: [{a.b: 1}]", {"l": [{"a.b": 1}]}),
        ('{"lr": 1e-5, "s": "NaN"}', {"lr": 1e-5, "s": "NaN"}),
    ],
)
def test_what_all_readers_take_alike_is_read(tmp_path, text, value):
    (tmp_path / "b.yaml").write_text(text, encoding="utf-8")
    assert MappingSchema().load(tmp_path / "b.yaml") == value


class Adam(BaseModel):
    beta: float = 0.9


class Sgd(BaseModel):
    momentum: float = 0.0


class EitherConfig(BaseModel):
    optimizer: Adam | Sgd = Adam()


class TreeConfig(BaseModel):
    inside: TreeConfig | None = None


class Shape(BaseModel):
    preset: str = "small"


class ShapedConfig(BaseModel):
    encoder: Shape = Shape()


def test_a_field_of_somebody_elses_that_is_called_preset_is_a_field():
    schema = ModelSchema(ShapedConfig)
    changed, _ = schema.assign(ShapedConfig(), {"encoder.preset": "large"}, refuse)
    assert changed.encoder.preset == "large"
    assert schema.level_of(changed, "encoder.preset") == "large"
    assert MappingSchema().level_of({"encoder": {"preset": "small"}}, "encoder.preset") == "small"
    assert SCHEMA.level_of(Recipe(), "encoder.preset") is None


def test_a_model_whose_paths_cannot_all_be_set_is_refused():
    with pytest.raises(
        UserError, match=r"EitherConfig\.optimizer is one of Adam, Sgd, and Adam has"
    ):
        check_model(EitherConfig)
    with pytest.raises(UserError, match="TreeConfig holds itself"):
        check_model(TreeConfig)
    check_model(Recipe)


def test_paths_that_decide_nothing_are_those_left_out_of_the_identity():
    assert {"training.log_every", "initial_weights"} <= SCHEMA.free
    assert "training.steps" not in SCHEMA.free
    assert ModelSchema(Recipe).free == SCHEMA.free


def test_where_a_path_was_written_is_found_through_nested_groups():
    written = {"data": {"mixture": {"text": 0.5}}, "training.steps": 3}
    assert written_at(written, "data.mixture.text") == ("data", "mixture", "text")
    assert written_at(written, "training.steps") == ("training.steps",)
