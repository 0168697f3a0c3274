"""mm1 fsck: every damage to every file of a store is found, and told with what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from noop_stage import a_plan

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.stage import ResultRow
from sweeps import fsck, leases
from sweeps.store import Store

PLAN = a_plan("tiny", {"base": {}}, seeds=(1,))
DONE, OPEN = PLAN.stages


def fill(root: Path, plan: Plan = PLAN) -> Store:
    """A study of which one stage is done after a failure, and one is under way."""
    store = Store(root)
    store.register(plan)
    leases.acquire(store.objects, "studies/tiny/lease").release()
    store.fail(store.begin(plan.stages[DONE]), {"error": "ValueError: no", "traceback": ""})
    attempt = store.begin(plan.stages[DONE])
    (attempt.output / "config.json").write_text('{"a": 1}', encoding="utf-8")
    rows = [ResultRow("training", "loss", 1.0, step=1)]
    store.finish(attempt, rows, {"seconds": 1.5})
    scratch = store.scratch(OPEN)
    scratch.mkdir(parents=True)
    (scratch / "reports.jsonl").write_text('{"step": 1, "time": 1, "loss": 1}\n', encoding="utf-8")
    return store


def damage_found(root: Path) -> list[fsck.Finding]:
    return [one for one in fsck.examine(Store(root)) if one.kind == "damage"]


def test_a_store_in_order_has_no_findings(tmp_path):
    fill(tmp_path)
    assert fsck.examine(Store(tmp_path)) == []


def flip(path: Path) -> None:
    """One character becomes another, and what it is in stays what it was."""
    data = bytearray(path.read_bytes())
    places = [i for i, byte in enumerate(data) if chr(byte).isalnum() and byte < 128]
    place = places[len(places) // 2]
    data[place] = ord("1") if data[place] != ord("1") else ord("2")
    path.write_bytes(data)


def garble(path: Path) -> None:
    path.write_bytes(b"\xff\x00" + path.read_bytes()[::-1])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_link(path: Path) -> None:
    other = path.parents[0] / f"{path.name}.elsewhere"
    path.rename(other)
    path.symlink_to(other)


def newer(path: Path) -> None:
    path.write_text('{"schema_version": 99}', encoding="utf-8")


def a_list(path: Path) -> None:
    path.write_text("[1, 2]", encoding="utf-8")


def nested(path: Path) -> None:
    path.write_text("[" * 100_000, encoding="utf-8")


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def lead_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


DAMAGES = (
    become_a_pipe,
    lead_to_itself,
    Path.unlink,
    flip,
    garble,
    truncate,
    empty,
    zero,
    become_a_folder,
    newer,
    a_list,
    nested,
)
RECORDS = (
    "format.json",
    "studies/tiny/latest.json",
    "studies/tiny/*/plan.json",
    "studies/tiny/*/registration.json",
    "stages/*/*/done.json",
    "stages/*/*/*/stage.json",
    "stages/*/*/*/execution.json",
    "stages/*/*/*/results.parquet",
    "stages/*/*/*/output/config.json",
)


@pytest.mark.parametrize("record", RECORDS)
def test_every_damage_to_every_record_is_found_and_told_in_one_line(tmp_path, record):
    fill(tmp_path / "sound")
    for damage in DAMAGES:
        root = tmp_path / damage.__name__
        shutil.copytree(tmp_path / "sound", root)
        (path,) = root.glob(record)
        damage(path)
        if record == "format.json" and damage is newer:
            with pytest.raises(UserError, match="newer version"):
                Store(root)
            continue
        found = damage_found(root)
        assert found, damage.__name__
        for one in found:
            assert one.remedy
            assert "\n" not in one.what
            assert len(one.what) < 400
        if record != "stages/*/*/done.json" or damage is not Path.unlink:
            assert any(str(path).startswith(f"{root}/{one.place}") for one in found)


@pytest.mark.parametrize(
    "damage", [become_a_pipe, flip, garble, empty, become_a_folder, Path.unlink]
)
@pytest.mark.parametrize("record", [*RECORDS, "stages/*/*/failures/*.json"])
def test_after_repair_only_what_was_registered_stays_damaged(tmp_path, record, damage):
    fill(tmp_path)
    (path,) = tmp_path.glob(record)
    damage(path)
    fsck.repair(Store(tmp_path))
    left = [one.place for one in damage_found(tmp_path)]
    if record.endswith(("plan.json", "registration.json")):
        assert left
        Store(tmp_path).register(PLAN) if "plan" in record else None
    else:
        assert left == []
    if record.startswith("stages") and "failures" not in record:
        assert not Store(tmp_path).is_done(DONE)
        assert list(tmp_path.glob(f"damaged/{DONE}/*/*/output"))  # moved, not removed


def test_a_plan_that_was_damaged_is_written_anew_by_the_next_run(tmp_path):
    fill(tmp_path)
    (path,) = tmp_path.glob("studies/tiny/*/plan.json")
    empty(path)
    Store(tmp_path).register(PLAN)
    assert fsck.examine(Store(tmp_path)) == []


def test_links_extra_files_and_strange_names_are_found(tmp_path):
    fill(tmp_path)
    (attempt,) = (path.parent for path in tmp_path.glob("stages/*/*/*/stage.json"))
    (attempt / "output" / "extra").write_text("", encoding="utf-8")
    become_a_link(attempt / "output" / "config.json")
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    (tmp_path / "stages" / "zz" / "nothing").mkdir(parents=True)
    (tmp_path / "stages" / "00").write_text("", encoding="utf-8")
    (tmp_path / "studies" / "tiny" / "old").mkdir()
    (tmp_path / "studies" / "tiny" / "old" / "x").write_text("", encoding="utf-8")
    (tmp_path / "scratch" / "mine").mkdir()
    places = {one.place: one.kind for one in fsck.examine(Store(tmp_path))}
    at = attempt.relative_to(tmp_path).as_posix()
    assert places == {
        f"{at}/output/extra": "damage",
        f"{at}/output/config.json": "damage",
        f"{at}/output/config.json.elsewhere": "damage",
        "stages/00": "damage",
        "notes.txt": "note",
        "stages/zz/nothing": "note",
        "studies/tiny/old": "note",
        "scratch/mine": "note",
    }


def test_results_that_match_their_checksum_and_cannot_be_read_are_found(tmp_path):
    from sweeps.records import sealed

    store = fill(tmp_path)
    (path,) = tmp_path.glob("stages/*/*/*/results.parquet")
    path.write_bytes(b"PAR1 and more")
    record = store.done_record(DONE)
    files = {**record.files, "results.parquet": fsck._checksum(store, str(path))}
    done = record.model_copy(update={"files": files})
    store.objects.write(f"stages/{DONE[:2]}/{DONE}/done.json", sealed(done))
    (found,) = damage_found(tmp_path)
    assert "results.parquet cannot be read" in found.what


def test_a_done_record_that_names_an_attempt_that_is_not_there(tmp_path):
    fill(tmp_path)
    (attempt,) = (path.parent for path in tmp_path.glob("stages/*/*/*/stage.json"))
    shutil.rmtree(attempt)
    assert {one.place.rpartition("/")[2] for one in damage_found(tmp_path)} == {
        "stage.json",
        "execution.json",
        "results.parquet",
        "config.json",
    }


def test_a_result_and_scratch_that_no_study_has_are_noted(tmp_path):
    store = fill(tmp_path)
    shutil.rmtree(tmp_path / "studies")
    kinds = {one.place: one.kind for one in fsck.examine(store)}
    assert kinds == {f"stages/{DONE[:2]}/{DONE}": "note", f"scratch/{OPEN}": "note"}


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_does_is_not(tmp_path):
    store = fill(tmp_path)
    folder = tmp_path / "stages" / OPEN[:2] / OPEN
    lease = leases.acquire(store.objects, store.lease_folder(OPEN))
    store.begin(PLAN.stages[OPEN])
    (folder / ".done.json.0123456789ab").write_text("{", encoding="utf-8")
    assert fsck.examine(store) == []  # it is under way
    lease.release()

    assert [one.kind for one in fsck.examine(store)] == ["leftover", "leftover"]
    assert len(fsck.repair(store)) == 2
    assert fsck.examine(store) == []
    assert not list(folder.rglob("*.json"))


def test_old_temporary_files_are_left_over_and_new_ones_may_be_in_use(tmp_path):
    fill(tmp_path)
    (registration,) = tmp_path.glob("studies/tiny/*/plan.json")
    for path in (tmp_path / ".format.json.a", registration.with_name(".plan.json.b")):
        path.write_text("", encoding="utf-8")
    assert fsck.examine(Store(tmp_path)) == []
    for path in (tmp_path / ".format.json.a", registration.with_name(".plan.json.b")):
        os.utime(path, (time.time() - 7200,) * 2)
    assert [one.kind for one in fsck.examine(Store(tmp_path))] == ["leftover"] * 2
    fsck.repair(Store(tmp_path))
    assert fsck.examine(Store(tmp_path)) == []


@pytest.mark.parametrize("name", ["000001.json", "zzz", "000009.json/"])
def test_rubbish_in_a_lease_is_left_over(tmp_path, name):
    fill(tmp_path)
    path = tmp_path / "stages" / OPEN[:2] / OPEN / "lease" / name
    if name.endswith("/"):
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True)
        path.write_text("rubbish", encoding="utf-8")
    assert [one.kind for one in fsck.examine(Store(tmp_path))] == ["leftover"]
    fsck.repair(Store(tmp_path))
    assert fsck.examine(Store(tmp_path)) == []


def test_a_folder_that_is_no_store_is_told(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no store"):
            fsck.examine(Store(root))


def test_the_next_run_of_a_stage_removes_what_a_dead_process_left(tmp_path):
    """Killed in an attempt; whoever takes the stage over needs no fsck."""
    store = fill(tmp_path)
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_fsck import *\n"
        "store = Store(sys.argv[1])\n"
        "leases.acquire(store.objects, store.lease_folder(OPEN))\n"
        "attempt = store.begin(PLAN.stages[OPEN])\n"
        "(attempt.output / 'half').write_bytes(b'x' * 1000)\n"
        "os._exit(9)"
    )
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, str(tmp_path), here], check=False)
    (half,) = tmp_path.rglob("half")
    lease = leases.acquire(store.objects, store.lease_folder(OPEN))
    attempt = store.begin(PLAN.stages[OPEN])
    assert not half.exists()
    assert attempt.folder.exists()
    lease.release()


def test_a_stage_with_a_damaged_record_is_done_again(tmp_path):
    store = fill(tmp_path)
    (done,) = tmp_path.glob("stages/*/*/done.json")
    empty(done)
    assert not store.is_done(DONE)
    attempt = store.begin(PLAN.stages[DONE])
    assert store.finish(attempt, [ResultRow("training", "loss", 2.0)], {"seconds": 1.0})
    assert Store(tmp_path).rows([DONE])["value"].tolist() == [2.0]
    assert list(tmp_path.glob(f"damaged/{DONE}/*/*/output/config.json"))
    assert damage_found(tmp_path) == []


def test_a_store_in_a_bucket_is_examined_and_repaired(tmp_path, monkeypatch):
    import object_store

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with object_store.bucket_server() as bucket:
        store = fill(f"{bucket}/store")  # ty: ignore[invalid-argument-type]
        assert fsck.examine(Store(store.root)) == []
        record = store.done_record(DONE)
        key = f"stages/{DONE[:2]}/{DONE}/{record.attempt}/results.parquet"
        store.objects.write(key, b"")
        store.objects.write(f"stages/{OPEN[:2]}/{OPEN}/attempt/stage.json", b"{}")
        found = fsck.examine(Store(store.root))
        assert [one.kind for one in found] == ["damage", "leftover"]
        fsck.repair(Store(store.root))
        assert [one.place for one in fsck.examine(Store(store.root))] == ["damaged"]
        assert not Store(store.root).is_done(DONE)


def test_json_of_every_record_is_strict(tmp_path):
    fill(tmp_path)

    def refuse(name):
        raise AssertionError(name)

    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


KILLED = """
import os, sys
root, here, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, here)
from test_fsck import DONE, PLAN, ResultRow, Store, leases
import pyarrow.parquet  # what is imported later would be counted as well

