"""What is whose where several studies share a cluster."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.resources import Shape
from sweeps.offer import Node
from sweeps.sharing import SILENT_SECONDS, Board, Standing, limit, part, shares
from sweeps.staffing import Staff, staffed


def standing(usable=1.0, holds=0.0, priority=1.0, waits=False):
    return Standing(priority, holds, usable, waits)


def test_equal_studies_have_equal_shares_and_what_one_cannot_use_goes_to_the_others():
    assert shares({"a": standing(), "b": standing()}) == {"a": 0.5, "b": 0.5}
    found = shares({"a": standing(), "b": standing(usable=0.2), "c": standing()})
    assert found == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.4})
    assert shares({"a": standing(usable=0.3)}) == {"a": 0.3}


def test_priority_is_a_weight():
    found = shares({"a": standing(priority=3), "b": standing()})
    assert found == pytest.approx({"a": 0.75, "b": 0.25})
    found = shares({"a": standing(priority=9, usable=0.1), "b": standing(), "c": standing()})
    assert found == pytest.approx({"a": 0.1, "b": 0.45, "c": 0.45})


def test_all_that_is_free_may_be_taken_until_another_waits_below_its_share():
    alone = {"a": standing(holds=1.0), "b": standing(holds=0.0)}
    assert limit("a", alone) == math.inf
    waiting = alone | {"b": standing(waits=True)}
    assert limit("a", waiting) == 0.5
    assert limit("b", waiting) == math.inf  # a does not wait
    satisfied = alone | {"a": standing(holds=0.5), "b": standing(holds=0.5, waits=True)}
    assert limit("a", satisfied) == math.inf


def test_a_worker_holds_the_part_of_what_it_takes_most_of():
    nodes = [Node("n", "", {"CPU": 16.0, "GPU": 4.0}, {}), Node("m", "", {"CPU": 16.0}, {})]
    assert part(Shape(cpu=2), nodes) == 2 / 32
    assert part(Shape(gpu=1, cpu=2), nodes) == 1 / 4
    assert part(Shape(cpu=8, hosts=2), nodes) == 0.5
    assert part(Shape(gpu=1), nodes[1:]) == 1.0  # whose nodes are gone


def staff(workers, idle=(), ready=9):
    there = dict.fromkeys(idle, ("n",))
    return {"core": Staff(Shape(), ready, 99, 99.0, workers, there, part=0.25)}


def test_none_is_started_above_the_share_and_idle_ones_above_it_are_ended():
    free = {"n": {"CPU": 4.0}}
    assert len(staffed(staff(0), free).starts) == 4
    assert len(staffed(staff(0), free, share=0.5).starts) == 2
    assert len(staffed(staff(0), free, share=0.6).starts) == 3  # a share is no less than its due
    assert len(staffed(staff(0), free, share=0.01).starts) == 1
    full = {"n": {"CPU": 0.0}}
    assert staffed(staff(4, idle="abc"), full, share=0.5).ends == ["a", "b"]
    assert staffed(staff(4, idle="a"), full, share=0.5).ends == ["a"]
    assert staffed(staff(4), full, share=0.5).ends == []  # nothing that runs is ended
    assert staffed(staff(1, idle="a", ready=1), full, share=0.01).ends == []


def test_who_is_silent_is_taken_for_gone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sweeps.sharing.time.monotonic", lambda: now[0])
    board = Board()
    board.tell("a", {"holds": 1.0})
    assert board.tell("b", {"holds": 0.0}) == {"a": {"holds": 1.0}, "b": {"holds": 0.0}}
    now[0] = SILENT_SECONDS / 2
    board.tell("b", {"holds": 0.5})
    now[0] = SILENT_SECONDS + 1
    assert board.tell("c", None) == {"b": {"holds": 0.5}}


@pytest.mark.slow
def test_a_study_that_comes_second_gets_its_share_before_the_first_is_done(tmp_path):
    program = Path(__file__).parent / "sharing_a_cluster.py"
    ended = subprocess.run(
        [sys.executable, program, tmp_path], capture_output=True, encoding="utf-8", check=False
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["codes"] == {"first": 130, "second": 0}  # the first was interrupted after that
    assert found["together"]["first"] >= 3  # alone, it took what was free
    assert found["together"]["second"] == 2
    assert found["beside"] > 0  # the first went on beside it
    assert found["board"] == "gone"
