"""The index of finished stages gives the answers that their folders give, whatever befalls it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import object_store
import pandas
import pyarrow
import pytest

from ablations.stage import ResultRow
from ablations.stages import Stage
from ablations.workload import Work
from sweeps import fsck, index
from sweeps.finished import COLUMNS
from sweeps.index import Finished
from sweeps.store import Store


def a_stage(number: int) -> Stage:
    work = Work(
        kind="noop",
        run="noop_stage:run",
        config={"number": number},
        decides=str(number),
        compile_class="noop",
        seconds=0.01,
    )
    stage_id = f"{number * 7919 % 251:02x}{number:030x}"
    return Stage(stage_id, work, number % 3, {}, f"stage {number}")


def rows_of(number: int) -> list[ResultRow]:
    if number % 3 == 0:
        return [
            ResultRow("training", metric, number + step / 10, step=step)
            for step in (1, 2, 3)
            for metric in ("loss", "grad_norm")
        ]
    error = 0.5 if number % 2 else None
    return [
        ResultRow("noop", "accuracy", 50.0 + number, "test", 0, "intact", 100, 3, error),
        ResultRow("noop", "perplexity", float("nan"), "test", 2, "shuffled", None, 3),
    ]


def finish(store: Store, number: int, rows: list[ResultRow] | None = None, **more) -> None:
    execution = {
        "seconds": 1.5 + number,
        "import_seconds": 0.25,
        "started_at": 1.7e9 + number,
        "host": "here" if number % 2 else "there",
        "libraries": {"jax": "0.10.2"},
        "device_count": 1,
    }
    store.finish(
        store.begin(a_stage(number)),
        rows_of(number) if rows is None else rows,
        execution | more,
        "diverged" if number == 4 else "ok",
    )


NUMBERS = range(24)
IDS = [a_stage(number).id for number in NUMBERS]
ODD = {"damaged": 5, "failed": 6, "never begun": 7, "twice": 8, "no rows": 9}


def fill(store: Store) -> None:
    """Stages that are finished, and one of everything else that may befall a stage."""
    for number in NUMBERS:
        if number == ODD["failed"]:
            store.fail(store.begin(a_stage(number)), {"error": "ValueError: no"})
        elif number == ODD["twice"]:
            finish(store, number, rows_of(number) * 2)
        elif number == ODD["no rows"]:
            finish(store, number, [])
        elif number != ODD["never begun"]:
            finish(store, number)
    stage_id = IDS[ODD["damaged"]]
    folder = f"stages/{stage_id[:2]}/{stage_id}"
    attempt = store.done_record(stage_id).attempt
    store.objects.write(f"{folder}/{attempt}/results.parquet", b"PAR1 and no more")


@pytest.fixture(autouse=True)
def saved_at_once(tmp_path, monkeypatch) -> None:
    """Else small stores have no index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "SAVED_FROM", 1)


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(tmp_path / "store")
    fill(made)
    return made


def answers(found: Finished) -> dict[str, object]:
    """Everything that can be read of a look, in a form that can be compared."""

    def plain(rows: pandas.DataFrame) -> list[object]:
        assert tuple(rows.columns) == COLUMNS
        told = rows.sort_values(["stage"], kind="stable").to_dict("records")
        return [{name: repr(value) for name, value in one.items()} for one in told]

    stages = found.stages.sort_index()
    return {
        "sound": found.sound,
        "damaged": found.damaged,
        "begun": found.begun,
        "stages": stages.to_dict("index"),
        "scores": plain(found.scores),
        "curves": plain(found.curves()),
        "loss": plain(found.curves("loss")),
        "executions": found.executions,
    }


def truth(root: str | Path, monkeypatch, ids=IDS) -> dict[str, object]:
    """The answers of the folders alone."""
    with monkeypatch.context() as patch:
        patch.setattr(index.Index, "_load", lambda self: None)
        patch.setattr(index, "SAVED_FROM", 10**9)
        return answers(Store(root).look(ids))


