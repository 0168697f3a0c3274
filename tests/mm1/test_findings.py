"""The findings of `import mm1`, on stored studies and tables; columns are those of the page."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

import mm1
from ablations.contrasts import Design
from ablations.deciding import Claim
from ablations.errors import UserError
from ablations.workload import Metric, Task
from analysis.effects import effects
from analysis.results import load_results
from analysis.score_table import score_table
from sweeps.store import Store

API = Path("docs/api.md").read_text(encoding="utf-8")
TOLD = {
    name: re.findall(r"`(\w+)`", columns)
    for name, columns in re.findall(r"^\| `([\w.]+)` \| (`\w+` .*) \|$", API, re.MULTILINE)
}


@pytest.fixture(scope="module")
def store(demo_store):
    return demo_store


@pytest.fixture(scope="module")
def study(store):
    return mm1.load("demo", store=store)


def design(*levels):
    cells = [(a, b) for a in levels[0] for b in levels[1]]
    arms = {f"w={a},lr={b}" if i else "base": {"w": a, "lr": b} for i, (a, b) in enumerate(cells)}
    return Design({"w": levels[0], "lr": levels[1]}, arms)


@pytest.fixture(scope="module")
def table():
    """Widths × learning rates with a best rate inside at each width."""
    widths, rates = ("10", "100", "1000", "10000"), ("0.001", "0.01", "0.1", "1")
    made = design(widths, rates)
    rows = [
        (arm, seed, "t", "loss", 1 + 8 * float(at["w"]) ** -0.3 + off**2 / 50 + seed / 1000)
        for arm, at in made.arms.items()
        for off in [math.log(float(at["lr"])) - math.log(0.3 * float(at["w"]) ** -0.3)]
        for seed in (1, 2, 3)
    ]
    frame = pandas.DataFrame(rows, columns=["arm", "seed", "task", "metric", "value"])
    tasks = {"t": Task(metrics=(Metric(name="loss", goal="minimise", unit="nats"),))}
    return score_table(frame, made, ("t", "loss", 0), tasks)


def frames(study, table):
    fit = mm1.scaling_fit(table, "w")
    first, second = "base", study.plan.arms[1].name
    return {
        "scores": mm1.scores(study),
        "effects": mm1.effects(study),
        "interactions": mm1.interactions(table),
        "importance": mm1.importance(study),
        "trends": mm1.trends(study),
        "over_shots": mm1.over_shots(study),
        "equivalence": mm1.equivalence(study, 3.0),
        "verdicts": mm1.verdicts(study),
        "curves": mm1.curves(study),
        "examples": mm1.examples(study),
        "flips": mm1.flips(study, first, second),
        "noise": mm1.noise(study, first, second),
        "pareto": mm1.pareto(study),
        "rank_agreement": mm1.rank_agreement(study, study),
        "scaling_fit.parameters": fit.parameters,
        "scaling_fit.curvature": fit.curvature,
        "scaling_fit.held_out": fit.held_out,
        "scaling_fit.points": fit.points,
        "learning_rate_law.optima": mm1.learning_rate_law(table, "w", "lr").optima,
    }


def test_every_finding_has_the_columns_that_the_page_names(study, table) -> None:
    made = frames(study, table)
    assert set(TOLD) == set(made)
    for name, frame in made.items():
        own = {*study.table.design.factors} if name == "scores" else set()
        assert {*frame.columns} - own == {*TOLD[name]}, name
        assert len(frame), name


def test_effects_and_verdicts_are_those_of_compare(study, store) -> None:
    found = mm1.effects(study)
    known = [one for one in effects(study.table) if one.metric == study.primary[1]]
    known = [one for one in known if one.condition == "intact" and one.task == study.primary[0]]
    assert found["effect"].tolist() == [one.summary.mean for one in known]
    assert found["ci_low"].tolist() == [one.summary.ci_low for one in known]
    decided = mm1.verdicts("demo", store=store).set_index("name")
    assert decided["verdict"].to_dict() == {v.name: v.verdict for v in study.verdicts}
    assert decided["standing"].to_dict() == {v.name: study.standing(v.name) for v in study.verdicts}


def test_claims_on_a_table_are_decided_and_exploratory(table) -> None:
    text = "effect(w, 10 -> 10000) < 0"
    (row,) = mm1.verdicts(table, {"wider": text}).to_dict("records")
    (verdict,) = table.verdicts([Claim.read("wider", text, table.names)], 0.05)
    assert (row["verdict"], row["standing"]) == (verdict.verdict, "exploratory")
    assert mm1.verdicts(table).empty


def test_claims_of_a_study_are_those_that_were_registered(study) -> None:
    with pytest.raises(UserError, match="which were registered"):
        mm1.verdicts(study, {"late": "score(base) > 0"})


def test_costs_are_exact_or_measured(study) -> None:
    exact = mm1.pareto(study, "flops").set_index("arm")
    assert exact["cost"]["base"] == study.plan.arms[0].flops_per_trial
    assert (exact["cost_sd"] == 0).all()
    tokens = mm1.pareto(study, "image_tokens").set_index("arm")["cost"]
    assert tokens["base"] == study.plan.arms[0].figures["image_tokens"]
    seconds = mm1.pareto(study, "seconds_per_item").set_index("arm")
    rows = len(study.plan.tasks["easy_vqa"].metrics)
    assert seconds["cost"]["base"] == pytest.approx((2.0 + rows) / 40)
    assert mm1.pareto(study, "training_seconds")["cost"].tolist() == pytest.approx([4.0] * 5)
    with pytest.raises(UserError, match="no cost 'flosp'; did you mean 'flops'"):
        mm1.pareto(study, "flosp")


def test_seconds_of_unlike_devices_say_nothing(tmp_path, store) -> None:
    found = load_results("demo", Store(store))
    ran = dict(found.executions)
    one = found.plan.trials[0].stages
    ran |= {stage: {**ran[stage], "device_kind": "H200"} for stage in one.values()}
    object.__setattr__(found, "__dict__", {**vars(found), "executions": ran})
    with pytest.raises(UserError, match=r"unlike devices \(H200, cpu\)"):
        mm1.pareto(found, "training_seconds")


def test_names_that_are_not_known_are_told_with_the_nearest(study, table) -> None:
    with pytest.raises(UserError, match=r"no metric 'easy_vqa.acuracy' was .*did you mean"):
        mm1.effects(study, "easy_vqa.acuracy")
    with pytest.raises(UserError, match="no metric 'nothing' was measured"):
        mm1.scores(study, "nothing")
    with pytest.raises(UserError, match="no arm 'bas'; did you mean 'base'"):
        mm1.flips(study, "bas", "base")
    with pytest.raises(UserError, match="no task 'easy_vaq'; did you mean 'easy_vqa'"):
        mm1.examples(study, "easy_vaq")
    with pytest.raises(UserError, match=r"was not asked at 8 shots, intact; there is: 0-shot"):
        mm1.examples(study, "easy_vqa", shots=8)
    with pytest.raises(UserError, match=r"no easy_vqa.accuracy at 8 shots, intact"):
        mm1.effects(study, "easy_vqa.accuracy", shots=8)
    with pytest.raises(UserError, match="a table of numbers has none"):
        mm1.curves(table)
    with pytest.raises(UserError, match="give the cost of each arm"):
        mm1.pareto(table, "flops")


def test_one_seed_gives_effects_and_no_interval(store) -> None:
    found = load_results("demo", Store(store))
    one = found.table.numbers
    table = score_table(
        one[(one["seed"] == 1) & (one["task"] == "easy_vqa")],
        found.table.design,
        found.primary,
        found.plan.tasks,
    )
    made = mm1.effects(table)
    assert made["effect"].notna().all()
    assert made[["ci_low", "p_uncorrected", "detectable"]].isna().all().all()
    assert mm1.importance(table)["importance"].isna().all()
    assert mm1.verdicts(table, {"better": "score(base) > 0"})["verdict"].tolist() == ["undecided"]


def test_importing_it_costs_nothing() -> None:
    heavy = {"scipy.stats", "jax", "ray", "plotly"}
    program = f"import sys, mm1; mm1.effects; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "[]"
