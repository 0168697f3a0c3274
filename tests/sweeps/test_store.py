"""The store: one winner per stage, nothing torn is visible, damage is noticed."""

from __future__ import annotations

import errno
import json
import os
import threading
import uuid
from pathlib import Path

import pytest

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.stage import ResultRow
from ablations.stages import Stage
from ablations.workload import Work
from sweeps.finished import COLUMNS
from sweeps.objects import is_disk_full
from sweeps.store import Store


def a_stage(name: str = "one", seed: int = 1) -> Stage:
    work = Work(
        kind="noop", run="noop_stage:run", config={"name": name}, decides=name, compile_class="noop"
    )
    return Stage(f"{name}-{seed}".encode().hex().ljust(64, "0"), work, seed, {}, name)


def a_plan(*stages: Stage, hash: str = "h1") -> Plan:
    return Plan(
        study="tiny",
        workload="recipe",
        tasks={},
        hash=hash,
        path="tiny.yaml",
        source="study: tiny",
        question="Does it?",
        primary_metric=("noop", "accuracy"),
        alpha=0.05,
        seeds=(1,),
        factors={},
        arms=(),
        trials=(),
        stages={stage.id: stage for stage in stages},
        claims={},
        warnings=(),
    )


ROWS = [
    ResultRow(task="noop", metric="accuracy", value=50.0, split="test", n_items=10),
    ResultRow(task="training", metric="loss", value=float("nan"), step=5),
]


@pytest.fixture(params=["disk", "file://", "memory://"])
def store(request, tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    roots = {
        "disk": str(tmp_path / "store"),
        "file://": f"file://{tmp_path / 'store'}",
        "memory://": f"memory://{uuid.uuid4().hex}",
    }
    return Store(roots[request.param])


def finish(store: Store, stage: Stage, rows=ROWS, **more) -> bool:
    attempt = store.begin(stage)
    (attempt.output / "config.json").write_text("{}", encoding="utf-8")
    return store.finish(attempt, rows, {"seconds": 1.5}, **more)


def test_finished_stage_is_read_back_whole(store):
    stage = a_stage()
    assert not store.is_done(stage.id)
    assert finish(store, stage, status="diverged")

    again = Store(store.root)
    table = again.rows([stage.id, a_stage("absent").id])
    assert tuple(table.columns) == COLUMNS
    assert table["value"][0] == 50.0
    assert table["value"].isna().tolist() == [False, True]
    assert set(table["status"]) == {"diverged"}
    assert table["stage"][0] == stage.id
    assert table["seed"][0] == 1
    assert again.execution(stage.id)["seconds"] == 1.5
    assert again.stage(stage.id) == stage
    assert (again.stage_folder(stage.id) / "config.json").read_text(encoding="utf-8") == "{}"


def test_rows_of_nothing_still_have_their_columns(store):
    assert tuple(store.rows([]).columns) == COLUMNS


def test_of_two_writers_exactly_one_wins(store):
    stage = a_stage()
    attempts = [store.begin(stage) for _ in range(4)]
    won = []

    def write(number, attempt):
        rows = [ResultRow(task="noop", metric="accuracy", value=number)]
        won.append((store.finish(attempt, rows, {"seconds": 0.1}), number))

    threads = [threading.Thread(target=write, args=pair) for pair in enumerate(attempts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(first for first, _ in won) == 1
    winner = next(number for first, number in won if first)
    assert store.rows([stage.id])["value"].tolist() == [winner]
    left = store.objects.children(f"stages/{stage.id[:2]}/{stage.id}")
    assert left == sorted([attempts[winner].name, "done.json"])


def test_torn_attempt_is_invisible_and_does_not_stop_the_next(store):
    stage = a_stage()
    torn = store.begin(stage)
    (torn.output / "checkpoint").write_bytes(b"half")
    (torn.folder / "results.parquet").write_bytes(b"PAR1")

    assert not store.is_done(stage.id)
    assert store.rows([stage.id]).empty
    with pytest.raises(UserError, match="no result"):
        store.stage_folder(stage.id)
    assert finish(store, stage)
    assert len(store.rows([stage.id])) == 2


def test_create_never_replaces_and_write_always_does(store):
    assert store.objects.create("a/b", b"1")
    assert not store.objects.create("a/b", b"2")
    assert store.objects.read("a/b") == b"1"
    store.objects.write("a/b", b"3")
    assert store.objects.read("a/b") == b"3"
    assert store.objects.children("a") == ["b"]


@pytest.mark.parametrize("name", ["results.parquet", "output/config.json"])
@pytest.mark.parametrize("damage", ["change", "remove"])
def test_damage_is_noticed_and_named(tmp_path, name, damage):
    stage = a_stage()
    finish(Store(tmp_path), stage)
    (path,) = tmp_path.glob(f"stages/*/*/*/{name}")
    path.write_bytes(b"other") if damage == "change" else path.unlink()

    store = Store(tmp_path)
    with pytest.raises(UserError, match="damaged"):
        store.stage_folder(stage.id)
    if name == "results.parquet":
        with pytest.raises(UserError, match="damaged"):
            store.rows([stage.id])


def test_store_of_a_newer_version_is_refused(tmp_path):
    (tmp_path / "format.json").write_text('{"schema_version": 99}', encoding="utf-8")
    with pytest.raises(UserError, match="newer version"):
        Store(tmp_path)


def test_record_of_a_newer_version_is_refused(tmp_path):
    store = Store(tmp_path)
    stage = a_stage()
    finish(store, stage)
    (path,) = tmp_path.glob("stages/*/*/done.json")
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"schema_version": 99}),
        encoding="utf-8",
    )
    with pytest.raises(UserError, match="newer version"):
        store.rows([stage.id])


