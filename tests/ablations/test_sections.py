"""Sections that many configs share are what they would be if each config had its own."""

from __future__ import annotations

import json
from functools import cache

import pytest
from pydantic import BaseModel, Field, computed_field, field_serializer, model_validator

from ablations.fingerprints import canonical
from ablations.plan import make_plan
from ablations.schema import NOT_IDENTITY, Config
from ablations.sections import affecting, affecting_text, once_a_section, plain, with_sections
from ablations.settings import ModelSchema
from mm1.studies import load_study
from mm1_jax.config.recipe import Recipe
from mm1_jax.workload import SCHEMA

STUDIES = ("demo", "encoder-objective", "first", "glossary", "instruction-tuning")


def refuse(path, message):
    raise AssertionError(f"{path}: {message}")


@cache
def recipes(study):
    plan = make_plan(load_study(f"ablations/studies/{study}.yaml"))
    return [Recipe.model_validate_json(json.dumps(arm.config)) for arm in plan.arms]


def without(tree, paths):
    """A tree without what stands at some paths; `*` is any name."""
    here = {path for path in paths if "." not in path}
    kept = {}
    for key, value in tree.items():
        if key in here or "*" in here:
            continue
        heads = [path.partition(".") for path in paths]
        below = {rest for head, dot, rest in heads if dot and head in (key, "*")}
        kept[key] = without(value, below) if isinstance(value, dict) else value
    return kept


@pytest.mark.parametrize("study", STUDIES)
def test_plain_values_are_those_that_pydantic_writes_in_its_order(study):
    for recipe in recipes(study):
        assert json.dumps(plain(recipe)) == json.dumps(recipe.model_dump(mode="json"))


@pytest.mark.parametrize("study", STUDIES)
def test_what_affects_results_is_all_but_the_free_paths(study):
    for recipe in recipes(study):
        assert affecting(recipe) == without(recipe.model_dump(mode="json"), SCHEMA.free)
        assert affecting_text(recipe) == canonical(affecting(recipe))


def test_what_configs_share_is_written_once():
    base = Recipe()
    other = base.model_copy(update={"seeds": base.seeds.model_copy(update={"data_order": 3})})
    assert plain(base)["encoder"] is plain(other)["encoder"]
    assert (plain(base)["seeds"]["data_order"], plain(other)["seeds"]["data_order"]) == (None, 3)


def test_a_section_in_the_place_of_one_that_is_gone_is_not_taken_for_it():
    for width in range(3_000):  # so many that objects lie where others lay, and more than are kept
        assert plain(Whole(inner=Inner(width=width))) == {"inner": {"width": width}, "log": 1}


def test_a_function_of_a_section_is_asked_once_for_each_object():
    asked = []

    @once_a_section
    def width(inner: Inner) -> int:
        asked.append(inner)
        return inner.width

    one, equal = Inner(width=2), Inner(width=2)
    assert [width(one), width(one), width(equal)] == [2, 2, 2]
    assert len(asked) == 2
    assert [width(Inner(width=n)) for n in range(3_000)] == list(range(3_000))


class Inner(Config):
    width: int = 1


class Whole(Config):
    inner: Inner = Inner()
    log: int = Field(1, json_schema_extra=NOT_IDENTITY)


class SaysMore(Config):
    inner: Inner = Inner()
    scale: int = 2

    @computed_field
    @property
    def area(self) -> int:
        return self.inner.width * self.scale


class SaysOtherwise(Config):
    inner: Inner = Inner()
    scale: int = 2

    @field_serializer("inner")
    def _scaled(self, inner: Inner) -> int:
        return inner.width * self.scale


class LeavesOut(Config):
    inner: Inner = Field(Inner(), exclude=True)
    scale: int = 2


@pytest.mark.parametrize("model", [Whole, SaysMore, SaysOtherwise, LeavesOut])
def test_a_model_that_writes_itself_is_written_as_it_does(model):
    inner = Inner(width=3)
    for fields in ({}, {"scale": 5} if "scale" in model.model_fields else {"log": 5}):
        config = model(inner=inner, **fields)
        assert plain(config) == config.model_dump(mode="json")
        assert affecting_text(config) == canonical(affecting(config))
    assert "log" not in affecting(model(inner=inner))


@pytest.mark.parametrize(
    "written",
    [
        {"encoder.width": 64, "optimizer.peak_lr": 0.001},
        {"connector.kind": "mlp"},
        {"data.mixture.easy_vqa": 0.5},
        {"encoder.preset": "vit_l14"},
        {"sft": {}},
        {"sft": None},
        {"training.steps": 70, "seeds.initialisation": 3},
    ],
)
def test_other_sections_make_the_config_that_reading_all_of_it_makes(monkeypatch, written):
    base = recipes("demo")[0]
    before = base.model_dump()
    made, dropped = SCHEMA.assign(base, written, refuse)
    monkeypatch.setattr("ablations.settings.with_sections", lambda *_: None)
    assert SCHEMA.assign(base, written, refuse) == (made, dropped)
    assert base.model_dump() == before


def test_what_is_not_touched_is_the_base_s_own():
    base = Recipe()
    made, _ = SCHEMA.assign(base, {"optimizer.peak_lr": 0.001}, refuse)
    assert made.encoder is base.encoder
    again, _ = SCHEMA.assign(base, {"optimizer.peak_lr": 0.001}, refuse)
    assert again.optimizer is made.optimizer


class LooseSection(BaseModel):
    lr: float = 0.1


class Loose(BaseModel):
    optimizer: LooseSection = LooseSection()
    epochs: int = 1
    section: Inner = Inner()

    @model_validator(mode="after")
    def _scaled(self) -> Loose:
        self.optimizer.lr *= self.epochs
        return self


def test_sections_that_could_change_are_not_shared():
    base, schema = Loose(), ModelSchema(Loose)
    made, _ = schema.assign(base, {"section.width": 2}, refuse)
    longer, _ = schema.assign(base, {"epochs": 3}, refuse)
    assert (base.optimizer.lr, made.optimizer.lr) == (0.1, 0.1)
    assert longer.optimizer.lr == pytest.approx(0.3)


def test_a_section_that_is_wrong_or_none_is_left_to_reading_all():
    assert with_sections(Whole(), {"inner": {"width": "wide"}}, ["inner"]) is None
    assert with_sections(Whole(), {"log": 3}, ["log"]) is None
    assert with_sections(Whole(), {"inner": {"width": 4}}, ["inner"]) == Whole(inner=Inner(width=4))