def read_from_folders(monkeypatch) -> list[str]:
    """Stages whose results are read from their folders from now on."""
    found: list[str] = []
    read = index.read_results

    def noted(objects, records):
        found.extend(records)
        return read(objects, records)

    monkeypatch.setattr(index, "read_results", noted)
    return found


def test_an_answer_is_that_of_the_folders(store, monkeypatch):
    expected = truth(store.root, monkeypatch)
    assert expected["sound"] == set(IDS) - {
        IDS[ODD[n]] for n in ("damaged", "failed", "never begun")
    }
    assert set(expected["damaged"]) == {IDS[ODD["damaged"]]}
    assert expected["begun"] == {IDS[ODD["failed"]]}
    stages = expected["stages"]
    assert [one for one in IDS if stages.get(one, {}).get("diverged")] == [IDS[4]]
    assert [one for one in IDS if stages.get(one, {}).get("is_repeated")] == [IDS[ODD["twice"]]]
    assert [one for one in IDS if not stages.get(one, {"has_rows": 1})["has_rows"]] == [IDS[9]]
    assert expected["executions"][IDS[3]]["libraries"] == {"jax": "0.10.2"}
    assert expected["executions"] == {one: store.execution(one) for one in expected["sound"]}
    assert len(expected["curves"]) == 2 * len(expected["loss"]) > 0

    assert answers(Store(store.root).look(IDS)) == expected  # which writes the index
    read = read_from_folders(monkeypatch)
    again = Store(store.root)
    assert answers(again.look(IDS)) == expected
    assert set(read) == {IDS[ODD["damaged"]]}
    assert answers(again.look(IDS[:5])) == truth(store.root, monkeypatch, IDS[:5])
    assert again.done(IDS) == {one for one in IDS if store.is_done(one)}
    times = {one: store.finished_at(one) for one in IDS}
    assert again.finished_times(IDS) == {one: time for one, time in times.items() if time}


def test_what_was_finished_since_is_read_and_added(store, monkeypatch):
    Store(store.root).look(IDS)
    finish(store, ODD["failed"])
    read = read_from_folders(monkeypatch)
    assert answers(Store(store.root).look(IDS)) == truth(store.root, monkeypatch)
    read.clear()
    Store(store.root).look(IDS)
    assert set(read) == {IDS[ODD["damaged"]]}


def test_a_process_that_looks_again_sees_what_happened_in_between(store, monkeypatch):
    watching = Store(store.root)
    ids = list(IDS)
    first = watching.look(ids)
    assert watching.look(ids) is first

    finish(store, ODD["never begun"])
    assert IDS[ODD["never begun"]] in watching.look(ids).sound
    finish(store, ODD["failed"])
    assert IDS[ODD["failed"]] in watching.look(ids).sound
    store.set_aside(IDS[0])
    assert IDS[0] not in watching.look(ids).sound
    finish(store, 0, seconds=99.0)
    assert watching.look(ids).executions[IDS[0]]["seconds"] == 99.0
    shutil.rmtree(Path(store.root, "stages", IDS[1][:2], IDS[1]))
    assert IDS[1] not in watching.look(ids).sound
    assert answers(watching.look(ids)) == truth(store.root, monkeypatch)


