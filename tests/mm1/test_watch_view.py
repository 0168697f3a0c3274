"""How a study under way looks: at any size, with many arms, before and after its verdicts."""

from __future__ import annotations

import dataclasses
import re

import pytest
from rich.cells import cell_len
from watched_views import CLAIM, FAULT, STAGE, a_view

from mm1.watch_events import Events, line
from mm1.watch_view import screen
from mm1.watching import ArmLine, Run, View


def text_of(view: View, width: int = 100, height: int = 30, page: int = 0) -> str:
    return "\n".join(one.plain.rstrip() for one in screen(view, width, height, page).lines)


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize("height", [6, 10, 24, 60])
@pytest.mark.parametrize("arms", [1, 3, 1000])
def test_it_fits_every_size(width, height, arms):
    label = "a very long label of an arm 統計的な腕 " * 5
    faults = tuple(FAULT.model_copy(update={"error": f"boom {n}\nat line"}) for n in range(30))
    view = a_view(arms, faults=faults, claims=(CLAIM,) * 20, stages=(STAGE,) * 50)
    longest = dataclasses.replace(view.arms[0], label=label)
    lines = screen(dataclasses.replace(view, arms=(longest, *view.arms[1:])), width, height).lines
    assert len(lines) == height
    assert all(cell_len(one.plain) <= width for one in lines)
    assert not any("\n" in one.plain for one in lines)


def test_a_wide_terminal_shows_all_there_is():
    text = text_of(a_view(), 200)
    assert "demo  running (process 4711 on lab7) · 6 of 12 trials" in text
    assert "elapsed 1:05 · to go about 2:10" in text
    assert re.search(r"^base +✓!>\.  66\.0 ± 1\.2$", text, re.MULTILINE)
    assert "3 done   ! 3 diverged   > 3 running   . 3 waiting" in text
    assert "1:01  step 50 of 400 · loss 0.25 · 2:55 to go · 12.3 k tokens/s · MFU 41%" in text
    assert "size=8 seed 0: train (given up, mm1 logs 77aa): boom" in text
    assert text.endswith("q leaves, the run goes on")


def test_a_narrow_terminal_still_says_step_loss_and_time_to_go():
    (told,) = [one for one in text_of(a_view(), 60).split("\n") if "step" in one]
    assert "step 50 of 400 · loss 0.25 · 2:5" in told


def test_there_is_no_verdict_before_all_seeds_are_in():
    text = text_of(a_view())
    assert "claims (no verdict before all 4 registered seeds are in)" in text
    assert "bigger-is-better  2 of 4 seeds · interim +15.1, claimed > 0" in text
    decided = dataclasses.replace(CLAIM, verdict="supported", interim=False, n=4)
    text = text_of(a_view(claims=(decided,)))
    assert "✓ supported · +15.1, claimed > 0 · registered" in text
    assert "no verdict" not in text


def test_where_seeds_are_added_the_p_path_is_shown_and_what_was_not_asked_for():
    added = dataclasses.replace(CLAIM, path=((2, 0.21), (3, 0.048)))
    arm = ArmLine("base", "base", ("done", "done", "running", "withheld"))
    text = text_of(dataclasses.replace(a_view(claims=(added,)), arms=(arm,)))
    assert "no verdict before" not in text
    assert "2 of at most 4 seeds · interim +15.1, claimed > 0 · p 0.21 → 0.048" in text
    assert "✓✓>_" in text


def test_many_arms_are_shown_page_by_page_and_it_says_so():
    view = a_view(1000)
    shown = screen(view, 100, 30)
    text = text_of(view)
    assert shown.pages > 10
    first = re.search(r"arms 1 to (\d+) of 1,000; trials of the others: (.*)", text)
    assert first is not None
    assert f"{1000 - int(first[1])} done" in first[2]
    seen = set()
    for page in range(shown.pages):
        seen |= set(re.findall(r"^(base|size=\d+) +[✓!>.]{4}", text_of(view, page=page), re.M))
    assert len(seen) == 1000
    assert text_of(view, page=10**6) == text_of(view, page=shown.pages - 1)


def test_many_seeds_are_cut_and_counted():
    arm = ArmLine("base", "base", ("done",) * 500)
    text = text_of(a_view(arms=1, seeds=tuple(range(500)))).replace("\n", " ")
    view = a_view(seeds=tuple(range(500)))
    text = text_of(dataclasses.replace(view, arms=(arm,)), 80)
    row = next(one for one in text.split("\n") if one.startswith("base"))
    left = int(row.rpartition("+")[2])
    assert row.count("✓") == 500 - left


def test_what_stands_still_is_told_and_its_clock_does_not_run():
    paused = a_view(run=Run("paused", "lab7", 1, None, 65.0, 130.0), stages=())
    assert "paused" in text_of(paused)
    assert text_of(paused.later(160.0)) == text_of(paused)
    assert "to go about 1:10" in text_of(a_view().later(160.0))
    assert "ended without a word" in text_of(a_view(run=Run("gone", "lab7", 1)))


def test_a_silent_stage_is_among_the_faults():
    silent = STAGE.model_copy(update={"silent_seconds": 500.0})
    text = text_of(a_view(stages=(silent,)))
    assert "silent for 8:20: size=32 seed 2: train, mm1 logs 3f2a91bc" in text


def test_events_tell_all_at_first_and_then_what_is_new():
    events, view = Events(), a_view()
    first = list(events.of(view))
    kinds = [event["event"] for event in first]
    assert kinds == ["run", *["trial"] * 9, "stage", "claim", "fault"]  # waiting ones are not told
    assert first[0]["remaining_seconds"] == 130.0
    assert not list(events.of(dataclasses.replace(view, taken=101.0)))
    later = STAGE.model_copy(update={"step": 75, "silent_seconds": 500.0})
    arms = (dataclasses.replace(view.arms[0], states=("done",) * 4), *view.arms[1:])
    new = list(events.of(dataclasses.replace(view, arms=arms, stages=(later,))))
    assert [one["event"] for one in new] == ["trial", "trial", "trial", "stage", "silent"]
    assert {"arm": "base", "seed": 3, "state": "done"}.items() <= new[2].items()
    assert all(one["study"] == "demo" and one["time"] > 0 for one in new)
    told = [line(one, view) for one in (*first, *new)]
    assert "failed: size=8 seed 0: train (given up, mm1 logs 77aa): boom" in told
    assert "claim bigger-is-better: 2 of 4 seeds · interim +15.1, claimed > 0" in told
