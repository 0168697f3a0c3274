"""A copy of what the store holds in MLflow, for people and tools that read MLflow.

Written by a process of its own, so that training never waits for it; everything here can be
rebuilt from the store, and writing it twice changes nothing. Experiment `mm1-stages` has one run
per finished stage, without a parent, tagged with its identity. Experiment `mm1-<study>` has one
parent run per registered meaning of the study and one light child per (arm, seed) that holds final
metrics and the ids of its stages' runs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.plan import Plan
from ablations.stages import Trial
from mm1_jax.errors import UserError
from sweeps import leases
from sweeps.store import Registration, Store, registration_name

OFF = "off"
STAGES = "mm1-stages"
LOOK_SECONDS = 2.0
LEASE_SECONDS = 60.0  # how long to wait for another mirror on the same store
FINISH_SECONDS = 600.0
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits
PARAM_LENGTH = 6000


def tracking_uri(store: Store, given: str | None) -> str | None:
    """Where to mirror to: what is given, MLFLOW_TRACKING_URI, SQLite in the store; None if off.

    Raises:
        UserError: the store is remote, so that there is no place for SQLite in it.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if uri == OFF:
        return None
    if uri:
        return uri
    if "://" in store.root:
        raise UserError(
            f"the store {store.root} has no place for MLflow's database; "
            f"give --mlflow URI, or --mlflow {OFF}"
        )
    return f"sqlite:///{store.local / 'mlflow.db'}"