def work(store):
    study = leases.acquire(store.objects, "studies/tiny/lease")
    store.register(PLAN)
    stage = PLAN.stages[DONE]
    lease = leases.acquire(store.objects, store.lease_folder(DONE))
    store.fail(store.begin(stage), {"error": "no"})
    attempt = store.begin(stage)
    (attempt.output / "config.json").write_text("{}", encoding="utf-8")
    store.finish(attempt, [ResultRow("training", "loss", 1.0)], {"seconds": 1.5})
    lease.remove()
    study.release()

work(Store(root + "-warm"))
EVENTS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir")
for number in range(1, 10_000):
    pid = os.fork()
    if not pid:
        left = number
        def count(event, arguments):
            global left
            if event in EVENTS and root in str(arguments[0]):
                left -= 1
                if not left:
                    os._exit(9)
        sys.addaudithook(count)
        try:
            work(Store(f"{root}-{number}"))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 1:
        sys.exit(1)
    if code == 0:
        break
    os.environ["NUMBER"] = str(number)
print(number)
"""


def test_killed_at_any_file_operation_nothing_is_damaged_and_the_next_run_finishes(tmp_path):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "s"), here, "0"]
    told = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert told.returncode == 0, told.stderr
    count = int(told.stdout)
    assert count > 40
    for number in range(1, count):
        root = tmp_path / f"s-{number}"
        if not (root / "format.json").exists():
            continue  # killed before there was a store
        found = damage_found(root)
        # A runner that was through before its done.json was written, kept in case that was lost;
        # and a study that was just being registered, which the next run goes on with.
        allowed = ("whole attempt", "latest.json is missing")
        told = [f"{one.place} {one.what}" for one in found]
        assert all(any(text in line for text in allowed) for line in told), (number, told)
        store = Store(root)
        study = leases.acquire(store.objects, "studies/tiny/lease")
        assert study is not None, number
        store.register(PLAN)
        if not store.is_done(DONE):
            lease = leases.acquire(store.objects, store.lease_folder(DONE))
            assert lease is not None, number
            attempt = store.begin(PLAN.stages[DONE])
            rows = [ResultRow("training", "loss", 1.0)]
            assert store.finish(attempt, rows, {"seconds": 1.5})
            lease.remove()
        study.release()
        fsck.repair(store)
        left = {one.place for one in fsck.examine(Store(root))}
        assert left <= {"damaged", f"scratch/{OPEN}"}, (number, left)
