"""Each mistake in a YAML file is told with file, line, key, value and the nearest valid choice."""

from __future__ import annotations

import pytest

from ablations.errors import UserError
from ablations.yaml_files import load_model, load_yaml, scalar
from mm1_jax.config.recipe import Recipe


@pytest.fixture
def failing(tmp_path):
    """The message for a recipe, after `recipe.yaml:`."""

    def message(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as error:
            load_model(path, Recipe)
        return str(error.value).removeprefix(f"{path}:")

    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encodr: {width: 64}", "1: unknown key 'encodr'; did you mean 'encoder'?"),
        (
            "encoder:\n  imagesize: 32",
            "2: unknown key 'encoder.imagesize'; did you mean 'image_size'?",
        ),
        (
            "connector:\n  kind: c_abstractor\n  dpth: 3",
            "3: unknown key 'connector.dpth'; did you mean 'depth'?",
        ),
        (
            "connector:\n  kind: avg_pooling",
            "2: connector.kind: 'avg_pooling' is not valid; did you mean 'average_pooling'?",
        ),
        (
            "connector:\n  tokens: 4",
            "1: key 'connector.kind' is missing; "
            "valid: attention_pooling, average_pooling, c_abstractor, linear, mlp, "
            "perceiver_resampler, pixel_unshuffle",
        ),
        ("encoder:\n  width: 3.5", "2: encoder.width: 3.5 is not valid: expected a valid integer"),
        ("encoder:\n  width: '64'", '2: encoder.width: "64" is not valid: expected'),
        ("encoder:\n  width: true", "2: encoder.width: true is not valid: expected"),
        ("encoder:\n  width: 0", "2: encoder.width: 0 is out of range; it must be above 0"),
        ("optimizer:\n  b1: 1.5", "2: optimizer.b1: 1.5 is out of range; it must be below 1"),
        (
            "optimizer:\n  clip_norm: 1e999",
            "2: optimizer.clip_norm: Infinity is not valid: expected",
        ),
        ("encoder: 5", "1: encoder: 5 is not valid: expected a mapping"),
        (
            "training:\n  freeze:\n  - encoder\n  - encodr",
            "4: training.freeze.1: \"encodr\" is not valid; did you mean 'encoder'?",
        ),
        (
            "evaluation:\n  easy_vqa: {shots: 0}",
            "2: evaluation.easy_vqa.shots: 0 is not valid: expected a list",
        ),
        (
            "encoder:\n  image_size: 30",
            "1: encoder: image_size 30 is not divisible by patch_size 8; "
            "nearest possible image_size: 32",
        ),
        (
            "training: {}\nconnector: {kind: c_abstractor, tokens: 5}",
            "1: connector c_abstractor cannot give 5 tokens from 16 patches (32 px, patch 8); "
            "nearest reachable: 4",
        ),
        (
            "training: {}\nencoder:\n  image_size: 224\n  preset: vitl14",
            "4: encoder.preset: 'vitl14' is not valid; did you mean 'vit_l14'?",
        ),
        (
            "encoder:\n  kind: fused\n  first: {width: 64}\n  second:\n    preset: [vit_l14]",
            "5: encoder.second.preset: \"['vit_l14']\" is not valid; did you mean 'vit_l14'?",
        ),
        (
            "encoder:\n  presets: vit_l14",
            "2: unknown key 'encoder.presets'; did you mean 'preset'?",
        ),
        (
            "training: {}\nlanguage_model:\n  kind: moe\n  preset: 3b_moe\n  every: 5",
            "2: language_model: every 5 does not divide 36 layers; nearest: 4",
        ),
        (
            "training: {}\nencoder:\n  preset: vit_l14\n  image_size: 230",
            "2: encoder: image_size 230 is not divisible by patch_size 14; "
            "nearest possible image_size: 224",
        ),
        (
            "data:\n  mixture:\n    easy_vqa: most",
            '3: data.mixture.easy_vqa: "most" is not valid: expected a valid number',
        ),
        (
            "training:\n  steps: 1\n  steps: 2",
            "3: duplicate key 'training.steps', first on line 2",
        ),
        (
            "a: b: c",
            "1: not valid YAML: mapping values are not allowed here; "
            "put quotes around a value that contains ': '",
        ),
        ("a:\n\tb: 1", "2: not valid YAML: found character '\\t' that cannot start any token"),
        ("- a", "1: expected a mapping `key: value` at the top of the file"),
        ("", "1: expected a mapping `key: value` at the top of the file"),
        ("a: &x\n  b: *x", "2: *x: a value contains itself"),
    ],
)
def test_a_mistake_is_told_with_its_line(failing, text, message):
    assert failing(text).startswith(message)


def test_the_first_of_several_mistakes_is_told(failing):
    assert failing("encoder:\n  width: 0\ntrainng: {}").startswith("2: encoder.width")


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "mini.yaml").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_yaml(tmp_path / "mni.yaml")
    assert str(error.value) == f"{tmp_path / 'mni.yaml'}: no such file; did you mean 'mini.yaml'?"


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        load_yaml(tmp_path / "nowhere" / "mini.yaml")


def test_a_folder_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("-3", -3),
        ("1e-3", 0.001),
        ("3.", 3.0),
        (".5", 0.5),
        ("010", 10),
        ("true", True),
        ("null", None),
        ("~", None),
        ("on", "on"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("c_abstractor", "c_abstractor"),
        (".nan", ".nan"),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path, text, value):
    (tmp_path / "x.yaml").write_text(f"key: {text}", encoding="utf-8")
    assert load_yaml(tmp_path / "x.yaml").value == {"key": value}
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_quoted_scalars_are_strings(tmp_path):
    (tmp_path / "x.yaml").write_text("key: '16'\nother: \"null\"", encoding="utf-8")
    assert load_yaml(tmp_path / "x.yaml").value == {"key": "16", "other": "null"}


def test_lists_may_stand_for_tuples_and_whole_numbers_for_fractions(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "training: {freeze: [encoder]}\noptimizer: {clip_norm: 1}", encoding="utf-8"
    )
    recipe = load_model(tmp_path / "x.yaml", Recipe)
    assert recipe.training.freeze == ("encoder",)
    assert recipe.optimizer.clip_norm == 1.0


def test_a_preset_stands_for_its_fields_and_those_written_beside_it_win(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "encoder: {preset: vit_l14, image_size: 224}", encoding="utf-8"
    )
    encoder = load_model(tmp_path / "x.yaml", Recipe).encoder
    assert (encoder.width, encoder.layers, encoder.heads, encoder.patch_size) == (1024, 24, 16, 14)
    assert encoder.image_size == 224
    assert "preset" not in encoder.model_dump()
