"""Where a command's files stand: revisions of git as levels, and what travels to a cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from ablations.command import standing
from ablations.errors import UserError
from ablations.own_workload import ONLY
from mm1 import api
from sweeps.shipping import shipment

STUDY = """\
study: revisions
question: Does the new script count further?
workload:
  command: python count.py {config} {seed} {output}
  metrics: {count: {goal: maximize}}
  data: [data/start.txt]
base: base.yaml
design: {one_at_a_time: {code: [old, here]}}
seeds: 1
primary_metric: count
claims: {further: "effect(code, old -> here) > 0"}
"""
SCRIPT = """\
import json, sys
from pathlib import Path
config, seed, output = sys.argv[1:]
start = int(Path("data/start.txt").read_text())
assert "code" not in Path(config).read_text()
Path(output, "metrics.jsonl").write_text(json.dumps({"step": 1, "count": start + STEP}) + "\\n")
"""


@pytest.fixture
def home(tmp_path):
    """A repository whose tag `old` counts 1, whose last commit counts 2, and data it ignores."""
    place = tmp_path / "repository" / "study"
    (place / "data").mkdir(parents=True)
    (place / "data" / "start.txt").write_text("5", encoding="utf-8")
    (place / ".gitignore").write_text("data/\n.mm1/\n", encoding="utf-8")
    (place / "base.yaml").write_text("rate: 1.0\n", encoding="utf-8")
    (place / "study.yaml").write_text(STUDY, encoding="utf-8")
    git(place.parent, "init", "-q")
    for step, tag in ((1, "old"), (2, "new")):
        (place / "count.py").write_text(SCRIPT.replace("STEP", str(step)), encoding="utf-8")
        git(place.parent, "add", "-A")
        git(place.parent, "commit", "-q", "-m", tag)
        git(place.parent, "tag", tag)
    return place


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout


def stages(plan):
    return {trial.arm: plan.stages[trial.stages[ONLY]] for trial in plan.trials[:2]}


def run(stage, store):
    """What the stage measured."""
    import threading

    from sweeps.store import Store
    from sweeps.worker import execute

    opened = Store(store)
    outcome = execute(opened, stage, store / "data", threading.Event(), "")
    assert outcome.state == "done", outcome
    rows = opened.rows([stage.id])
    return float(rows[rows.metric == "count"].value.iloc[-1])


def test_each_revision_runs_its_own_script_beside_the_same_data(home, tmp_path):
    before = git(home, "status", "--porcelain"), git(home, "worktree", "list")
    plan = api.plan(home / "study.yaml")
    arms = stages(plan)
    assert [arm.name for arm in plan.arms] == ["base", "code=old"]
    assert plan.factors == {"code": ("here", "old")}
    assert arms["base"].config["commit"] == ""
    assert arms["code=old"].config["commit"] == git(home, "rev-parse", "old").strip()
    assert run(arms["base"], tmp_path / "store") == 7
    assert run(arms["code=old"], tmp_path / "store") == 6
    assert (git(home, "status", "--porcelain"), git(home, "worktree", "list")) == before


def test_revision_of_the_same_files_is_the_same_stage(home):
    """What decides is the code, not what the revision is called or where the rest is."""
    text = STUDY.replace("code: [old, here]", "arms: {same: {code: new}}")
    text = text.replace("one_at_a_time: {", "").replace("}}}", "}}").partition("claims:")[0]
    (home / "study.yaml").write_text(text, encoding="utf-8")
    plan = api.plan(home / "study.yaml")
    assert len({trial.stages[ONLY] for trial in plan.trials if trial.seed == 0}) == 1
    assert any("come to the same stages" in warning for warning in plan.warnings)
    git(home, "commit", "-q", "--allow-empty", "-m", "nothing")
    git(home, "tag", "-f", "new")
    again = api.plan(home / "study.yaml")
    assert set(again.stages) == set(plan.stages)


def test_key_of_ones_own_that_is_called_code_stays_ones_own(home):
    (home / "base.yaml").write_text("rate: 1.0\ncode: plain\n", encoding="utf-8")
    plan = api.plan(home / "study.yaml")
    assert stages(plan)["code=old"].config["commit"] == ""
    assert stages(plan)["code=old"].config["config"]["code"] == "old"


def test_revision_that_is_not_there_is_told_with_its_line_and_the_nearest(home):
    text = STUDY.replace("[old, here]", "[olt, here]")
    (home / "study.yaml").write_text(text, encoding="utf-8")
    told = r"study\.yaml:8: .*git knows no revision 'olt'; did you mean 'old'\?"
    with pytest.raises(UserError, match=told):
        api.plan(home / "study.yaml")


def test_revision_without_the_script_is_told_before_anything_runs(home):
    git(home, "checkout", "-q", "--orphan", "empty")
    git(home, "rm", "-q", "--cached", "-r", ".")
    git(home, "commit", "-q", "--allow-empty", "-m", "nothing at all")
    git(home, "tag", "bare")
    git(home, "checkout", "-q", "-f", "new")
    text = STUDY.replace("[old, here]", "[bare, here]")
    (home / "study.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"bare has no count\.py, which the command names"):
        api.plan(home / "study.yaml")


def test_folder_that_is_in_no_repository_has_no_revisions(home, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(home, alone)
    text = STUDY.replace("  data:", "  code: [count.py]\n  data:")
    (alone / "study.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="is in no git repository, so there are no revisions"):
        api.plan(alone / "study.yaml")


RUNS_ELSEWHERE = """\
import sys, threading
from pathlib import Path
from ablations.command import standing
from sweeps.store import Store
from sweeps.worker import execute
assert standing.TRAVELLED == Path(sys.argv[1]) / "travelled", standing.TRAVELLED
store = Store(sys.argv[2])
plan, _ = store.snapshot("revisions")
for stage in plan.stages.values():
    outcome = execute(store, stage, Path(sys.argv[2]) / "data", threading.Event(), "")
    assert outcome.state == "done", outcome