class Mirror:
    """Writes to one MLflow; the caller holds the store's MLflow lease."""

    def __init__(self, store: Store, plan: Plan, registration: Registration, uri: str):
        import mlflow

        self._store, self._plan, self._registration = store, plan, registration
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        # A server decides itself where artifacts go; beside a database it would be the working
        # directory.
        local = uri.startswith("sqlite:") and "://" not in store.root
        self._artifacts = (store.local / "mlartifacts").as_uri() if local else None
        self._runs: dict[str, str] = {}  # stage → MLflow run

    def stages(self) -> int:
        """Mirror the stages that are done and not there yet; how many are there."""
        for stage_id in self._plan.stages:
            if stage_id not in self._runs and self._store.is_done(stage_id):
                self._runs[stage_id] = self._stage(stage_id)
        return len(self._runs)

    def _stage(self, stage_id: str) -> str:
        experiment = self._experiment(STAGES)
        run_id = self._complete_run(experiment, {"mm1.stage": stage_id})
        if run_id is not None:
            return run_id
        stage, execution = self._store.stage(stage_id), self._store.execution(stage_id)
        rows = self._store.rows([stage_id]).to_dict("records")
        folder = self._store.stage_folder(stage_id)
        started = int(execution["started_at"] * 1000)
        ended = started + round(execution["seconds"] * 1000)
        tags = {
            "mm1.stage": stage_id,
            "mm1.kind": stage.kind,
            "mm1.seed": stage.seed,
            "mm1.status": self._store.status(stage_id),
            "mm1.data_fingerprint": stage.data_fingerprint,
            "mm1.code_fingerprint": stage.code_fingerprint,
            "mm1.folder": str(folder),
            "mlflow.source.git.commit": execution["git_revision"],
            **{f"mm1.input.{name}": source for name, source in stage.inputs.items()},
            **{f"mm1.execution.{key}": value for key, value in _flat(execution).items()},
        }
        run_id = self._create(experiment, stage.label, tags, started)
        self._log(
            run_id,
            params={"run": stage.run, "seed": stage.seed, **_flat(stage.config)},
            metrics=[(metric_name(row), row["value"], row["step"]) for row in rows],
            at=ended,
        )
        for path in (folder.parent / "execution.json", folder / "examples.parquet"):
            if path.exists():
                self._client.log_artifact(run_id, str(path))
        self._complete(run_id, "FINISHED", ended)
        return run_id

    def study(self, report: Path | None) -> None:
        """Mirror the study's parent run and its children, and keep the report with it."""
        experiment = self._experiment(f"mm1-{self._plan.study}")
        meaning = {"mm1.study": self._plan.study, "mm1.registration": registration_name(self._plan)}
        parent = self._complete_run(experiment, {**meaning, "mm1.role": "study"})
        if parent is None:
            tags = {**meaning, "mm1.role": "study", "mm1.hash": self._plan.hash}
            parent = self._create(
                experiment,
                self._plan.study,
                {**tags, "mm1.registered_at": self._registration.registered_at},
                _now(),
            )
            params = {
                "question": self._plan.question,
                "primary_metric": ".".join(self._plan.primary_metric),
                "seeds": ", ".join(map(str, self._plan.seeds)),
                "arms": len(self._plan.arms),
                **{f"claim.{name}": text for name, text in self._plan.claims.items()},
            }
            self._log(parent, params=params, metrics=[], at=_now())
            with tempfile.TemporaryDirectory() as folder:
                for name, text in (
                    ("study.yaml", self._plan.source),
                    ("plan.json", self._plan.model_dump_json(indent=1)),
                ):
                    (Path(folder) / name).write_text(text, encoding="utf-8")
                    self._client.log_artifact(parent, str(Path(folder) / name))
            self._complete(parent, "RUNNING", None)
        there = [self._trial(experiment, parent, meaning, trial) for trial in self._plan.trials]
        if report is not None:
            self._client.log_artifact(parent, str(report))
        self._client.set_tag(parent, "mm1.trials", f"{sum(there)} of {len(there)}")
        status = "FINISHED" if all(there) else "RUNNING"
        self._client.set_terminated(parent, status, _now() if all(there) else None)

    def _trial(
        self, experiment: str, parent: str, meaning: Mapping[str, str], trial: Trial
    ) -> bool:
        """Mirror one (arm, seed) if all its stages are there; whether they are."""
        stages = {**trial.pretrained, "train": trial.train}
        for one in trial.evaluations:
            stages[f"{one.task}.{one.shots}-shot.{one.condition}"] = one.stage
        if not all(stage_id in self._runs for stage_id in stages.values()):
            return False
        tags = {**meaning, "mm1.role": "trial", "mm1.arm": trial.arm, "mm1.seed": str(trial.seed)}
        if self._complete_run(experiment, tags) is None:
            links = {f"mm1.run.{name}": self._runs[one] for name, one in stages.items()}
            tags |= {"mlflow.parentRunId": parent, **links}
            run_id = self._create(experiment, f"{trial.arm} seed {trial.seed}", tags, _now())
            # A part's training has a loss of its own, which its own run shows.
            own = [one for one in stages.values() if one not in trial.pretrained.values()]
            rows = self._store.rows(own).to_dict("records")
            last = {metric_name(row): row for row in sorted(rows, key=lambda row: row["step"])}
            arm = next(arm for arm in self._plan.arms if arm.name == trial.arm)
            self._log(
                run_id,
                params={"arm": trial.arm, "seed": trial.seed, **arm.levels},
                metrics=[(name, row["value"], row["step"]) for name, row in last.items()],
                at=_now(),
            )
            self._complete(run_id, "FINISHED", _now())
        return True

    # -- MLflow ------------------------------------------------------------------------------

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return self._client.create_experiment(name, artifact_location=self._artifacts)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _complete_run(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        """The run with these tags; what a kill left half written is removed."""
        text = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
        complete = None
        for run in self._client.search_runs([experiment], text):
            if complete is None and run.data.tags.get("mm1.complete") == "true":
                complete = run.info.run_id
            else:
                self._client.delete_run(run.info.run_id)
        return complete

    def _create(self, experiment: str, name: str, tags: Mapping[str, Any], started: int) -> str:
        texts = {key: str(value) for key, value in tags.items()}
        run = self._client.create_run(experiment, started, texts, run_name=name)
        return run.info.run_id

    def _log(
        self,
        run_id: str,
        params: Mapping[str, Any],
        metrics: Sequence[tuple[str, float, int]],
        at: int,
    ) -> None:
        from mlflow.entities import Metric, Param

        texts = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in params.items()]
        for batch in _batches(texts, PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=batch)
        numbers = [Metric(name, value, at, step) for name, value, step in metrics]
        for batch in _batches(numbers, METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=batch)

    def _complete(self, run_id: str, status: str, ended: int | None) -> None:
        self._client.set_terminated(run_id, status, ended)
        self._client.set_tag(run_id, "mm1.complete", "true")


