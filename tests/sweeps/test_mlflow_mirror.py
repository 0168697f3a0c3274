"""The MLflow mirror, read back through MLflow's own API."""

from __future__ import annotations

import pytest
from noop_stage import a_plan

from mm1_jax.errors import UserError
from mm1_jax.stage import ResultRow
from sweeps import leases
from sweeps.mlflow_mirror import Mirror, MirrorProcess, is_current, metric_name, tracking_uri
from sweeps.store import Store

PLAN = a_plan("mirrored", {"base": {"width": 8}, "wide": {"width": 16}}, seeds=(1, 2))


def finish(store: Store, stage_id: str) -> None:
    stage = PLAN.stages[stage_id]
    attempt = store.begin(stage)
    if stage.inputs:
        (attempt.output / "examples.parquet").write_bytes(b"PAR1")
        rows = [ResultRow("easy_vqa", "accuracy", 70.0 + stage.seed, split="test", n_items=5)]
    else:
        rows = [ResultRow("training", "loss", 1.0 / step, step=step) for step in range(1, 1202)]
    execution = {
        "started_at": 1e9,
        "seconds": 2.0,
        "git_revision": "abc",
        "host": "h",
        "libraries": {"jax": "1"},
    }
    store.finish(attempt, rows, execution)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A mirror written in three goes, the second one after a kill amid a run."""
    store = Store(tmp_path_factory.mktemp("store"))
    uri = tracking_uri(store, None)
    registration = store.register(PLAN)
    first, *others = PLAN.stages
    finish(store, first)
    assert Mirror(store, PLAN, registration, uri).stages() == 1

    mirror = Mirror(store, PLAN, registration, uri)
    torn = mirror._create(mirror._experiment("mm1-stages"), "torn", {"mm1.stage": others[0]}, 0)
    for stage_id in others:
        finish(store, stage_id)
    assert mirror.stages() == len(PLAN.stages)
    mirror.study(None)

    report = store.local / "report.html"
    report.write_text("<html>", encoding="utf-8")
    process = MirrorProcess(store, PLAN, uri)
    assert process.finish(report) is None
    process.end()
    return store, uri, torn


@pytest.fixture
def client(mirrored):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=mirrored[1])


def runs_of(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], max_results=100)


def test_each_stage_has_one_run_without_parent_under_its_identity(client, mirrored):
    runs = runs_of(client, "mm1-stages")
    assert sorted(run.data.tags["mm1.stage"] for run in runs) == sorted(PLAN.stages)
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)
    assert mirrored[2] not in {run.info.run_id for run in runs}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_run_of_a_stage_holds_params_curve_environment_and_examples(client, mirrored):
    trial = PLAN.trials[0]
    runs = {run.data.tags["mm1.stage"]: run for run in runs_of(client, "mm1-stages")}
    train = runs[trial.train]
    assert train.data.params["width"] == "8"
    curve = client.get_metric_history(train.info.run_id, "training.loss")
    assert sorted((point.step, point.value) for point in curve) == [
        (step, 1.0 / step) for step in range(1, 1202)
    ]
    assert train.data.tags["mlflow.source.git.commit"] == "abc"
    assert train.data.tags["mm1.execution.libraries.jax"] == "1"
    scored = runs[trial.evaluations[0].stage]
    assert scored.data.metrics["easy_vqa.accuracy"] == 71.0
    artifacts = {item.path for item in client.list_artifacts(scored.info.run_id)}
    assert artifacts == {"examples.parquet", "execution.json"}
    assert (mirrored[0].local / "mlartifacts").is_dir()


def test_study_is_a_parent_with_a_child_per_arm_and_seed(client):
    runs = runs_of(client, "mm1-mirrored")
    (parent,) = [run for run in runs if run.data.tags["mm1.role"] == "study"]
    children = [run for run in runs if run.data.tags["mm1.role"] == "trial"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mm1.trials"] == "4 of 4"
    assert {(run.data.tags["mm1.arm"], run.data.tags["mm1.seed"]) for run in children} == {
        (trial.arm, str(trial.seed)) for trial in PLAN.trials
    }
    assert len(children) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    base = next(run for run in children if run.info.run_name == "base seed 2")
    assert base.data.metrics == {"easy_vqa.accuracy": 72.0, "training.loss": 1.0 / 1201}
    stage_runs = {run.info.run_id for run in runs_of(client, "mm1-stages")}
    assert base.data.tags["mm1.run.train"] in stage_runs
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"plan.json", "study.yaml", "report.html"}


def test_complete_mirror_is_known_until_its_database_is_gone(mirrored):
    store, uri, _ = mirrored
    assert is_current(store, PLAN, uri)
    assert not is_current(store, PLAN, "http://elsewhere")
    database = store.local / "mlflow.db"
    database.rename(store.local / "moved.db")
    assert not is_current(store, PLAN, uri)
    (store.local / "moved.db").rename(database)


def test_trouble_is_told_in_one_line(mirrored):
    process = MirrorProcess(mirrored[0], PLAN, "nosuch://place")
    trouble = process.finish()
    process.end()
    assert "nosuch" in trouble
    assert "mlflow.log" in trouble


def test_one_mirror_at_a_time_per_store(mirrored, monkeypatch):
    import sweeps.mlflow_mirror as mirror

    monkeypatch.setattr(mirror, "LEASE_SECONDS", 0.1)
    lease = leases.acquire(mirrored[0].objects, "mlflow/lease")
    with pytest.raises(TimeoutError, match="another run"), mirror._alone(mirrored[0]):
        pass
    lease.release()
    with mirror._alone(mirrored[0]):
        assert leases.holder(mirrored[0].objects, "mlflow/lease") is not None


def test_where_to_mirror_to(tmp_path, monkeypatch):
    store = Store(tmp_path)
    assert tracking_uri(store, None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri(store, "off") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://x")
    assert tracking_uri(store, None) == "http://x"
    assert tracking_uri(store, "http://y") == "http://y"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="--mlflow URI"):
        tracking_uri(Store("memory://m"), None)


def test_metric_names_tell_the_variant():
    row = {"task": "easy_vqa", "metric": "accuracy", "shots": 0, "condition": "intact"}
    assert metric_name(row) == "easy_vqa.accuracy"
    assert metric_name(row | {"shots": 4, "condition": "shuffled"}) == (
        "easy_vqa.accuracy.4-shot.shuffled"
    )