"""


def test_code_and_small_data_travel_to_where_the_study_is_not(home, tmp_path):
    from sweeps.store import Store

    plan = api.plan(home / "study.yaml")
    store = Store(tmp_path / "store")
    store.register(plan)
    with shipment(plan) as folder:
        assert json.loads((folder / "travelled" / "staying.json").read_text(encoding="utf-8")) == []
        home.parent.rename(tmp_path / "gone")
        done = subprocess.run(
            [sys.executable, "-c", RUNS_ELSEWHERE, str(folder), str(tmp_path / "store")],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
    rows = store.rows(plan.stages)
    assert set(rows[rows.metric == "count"].value) == {6, 7}


def test_data_that_do_not_travel_are_looked_for_on_the_cluster(home, tmp_path, monkeypatch):
    from sweeps import reach

    monkeypatch.setattr(standing, "MOST_BYTES", 0)
    with shipment(api.plan(home / "study.yaml")) as folder:
        monkeypatch.setattr(standing, "TRAVELLED", folder / "travelled")
        data = home / "data" / "start.txt"
        assert standing.staying() == [str(data)]
        with reach.markers(str(tmp_path / "store"), tmp_path / "data") as token:
            places = str(tmp_path / "store"), str(tmp_path / "data"), token
            assert reach.missing(*places) == []
            data.unlink()
            assert reach.missing(*places) == [f"the data {data}"]


def test_code_outside_of_the_repository_cannot_travel(home, tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_text("print()", encoding="utf-8")
    text = STUDY.replace("  data:", f"  code: [count.py, {outside}]\n  data:")
    (home / "study.yaml").write_text(text, encoding="utf-8")
    plan = api.plan(home / "study.yaml")
    told = r"outside\.py lies outside .*, so it cannot travel to a cluster"
    with pytest.raises(UserError, match=told), shipment(plan):
        pass