def metric_name(row: Mapping[str, Any]) -> str:
    """`easy_vqa.accuracy`; with `.4-shot` and `.shuffled` where it is not the plain variant."""
    name = f"{row['task']}.{row['metric']}"
    if row["shots"]:
        name += f".{row['shots']}-shot"
    return name if row["condition"] == "intact" else f"{name}.{row['condition']}"


class MirrorProcess:
    """The process that mirrors a study while it runs; the driver only starts and ends it."""

    def __init__(self, store: Store, plan: Plan, uri: str):
        self._log = store.local / "mlflow.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),  # from any folder
            "PYTHONSAFEPATH": "1",  # not from a folder `sweeps` where the user is
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            "PYTHONUTF8": "1",  # what it reads from here and writes to its log
        }
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.mlflow_mirror", store.root, plan.study, uri],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the driver
            )

    def finish(self, report: Path | None = None, seconds: float = FINISH_SECONDS) -> str | None:
        """Let it write what is left; what went wrong, or None."""
        order = json.dumps({"report": None if report is None else str(report.absolute())})
        try:
            self._process.communicate(order, timeout=seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            return "it is not complete; the next run goes on with it"
        if self._process.returncode:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
            return f"{lines[-1]} (all of it in {self._log})"
        return None

    def end(self) -> None:
        """Make sure that the process is gone; a half-written run is written anew some day."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def is_current(store: Store, plan: Plan, uri: str) -> bool:
    """Whether this plan was mirrored there completely."""
    path = uri.removeprefix("sqlite:///")
    if path != uri and not Path(path).exists():
        return False
    return store.objects.exists(_marker(plan, uri))


def _marker(plan: Plan, uri: str) -> str:
    what = f"{registration_name(plan)} {uri}"
    return f"mlflow/{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"


def main() -> None:
    """Mirror until the standard input ends, then once more; its text may name a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("store", "study", "uri"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    os.nice(10)
    store = Store(arguments.store)
    plan, registration = store.snapshot(arguments.study)
    mirror = None
    while True:
        ended = bool(select.select([sys.stdin], [], [], LOOK_SECONDS)[0])
        order = json.loads(sys.stdin.read() or "{}") if ended else {}
        if not ended and not any(map(store.is_done, plan.stages)):
            continue  # importing MLflow can wait: the first minute belongs to training
        with _alone(store):
            mirror = mirror or Mirror(store, plan, registration, arguments.uri)
            count = mirror.stages()
            if not ended:
                continue
            report = order.get("report")
            mirror.study(Path(report) if report else None)
            if count == len(plan.stages):
                record = {"schema_version": 1, "uri": arguments.uri, "stages": count}
                store.objects.write(_marker(plan, arguments.uri), json.dumps(record).encode())
            return


@contextlib.contextmanager
def _alone(store: Store) -> Generator[None]:
    """Two mirrors would both find a stage missing and write it twice."""
    deadline = time.monotonic() + LEASE_SECONDS
    while (lease := leases.acquire(store.objects, "mlflow/lease")) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("another run is writing to MLflow; run again to complete it")
        time.sleep(0.2)
    try:
        yield
    finally:
        lease.release()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[size * i : size * (i + 1)] for i in range(math.ceil(len(items) / size))]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def _now() -> int:
    return int(time.time() * 1000)


if __name__ == "__main__":
    main()
