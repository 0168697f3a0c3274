"""Gangs on Ray clusters of several nodes on this machine, which declare hosts and TPU slices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "on_a_cluster.py"

pytestmark = pytest.mark.slow


@pytest.fixture
def happened(tmp_path):
    def run(scenario: str, *words: object) -> dict:
        command = [sys.executable, str(PROGRAM), scenario, str(tmp_path), *map(str, words)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=1200)
        assert done.returncode == 0, done.stderr[-5000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_gang_of_two_hosts_is_on_two_nodes_and_waits_for_a_third_when_one_goes(happened):
    found = happened("hosts")
    assert found["nodes"] == 2
    assert "of the gang's 2" in found["lost"]
    assert "of 2 hosts that are alive 1 have that, 1 of them free" in found["said"][0]
    assert found["again"] == "done"


def test_a_gang_holds_a_whole_slice_and_moves_to_another_when_a_host_of_it_goes(happened):
    found = happened("slices")
    first, also = found["slices"]
    assert first == also  # both hosts of one slice
    assert found["workers"] == ["0", "1"]
    assert "of the gang's 2" in found["lost"]
    assert found["again"] == "done"
    assert found["moved"]["TPU_NAME"] != first
    (said,) = found["said"]
    assert "a TPU slice v4:2x2x2 on 2 hosts; whole ones: 0" in said
    assert found["after"] == "done"


def test_two_hosts_train_as_one_does_and_go_on_when_a_process_is_killed(happened, data_root):
    found = happened("training", data_root)
    one, two, killed = (found[name] for name in ("one", "two", "killed"))
    assert (one["state"], two["state"], killed["state"]) == ("done", "done", "done")
    assert (one["device_count"], one["processes"]) == (8, 1)
    assert (two["device_count"], two["processes"]) == (8, 2)
    assert one["rows"].keys() == two["rows"].keys()
    assert list(two["rows"].values()) == pytest.approx(list(one["rows"].values()), rel=1e-3)
    losses = [name for name in one["rows"] if name.startswith("loss ")]
    assert [two["rows"][name] for name in losses] == pytest.approx(
        [one["rows"][name] for name in losses], rel=1e-5
    )
    assert "process 2 of the gang's 2" in found["lost"]
    assert 8 < killed["reported"] < 24
    assert killed["rows"] == two["rows"]  # to the bit: the same kind of machine, the same mesh


def test_a_study_in_gangs_ends_with_what_it_has_without_a_member_killed(happened):
    found = happened("study")
    assert found["code"] == 0
    for seed in (1, 2):
        calm, killed = found[f"calm {seed}"], found[f"killed {seed}"]
        assert calm["failures"] == []
        (told,) = killed["failures"]
        assert "process 2 of the gang's 2" in told
        assert killed["first"] == 2  # at its last checkpoint
        assert (killed["loss"], killed["score"]) == (calm["loss"], calm["score"])
