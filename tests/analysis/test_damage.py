"""A damaged record costs what it says and nothing else: every view goes on, and names it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dashboard_client import page_of

from ablations.errors import UserError
from analysis.compare import render
from analysis.report.writing import report
from analysis.results import load_all, load_results
from mm1 import status_text
from sweeps.store import Store

RECORDS = {
    "studies/damaged/latest.json": "shown",
    "studies/damaged/*/plan.json": "left out",
    "studies/damaged/*/registration.json": "left out",
    "stages/*/*/done.json": "shown",
    "stages/*/*/*/execution.json": "shown",
    "stages/*/*/*/stage.json": "shown",
    "stages/*/*/*/results.parquet": "shown",
    "stages/*/*/*/output/examples.parquet": "shown",
    "stages/*/*/failures/*.json": "shown",
    "stages/*/*/lease/000001.json": "shown",
    "scratch/*/reports.jsonl": "shown",
    "format.json": "shown",
}


def garble(path: Path) -> None:
    path.write_bytes(b"\xff{\x00" + path.read_bytes()[::-1])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_json(path: Path) -> None:
    path.write_text('[{"schema_version": "one"}]\n', encoding="utf-8")


def newer(path: Path) -> None:
    path.write_text('{"schema_version": 99}', encoding="utf-8")


DAMAGES = (Path.unlink, garble, truncate, empty, become_a_folder, other_json, newer)


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory, make_plan, fill) -> Path:
    """`sound` is there but for its last trial, and so is `damaged`, which has the same stages."""
    root = tmp_path_factory.mktemp("two")
    store = Store(root)
    plan = make_plan(seeds=1)
    last = plan.trials[-1]
    fill(store, plan, skip=[(last.arm, last.seed)])
    store.fail(
        store.begin(plan.stages[last.stages["multimodal"]]),
        {"error": "ValueError: no", "traceback": ""},
    )
    store.objects.write(f"{store.lease_folder(last.stages['multimodal'])}/000001.json", b"{}")
    scratch = store.scratch(last.stages["multimodal"])
    scratch.mkdir(parents=True)
    (scratch / "reports.jsonl").write_text('{"step": 1, "loss": 2}\n', encoding="utf-8")
    store.register(plan.model_copy(update={"study": "damaged"}))
    store.register(plan.model_copy(update={"study": "sound"}))
    return root


@pytest.mark.parametrize("record", RECORDS)
def test_every_view_goes_on_and_names_what_is_damaged(two_studies, tmp_path, record, capsys):
    for damage in DAMAGES:
        root = tmp_path / damage.__name__
        shutil.copytree(two_studies, root)
        path = sorted(root.glob(record))[0]
        damage(path)
        if record == "format.json" and damage is newer:
            with pytest.raises(UserError, match="newer version"):
                Store(root)
            continue
        store = Store(root)
        results, lines = load_all(store)
        names = [one.plan.study for one in results]
        assert "sound" in names
        told = "\n".join([*lines, *(line for one in results for line in one.damage_lines)])
        if record.endswith("latest.json") and damage is newer:  # it may mean what we do not know
            assert names == ["sound"]
            assert "newer version" in told
            continue
        if RECORDS[record] == "left out":
            assert names == ["sound"]
            with pytest.raises(UserError, match="damaged"):
                load_results("damaged", store)
        else:
            assert names == ["damaged", "sound"]
        notable = record.startswith("studies") or path.name in (
            "done.json",
            "execution.json",
            "stage.json",
            "results.parquet",
        )
        if notable and not (record.endswith("done.json") and damage is Path.unlink):
            assert str(path) in told or path.parent.name in told, damage.__name__

        shown = {one["study"] for one in status_text.summaries(None, str(root))}
        assert shown == set(names)
        errors = capsys.readouterr().err
        assert all(line in errors for line in lines)
        for one in results:
            for form in ("text", "json"):
                text = " ".join(render(one, form).split())  # wherever its lines are broken
                for line in one.damage_lines:
                    assert line.split(": ")[-1][:20] in text, (form, line)
        page_of(store, "/", until=lambda page: all(line in page for line in lines))  # noqa: B023


@pytest.mark.parametrize("record", ["output/examples.parquet", "results.parquet", "execution.json"])
def test_a_report_is_written_without_what_is_damaged(two_studies, tmp_path, record):
    root = tmp_path / "store"
    shutil.copytree(two_studies, root)
    for path in sorted(root.glob(f"stages/*/*/*/{record}")):
        garble(path)
    page = report(load_results("sound", Store(root)))
    assert "does not match its checksum" in page


def test_a_damaged_result_makes_its_trial_incomplete(two_studies, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(two_studies, root)
    before = load_results("sound", Store(root))
    stage = before.plan.trials[0].stages["multimodal"]
    (path,) = root.glob(f"stages/*/{stage}/*/results.parquet")
    empty(path)
    found = load_results("sound", Store(root))
    first = before.plan.trials[0]
    assert "training is damaged" in found.problems[first.arm, first.seed]
    assert found.states[first.arm, first.seed] == "failed"
    assert found.interim
    assert found.trials_there == before.trials_there - 1
