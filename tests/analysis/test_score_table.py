"""A table of numbers is enough for effects and verdicts, wherever the numbers come from."""

from __future__ import annotations

import ast
import io
import math
import re
from pathlib import Path

import numpy as np
import pandas
import pytest
import scipy.stats

from ablations.contrasts import Design, ScoreKey
from ablations.deciding import Claim, claims_of
from ablations.errors import UserError
from ablations.workload import Metric, Task
from analysis import controls, effects, score_table
from analysis.results import load_results
from analysis.score_table import ScoreTable
from sweeps.store import Store

DESIGN = Design({"size": ("8", "16")}, {"base": {"size": "8"}, "size=16": {"size": "16"}})
TASKS = {
    "test": Task(
        metrics=(
            Metric(name="accuracy", goal="maximise", worst=0.0, unit="%"),
            Metric(name="guess", goal="maximise", unit="%", role="baseline", of="accuracy"),
        )
    ),
    "text": Task(metrics=(Metric(name="perplexity", goal="minimise"),)),
}
CSV = """\
arm,seed,task,metric,value
base,1,test,accuracy,61.5
base,2,test,accuracy,60.0
base,3,test,accuracy,62.5
size=16,1,test,accuracy,65.0
size=16,2,test,accuracy,64.5
size=16,3,test,accuracy,65.5
base,1,test,guess,50
base,2,test,guess,50
base,3,test,guess,50
base,1,text,perplexity,20.0
base,2,text,perplexity,21.0
base,3,text,perplexity,20.5
size=16,1,text,perplexity,18.0
size=16,2,text,perplexity,19.5
size=16,3,text,perplexity,19.0
"""


def read(text: str = CSV, **keys) -> ScoreTable:
    frame = pandas.read_csv(io.StringIO(text))
    return score_table.score_table(frame, DESIGN, ("test", "accuracy", 0), TASKS, **keys)


def claim(text: str, name: str = "c") -> Claim:
    return Claim.read(name, text, read().names)


