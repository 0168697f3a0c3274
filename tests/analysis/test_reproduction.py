"""`mm1 reproduce`: a report's study is rebuilt from what it carries, and its numbers compared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner

from ablations.contrasts import Design
from ablations.deciding import Claim
from ablations.errors import UserError
from ablations.workload import Code, Metric, Task
from analysis.report import carried
from analysis.report.carried import Number
from analysis.report.reproduction import changed_verdicts, decided_again, outcomes, table_of, unlike
from analysis.report.writing import FORMS, write_report
from analysis.score_table import score_table
from mm1.cli import cli
from mm1_jax import workload


def number(value: float, seed: int = 1, diverged: bool = False) -> Number:
    shown: Any = value if math.isfinite(value) else str(value)
    return Number("base", seed, "easy_vqa", "accuracy", 0, "intact", shown, diverged)


@pytest.mark.parametrize(
    ("then", "now", "state"),
    [
        (number(81.2), number(81.2), "equal"),
        (number(math.nan), number(math.nan), "equal"),
        (number(81.2), number(math.nextafter(81.2, 90)), "within"),
        (number(81.2), number(80.5), "within"),
        (number(81.2), number(80.3), "different"),
        (number(0.0), number(1e-9), "different"),
        (number(81.2), number(math.nan), "different"),
        (number(math.inf), number(-math.inf), "different"),
        (number(81.2), number(81.2, diverged=True), "different"),
        (number(81.2), number(81.2, seed=2), "missing"),
    ],
)
def test_each_trial_is_equal_within_different_or_missing(
    then: Number, now: Number, state: str
) -> None:
    (found,) = outcomes([then], [now], tolerance=0.01)
    assert found.state == state
    assert bool(found.told) == (state != "equal")


def test_what_of_an_environment_is_another_is_named() -> None:
    then = [{"python": "3.11.7", "libraries": {"jax": "0.10.2"}, "threads": 1}]
    now = [{"python": "3.11.7", "libraries": {"jax": "0.10.3"}, "machine": "x86_64"}]
    assert unlike(then, now) == ["libraries: jax 0.10.2 then, jax 0.10.3 now"]
    assert unlike(then, then) == []


def call(*words: object) -> tuple[int, str]:
    """Exit code and output of `mm1 reproduce WORDS…`, as `mm1` itself has them."""
    done = CliRunner().invoke(cli, ["reproduce", *map(str, words)], standalone_mode=False)
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.output


@pytest.fixture
def reported(lab: Any, tmp_path: Path) -> Path:
    """The report of a study that has run; its own files are gone."""
    lab.run()
    path = write_report(lab.results(), tmp_path / "report.html")
    for file in ("sizes.yaml", "recipe.yaml"):
        (lab.folder / file).unlink()
    return path


def test_in_its_own_store_everything_is_there_again_and_nothing_is_written(
    lab: Any, reported: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(lab.store.root).rglob("*")}
    code, told = call(reported, "--store", lab.store.root)
    assert code == 0, told
    assert "it means the same" in told
    assert "6 trials: 6 equal" in told
    assert "every verdict is the same" in told
    after = {path: path.stat().st_mtime_ns for path in Path(lab.store.root).rglob("*")}
    assert {p: t for p, t in after.items() if p in before and p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


def test_every_form_can_be_reproduced(lab: Any, tmp_path: Path) -> None:
    lab.run()
    for form, end in FORMS.items():
        path = write_report(lab.results(), tmp_path / f"report{end}", form)
        assert call(path, "--store", lab.store.root, "--check")[0] == 0, form


def test_where_nothing_is_there_a_check_says_so_and_creates_nothing(
    reported: Path, tmp_path: Path
) -> None:
    code, told = call(reported, "--store", tmp_path / "new", "--check")
    assert code == 1
    assert "18 of 18 stages have no result" in told
    assert "6 trials: 6 missing" in told
    assert not (tmp_path / "new").exists()


def test_numbers_that_came_out_otherwise_are_named(
    lab: Any, reported: Path, tmp_path: Path
) -> None:
    then = carried.read(reported)
    assert then.plan is not None
    other = type(lab.store)(tmp_path / "other")
    lab.store, before = other, lab.store
    other.register(then.plan)
    lab.finish(then.plan, seeds=2)
    third = {t.arm: t.stages for t in then.plan.trials if t.seed == then.plan.seeds[2]}
    assert third.keys() == {"base", "encoder.image_size=16"}
    lab.finish(then.plan, tasks={"easy_vqa": {"accuracy": 3.0}})
    code, told = call(reported, "--store", other.root)
    assert code == 1
    assert "6 trials: 4 equal and 2 different" in told
    assert "base seed 2: easy_vqa.accuracy" in told
    assert "3.0 now" in told
    assert "another verdict: better: supported then, undecided now" in told
    code, printed = call(reported, "--store", other.root, "--json")
    record = json.loads(printed)
    assert (code, record["came_out"]) == (1, False)
    assert [one["state"] for one in record["trials"]].count("different") == 2
    assert before is not other


def test_code_that_is_another_by_now_is_told(
    lab: Any, reported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "_code", lambda kind, run, also: (Code(), "f" * 32))
    code, told = call(reported, "--store", lab.store.root, "--check")
    assert code == 1
    assert "another code" in told
    assert "6 missing" in told


def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, reported: Path) -> None:
    path = tmp_path / "x.html"
    assert "no such file" in call(path)[1]
    path.write_text("<html>", encoding="utf-8")
    assert call(path) == (
        2,
        f"{path} carries no study: it is no report of mm1, or one of before this could be done",
    )
    text = reported.read_text(encoding="utf-8")
    at = text.rindex("base64,") + 200
    for damaged in (text[:at] + '"', text[:at] + "AAAA" + text[at + 4 :], text[:at] + "!"):
        path.write_text(damaged, encoding="utf-8")
        code, told = call(path)
        assert code == 2
        assert "\n" not in told


def test_a_report_that_would_run_code_of_its_own_is_not_believed(lab: Any, tmp_path: Path) -> None:
    plan = lab.run()
    marker = tmp_path / "ran"
    evil = {"command": f"touch {marker}", "metrics": {"easy_vqa.accuracy": {"goal": "maximize"}}}
    source = f"workload: {json.dumps(evil)}\n{plan.source}"
    results = lab.results()
    object.__setattr__(results, "plan", results.plan.model_copy(update={"source": source}))
    path = write_report(results, tmp_path / "evil.html")
    code, told = call(path, "--store", tmp_path / "new")
    assert code == 2
    assert "give its file with --study" in told
    assert not marker.exists()


def test_a_report_of_a_table_is_decided_again() -> None:
    design = Design({"size": ("8", "16")}, {"base": {"size": "8"}, "size=16": {"size": "16"}})
    tasks = {"test": Task(metrics=(Metric(name="accuracy", goal="maximise", worst=0.0),))}
    rows = [
        (arm, seed, "test", "accuracy", level + seed * 0.1 + 0.01 * (seed % 2) * (level - 50))
        for arm, level in (("base", 50.0), ("size=16", 60.0))
        for seed in range(4)
    ]
    frame = pandas.DataFrame(rows, columns=["arm", "seed", "task", "metric", "value"])
    table = score_table(frame, design, ("test", "accuracy", 0), tasks)
    (verdict,) = table.verdicts(
        [Claim.read("larger", "effect(size, 8 -> 16) > 0", table.names)], alpha=0.05
    )
    assert verdict.verdict == "supported"
    then = carried.Carried(
        study="t", hash="h", mm1="0", alpha=0.05, seeds=table.seeds,
        table=carried.Table(
            factors=dict(design.factors), arms=dict(design.arms), primary=table.primary,
            tasks=tasks,
        ),
        numbers=tuple(carried.numbers_of(table)),
        claims={"larger": carried.Decided(
            text="effect(size, 8 -> 16) > 0", verdict="supported", interim=False, effect=1.0
        )},
    )  # fmt: skip
    again = decided_again(then, table_of(then))
    assert changed_verdicts(then, again) == []
    assert again[0].effect == verdict.effect


TABLE = "model,seed,accuracy\n" + "".join(
    f"{arm},{seed},{level + seed * 0.1 + (seed % 2) * gain}\n"
    for arm, level, gain in (("a", 50.0, 0.2), ("b", 52.0, 0.1))
    for seed in range(4)
    if (arm, seed) != ("a", 3)
)


@pytest.mark.parametrize("form", FORMS)
def test_a_table_alone_has_a_report_that_is_decided_again(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text(TABLE, encoding="utf-8")
    words = ["--table", "scores.csv", "--claim", "score(b) > score(a)", "--format", form]
    done = CliRunner().invoke(cli, ["report", *words], standalone_mode=False)
    assert done.exception is None, done.output
    (path,) = Path().rglob(f"scores-report{FORMS[form]}")
    assert done.output.strip() == str(path)
    assert (path.parent != Path()) == (form == "latex")  # its PDF must not replace the report's
    then = carried.read(path)
    assert then.plan is None
    assert len(then.numbers) == 7
    (claim,) = then.claims.values()
    assert claim.verdict == "supported"
    code, told = call(path)
    assert code == 0
    assert "every verdict is the same" in told
    if form == "md":
        text = path.read_text(encoding="utf-8")
        assert "of which not every arm has all" in text
        assert "The scores were made elsewhere" in text
        assert "Standing of the claims: exploratory." in text
        assert "Learning curves" not in text


def test_seeds_that_were_not_needed_are_not_run(lab: Any, tmp_path: Path) -> None:
    """A rule that has ended has all there is, although it could have had more seeds."""
    plan = lab.register(seeds={"initial": 3, "max": 8, "until": "verdict"})
    lab.finish(plan, seeds=3)
    results = lab.results()
    assert results.replicated.ended
    path = write_report(results, tmp_path / "report.html")
    before = (Path(lab.store.root) / "studies").stat().st_mtime_ns
    code, told = call(path, "--store", lab.store.root)
    assert code == 0, told
    assert "no result" not in told
    assert "6 trials: 6 equal" in told
    assert (Path(lab.store.root) / "studies").stat().st_mtime_ns == before


def test_a_report_without_numbers_is_not_said_to_have_come_out(lab: Any, tmp_path: Path) -> None:
    lab.register()
    path = write_report(lab.results(), tmp_path / "report.html")
    code, told = call(path, "--store", lab.store.root, "--check")
    assert code == 1
    assert "the report has no number yet: there is nothing to compare" in told
