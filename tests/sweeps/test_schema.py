"""A store that another version of mm1 wrote is refused in one line, and left as it is.

`schema_1` was written by the last version of that schema: two finished stages of a study.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations.errors import UserError
from mm1.cli import cli
from sweeps.records import SCHEMA_VERSION
from sweeps.store import Store

SCHEMA_1 = Path(__file__).parent / "schema_1"


@pytest.mark.parametrize(
    "words",
    [["status"], ["compare", "old"], ["report", "old"], ["fsck"], ["fsck", "--repair"], ["gc"]],
    ids=" ".join,
)
def test_every_command_refuses_an_earlier_schema_in_one_line(tmp_path, words):
    root = tmp_path / "store"
    shutil.copytree(SCHEMA_1, root)
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    ran = CliRunner().invoke(cli, [*words, "--store", str(root)])
    assert isinstance(ran.exception, UserError)
    told = str(ran.exception)
    assert f"schema 1, this one reads {SCHEMA_VERSION}" in told
    assert "run anew in another --store" in told
    assert "\n" not in told
    assert {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} == before


def test_a_later_schema_is_refused_too(tmp_path):
    shutil.copytree(SCHEMA_1, tmp_path / "store")
    place = tmp_path / "store" / "format.json"
    record = json.loads(place.read_text(encoding="utf-8"))
    record["schema_version"] = SCHEMA_VERSION + 1
    place.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match="newer version of mm1"):
        Store(tmp_path / "store")


def test_every_record_of_a_store_has_its_schema_version():
    records = [*SCHEMA_1.rglob("*.json")]
    kinds = {"format.json", "done.json", "plan.json", "registration.json", "latest.json"}
    sealed = [path for path in records if path.name in kinds]
    assert {path.name for path in sealed} == kinds
    assert all(
        json.loads(path.read_text(encoding="utf-8"))["schema_version"] == 1 for path in sealed
    )