def test_numbers_in_a_file_have_effects_and_verdicts() -> None:
    table = read()
    larger, smaller = [65.0, 64.5, 65.5], [61.5, 60.0, 62.5]
    first, second = effects.effects(table)
    assert (first.metric, second.metric) == ("accuracy", "perplexity")
    oracle = scipy.stats.ttest_rel(larger, smaller)
    assert first.summary.mean == pytest.approx(np.mean(larger) - np.mean(smaller))
    assert (first.summary.ci_low, first.summary.ci_high) == pytest.approx(
        tuple(oracle.confidence_interval(0.95))
    )
    (verdict,) = table.verdicts([claim("effect(size, 8 -> 16) > 0")], 0.05)
    assert verdict.verdict == "supported"
    assert verdict.by_seed == first.summary.by_seed
    greater = scipy.stats.ttest_rel(larger, smaller, alternative="greater")
    assert verdict.p_value == pytest.approx(greater.pvalue)
    (control,) = controls.controls(table, next(key for key in table.scores if key.arm == "base"))
    assert (control.name, control.is_own) == ("guess", False)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    page = Path("docs/api.md").read_text(encoding="utf-8").partition("## Numbers from elsewhere")[2]
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    header, *lines = CSV.splitlines()
    only = [header, *(line for line in lines if "accuracy" in line)]
    (tmp_path / "scores.csv").write_text("\n".join(only), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/api.md", "exec"), {})
    effect, verdict = capsys.readouterr().out.splitlines()
    assert effect.startswith("size 16 3.66")
    assert verdict.startswith("supported adjusted p 0.00708")


def test_the_stores_view_and_the_same_numbers_in_a_file_come_to_the_same(
    tmp_path: Path, make_plan, fill
) -> None:
    store, plan = Store(tmp_path), make_plan(null=True)
    store.register(plan)
    fill(store, plan, diverged={("encoder.image_size=16", 2)}, skip={("base", 3)})
    results = load_results("demo", store)
    view = results.table
    numbers = view.numbers.copy()
    numbers["diverged"] = [
        (row.arm, row.task, row.shots, row.condition, row.seed) in view.diverged
        for row in numbers.itertuples()
    ]
    file = tmp_path / "scores.csv"
    numbers.to_csv(file, index=False)
    other = score_table.score_table(
        pandas.read_csv(file),
        view.design,
        view.primary,
        view.tasks,
        seeds=view.seeds,
        null_arms=view.null_arms,
    )
    assert effects.effects(view)
    assert repr(effects.effects(other)) == repr(effects.effects(view))
    assert effects.noise_floor(other) == effects.noise_floor(view)
    claims = claims_of(plan)
    assert repr(other.verdicts(claims, plan.alpha)) == repr(results.verdicts)
    assert {verdict.verdict for verdict in results.verdicts} == {"undecided"}
    assert other.missing == view.missing == {("base", 3)}


def test_what_has_not_come_in_leaves_a_claim_open() -> None:
    table = read(CSV.replace("size=16,3,test,accuracy,65.5\n", ""))
    (verdict,) = table.verdicts([claim("score(size=16) > score(base)")], 0.05)
    assert (verdict.verdict, verdict.reason) == ("undecided", "2 of 3 seeds")
    assert table.missing == set()  # its perplexity is there
    more = read(seeds=(1, 2, 3, 4))
    assert more.missing == {("base", 4), ("size=16", 4)}
    assert effects.effects(more)[0].interim


def test_what_diverged_has_the_worst_value_and_what_was_measured_without_it_stands() -> None:
    lines = CSV.splitlines()
    lost = "base,2,"
    marked = [lines[0] + ",diverged"] + [f"{one},{one.startswith(lost)}" for one in lines[1:]]
    table = read("\n".join(marked).replace("base,2,test,accuracy,60.0", "base,2,test,accuracy,nan"))
    assert table.score("base", "test", "accuracy")[2] == 0.0
    assert table.score("base", "test", "guess")[2] == 50
    assert math.isnan(table.score("base", "text", "perplexity")[2])
    above, below = table.verdicts(
        [
            claim("score(base) > 50", "above"),
            claim("score(base, task=text, metric=perplexity) < 30", "below"),
        ],
        0.05,
    )
    assert above.warnings[0] == "base seed 2 diverged"
    assert below.reason == "base seed 2 diverged and perplexity has no worst value"
    assert effects.effects(table)[0].diverged_seeds == (2,)


def test_a_mean_of_tasks_is_a_score_of_its_own() -> None:
    tasks = {**TASKS, "other": Task(metrics=(Metric(name="score", goal="maximise", worst=0.0),))}
    rows = [
        ("base", seed, task, metric, value + seed, 3.0)
        for seed in (1, 2)
        for task, metric, value in (("test", "accuracy", 80.0), ("other", "score", 30.0))
    ]
    frame = pandas.DataFrame(
        rows[:-1], columns=["arm", "seed", "task", "metric", "value", "standard_error"]
    )
    table = score_table.score_table(
        frame, DESIGN, ("average", "0_shot", 0), tasks, averaged=("test", "other")
    )
    assert table.score("base", "average", "0_shot") == {1: 56.0}
    assert table.metrics[0] == ("average", "0_shot", 0, "intact")
    assert table.item_error("base", "average", "0_shot") == pytest.approx(math.sqrt(18) / 2)
    assert table.record("average", "0_shot").goal == "maximise"


def test_conditions_of_ones_own_are_controls_and_blind_is_who_the_record_says() -> None:
    tasks = {
        "test": Task(
            metrics=(
                Metric(name="accuracy", goal="maximise", worst=0.0),
                Metric(name="text_only", role="baseline", of="accuracy", by="blind"),
            )
        )
    }
    lines = [
        ("base", seed, metric, condition, value + seed)
        for seed in (1, 2, 3)
        for metric, condition, value in (
            ("accuracy", "intact", 60.0),
            ("accuracy", "noisy", 40.0),
            ("text_only", "intact", 50.0),
        )
    ]
    frame = pandas.DataFrame(lines, columns=["arm", "seed", "metric", "condition", "value"])
    table = score_table.score_table(
        frame.assign(task="test"), DESIGN, ("test", "accuracy", 0), tasks
    )
    key = ScoreKey("base", "test", "accuracy", 0, "intact")
    assert [one.name for one in controls.controls(table, key)] == ["noisy", "blind"]
    above = Claim.read("sees", "score(base) > blind(test)", table.names)
    (verdict,) = table.verdicts([above], 0.05)
    assert verdict.by_seed == {1: 10.0, 2: 10.0, 3: 10.0}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("arm,seed", "arms,seed", "no column 'arms'; did you mean 'arm'"),
        ("metric,value", "metric,standard_error", "the scores have no column 'value'"),
        ("size=16,1,test", "size=17,1,test", "no arm 'size=17'; did you mean 'size=16'"),
        ("base,1,test,acc", "base,1,tests,acc", "no task 'tests'; did you mean 'test'"),
        ("accuracy,61.5", "accuracy,good", "column 'value' of the scores holds what is no number"),
        (
            "base,1,test,acc",
            "base,1.5,test,acc",
            "column 'seed' of the scores holds other than whole",
        ),
        ("base,2,test,acc", "base,1,test,acc", "there twice: arm base, task test, metric accuracy"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(old: str, new: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        read(CSV.replace(old, new))
    assert told in str(error.value)


def test_a_table_and_what_is_made_of_it_know_no_store_and_no_ray() -> None:
    for module in (score_table, effects, controls):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [one for one in named if one and one.startswith(("sweeps", "analysis.results"))]