def test_looking_at_a_store_creates_nothing(tmp_path):
    store = Store(tmp_path / "absent")
    assert store.studies() == []
    assert not store.is_done(a_stage().id)
    assert not (tmp_path / "absent").exists()


def test_file_in_the_way_and_unknown_protocol_are_told(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="not a folder"):
        Store(tmp_path / "file")
    with pytest.raises(UserError, match="cannot open"):
        Store("nosuchprotocol://x")


def test_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path, monkeypatch):
    store = Store(tmp_path)
    first, second = a_stage("first"), a_stage("second")
    finish(store, first)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="no space left"):
        finish(store, second)
    assert store.done([first.id, second.id]) == {first.id}
    assert not list(tmp_path.glob("stages/*/*/.done*"))


def test_full_disk_is_recognised_behind_other_exceptions():
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert is_disk_full(wrapped)
    assert is_disk_full(ValueError("RESOURCE_EXHAUSTED: No space left on device [x]"))
    assert not is_disk_full(OSError(errno.EACCES, "no"))


def test_failures_are_kept_and_their_output_is_not(store):
    stage = a_stage()
    attempt = store.begin(stage)
    store.fail(attempt, {"error": "ValueError: no", "traceback": "Traceback …"})
    assert [failure["error"] for failure in store.failures(stage.id)] == ["ValueError: no"]
    assert not store.is_done(stage.id)
    assert not attempt.folder.exists()


def test_progress_keeps_the_last_report_of_a_step_and_skips_torn_lines(tmp_path):
    store, stage = Store(tmp_path), a_stage()
    scratch = store.scratch(stage.id)
    scratch.mkdir(parents=True)
    lines = [
        '{"step": 1, "loss": 3}',
        '{"step": 2, "lo{"step": 2, "loss": 2}',
        '{"step": 1, "loss": 9}',
    ]
    (scratch / "reports.jsonl").write_text("\n".join(lines) + '\n{"step": 3', encoding="utf-8")
    assert store.progress(stage.id) == [{"step": 1, "loss": 9}]


def test_examples_are_read_back(store):
    import pandas

    stage = a_stage()
    attempt = store.begin(stage)
    pandas.DataFrame({"item_id": ["a"], "score": [1.0]}).to_parquet(
        attempt.output / "examples.parquet"
    )
    store.finish(attempt, ROWS, {"seconds": 0.1})
    assert store.examples(stage.id)["item_id"].tolist() == ["a"]
    other = a_stage("other")
    finish(store, other)
    assert store.examples(other.id) is None


def test_registration_stands_and_lists_what_was_known(store):
    known, new = a_stage("known"), a_stage("new")
    finish(store, known)
    first = store.register(a_plan(known, new))
    assert first.known_stages == (known.id,)
    assert first.previous == ()

    finish(store, new)
    assert store.register(a_plan(known, new)) == first
    assert store.snapshot("tiny") == (a_plan(known, new), first)
    assert store.studies() == ["tiny"]


def test_changed_study_is_registered_anew_and_remembers_the_old_one(store):
    stage = a_stage()
    store.register(a_plan(stage))
    finish(store, stage)
    second = store.register(a_plan(stage, hash="h2"))
    assert second.previous == ("h1",)
    assert second.known_stages == (stage.id,)
    assert store.snapshot("tiny")[1].hash == "h2"
    store.register(a_plan(stage))
    assert store.snapshot("tiny")[1].hash == "h1"


def test_unknown_study_is_told_with_the_nearest(store):
    store.register(a_plan(a_stage()))
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        store.snapshot("tyny")
