"""A disk that is full, and one that may only be read: real ones, of a small size, in memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
Remount = Callable[[str], None]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Remount]]:
    """A disk of 200 KiB: room for a few of 24 trials, and a way to mount it otherwise."""
    place = tmp_path_factory.mktemp("disk")

    def mount(options: str) -> subprocess.CompletedProcess[bytes]:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True)

    if shutil.which("mount") is None or mount("size=200k").returncode:
        pytest.skip("nobody here may mount a disk")

    def remount(options: str) -> None:
        found = mount(f"remount,{options}")
        assert found.returncode == 0, found.stderr

    yield place, remount
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def mm1(disk: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mm1", *words, "--store", str(disk / "store")],
        cwd=EXAMPLES / "shell",
        capture_output=True,
        encoding="utf-8",
        timeout=900,
    )


def finished(disk: Path) -> dict[str, bytes]:
    """Stages that are done → the record that says so."""
    found = (disk / "store/stages").glob("*/*/done.json")
    return {path.parent.name: path.read_bytes() for path in found}


def test_what_was_finished_outlives_a_full_disk(disk: tuple[Path, Remount]) -> None:
    place, remount = disk
    told = mm1(place, "run", "study.yaml")
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].startswith("mm1: the disk is full")
    assert "Traceback" not in told.stderr
    before = finished(place)
    assert len(before) < 24

    remount("size=50m")
    told = mm1(place, "run", "study.yaml")
    assert told.returncode == 0, told.stderr
    after = finished(place)
    assert len(after) == 24
    assert {one: after[one] for one in before} == before
    assert "All 24 planned trials (4 arms × 6 seeds) are there exactly once" in told.stdout
    found = json.loads(mm1(place, "fsck", "--json").stdout)["findings"]
    assert [one for one in found if one["kind"] == "damage"] == []


def test_a_store_that_may_only_be_read_is_read_and_refuses_a_run(
    disk: tuple[Path, Remount],
) -> None:
    place, remount = disk
    mm1(place, "run", "study.yaml")
    remount("ro")
    verdicts = json.loads(mm1(place, "compare", "irises-in-shell", "--json").stdout)["claims"]
    assert [one["verdict"] for one in verdicts][:2] == ["supported", "supported"]
    assert "n = 6 of 6" in mm1(place, "status").stdout
    for words in (["run", "study.yaml", "--rerun", "failed"], ["register", "study.yaml"]):
        told = mm1(place, *words)
        assert told.returncode == 2
        assert told.stderr == (
            f"mm1: cannot write to the store {place / 'store'}: Read-only file system\n"
        )
    told = mm1(place, "report", "irises-in-shell")
    assert (told.returncode, len(told.stderr.splitlines())) == (2, 1)
    assert "Read-only file system" in told.stderr
