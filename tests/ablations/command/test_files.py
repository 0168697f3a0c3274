"""What decides a result beside the config, as fingerprints of files."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from ablations import content_hash, identity
from ablations.command.files import code_files, data_fingerprint
from ablations.errors import UserError
from ablations.workload import Code


def code_fingerprint(folder, globs):
    return identity.fingerprint_of(Code(folder=str(folder), files=tuple(globs)))


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def tracked(folder):
    subprocess.run(["git", "-C", str(folder), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)


def names(folder, globs=()):
    return [path.relative_to(folder).as_posix() for path in code_files(folder, globs)]


def test_what_git_tracks_without_studies_bases_and_documentation(tmp_path):
    put(
        tmp_path,
        {
            "train.py": "",
            "src/net.py": "",
            "conf/app.yaml": "lr: 1\n",
            "README.md": "",
            "studies/one.yaml": "study: one\nbase: ../bases/one.yaml   # what is varied\n",
            "bases/one.yaml": "lr: 1\n",
            "bases/unused.yaml": "lr: 2\n",
        },
    )
    tracked(tmp_path)
    put(tmp_path, {"new.py": "", "two.yaml": 'study: two\nbase: "bases/unused.yaml"\n'})
    assert names(tmp_path) == ["conf/app.yaml", "src/net.py", "train.py"]
    (tmp_path / "src/net.py").unlink()  # deleted, and git not told
    assert names(tmp_path) == ["conf/app.yaml", "train.py"]
    assert names(tmp_path / "conf") == ["app.yaml"]


def test_globs_and_folders(tmp_path):
    put(tmp_path, {"a.py": "", "src/b.py": "", "src/c/d.py": "", "src/__pycache__/b.pyc": ""})
    assert names(tmp_path, ["src"]) == ["src/b.py", "src/c/d.py"]
    assert names(tmp_path, ["*.py", "src/*.py"]) == ["a.py", "src/b.py"]
    assert names(tmp_path, ["**/*.py"]) == ["a.py", "src/b.py", "src/c/d.py"]
    with pytest.raises(UserError, match=r"the folder of the study, .*gone, is not on this machine"):
        names(tmp_path / "gone")
    with pytest.raises(UserError, match=r"'scr/\*\.py' matches no file"):
        names(tmp_path, ["scr/*.py"])


def test_code_counts_by_what_it_does(tmp_path):
    put(tmp_path, {"a.py": "x = 1  # one\n", "b.sh": "echo 1\n"})
    before = code_fingerprint(tmp_path, ["*"])
    put(tmp_path, {"a.py": '"""Sets x."""\n\nx  =  1\n'})
    assert code_fingerprint(tmp_path, ["*"]) == before
    put(tmp_path, {"a.py": "x = 2\n"})
    changed = code_fingerprint(tmp_path, ["*"])
    assert changed != before
    put(tmp_path, {"b.sh": "echo 1 \n"})
    assert code_fingerprint(tmp_path, ["*"]) not in (before, changed)


@pytest.mark.parametrize("content", [b"print 'Python 2", b"x = '\xff'\n", b"def f(:\n  (\n"])
def test_a_file_that_is_no_python_counts_by_its_bytes(tmp_path, content):
    (tmp_path / "a.py").write_bytes(content)
    before = code_fingerprint(tmp_path, ["a.py"])
    (tmp_path / "a.py").write_bytes(content + b" ")
    assert code_fingerprint(tmp_path, ["a.py"]) != before


def test_data_is_its_content_whatever_it_is_called_on_the_way(tmp_path):
    put(tmp_path, {"here/set/a.txt": "1", "here/set/b/c.txt": "2", "there/set/a.txt": "1"})
    put(tmp_path, {"there/set/b/c.txt": "2"})
    here = data_fingerprint(tmp_path, ["here/set"])
    assert data_fingerprint(tmp_path, ["there/set"]) == here
    assert data_fingerprint(tmp_path / "here", ["set"]) == here
    put(tmp_path, {"there/set/b/c.txt": "3"})
    assert data_fingerprint(tmp_path, ["there/set"]) != here
    with pytest.raises(UserError, match="'nowhere': no such file or folder"):
        data_fingerprint(tmp_path, ["nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="'empty' holds no file"):
        data_fingerprint(tmp_path, ["empty"])


def test_a_large_file_is_read_once_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content_hash, "KEPT_BYTES", 3)
    file = tmp_path / "large"
    file.write_bytes(b"12345")
    old = time.time() - 100
    os.utime(file, (old, old))
    reads, real = [], content_hash._read
    monkeypatch.setattr(content_hash, "_read", lambda path: reads.append(path) or real(path))

    def known():
        content_hash._hash.cache_clear()  # as another process would begin
        return data_fingerprint(tmp_path, ["large"])

    first = known()
    assert known() == first
    assert len(reads) == 1
    file.write_bytes(b"123456")
    assert known() != first
    assert known() == known() != first
    assert len(reads) == 4  # it changed just now, so it may change again unseen


def test_a_cache_that_cannot_be_written_is_only_slower(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(content_hash, "KEPT_BYTES", 0)
    put(tmp_path, {"data": "1"})
    assert data_fingerprint(tmp_path, ["data"])
