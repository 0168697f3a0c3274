"""The index of examples: what it answers is what the folders hold, whatever became of its files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from ablations.stage import ResultRow
from ablations.stages import Stage
from ablations.workload import Work
from sweeps import example_index
from sweeps.example_index import SEPARATOR, Examples
from sweeps.store import Store

ROWS = [ResultRow("task", "score", 1.0, "test")]


def stage_of(number: int) -> Stage:
    work = Work(
        kind="noop",
        run="noop_stage:run",
        config={"number": number},
        decides=str(number),
        compile_class="noop",
        seconds=0.01,
    )
    return Stage(f"{number * 7919 % 251:02x}{number:030x}", work, 1, {}, f"stage {number}")


def table(number: int) -> pandas.DataFrame:
    return pandas.DataFrame(
        {
            "item_id": ["a", "b"],
            "image_id": [4, -1],
            "prompt": ["<image>what?", "why?"],
            "prediction": [f"answer {number}", "<script>alert(1)</script>\u202e"],
            "references": [["one", "two"], []],
            "score": [1.0, math.nan],
        }
    )


def finish(store: Store, number: int, examples: pandas.DataFrame | None) -> Stage:
    stage = stage_of(number)
    attempt = store.begin(stage)
    if examples is not None:
        examples.to_parquet(attempt.output / "examples.parquet")
    store.finish(attempt, ROWS, {"seconds": 1.0})
    return stage


def looked(root: Path, stages: list[Stage]) -> Examples:
    store = Store(root)
    ids = [stage.id for stage in stages]
    return store.many_examples(store.look(ids), ids)


def said(found: Examples) -> dict[str, list[dict]]:
    lines = found.rows.to_pylist()
    return {
        stage: [{k: None if v != v else v for k, v in line.items()} for line in lines[a : a + n]]
        for stage, (a, n) in found.places.items()
    }


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    monkeypatch.setattr(example_index, "SAVED_FROM", 1)
    store = Store(tmp_path)
    return [*(finish(store, n, table(n)) for n in range(3)), finish(store, 3, None)]


def files(root: Path) -> list[Path]:
    return sorted((root / "index").glob("*.examples"))


def test_what_is_read_is_what_was_stored(tmp_path: Path, stages: list[Stage]) -> None:
    found = said(looked(tmp_path, stages))
    assert set(found) == {stage.id for stage in stages[:3]}  # the last one keeps none
    assert found[stages[1].id] == [
        {
            "item_id": "a",
            "prompt": "<image>what?",
            "prediction": "answer 1",
            "references": f"one{SEPARATOR}two",
            "image_file": "",
            "image_id": 4,
            "score": 1.0,
            "weight": 1.0,
        },
        {
            "item_id": "b",
            "prompt": "why?",
            "prediction": "<script>alert(1)</script>\u202e",
            "references": "",
            "image_file": "",
            "image_id": -1,
            "score": None,
            "weight": 1.0,
        },
    ]


def test_a_second_process_reads_no_folder_again(
    tmp_path: Path, stages: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = said(looked(tmp_path, stages))
    assert len(files(tmp_path)) == 1
    monkeypatch.setattr(example_index, "read_done", lambda *_: pytest.fail("a folder was read"))
    assert said(looked(tmp_path, stages)) == first


def removed(place: Path) -> None:
    place.unlink()


def cut(place: Path) -> None:
    place.write_bytes(place.read_bytes()[:100])


def of_another_name(place: Path) -> None:
    place.rename(place.with_name("0" * 8 + place.name[8:]))


@pytest.mark.parametrize("damage", [removed, cut, of_another_name])
def test_without_its_files_the_answer_is_the_same(
    tmp_path: Path, stages: list[Stage], damage: Callable[[Path], None]
) -> None:
    first = said(looked(tmp_path, stages))
    damage(files(tmp_path)[0])
    assert said(looked(tmp_path, stages)) == first


def test_a_stage_that_was_done_again_is_read_again(tmp_path: Path, stages: list[Stage]) -> None:
    looked(tmp_path, stages)
    store = Store(tmp_path)
    store.set_aside(stages[0].id)
    finish(store, 0, table(70))
    found = said(looked(tmp_path, stages))
    assert found[stages[0].id][0]["prediction"] == "answer 70"
    assert found[stages[1].id][0]["prediction"] == "answer 1"


def test_changed_examples_are_left_out_and_told(tmp_path: Path, stages: list[Stage]) -> None:
    looked(tmp_path, stages)
    place = next(tmp_path.glob(f"stages/*/{stages[2].id}/*/output/examples.parquet"))
    table(99).to_parquet(place)
    found = looked(tmp_path, stages)
    assert set(found.places) == {stages[0].id, stages[1].id}
    assert "does not match its checksum" in found.damaged[stages[2].id]
    place.unlink()
    assert "is missing" in looked(tmp_path, stages).damaged[stages[2].id]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (table(0).drop(columns="score"), "no column 'score'"),
        (table(0).assign(item_id="a"), "an item twice"),
        (table(0).assign(score="many"), "cannot be read"),
    ],
)
def test_examples_of_another_form_are_told(
    tmp_path: Path, stages: list[Stage], wrong: pandas.DataFrame, told: str
) -> None:
    odd = finish(Store(tmp_path), 8, wrong)
    found = looked(tmp_path, [*stages, odd])
    assert told in found.damaged[odd.id]
    assert len(found.places) == 3


def test_many_files_become_one(
    tmp_path: Path, stages: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_index, "FILES", 2)
    store = Store(tmp_path)
    many = [*stages]
    for number in range(10, 14):
        many.append(finish(store, number, table(number)))
        looked(tmp_path, many)
    assert len(files(tmp_path)) <= 3
    assert len(said(looked(tmp_path, many))) == 7


def test_an_index_that_cannot_be_written_is_done_without(
    tmp_path: Path, stages: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "index").write_text("a file in its place", encoding="utf-8")
    assert len(said(looked(tmp_path, stages))) == 3
