"""Nothing secret and nothing that a terminal obeys is shown."""

from __future__ import annotations

import pytest

from ablations.shown_text import secrets_of, shown_url, visible, without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:hunter2@host:5000/a", "https://user:***@host:5000/a"),
        ("http://user:p@ss@host/a", "http://user:***@host/a"),
        ("postgresql://user:p/w?x@host/db", "postgresql://user:***@host/db"),
        ("https://ghp_token@host/a.tar", "https://***@host/a.tar"),
        ("https://:only@host/a.tar", "https://:***@host/a.tar"),
        ("sftp://reader@host/a.tar", "sftp://reader@host/a.tar"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("https://host/a.tar?sv=1&sig=abc%3D", "https://host/a.tar?sv=***&sig=***"),
        ("https://host/a#access_token=abc", "https://host/a#access_token=***"),
        ("s3://bucket/shard-{0..9}.tar", "s3://bucket/shard-{0..9}.tar"),
        ("hf://datasets/user/name@main/a.tar", "hf://datasets/user/name@main/a.tar"),
        ("https://host:8080/plain/a.tar", "https://host:8080/plain/a.tar"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("data/a?b=c.tar", "data/a?b=c.tar"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url, shown):
    assert shown_url(url) == shown
    assert shown_url(shown) == shown
    assert without_secrets(f"cannot read {url} today") == f"cannot read {shown} today"


def test_secrets_are_hidden_in_any_text(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2-tracking")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "nothing secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:planted%21secret@host")
    told = without_secrets(
        "hunter2-tracking wJalrXUtnFEMI planted!secret planted%21secret nothing secret "
        "Max retries exceeded with url: /api/2.0/x?page=1&X-Amz-Signature=abcdef (caused by …)"
    )
    assert told == (
        "*** *** *** *** nothing secret "
        "Max retries exceeded with url: /api/2.0/x?page=1&X-Amz-Signature=*** (caused by …)"
    )


def test_secrets_of_an_address_are_known_as_written_and_decoded():
    assert secrets_of("http://me:a%40b@host") == ["a%40b", "a@b"]
    assert secrets_of("http://token@host") == ["token"]
    assert secrets_of("sftp://reader@host") == []
    assert secrets_of("/a/folder") == []


def test_what_a_terminal_obeys_is_made_visible():
    assert visible("a\x1b[2Jb\rc\x9b31m\u202egpj.exe\ud800") == (
        r"a\x1b[2Jb\x0dc\x9b31m\u202egpj.exe\ud800"
    )
    plain = "größer 🐶\n\tשלום\u200f"
    assert visible(plain) == plain
