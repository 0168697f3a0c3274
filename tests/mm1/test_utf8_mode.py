"""Under a locale that is not UTF-8 the same files, texts and identities are read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from ablations.errors import UserError
from mm1.utf8_mode import typed


@pytest.fixture(scope="module", params=[("en_US", "ISO-8859-1"), ("ja_JP", "EUC-JP")])
def elsewhere(request, tmp_path_factory) -> dict[str, str]:
    """Environment variables of a locale of another encoding, built here."""
    if shutil.which("localedef") is None:
        pytest.skip("no localedef here")
    language, charmap = request.param
    folder = tmp_path_factory.mktemp("locales")
    name = f"{language}.{charmap}"
    command = ["localedef", "-i", language, "-f", charmap, "--no-archive", str(folder / name)]
    subprocess.run(command, capture_output=True)
    if not (folder / name).exists():
        pytest.skip(f"this system cannot build {name}")
    without = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    return {**without, "LOCPATH": str(folder), "LC_ALL": name}


def test_a_file_is_found_and_read_as_under_utf8(elsewhere, tmp_path):
    answers = [{"answer": "café"}] * 10
    row = {"image": "é.jpg", "question": "?", "answers": answers, "answer_type": "où"}
    annotations = json.dumps([{**row, "answerable": 1}], ensure_ascii=False)
    (tmp_path / "Größe é.json").write_text(annotations, encoding="utf-8")
    said = json.dumps([{"image": "é.jpg", "answer": "café"}], ensure_ascii=False)
    (tmp_path / "said.json").write_text(said, encoding="utf-8")
    words = ["--task", "vizwiz", "--annotations", "Größe é.json", "--predictions", "said.json"]
    command = [os.fsencode(word) for word in [sys.executable, "-m", "mm1", "score", *words]]
    done = subprocess.run([*command, b"--json"], cwd=tmp_path, env=elsewhere, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accuracy"] == 100
    assert list(found["by_answer_type"]) == ["où"]
    text = subprocess.run(command, cwd=tmp_path, env=elsewhere, capture_output=True)
    assert text.returncode == 0, text.stderr
    encoding = elsewhere["LC_ALL"].partition(".")[2]
    shown = text.stdout.decode(encoding)
    assert "accuracy" in shown
    if encoding == "ISO-8859-1":
        assert "answer_type:où" in shown


def test_identities_are_those_of_utf8(elsewhere):
    code = (
        "from ablations.identity import code_fingerprint\n"
        "from mm1_jax.config.data import DataConfig\n"
        "from mm1_jax.data.sources.fingerprint import data_fingerprint\n"
        "print(data_fingerprint(DataConfig()), code_fingerprint('mm1_jax.data.templates'))"
    )
    utf8 = {**elsewhere, "PYTHONUTF8": "1"}
    here, there = (
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
        for env in (utf8, elsewhere)
    )
    assert here.stdout == there.stdout != b""


def test_what_was_typed_in_another_encoding_is_its_text(monkeypatch):
    monkeypatch.setattr("locale.getencoding", lambda: "ISO-8859-1")
    assert typed("café", "--prompt") == "café"
    assert typed(b"caf\xe9".decode("utf-8", "surrogateescape"), "--prompt") == "café"
    monkeypatch.setattr("locale.getencoding", lambda: "UTF-8")
    with pytest.raises(UserError, match="--prompt: it is no text in UTF-8"):
        typed(b"caf\xe9".decode("utf-8", "surrogateescape"), "--prompt")
