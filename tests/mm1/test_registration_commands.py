"""`mm1 register` and `mm1 audit`: a hash to publish before the run, and the history after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mm1.cli import cli

STUDY = """\
study: sizes
question: Is it better?
base: recipe.yaml
design: {one_at_a_time: {encoder.image_size: [32, 16]}}
seeds: 2
primary_metric: easy_vqa.accuracy
claims: {better: "effect(encoder.image_size, 16 -> 32) > 0"}
"""


def call(*words: object):
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_a_registration_is_written_to_publish_and_compared_with(tmp_path: Path) -> None:
    study, store = tmp_path / "sizes.yaml", tmp_path / "store"
    (tmp_path / "recipe.yaml").write_text("{}", encoding="utf-8")
    study.write_text(STUDY, encoding="utf-8")
    assert call("register", study, "--store", store).exit_code == 0
    published = tmp_path / "sizes.registration.json"
    record = json.loads(published.read_text(encoding="utf-8"))
    assert record["seeds"] == [0, 1]
    assert record["known_stages"] == 0

    given = ("compare", "sizes", "--store", store, "--json", "--registration", published)
    notices = json.loads(call(*given).stdout)["notices"]
    assert f"registration sizes.registration.json matches: {record['hash']}" in notices

    study.write_text(STUDY.replace("Is it better?", "Why is it better?"), encoding="utf-8")
    call("register", study, "--store", store, "--out", tmp_path / "other.json")
    notices = json.loads(call(*given).stdout)["notices"]
    assert any("does NOT match" in notice for notice in notices)

    history = call("audit", "sizes", "--store", store).stdout
    assert "amended       before any result: the question was 'Is it better?'" in history
    assert json.loads(call("audit", "sizes", "--store", store, "--json").stdout)["standings"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("claims", {"better": "effect(encoder.image_size, 32 -> 16) > 0"}),
        ("seeds", [2, 3]),
        ("alpha", 0.4),
        ("arms", {}),
    ],
)
def test_a_hash_beside_other_words_does_not_match(tmp_path: Path, key: str, value: object) -> None:
    study, store = tmp_path / "sizes.yaml", tmp_path / "store"
    (tmp_path / "recipe.yaml").write_text("{}", encoding="utf-8")
    study.write_text(STUDY, encoding="utf-8")
    call("register", study, "--store", store)
    published = tmp_path / "sizes.registration.json"
    record = json.loads(published.read_text(encoding="utf-8"))
    published.write_text(json.dumps({**record, key: value}), encoding="utf-8")
    given = ("compare", "sizes", "--store", store, "--json", "--registration", published)
    (notice,) = (n for n in json.loads(call(*given).stdout)["notices"] if "registration.json" in n)
    assert notice.endswith(f"does NOT match: it says another {key} for the same hash")


def test_what_is_no_registration_is_one_line(tmp_path: Path) -> None:
    study, store = tmp_path / "sizes.yaml", tmp_path / "store"
    (tmp_path / "recipe.yaml").write_text("{}", encoding="utf-8")
    study.write_text(STUDY, encoding="utf-8")
    call("register", study, "--store", store)
    found = call("compare", "sizes", "--store", store, "--registration", study)
    assert "not a file that `mm1 register` wrote" in str(found.exception)
