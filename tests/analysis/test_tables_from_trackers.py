"""What real clients of W&B, MLflow, Optuna and TensorBoard wrote comes to the same verdicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas
import pytest

from ablations.errors import UserError
from analysis.compare import Comparison
from analysis.tables.claims_file import inline_claims
from analysis.tables.comparison import table_comparison, table_results
from analysis.tables.reading import Reading
from analysis.tables.sources import read_source

SCORES = {"a": (50.3, 50.1, 51.2), "b": (52.1, 50.8, 53.0)}
P = 0.029823  # of b > a
WRITE_WANDB = textwrap.dedent("""
    import json, sys, wandb
    for arm, own in json.loads(sys.argv[1]).items():
        for seed, score in enumerate(own):
            settings = wandb.Settings(silent=True, console="off", x_disable_meta=True)
            config = {"arm": arm, "seed": seed, "optim": {"lr": 0.1}}
            run = wandb.init(project="p", name=f"{arm}-s{seed}", mode="offline", dir=".",
                             config=config, settings=settings)
            for step in range(3):
                run.log({"val/accuracy": score - 2 + step, "train": {"loss": 3.0 - step}})
            run.finish(exit_code=int(arm == "b" and seed == 9))
""")


def compared(source: str | Path, claim: str, **reading: Any) -> Comparison:
    told = Reading(**reading)
    found = table_results(
        read_source(str(source), told.part), told, inline_claims([claim], 0.05), is_inline=True
    )
    return table_comparison(found)


def check(made: Comparison, effect: float = 1.433333) -> None:
    (one,) = made.claims
    assert (one.verdict, one.n) == ("supported", 3)
    assert one.effect == pytest.approx(effect, abs=1e-4)
    assert one.p_value == pytest.approx(P, abs=2e-4)
    assert one.standing == "exploratory"


@pytest.mark.slow  # its client starts a process for each run
def test_runs_of_wandb_that_were_never_synced(tmp_path: Path) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline", "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", WRITE_WANDB, json.dumps(SCORES)],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    for folder in (tmp_path, tmp_path / "wandb"):
        check(compared(folder, "score(b) > score(a)", primary="val/accuracy"))
    made = compared(tmp_path, "score(b, metric=train.loss) < 2")
    assert made.claims[0].n == 3
    rows = read_source(str(tmp_path)).frame
    assert set(rows["State"]) == {"finished"}
    assert rows["Created"].notna().all()
    # What the web page exports of the same runs, as a file.
    export = rows.rename(columns={"config.arm": "arm", "summary.val/accuracy": "val/accuracy"})
    export = export.rename(columns={"config.seed": "seed"}).drop(columns=["summary.train.loss"])
    export.to_csv(tmp_path / "wandb_export.csv", index=False)
    check(compared(tmp_path / "wandb_export.csv", "score(b) > score(a)"))


def test_a_log_of_wandb_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = tmp_path / "offline-run-20261201_000000-abc"
    folder.mkdir()
    (folder / "run-abc.wandb").write_bytes(b":W&B\x00\x00\x00" + b"\x01" * 40)
    frame = read_source(str(tmp_path)).frame
    assert frame["State"].tolist() == ["running"]
    (folder / "run-abc.wandb").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not a log of W&B"):
        read_source(str(tmp_path))


@pytest.mark.slow  # its database is made by forty migrations
def test_an_experiment_of_mlflow(tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("ablation", artifact_location=str(tmp_path / "a"))
    for arm, own in SCORES.items():
        for seed, score in enumerate(own):
            run = client.create_run(experiment, run_name=f"{arm}{seed}")
            for name, value in (("arm", arm), ("seed", seed), ("lr", 0.1)):
                client.log_param(run.info.run_id, name, value)
            for step in range(2):
                client.log_metric(run.info.run_id, "accuracy", score - 1 + step, step=step)
            client.set_terminated(run.info.run_id)
    for source in (uri, tmp_path / "mlflow.db", tmp_path, f"mlflow:{uri}"):
        check(compared(source, "score(b) > score(a)"))
    check(compared(uri, "score(b) > score(a)", part="ablation"))
    with pytest.raises(UserError, match="no experiment 'ablatoin'; did you mean 'ablation'"):
        compared(uri, "score(b) > score(a)", part="ablatoin")
    failed = client.create_run(experiment, run_name="b3")
    for name, value in (("arm", "b"), ("seed", 2)):
        client.log_param(failed.info.run_id, name, value)
    client.log_metric(failed.info.run_id, "accuracy", 11.0)
    client.set_terminated(failed.info.run_id, status="FAILED")
    made = compared(uri, "score(b) > score(a)")
    check(made)
    assert any("b seed 2: a failed run is left out" in line for line in made.notices)


@pytest.mark.slow  # its package and database take six seconds
def test_a_study_of_optuna_says_which_way_its_value_is_better(tmp_path: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    grid = {"arm": ["a", "b"], "seed": [0, 1, 2]}
    study = optuna.create_study(
        study_name="s",
        storage=storage,
        direction="maximize",
        sampler=optuna.samplers.GridSampler(grid, seed=0),
    )

    def objective(trial: optuna.Trial) -> float:
        arm = trial.suggest_categorical("arm", ["a", "b"])
        return SCORES[arm][trial.suggest_int("seed", 0, 2)]

    study.optimize(objective, n_trials=6)
    for source in (storage, tmp_path / "optuna.db"):
        made = compared(source, "score(b) > score(a)")
        check(made)
        assert made.primary_goal == "maximise"
        check(compared(source, "best(arm) == b"))
    study.trials_dataframe().to_csv(tmp_path / "trials.csv", index=False)
    check(compared(tmp_path / "trials.csv", "score(b) > score(a)"))
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.FAIL))
    assert compared(storage, "score(b) > 3").claims


def test_logs_of_tensorboard_count_at_their_last_step(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for arm, own in SCORES.items():
        for seed, score in enumerate(own):
            writer = EventFileWriter(str(tmp_path / arm / f"seed_{seed}"))
            for step in range(1, 4):
                value = Summary.Value(tag="val/accuracy", simple_value=score - 3 + step)
                event = Event(wall_time=1.7e9 + step, step=step, summary=Summary(value=[value]))
                writer.add_event(event)
            writer.close()
    made = compared(tmp_path, "score(b) > score(a)")
    check(made)
    assert any("taken is the last of each run" in line for line in made.warnings)
    earlier = compared(tmp_path, "score(b) > 50.0", step=2)
    assert earlier.claims[0].by_seed == pytest.approx({0: 51.1, 1: 49.8, 2: 52.0}, abs=1e-4)
    check(compared(tmp_path, "score(b) > score(a)", names="{arm}/seed_{seed}"))


def results_file(score: float, task: str = "gqa", **more: Any) -> str:
    scores = {"acc,none": score, "acc_stderr,none": 0.01, "alias": task}
    made = {
        "results": {task: scores, "wikitext": {"word_perplexity,none": 20 - score, " ": ""}},
        "higher_is_better": {task: {"acc": True}, "wikitext": {"word_perplexity": False}},
        "n-shot": {task: 0, "wikitext": 0},
        "config": {"model": "hf", "model_args": "pretrained=/x", "random_seed": 0},
        "date": 1.7e9,
    }
    return json.dumps(made | more)


def test_result_folders_of_a_harness(tmp_path: Path) -> None:
    for arm, own in SCORES.items():
        for seed, score in enumerate(own):
            folder = tmp_path / f"{arm}_seed{seed}" / "__ckpt__model"
            folder.mkdir(parents=True)
            (folder / "results_2026-01-01T00-00-00.json").write_text(
                results_file(score / 100), encoding="utf-8"
            )
            (folder / "samples_gqa.jsonl").write_text("{}", encoding="utf-8")
    claim = "score(b, task=gqa) > score(a, task=gqa)"
    check(compared(tmp_path, claim), 0.01433333)
    made = compared(tmp_path, "score(b, task=wikitext) < score(a, task=wikitext)")
    assert made.claims[0].verdict == "supported"
    assert {c.word for c in made.claims[0].caveats} >= {"lower is better"}
    check(compared(tmp_path, claim, names="{arm}_seed{seed}"), 0.01433333)
    # Seeds of few-shot examples are no seeds of a training: without them in names there is one.
    other = tmp_path / "one"
    for arm in "ab":
        (other / arm).mkdir(parents=True)
        (other / arm / "results.json").write_text(
            results_file(0.5 + 0.1 * (arm == "b")), encoding="utf-8"
        )
    (one,) = compared(other, claim).claims
    assert (one.verdict, one.n) == ("undecided", 1)


def written_by(harness: str, root: Path) -> Path:
    """What a harness wrote of tiny models: its files as they were, without settings of tasks."""
    kept = json.loads(Path(__file__).with_name("harness_results.json").read_text(encoding="utf-8"))
    for name, content in kept[harness].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content), encoding="utf-8")
    return root


def test_what_lm_eval_wrote_is_read(tmp_path: Path) -> None:
    folder = written_by("lm_eval 0.4.13", tmp_path)
    made = compared(folder, "score(wide, task=letters) > score(narrow, task=letters)")
    # By hand: 4/6 − 2/6, 3/6 − 3/6, 3/6 − 1/6.
    assert made.claims[0].by_seed == pytest.approx({0: 1 / 3, 1: 0.0, 2: 1 / 3})
    loss = "task=lm_letters, metric=word_perplexity"
    (loss_claim,) = compared(folder, f"score(wide, {loss}) < score(narrow, {loss})").claims
    assert abs(loss_claim.by_seed[0]) == pytest.approx(6.230561035907297 - 6.113197373206428)
    told = "of the group letters its own number is taken, not those of mc_letters, mc_other"
    assert told in made.warnings
    # Of what the group has no number of, its parts have theirs.
    parts = compared(folder, "score(wide, task=mc_other, metric=acc_norm) > 0.2")
    assert parts.claims[0].by_seed == pytest.approx({0: 4 / 6, 1: 3 / 6, 2: 3 / 6})
    with pytest.raises(UserError, match="mc_other"):
        compared(folder, "score(wide, task=mc_other, metric=acc) > 0.2")


def test_parts_of_a_group_without_a_number_of_its_own_are_read(tmp_path: Path) -> None:
    folder = written_by("lm_eval 0.4.13", tmp_path)
    for file in folder.rglob("*.json"):
        made = json.loads(file.read_text(encoding="utf-8"))
        made["results"]["letters"] = {" ": " ", "alias": "letters"}  # as where none is asked for
        file.write_text(json.dumps(made), encoding="utf-8")
    parts = compared(folder, "score(wide, task=mc_other, metric=acc) > 0.2")
    assert parts.claims[0].by_seed == pytest.approx({0: 4 / 6, 1: 3 / 6, 2: 3 / 6})
    assert not any("of the group" in line for line in parts.warnings)


def test_what_lmms_eval_wrote_is_read(tmp_path: Path) -> None:
    """It has errors of several kinds beside a number; none of them is a metric."""
    raw = read_source(str(written_by("lmms_eval 0.7.3", tmp_path)))
    assert set(raw.frame["metric"]) == {"exact"}
    made = compared(tmp_path, "score(big) > score(base)")
    assert made.claims[0].by_seed == pytest.approx({0: 1 / 3, 1: -1 / 6, 2: 1 / 6})


def test_what_is_no_source_is_told(tmp_path: Path) -> None:
    (tmp_path / "reslts.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    for source, told in (
        (tmp_path / "results.csv", "did you mean 'reslts.csv'?"),
        (tmp_path, "holds no runs of W&B"),
        (f"sqlite:///{tmp_path}/no.db", "no such file"),
        ("postgresql://user:secret@host/db", "whose is it? Say mlflow:"),
    ):
        with pytest.raises(UserError) as error:
            read_source(str(source))
        assert told in str(error.value)
        assert "secret" not in str(error.value)
    pandas.DataFrame({"x": [1]}).to_sql("t", f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(UserError, match="neither MLflow's nor Optuna's"):
        read_source(str(tmp_path / "other.db"))
