"""No number of a recipe can fill the memory of who plans it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mm1_jax.config.recipe import Recipe
from mm1_jax.data.own.shard_preparation import PreparationSpec

# Nothing is as large as these: seeds, steps to compare with, limits of what is taken.
SIZE_OF_NOTHING = {
    *("seed", "initialisation", "initialisation_salt", "data_order"),
    *("checkpoint_every", "from_step", "log_every", "warmup_steps", "keep_last", "most"),
    *("items", "sharp_images", "output_layer"),
    *("max_file_bytes", "max_occurrences", "max_side_pixels", "min_side_pixels", "minimum"),
    *("shard_megabytes", "stored_side_pixels"),
}


def unbounded(node, name=""):
    """The names of whole numbers without a maximum, anywhere in a JSON schema."""
    if isinstance(node, list):
        for inner in node:
            yield from unbounded(inner, name)
    elif isinstance(node, dict):
        if node.get("type") == "integer" and not {"maximum", "const", "enum"} & set(node):
            yield name
        for key, inner in node.items():
            named = key in ("properties", "$defs") and isinstance(inner, dict)
            for own, value in inner.items() if named else [(name, inner)]:
                yield from unbounded(value, own)


@pytest.mark.parametrize("model", [Recipe, PreparationSpec])
def test_every_number_that_is_the_size_of_something_has_a_bound(model):
    assert set(unbounded(model.model_json_schema())) <= SIZE_OF_NOTHING


@pytest.mark.parametrize(
    "written",
    [
        {"encoder": {"image_size": 8_000_000_000}},
        {"encoder": {"layers": 8_000_000_000}},
        {"encoder": {"width": 8_000_000_000}},
        {"connector": {"kind": "average_pooling", "tokens": 8_000_000_000}},
        {"language_model": {"kind": "moe", "experts": 8_000_000_000}},
        {"data": {"text_tokens": 8_000_000_000}},
        {"data": {"vocabulary": 10**30}},
        {"data": {"workers": 8_000_000_000}},
        {"data": {"sub_images": {"kind": "grid", "side": 8_000_000_000}}},
        {"training": {"batch_size": 8_000_000_000}},
        {"evaluation": {"easy_vqa": {"shots": [100_000]}}},
    ],
    ids=str,
)
def test_an_absurd_number_is_refused_with_its_bound(written):
    with pytest.raises(ValidationError, match="less than or equal to"):
        Recipe.model_validate(written)