def test_what_is_asked_for_is_looked_at_and_nothing_else(tmp_path, monkeypatch):
    """A driver asks for what has just been finished, among all that was before."""
    monkeypatch.setattr(index, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(index, "TURNS", 10**9)
    store = Store(tmp_path / "store")
    ids = [f"aa{number:030x}" for number in range(12)]  # of one folder
    stages = [Stage(one, a_stage(1).work, 0, {}, "stage") for one in ids]
    for stage in stages[:11]:
        store.finish(store.begin(stage), rows_of(1), {"seconds": 1.0})
    assert store.look(ids[:11]).sound == set(ids[:11])
    looked = []
    stamp = index._stamp
    monkeypatch.setattr(
        index, "_stamp", lambda p, *a, **k: looked.append(p[-32:]) or stamp(p, *a, **k)
    )
    store.finish(store.begin(stages[11]), rows_of(1), {"seconds": 1.0})
    next((tmp_path / "store" / "stages" / "aa" / ids[3]).glob("*/results.parquet")).unlink()
    assert store.look([ids[11]]).sound == {ids[11]}
    assert set(looked) == {ids[11]}
    # What happened in the folder is remembered of the others until they are asked for.
    assert store.look(ids[:6]).sound == set(ids[:3]) | set(ids[4:6])
    assert set(looked) == {*ids[:6], ids[11]}


def test_a_record_that_is_removed_by_hand_is_missed_after_some_looks(store):
    watching = Store(store.root)
    watching.look(IDS)
    (record,) = Path(store.root).glob(f"stages/*/{IDS[2]}/done.json")
    record.unlink()
    assert IDS[2] not in watching.done(IDS)
    looks = 1
    while IDS[2] in watching.look(IDS).sound:
        looks += 1
    assert looks <= index.TURNS
    assert IDS[2] not in Store(store.root).look(IDS).sound


@pytest.mark.parametrize(
    "name", ["done.json", "*/results.parquet", "*/execution.json", "*/stage.json"]
)
@pytest.mark.parametrize("damage", ["written over", "removed", "folder removed"])
def test_what_befalls_a_stage_that_is_in_the_index_is_noticed(store, monkeypatch, name, damage):
    Store(store.root).look(IDS)
    (path,) = Path(store.root).glob(f"stages/*/{IDS[3]}/{name}")
    if damage == "written over":
        facts = path.stat()
        path.write_bytes(bytes(facts.st_size))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    elif damage == "removed":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
    found = Store(store.root).look(IDS)
    assert IDS[3] not in found.sound
    assert answers(found) == truth(store.root, monkeypatch)


def test_a_copy_of_a_store_is_looked_at_anew(store, tmp_path, monkeypatch):
    Store(store.root).look(IDS)
    copy = tmp_path / "copy"
    shutil.copytree(store.root, copy)  # with its index
    (path,) = copy.glob(f"stages/*/{IDS[3]}/*/results.parquet")
    path.write_bytes(b"other")
    read = read_from_folders(monkeypatch)
    found = Store(copy).look(IDS)
    assert set(found.damaged) == {IDS[3], IDS[ODD["damaged"]]}
    assert len(read) == len(IDS) - 2
    # And where the copy takes the place of what it was made of.
    shutil.rmtree(store.root)
    copy.rename(store.root)
    assert set(Store(store.root).look(IDS).damaged) == {IDS[3], IDS[ODD["damaged"]]}


def test_what_fsck_sets_aside_is_gone(store, monkeypatch):
    Store(store.root).look(IDS)
    assert [one for one in fsck.examine(Store(store.root)) if "index" in one.place] == []
    fsck.repair(Store(store.root))
    found = Store(store.root).look(IDS)
    assert not found.damaged
    assert IDS[ODD["damaged"]] not in found.sound
    assert answers(found) == truth(store.root, monkeypatch)


def files(root: str | Path) -> list[Path]:
    return sorted(path for path in Path(root, "index").iterdir() if path.name[0] != ".")


def test_a_damaged_index_is_none(store, monkeypatch):
    expected = truth(store.root, monkeypatch)
    Store(store.root).look(IDS)
    assert len(files(store.root)) == 2
    kept = {path: path.read_bytes() for path in files(store.root)}
    for path, data in kept.items():
        damages = [b"", data[:100], data[:-1], data + b"\0"]
        for place in range(0, len(data), len(data) // 20):
            flipped = bytearray(data)
            flipped[place] ^= 1
            damages.append(bytes(flipped))
        for damage in damages:
            for other, whole in kept.items():
                other.write_bytes(damage if other == path else whole)
            assert answers(Store(store.root).look(IDS)) == expected
        path.unlink()
        assert answers(Store(store.root).look(IDS)) == expected
        shutil.rmtree(Path(store.root, "index"))
        Path(store.root, "index").mkdir()


def test_an_index_of_another_version_is_not_read(store, monkeypatch):
    Store(store.root).look(IDS)
    before = files(store.root)
    monkeypatch.setattr(index, "VERSION", 2)
    read = read_from_folders(monkeypatch)
    Store(store.root).look(IDS)
    assert len(read) > 1
    assert set(before) < set(files(store.root))  # the other version may be in use


def test_few_files_hold_many_stages_that_came_one_by_one(tmp_path, monkeypatch):
    store, watching = Store(tmp_path), Store(tmp_path)
    for number in NUMBERS:
        finish(store, number)
        watching.look(IDS)
    assert len(files(tmp_path)) <= 2 * 5
    expected = truth(tmp_path, monkeypatch)
    assert answers(watching.look(IDS)) == expected
    read = read_from_folders(monkeypatch)
    assert answers(Store(tmp_path).look(IDS)) == expected
    assert read == []


def test_a_process_whose_files_another_one_took_reads_on(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for number in range(4):
        finish(store, number)
    early = Store(tmp_path)
    ids = list(IDS)
    found = early.look(ids)
    for number in range(4, 12):
        finish(store, number)
    Store(tmp_path).look(IDS)
    assert len(files(tmp_path)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(index, "SAVED_FROM", 10**9)
        expected = truth(tmp_path, monkeypatch, IDS[:4])
        assert answers(found) | {"begun": set()} == expected | {"begun": set()}
        read = read_from_folders(monkeypatch)
        assert answers(early.look(ids)) == truth(tmp_path, monkeypatch)
        read.clear()
        early.look(ids).curves()
        assert read == []


@pytest.mark.parametrize("seed", range(3))
def test_many_processes_read_and_write_it_while_stages_are_finished(tmp_path, monkeypatch, seed):
    store = Store(tmp_path)
    finish(store, 0)
    spawn = multiprocessing.get_context("fork")
    readers = [spawn.Process(target=_keep_looking, args=(tmp_path,)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in NUMBERS[1:]:
        finish(store, number)
        if number % 5 == seed:
            store.set_aside(IDS[number])
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert answers(Store(tmp_path).look(IDS)) == truth(tmp_path, monkeypatch)


def _keep_looking(root: Path) -> None:
    store = Store(root)
    for _ in range(30):
        found = store.look(IDS)
        for stage_id, value in zip(found.scores["stage"], found.scores["value"], strict=True):
            number = IDS.index(stage_id)
            assert value != value or value == 50.0 + number
        for stage_id, step, value in found.curves("loss")[["stage", "step", "value"]].itertuples(
            index=False
        ):
            assert value == IDS.index(stage_id) + step / 10
        time.sleep(0.01)


LOOKING = """
import sys
from sweeps import index
from sweeps.store import Store
index.SAVED_FROM = 1
index.SETTLED_SECONDS = 0.0
print("ready", flush=True)
while True:
    Store(sys.argv[1]).look(sys.argv[2:])
    for place in index._files(Store(sys.argv[1]).local / "index"):
        place.unlink()
"""


def test_a_process_that_is_killed_while_it_writes_leaves_no_wrong_answer(store, monkeypatch):
    expected = truth(store.root, monkeypatch)
    for round_ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOKING, store.root, *IDS],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.15 + 0.013 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert answers(Store(store.root).look(IDS)) == expected


def test_what_killed_processes_left_is_removed_after_a_while(store):
    folder = Path(store.root, "index")
    folder.mkdir()
    left = [folder / f".{uuid.uuid4().hex}", folder / f"{index._form()}-{'0' * 64}.curves"]
    fresh = folder / f".{uuid.uuid4().hex}"
    for path in (*left, fresh):
        path.write_bytes(b"half")
    for path in left:
        os.utime(path, (time.time() - 2 * index.LEFT_SECONDS,) * 2)
    Store(store.root).look(IDS)
    assert not any(path.exists() for path in left)
    assert fresh.exists()


def test_a_store_that_may_not_be_written_has_its_index_in_the_cache(store, tmp_path, monkeypatch):
    Path(store.root, "index").write_bytes(b"")  # nothing can be put below it
    expected = truth(store.root, monkeypatch)
    assert answers(Store(store.root).look(IDS)) == expected
    assert list((tmp_path / "cache").rglob("*.stages"))
    read = read_from_folders(monkeypatch)
    assert answers(Store(store.root).look(IDS)) == expected
    assert set(read) == {IDS[ODD["damaged"]]}

    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # nor there
    assert answers(Store(store.root).look(IDS)) == expected


def test_looking_at_no_store_writes_nothing(tmp_path):
    found = Store(tmp_path / "absent").look(IDS)
    assert not found.sound
    assert found.scores.empty
    assert found.curves().empty
    assert found.stages.empty
    assert not (tmp_path / "absent").exists()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with object_store.bucket_server() as url:
        yield url


@pytest.mark.parametrize("kind", ["memory", "bucket"])
def test_the_index_of_a_store_behind_a_url_is_in_the_local_cache(
    kind, request, tmp_path, monkeypatch
):
    base = "memory:/" if kind == "memory" else request.getfixturevalue("bucket")
    store = Store(f"{base}/{uuid.uuid4().hex}")
    fill(store)
    expected = truth(store.root, monkeypatch)
    assert expected["executions"] == {one: store.execution(one) for one in expected["sound"]}
    assert answers(Store(store.root).look(IDS)) == expected
    assert list((tmp_path / "cache").rglob("*.stages"))
    assert not store.objects.children("index")

    read = read_from_folders(monkeypatch)
    watching, ids = Store(store.root), list(IDS)
    assert answers(watching.look(ids)) == expected
    assert set(read) == {IDS[ODD["damaged"]]}
    assert watching.look(ids) is watching.look(ids)
    finish(store, ODD["failed"])
    assert IDS[ODD["failed"]] in watching.look(ids).sound
    store.set_aside(IDS[0])
    found = watching.look(ids)
    assert IDS[0] not in found.sound
    assert answers(found) == truth(store.root, monkeypatch)
    assert watching.done(ids) == {one for one in IDS if store.is_done(one)}
    store.objects.remove(f"stages/{IDS[1][:2]}/{IDS[1]}/done.json")
    assert IDS[1] not in Store(store.root).look(IDS).sound


def test_an_index_that_was_edited_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SAVED_FROM", 1)
    store = Store(tmp_path)
    for number in (1, 2, 3):
        finish(store, number)
    stages = [a_stage(number).id for number in (1, 2, 3)]
    honest = store.look(stages).scores
    assert not [one for one in fsck.examine(Store(tmp_path)) if one.place == "index"]
    (place,) = tmp_path.glob("index/*.stages")
    tables = index._tables(place.read_bytes(), 2)
    scores = tables[1]
    at = scores.column_names.index("value")
    better = pyarrow.array([(value or 0) + 10 for value in scores["value"].to_pylist()])
    place.unlink()
    index._put(
        place.parent,
        index._streams(tables[0], scores.set_column(at, scores.schema.field(at), better)),
        "stages",
    )
    assert not Store(tmp_path).look(stages).scores.equals(honest)
    odd = [one for one in fsck.examine(Store(tmp_path)) if one.place == "index"]
    assert {one.what.rpartition("/")[2] for one in odd} == {a_stage(n).id for n in (1, 2)}
    assert odd[0].kind == "damage"
    shutil.rmtree(place.parent)
    assert not [one for one in fsck.examine(Store(tmp_path)) if one.place == "index"]
    assert Store(tmp_path).look(stages).scores.equals(honest)
