from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from public_folders import make_folder
from safetensors.numpy import load_file, save_file

from ablations.errors import UserError
from mm1_jax.weights import safetensors_folder
from mm1_jax.weights.safetensors_folder import open_folder, write_folder
from mm1_jax.weights.weights_folder import content_of, is_multimodal

INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def tell_again():
    safetensors_folder._tell_strays.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """Two tensors, 1 and 2, in the usual file."""
    write_folder(
        tmp_path / "m", {"model_type": "llama"}, {"a": np.float32([1]), "b": np.float32([2])}
    )
    return tmp_path / "m"


def put(path, **tensors):
    save_file({name: np.float32([value]) for name, value in tensors.items()}, path)


def index(folder, **where):
    told = {"metadata": {}, "weight_map": where}  # transformers reads none without both
    (folder / INDEX).write_text(json.dumps(told), encoding="utf-8")


def values(folder):
    opened = open_folder(folder)
    return {name: float(opened.read(name)[0]) for name in sorted(opened.shapes)}


@pytest.mark.parametrize("stray", ["original.safetensors", "a.safetensors", "z.safetensors"])
def test_the_usual_file_counts_and_another_beside_it_is_told_once(folder, stray, caplog):
    before = content_of(folder)
    put(folder / stray, a=0, b=0, c=0)
    assert values(folder) == values(folder) == {"a": 1, "b": 2}
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: not read: {stray}, because model.safetensors is the model's"
    ]
    assert content_of(folder) == before


def test_one_file_of_any_name_is_the_model(folder):
    (folder / "model.safetensors").rename(folder / "pytorch.safetensors")
    assert values(folder) == {"a": 1, "b": 2}


def test_several_files_of_which_none_is_stated_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    put(folder / "model-00002-of-00002.safetensors", c=3)
    for ask in (open_folder, content_of):
        with pytest.raises(UserError, match=r"00001.*00002.*none is called model\.safetensors"):
            ask(folder)


@pytest.mark.parametrize("third", ["0.safetensors", "z.safetensors"])
def test_of_a_tensor_in_several_files_the_one_that_the_index_names_counts(folder, third):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    put(folder / third, b=20, old=0)
    put(folder / "other.safetensors", a=100, b=100)
    index(folder, a="part.safetensors", b=third)
    assert values(folder) == {"a": 1, "b": 20}


def test_the_usual_file_beside_an_index_of_others_is_refused(folder):
    put(folder / "part.safetensors", a=3)
    index(folder, a="part.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors.*names other files.*move one"):
        open_folder(folder)
    index(folder, a="model.safetensors", b="model.safetensors")
    assert values(folder) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"weight_map": {"a": "mod', ":1: not JSON"),
        (b"[]", "found a list"),
        (b"null", "found a null"),
        (b'"text"', "found a text"),
        (b"3", "found a number"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b"[" * 100_000, "not JSON that can be read"),
        (b"{}", "no 'weight_map'"),
        (b'{"weight_map": []}', "no 'weight_map'"),
        (b'{"weight_map": {}}', "no 'weight_map'"),
        (b'{"weight_map": {"a": 3}}', "expected a file's name, found 3"),
        (b'{"weight_map": {"a": "../x.safetensors"}}', "outside the folder"),
        (b'{"weight_map": {"a": "/x.safetensors"}}', "outside the folder"),
        (b'{"weight_map": {"a": "none.safetensors"}}', "lacks none.safetensors"),
        (b'{"weight_map": {"a\\u0000": "x\\u0000.safetensors"}}', "lacks x"),
        (b'{"weight_map": {"c": "model.safetensors"}}', "has no c"),
    ],
)
def test_an_index_that_is_cut_or_foreign_is_named_in_one_line(folder, content, told):
    (folder / INDEX).write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        open_folder(folder)
    assert INDEX in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_config_that_is_cut_or_foreign_is_named_in_one_line(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        open_folder(folder)


def test_a_config_whose_values_are_of_another_type_is_named(folder):
    (folder / "config.json").write_text('{"architectures": 3}', encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: is not as such files are written"):
        is_multimodal(folder)


def test_tensors_that_are_cut_are_named_in_one_line(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for content in (b"", whole[:4], whole[:30], whole[:-1], b"\xff" * 64, b"{}", whole + b"more"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"model\.safetensors is cut short or damaged") as error:
            open_folder(folder)
        assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["stray", "overlay"])
def test_what_counts_is_what_transformers_reads(tmp_path, case):
    transformers = pytest.importorskip("transformers")
    folder = make_folder(tmp_path / "m", "llama")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if case == "stray":
        save_file({k: v * 0 for k, v in tensors.items()}, folder / "original.safetensors")
    if case == "overlay":
        names = sorted(tensors)
        shutil.move(file, folder / "model-00001-of-00002.safetensors")
        new = {names[0]: tensors[names[0]] + 1}
        save_file(new, folder / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
        where = dict.fromkeys(names, "model-00001-of-00002.safetensors")
        where[names[0]] = "model-00002-of-00002.safetensors"
        index(folder, **where)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    ours = open_folder(folder)
    for name in ours.shapes:
        np.testing.assert_array_equal(ours.read(name), theirs[name].numpy())
