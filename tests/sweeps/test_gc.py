"""mm1 gc: tells what nobody needs and how large it is, removes only that, and only when told to."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from noop_stage import a_plan

from ablations.errors import UserError
from ablations.stage import ResultRow
from mm1.cli import cli
from sweeps import fsck, gc, leases
from sweeps.store import Store

PLAN = a_plan("kept", {"base": {}}, seeds=(1,))
DONE, OPEN = PLAN.stages
OTHER = a_plan("gone", {"other": {}}, seeds=(1,))
GONE, UNFINISHED = OTHER.stages


def finish(store: Store, plan, stage_id: str) -> None:
    attempt = store.begin(plan.stages[stage_id])
    (attempt.output / "checkpoint").write_bytes(b"x" * 10_000)
    store.finish(attempt, [ResultRow("training", "loss", 1.0, step=1)], {"seconds": 1.5})


def fill(root: Path) -> Store:
    """A study that has run in part, and what is left of another whose registration is gone."""
    store = Store(root)
    store.register(PLAN)
    finish(store, PLAN, DONE)
    store.fail(store.begin(PLAN.stages[OPEN]), {"error": "ValueError: no", "traceback": ""})
    store.register(OTHER)
    finish(store, OTHER, GONE)
    store.begin(OTHER.stages[UNFINISHED])
    for stage in (OPEN, UNFINISHED):
        store.scratch(stage).mkdir(parents=True)
        (store.scratch(stage) / "step").write_text("7", encoding="utf-8")
    (root / "ray-logs" / "gone").mkdir(parents=True)
    (root / "ray-logs" / "gone" / "raylet.out").write_text("it ended", encoding="utf-8")
    shutil.rmtree(root / "studies" / "gone")
    return store


def everything(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def told(store: Store) -> set[str]:
    return {f"{one.kind} {one.place}" for one in gc.rubbish(store, 0.0).rubbish}


def gc_command(*words: str) -> str:
    ran = CliRunner().invoke(cli, ["gc", *words])
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_what_no_study_needs_is_told_with_its_size_and_left_there(tmp_path):
    store = fill(tmp_path)
    (attempt,) = (tmp_path / f"stages/{UNFINISHED[:2]}/{UNFINISHED}").iterdir()
    before = everything(tmp_path)
    assert told(store) == {
        f"result stages/{GONE[:2]}/{GONE}",
        f"attempt stages/{UNFINISHED[:2]}/{UNFINISHED}/{attempt.name}",
        f"scratch scratch/{UNFINISHED}",
        "log files ray-logs/gone",
    }
    sizes = {one.kind: one.size_bytes for one in gc.rubbish(store, 0.0).rubbish}
    assert 10_000 <= sizes["result"] < 100_000
    printed = gc_command("--store", str(tmp_path), "--older-than", "0")
    assert "4 things" in printed
    assert "mm1 gc --delete removes them" in printed
    assert everything(tmp_path) == before


def test_deleting_leaves_all_that_the_study_has(tmp_path):
    store = fill(tmp_path)
    kept = {
        name: data
        for name, data in everything(tmp_path).items()
        if GONE not in name and UNFINISHED not in name and not name.startswith("ray-logs")
    }
    assert "removed 4 things" in gc_command(
        "--store", str(tmp_path), "--older-than", "0", "--delete"
    )
    left = everything(tmp_path)
    assert {name: left.get(name) for name in kept} == kept
    assert not any(GONE in name for name in left)
    assert told(Store(tmp_path)) == set()
    assert store.is_done(DONE)
    assert store.failures(OPEN)
    assert (store.scratch(OPEN) / "step").exists()
    assert not [one for one in fsck.examine(Store(tmp_path)) if one.kind == "damage"]


def test_what_is_young_is_kept(tmp_path):
    store = fill(tmp_path)
    assert gc.rubbish(store).rubbish == ()
    for path in (tmp_path / "ray-logs").rglob("*"):
        os.utime(path, (time.time() - 40 * 86_400,) * 2)
    assert [one.kind for one in gc.rubbish(store).rubbish] == ["log files"]


def test_what_somebody_works_on_is_kept(tmp_path):
    store = fill(tmp_path)
    held = [leases.acquire(store.objects, store.lease_folder(one)) for one in (GONE, UNFINISHED)]
    found = gc.rubbish(store, 0.0)
    assert {one.kind for one in found.rubbish} == {"result", "log files"}
    assert [one.kind for one in gc.remove(store, found)] == ["log files"]
    assert store.is_done(GONE)
    for lease in held:
        lease.release()


def test_a_study_that_is_registered_meanwhile_keeps_its_results(tmp_path):
    store = fill(tmp_path)
    found = gc.rubbish(store, 0.0)
    store.register(OTHER)
    assert "result" not in {one.kind for one in gc.remove(store, found)}
    assert store.is_done(GONE)
    assert store.scratch(UNFINISHED).exists()


def test_nothing_is_judged_where_a_registration_cannot_be_read(tmp_path):
    store = fill(tmp_path)
    (plan,) = tmp_path.glob("studies/kept/*/plan.json")
    plan.write_bytes(plan.read_bytes()[:-10])
    found = gc.rubbish(store, 0.0)
    assert not {"result", "scratch"} & {one.kind for one in found.rubbish}
    assert "left alone" in found.left_alone
    assert "plan.json is damaged" in gc_command("--store", str(tmp_path), "--older-than", "0")


def test_what_was_set_aside_as_damaged_goes_too(tmp_path):
    store = fill(tmp_path)
    store.set_aside(GONE)
    assert any(one.startswith(f"set aside damaged/{GONE}/") for one in told(store))
    printed = json.loads(gc_command("--store", str(tmp_path), "--older-than", "0", "--json"))
    assert {one["kind"] for one in printed["found"]} >= {"set aside", "log files"}


def test_no_store_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no store at"):
        gc.rubbish(Store(tmp_path / "nowhere"))


def test_code_that_was_sent_to_kubernetes_is_kept_while_a_study_is_run(tmp_path):
    store = fill(tmp_path)
    store.objects.write("kuberay/code-0123.zip", b"x")
    lease = leases.acquire(store.objects, leases.study_lease("kept"))
    assert lease is not None
    assert not {one for one in told(store) if one.startswith("code")}
    lease.remove()
    assert {one for one in told(store) if one.startswith("code")} == {"code kuberay/code-0123.zip"}


def test_the_size_of_what_a_bucket_holds_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = Store("memory://sizes/store")
    store.register(PLAN)
    store.objects.write("kuberay/code-0123.zip", b"x" * 1234)
    (found,) = gc.rubbish(store, 0.0).rubbish
    assert (found.place, found.size_bytes) == ("kuberay/code-0123.zip", 1234)
