from __future__ import annotations

import ast
import sqlite3
from pathlib import Path

import pytest

from ablations import source_facts
from ablations.errors import UserError
from ablations.source_facts import Import, SourceFacts

SOURCE = """
import json, os.path
from . import layers
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import never
def run():
    from ..data import reading as read
"""
IMPORTS = {
    Import("json", 0, None),
    Import("os.path", 0, None),
    Import(None, 1, ("layers",)),
    Import("typing", 0, ("TYPE_CHECKING",)),
    Import("data", 2, ("reading",)),
}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The file of an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/mm1/sources.sqlite"


@pytest.fixture
def anew(cache, tmp_path, monkeypatch):
    """`anew(source)`: the facts of a file, as a new process finds them."""
    monkeypatch.setattr(source_facts, "_new", [])

    def facts(source: str) -> SourceFacts:
        for cached in (source_facts.source_facts, source_facts._kept, source_facts._reader):
            cached.cache_clear()
        path = tmp_path / "trainer.py"
        path.write_text(source, encoding="utf-8")
        found = source_facts.source_facts(path)
        source_facts.keep()
        return found

    yield facts
    source_facts._kept.cache_clear()


def test_what_was_kept_is_what_was_found_and_nothing_is_read_again(anew, monkeypatch):
    found = anew(SOURCE)
    assert set(found.imports) == IMPORTS
    assert found.decides
    other = anew('DECIDES_NO_RESULT = "counts"\n' + SOURCE)
    assert not other.decides
    monkeypatch.setattr(ast, "parse", lambda source: pytest.fail("it was read again"))
    monkeypatch.setattr(source_facts, "canonical_source", ast.parse)
    assert anew(SOURCE) == found
    assert anew('DECIDES_NO_RESULT = "counts"\n' + SOURCE) == other


def test_the_newest_are_kept(cache, anew, monkeypatch):
    monkeypatch.setattr(source_facts, "_MOST_KEPT", 2)
    for number in range(4):
        anew(f"x = {number}\n")
    monkeypatch.setattr(source_facts, "canonical_source", lambda source: "read again")
    again = {number: anew(f"x = {number}\n").does for number in (2, 3, 0)}
    assert len({*again.values()}) == 3
    with sqlite3.connect(cache) as table:
        assert table.execute("select count(*) from sources").fetchone() == (2,)


def test_a_changed_source_is_read(anew):
    found = anew(SOURCE)
    assert anew(SOURCE + "# why\n").does == found.does
    assert anew(SOURCE.replace("json, ", "")).does != found.does
    assert Import("json", 0, None) not in anew(SOURCE.replace("json, ", "")).imports


def test_what_other_code_found_out_is_not_taken(anew, monkeypatch, tmp_path):
    found = anew(SOURCE)
    reader = tmp_path / "source_code.py"
    reader.write_text("another", encoding="utf-8")
    monkeypatch.setattr(source_facts.source_code, "__file__", str(reader))
    monkeypatch.setattr(source_facts, "canonical_source", lambda source: "another")
    assert anew(SOURCE).does != found.does


@pytest.mark.parametrize("damage", ["garbage", "folder", "locked away"])
def test_without_a_cache_it_is_only_slower(cache, anew, damage, monkeypatch, tmp_path):
    found = anew(SOURCE)
    if damage == "garbage":
        cache.write_bytes(b"no database" * 1000)
    elif damage == "folder":
        cache.unlink()
        cache.mkdir()
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert anew(SOURCE) == found


def test_mistakes_are_told_each_time_and_not_kept(cache, anew):
    for _ in range(2):
        with pytest.raises(UserError, match="not valid Python"):
            anew("def run(:\n")
    anew(SOURCE)
    with sqlite3.connect(cache) as table:
        assert table.execute("select count(*) from sources").fetchone() == (1,)
