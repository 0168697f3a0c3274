"""Sizes, switches and numbers of public configs are of their JSON type, or one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from public_folders import make_folder, make_llava

from ablations.errors import UserError
from mm1_jax.weights.public_config import check_kinds
from mm1_jax.weights.public_weights import export_folder, import_folder, inspect
from mm1_jax.weights.safetensors_folder import open_folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("llama"), "llama")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("vocab_size", [None, True, "40", 40.0, float("nan"), [40], {}, -1]),
        ("num_attention_heads", ["2", True, None]),  # shapes would be the same
        ("num_key_value_heads", ["2", False, "", [], {}]),
        ("tie_word_embeddings", ["false", 0, [], 1]),
        ("rms_norm_eps", ["1e-5", True, float("nan")]),
    ],
)
def test_a_value_of_another_type_is_one_line(llama, key, values):
    before = (llama / "config.json").read_text(encoding="utf-8")
    for value in values:
        text = json.dumps({**json.loads(before), key: value})
        (llama / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=rf"config\.json: .*{key}: expected") as told:
            open_folder(llama)
        assert "\n" not in str(told.value)
    (llama / "config.json").write_text(before, encoding="utf-8")
    assert inspect(llama).vocabulary == 40


def test_no_key_value_heads_are_not_as_many_as_heads():
    check_kinds({"num_key_value_heads": None, "head_dim": None, "tie_word_embeddings": None})
    check_kinds({"num_attention_heads": 0, "layer_norm_eps": 1, "hidden_act": 3})


def test_parts_of_a_whole_model_are_looked_at_too(tmp_path):
    folder = make_llava(tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for change in (
        {"vision_config": {**config["vision_config"], "num_attention_heads": "4"}},
        {"text_config": {**config["text_config"], "rope_parameters": {"rope_theta": "1e4"}}},
        {"image_token_index": True},
    ):
        text = json.dumps({**config, **change})
        (folder / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"config\.json: is not as such files are written"):
            open_folder(folder)


@pytest.mark.parametrize(
    "name", ["model.safetensors.index.json", "preprocessor_config.json", "tokenizer_config.json"]
)
def test_a_link_that_leads_nowhere_is_no_missing_file(name, tmp_path):
    from mm1_jax.evaluation.imported_model import imported_words
    from mm1_jax.weights.multimodal_weights import recognise_multimodal

    folder = make_llava(tmp_path)
    (folder / name).symlink_to("gone")
    with pytest.raises(UserError, match=f"{name}: is a link that leads nowhere"):
        imported_words(folder, recognise_multimodal(open_folder(folder)).config)


@pytest.mark.parametrize(
    "change", [{"dtypes": None}, {"dtypes": {"a": "F64"}}, {"dtypes": {"a": []}}, {"family": 3}]
)
def test_what_an_import_wrote_and_somebody_changed_is_one_line(change, llama, tmp_path):
    import_folder(llama, tmp_path / "ours")
    source = tmp_path / "ours/source.json"
    stated = json.loads(source.read_text(encoding="utf-8"))
    source.write_text(json.dumps({**stated, **change}), encoding="utf-8")
    with pytest.raises(UserError, match=r"source\.json: is not as such files are written"):
        export_folder(tmp_path / "ours", tmp_path / "theirs")
