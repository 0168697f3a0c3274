from __future__ import annotations

from pathlib import Path

from ablations.places import local_path


def test_a_path_that_exists_is_that_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/store") == Path("/home/me/store")
    assert local_path("~nobody-of-that-name/store") == tmp_path / "~nobody-of-that-name" / "store"
    (tmp_path / "~").mkdir()
    assert local_path("~") == tmp_path / "~"
    assert local_path("[a]{b}*#%20") == tmp_path / "[a]{b}*#%20"
