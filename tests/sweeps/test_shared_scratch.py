"""Stages on a store in a bucket: another machine goes on where the first has stopped."""

from __future__ import annotations

import threading
import uuid

import pytest
from noop_stage import a_stage

from sweeps.shared_scratch import SharedScratch
from sweeps.store import Store
from sweeps.worker import execute


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(name)`: from now on this is another machine, with a cache of its own; its store."""
    root = f"memory://{uuid.uuid4().hex}"

    def be(name: str) -> Store:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Store(root)

    return be


def kept(store, stage):
    return store.objects.children(f"scratch/{stage.id}")


def run(store, stage, tmp_path, *, stopped=False):
    stop = threading.Event()
    if stopped:
        stop.set()
    return execute(store, stage, tmp_path, stop, "revision").state


def test_a_stage_that_is_stopped_goes_on_elsewhere_and_leaves_nothing(machine, tmp_path):
    stage = a_stage("train", {"steps": 3}, 1)
    first = machine("a")
    assert run(first, stage, tmp_path, stopped=True) == "stopped"
    assert run(first, stage, tmp_path, stopped=True) == "stopped"
    second = machine("b")
    assert not second.scratch(stage.id).exists()
    assert run(second, stage, tmp_path) == "done"
    folder = second.stage_folder(stage.id)
    assert (folder / "first_step").read_text(encoding="utf-8") == "2"
    assert kept(second, stage) == []


def test_a_failed_attempt_keeps_its_checkpoint_too(machine, tmp_path):
    stage = a_stage("train", {"steps": 3, "fails": 1}, 1)
    assert run(machine("a"), stage, tmp_path) == "failed"
    second = machine("b")
    assert run(second, stage, tmp_path) == "done"  # it knows that it has failed once


def test_what_this_machine_has_done_since_is_not_undone(machine, tmp_path):
    store = machine("a")
    scratch = SharedScratch(store.objects, "1" * 64, tmp_path / "scratch")
    scratch.pull()
    (tmp_path / "scratch").mkdir()
    state = tmp_path / "scratch" / "state"
    state.write_text("1", encoding="utf-8")
    assert scratch.push()
    assert not scratch.push()  # nothing new
    state.write_text("2, not pushed", encoding="utf-8")
    scratch.pull()
    assert state.read_text(encoding="utf-8") == "2, not pushed"
    other = SharedScratch(machine("b").objects, "1" * 64, tmp_path / "other")
    other.pull()
    (tmp_path / "other" / "state").write_text("3", encoding="utf-8")
    assert other.push()
    scratch.pull()
    assert state.read_text(encoding="utf-8") == "3"
    assert len(kept_names(store)) == 2  # a manifest and one content


def kept_names(store):
    return store.objects.children(f"scratch/{'1' * 64}")


def test_contents_that_are_damaged_are_not_used(machine, tmp_path, capsys):
    store = machine("a")
    scratch = SharedScratch(store.objects, "1" * 64, tmp_path / "scratch")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "state").write_text("1", encoding="utf-8")
    scratch.push()
    (content,) = [name for name in kept_names(store) if name != "manifest.json"]
    store.objects.write(f"scratch/{'1' * 64}/{content}", b"something else")
    other = SharedScratch(store.objects, "1" * 64, tmp_path / "other")
    other.pull()
    assert not (tmp_path / "other").exists()
    assert "cannot be used (state is not what was written); begun anew" in capsys.readouterr().out


def test_a_folder_in_which_files_come_and_go_is_pushed_as_of_one_moment(machine, tmp_path):
    store, folder = machine("a"), tmp_path / "scratch"
    scratch, ended = SharedScratch(store.objects, "1" * 64, folder), threading.Event()

    begun = threading.Event()

    def checkpoints():
        """Each has two files that belong together, and the one before goes when it is there."""
        number = 0
        while not ended.is_set():
            number += 1
            new = folder / f"{number}.new"
            new.mkdir(parents=True)
            for name in ("weights", "notes"):
                (new / name).write_text(str(number), encoding="utf-8")
            new.rename(folder / str(number))
            begun.set()
            if number > 1:
                for name in ("weights", "notes"):
                    (folder / str(number - 1) / name).unlink()
                (folder / str(number - 1)).rmdir()
            ended.wait(0.005)  # else it never stands still

    thread = threading.Thread(target=checkpoints)
    thread.start()
    assert begun.wait(60)
    try:
        pushed = 0
        for _ in range(2_000):
            pushed += scratch.push()
            if pushed == 5:
                break
            if pushed:
                other = SharedScratch(store.objects, "1" * 64, tmp_path / f"other-{pushed}")
                other.pull()
                whole = [p for p in other._folder.iterdir() if p.is_dir() and ".new" not in p.name]
                assert any({f.name for f in one.iterdir()} == {"weights", "notes"} for one in whole)
    finally:
        ended.set()
        thread.join()
    assert pushed
