"""`mm1 logs` and `mm1 status` of stages that failed, hang, printed, or are done."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "sweeps"))
from noop_stage import a_plan

from ablations.errors import UserError
from mm1.cli import cli
from mm1.status_text import show, summaries
from sweeps import leases
from sweeps.store import Store
from sweeps.worker import execute
from sweeps.worker_output import PRINTED, STACK

PLAN = a_plan("broken", {"base": {}, "bad": {"fails": 5}}, seeds=(1, 2))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.register(PLAN)
    return store


def run(store, stage_id):
    return execute(store, PLAN.stages[stage_id], Path(), threading.Event(), "revision")


def trial(arm, seed):
    return next(one for one in PLAN.trials if (one.arm, one.seed) == (arm, seed))


def logs(store, *words):
    result = CliRunner().invoke(cli, ["logs", *words, "--store", store.root])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_latest_attempt_of_a_trial_is_shown_by_arm_and_by_identity(store):
    stage_id = trial("bad", 1).stages["multimodal"]
    for _ in range(2):
        run(store, stage_id)
    for words in (["bad", "1"], ["bad", "seed", "1"], ["bad seed 1"], [stage_id[:8]], []):
        text = logs(store, *words)
        assert "the latest of its 2 attempts failed at" in text
        assert "ValueError: told to fail (2)" in text
        assert "Traceback (most recent call last)" in text
        assert "told to fail (1)" not in text
    assert "bad seed 1: evaluate" in logs(store, "bad", "1")
    assert "not started" in logs(store, "bad", "2")


def test_what_a_stage_printed_is_shown_with_its_failure_and_with_its_result(store):
    stage_id = trial("bad", 1).stages["multimodal"]
    run(store, stage_id)
    printed = store.scratch(stage_id) / PRINTED
    printed.write_text("".join(f"line {n}\n" for n in range(100)), encoding="utf-8")
    text = logs(store, stage_id[:8], "--lines", "3")
    assert "what it printed, the last 3 of 100 lines" in text
    assert text.rstrip().endswith("line 97\nline 98\nline 99")


def test_a_running_stage_shows_its_process_its_last_report_and_where_it_is(store):
    stage_id = trial("base", 1).stages["multimodal"]
    lease = leases.acquire(store.objects, store.lease_folder(stage_id))
    try:
        folder = store.scratch(stage_id)
        folder.mkdir(parents=True)
        (folder / "reports.jsonl").write_text('{"step": 25, "time": 1.0, "loss": 2.5}\n', "utf-8")
        (folder / STACK).write_text('  File "mine.py", line 7 in wait_for_ever\n', "utf-8")
        text = logs(store, "base", "1")
        assert "running for" in text
        assert "step 25 loss 2.5" in text
        assert "line 7 in wait_for_ever" in text
        (one,) = summaries("broken", store.root)[0]["under_way"]
        assert (one["stage"], one["step"], one["silent_seconds"]) == (stage_id, 25, None)
    finally:
        lease.release()


def test_status_says_which_stage_is_silent_for_how_long_and_how_to_look(store, capsys):
    stage_id = trial("base", 1).stages["multimodal"]
    lease = leases.acquire(store.objects, store.lease_folder(stage_id))
    try:
        folder = store.lease_folder(stage_id)
        key = f"{folder}/{store.objects.children(folder)[-1]}"
        record = json.loads(store.objects.read(key))
        record["acquired_at"] -= 600
        store.objects.write(key, json.dumps(record).encode())
        show(summaries("broken", store.root), store.root)
    finally:
        lease.release()
    text = capsys.readouterr().out
    assert "no report for 10 min" in text
    assert f"mm1 logs {stage_id[:8]} --store {store.root}" in text


def test_status_shows_mean_spread_and_number_of_seeds(store, capsys):
    for one in PLAN.trials:
        if one.arm == "base":
            run(store, one.stages["multimodal"])
            run(store, one.stages["easy_vqa"])
    (figures,) = summaries("broken", store.root)
    assert figures["scores"] == {
        "base": {"mean": 51.5, "sd": pytest.approx(0.5**0.5), "n": 2, "diverged": []}
    }
    json.dumps(figures, allow_nan=False)
    show([figures], store.root)
    text = capsys.readouterr().out
    assert "easy_vqa.accuracy, mean ± SD over seeds" in text
    assert "base  51.5" in text
    assert "(n = 2 of 2)" in text


def test_what_is_not_there_is_told_in_one_line(store):
    with pytest.raises(UserError, match=r"no arm or stage 'basee'.*base"):
        logs(store, "basee")
    with pytest.raises(UserError, match="arm 'base' has no seed 7; it has 1, 2"):
        logs(store, "base", "7")
    other = a_plan("other", {"base": {"steps": 1}}, seeds=(1,))
    store.register(other)
    with pytest.raises(UserError, match=r"several studies.*broken, other"):
        logs(store, "base", "1")
    assert "not started" in logs(store, "base", "1", "--study", "other")


def test_a_store_where_all_is_well_says_so(store):
    assert "nothing has failed and nothing is under way" in logs(store)
