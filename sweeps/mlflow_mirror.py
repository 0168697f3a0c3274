"""A copy of what the store holds in MLflow, for people and tools that read MLflow.

Written by a process of its own, so that training never waits for it; everything here can be
rebuilt from the store, and writing it twice changes nothing. Experiment `mm1-stages` has one run
per finished stage, without a parent, tagged with its identity. Experiment `mm1-<study>` has one
parent run per registered meaning of the study and one light child per (arm, seed) that holds final
metrics and the ids of its stages' runs; the parent holds the verdicts with all that stands beside
them. Names are as `sweeps.mlflow_names` makes them valid.

MLflow may be away, slow or of another opinion: what it refuses is named and left out, what it does
not answer is delivered later, and the end of a run waits `SILENCE_SECONDS` for an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.shown_text import secrets_of, shown_url, visible, without_secrets
from ablations.stages import Trial
from ablations.workload import INTACT
from sweeps import leases
from sweeps.mlflow_names import distinct_names, valid_name
from sweeps.records import TIMELINE
from sweeps.replicating import decided
from sweeps.store import Registration, Store, registration_name

OFF = "off"
STAGES = "mm1-stages"
LOOK_SECONDS = 2.0
AGAIN_SECONDS = 20.0  # after MLflow did not answer
LEASE_SECONDS = 15.0  # how long to wait for another mirror on the same store
SILENCE_SECONDS = 30.0  # how long the end of a run waits for the answer to a question
FINISH_SECONDS = 600.0  # and for all of them
ASKED, ANSWERED = "?", "."  # what the mirror's process tells the driver then
NEWS = "~"  # before a line that it tells while the study runs
REFUSALS = 3  # items in a row that fail: then it is not the items
METRICS_PER_BATCH, PARAMS_PER_BATCH = 250, 100  # MLflow's limits are 1000 and 100, and a megabyte
BATCH_BYTES = 800_000
PARAM_LENGTH, TAG_LENGTH, RUN_NAME_LENGTH, EXPERIMENT_LENGTH = 6000, 5000, 250, 450
# A request that is not answered is given up: somebody waits for the run to end.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "25",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

Item = TypeVar("Item")


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
            f"the store {shown_url(store.root)} has no place for MLflow's database; "
            f"give --mlflow URI, or --mlflow {OFF}"
        )
    # SQLAlchemy reads the path of its URL as quoted, and up to a question mark.
    place = re.sub(r"[%?#]", lambda sign: quote(sign[0]), str(store.local / "mlflow.db"))
    return f"sqlite:///{place}"


class _Client:
    """An `MlflowClient` that tells of each question, and of each answer."""

    def __init__(self, client: Any, tell: Callable[[str], None]):
        self._client, self._tell = client, tell

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ask = getattr(self._client, name)

        def asked(*arguments: Any, **named: Any) -> Any:
            self._tell(ASKED)
            try:
                return ask(*arguments, **named)
            finally:
                self._tell(ANSWERED)

        return asked


class Mirror:
    """Writes to one MLflow; the caller holds the store's MLflow lease.

    `refused` says of each item that MLflow did not take why; `failed` names those to try again.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        registration: Registration,
        uri: str,
        tell: Callable[[str], None] = lambda sign: None,
    ):
        import mlflow

        self._store, self._plan, self._registration = store, plan, registration
        self.asked = plan  # where seeds are added, what was decided on so far
        self._client = _Client(mlflow.MlflowClient(tracking_uri=uri), tell)
        # A server decides itself where artifacts go; beside a database it would be the working
        # directory.
        local = uri.startswith("sqlite:") and "://" not in store.root
        self._artifacts = (store.local / "mlartifacts").as_uri() if local else None
        self._experiments: dict[str, str] = {}  # name → MLflow's
        self._runs: dict[str, str] = {}  # stage → MLflow run
        self._trials: set[tuple[str, int]] = set()  # arm, seed
        self._parent: str | None = None
        self.refused: dict[str, str] = {}  # item → what was said of it
        self.failed: dict[str, str] = {}

    def stages(self) -> int:
        """Mirror the stages that are done and not there yet; how many are there."""
        waiting = [stage for stage in self.asked.stages if stage not in self._runs]
        labelled = ((self._plan.stages[stage].label, stage) for stage in waiting)
        self._each(
            ((label, stage) for label, stage in labelled if self._store.is_done(stage)),
            lambda stage: self._runs.__setitem__(stage, self._stage(stage)),
        )
        return len(self._runs)

    def study(self) -> int:
        """Mirror the parent run and the trials whose stages are there; how many trials are."""
        experiment = self._experiment(f"mm1-{self._plan.study}")
        meaning = {"mm1.study": self._plan.study, "mm1.registration": registration_name(self._plan)}
        if self._parent is None:
            self._parent = self._study_run(experiment, meaning)
        parent = self._parent
        ready = [
            (f"{trial.arm} seed {trial.seed}", trial)
            for trial in self.asked.trials
            if (trial.arm, trial.seed) not in self._trials
            and all(stage in self._runs for stage in trial.stages.values())
        ]

        def mirror(trial: Trial) -> None:
            self._trial(experiment, parent, meaning, trial)
            self._trials.add((trial.arm, trial.seed))

        self._each(ready, mirror)
        return len(self._trials)

    def conclude(self, report: Path | None, comparison: Path | None = None) -> None:
        """Keep report, comparison and verdicts with the study's run, and say how far it is."""
        assert self._parent is not None
        there, planned = len(self._trials), len(self.asked.trials)
        for file in (report, comparison):
            if file is not None:
                self._artifact(self._parent, file)
        if comparison is not None:
            self._verdicts(self._parent, json.loads(comparison.read_text(encoding="utf-8")))
        self._client.set_tag(self._parent, "mm1.trials", f"{there} of {planned}")
        complete = there == planned
        status = "FINISHED" if complete else "RUNNING"
        self._client.set_terminated(self._parent, status, _now() if complete else None)

    def _verdicts(self, parent: str, compared: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in _tags(verdict_tags(compared)).items()]
        for batch in _batches(tags, PARAMS_PER_BATCH, lambda tag: len(json.dumps(tag.value))):
            self._write("verdicts", batch, lambda some: self._client.log_batch(parent, tags=some))

    def _each(self, items: Iterable[tuple[str, Item]], write: Callable[[Item], None]) -> None:
        """Write each item; one that cannot be written is named, and the others go on."""
        in_a_row = 0
        for name, item in items:
            self.failed.pop(name, None)
            try:
                write(item)
                in_a_row = 0
            except UserError as error:  # a stage of the store is damaged
                self.failed[name] = str(error)
            except Exception as error:  # what MLflow raises depends on where it keeps its data
                if _is_away(error):
                    raise
                self.failed[name] = _told(error)
                in_a_row += 1
                if in_a_row == REFUSALS:
                    raise

    def _stage(self, stage_id: str) -> str:
        experiment = self._experiment(STAGES)
        run_id = self._complete_run(experiment, {"mm1.stage": stage_id})
        if run_id is not None:
            return run_id
        stage, execution = self._store.stage(stage_id), dict(self._store.execution(stage_id))
        execution.pop(TIMELINE, None)  # it is in the file that goes with it
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
            **{f"mm1.execution.{key}": value for key, value in _flat(execution)},
        }
        run_id = self._create(experiment, stage.label, tags, started)
        self._log(
            run_id,
            stage.label,
            params=[("run", stage.run), ("seed", stage.seed), *_flat(stage.config)],
            rows=rows,
            at=ended,
        )
        for path in (folder.parent / "execution.json", folder / "examples.parquet"):
            if path.exists():
                self._artifact(run_id, path)
        self._complete(run_id, "FINISHED", ended)
        return run_id

    def _study_run(self, experiment: str, meaning: Mapping[str, str]) -> str:
        parent = self._complete_run(experiment, {**meaning, "mm1.role": "study"})
        if parent is not None:
            return parent
        tags = {**meaning, "mm1.role": "study", "mm1.hash": self._plan.hash}
        parent = self._create(
            experiment,
            self._plan.study,
            {**tags, "mm1.registered_at": self._registration.registered_at},
            _now(),
        )
        params = [
            ("question", self._plan.question),
            ("primary_metric", ".".join(self._plan.primary_metric)),
            ("seeds", ", ".join(map(str, self._plan.seeds))),
            ("arms", len(self._plan.arms)),
            *((f"claim.{name}", text) for name, text in self._plan.claims.items()),
        ]
        self._log(parent, self._plan.study, params=params, rows=[], at=_now())
        self._artifact_text(parent, "study.yaml", self._plan.source)
        self._artifact_text(parent, "plan.json", self._plan.model_dump_json(indent=1))
        self._complete(parent, "RUNNING", None)
        return parent

    def _trial(
        self, experiment: str, parent: str, meaning: Mapping[str, str], trial: Trial
    ) -> None:
        tags = {**meaning, "mm1.role": "trial", "mm1.arm": trial.arm, "mm1.seed": str(trial.seed)}
        if self._complete_run(experiment, tags) is not None:
            return
        stages = self._stages(trial)
        links = {f"mm1.run.{name}": self._runs[one] for name, one in stages.items()}
        tags |= {"mlflow.parentRunId": parent, **links}
        name = f"{trial.arm} seed {trial.seed}"
        run_id = self._create(experiment, name, tags, _now())
        # A part's training has a loss of its own, which its own run shows.
        parts = {*self._plan.trainings(trial).values()} - {self._plan.main(trial)}
        own = [one for one in trial.stages.values() if one not in parts]
        rows = sorted(self._store.rows(own).to_dict("records"), key=lambda row: row["step"])
        last = {_measured(row): row for row in rows}
        arm = self._plan.arm(trial.arm)
        self._log(
            run_id,
            name,
            params=[("arm", trial.arm), ("seed", trial.seed), *arm.levels.items()],
            rows=list(last.values()),
            at=_now(),
        )
        self._complete(run_id, "FINISHED", _now())

    def _stages(self, trial: Trial) -> dict[str, str]:
        """Name of a link → stage: trainings by role, questions by their form."""
        stages = self._plan.trainings(trial)
        for asked, stage in self._plan.answers(trial).items():
            stages[f"{asked.task}.{asked.shots}-shot.{asked.condition}"] = stage
        return stages

    # -- MLflow ------------------------------------------------------------------------------

    def _experiment(self, name: str) -> str:
        if name in self._experiments:
            return self._experiments[name]
        valid = valid_name(name, EXPERIMENT_LENGTH)
        found = self._client.get_experiment_by_name(valid)
        if found is None:
            made = self._client.create_experiment(valid, artifact_location=self._artifacts)
            return self._experiments.setdefault(name, made)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return self._experiments.setdefault(name, found.experiment_id)

    def _complete_run(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        """The run with these tags; what a kill left half written is removed."""
        tags = _tags(tags)
        # The language of filters has no way to write every text.
        written = {key: value for key, value in tags.items() if _PLAIN.fullmatch(value)}
        text = " and ".join(f"tags.`{name}` = '{value}'" for name, value in written.items())
        complete, token = None, None
        while True:
            page = self._client.search_runs([experiment], text, page_token=token)
            for run in page:
                if any(run.data.tags.get(key) != value for key, value in tags.items()):
                    continue
                if complete is None and run.data.tags.get("mm1.complete") == "true":
                    complete = run.info.run_id
                else:
                    self._client.delete_run(run.info.run_id)
            token = page.token
            if not token:
                return complete

    def _create(self, experiment: str, name: str, tags: Mapping[str, Any], started: int) -> str:
        shown = visible(name)[:RUN_NAME_LENGTH]
        run = self._client.create_run(experiment, started, _tags(tags), run_name=shown)
        return run.info.run_id

    def _log(
        self,
        run_id: str,
        item: str,
        params: Iterable[tuple[str, Any]],
        rows: Sequence[Mapping[str, Any]],
        at: int,
    ) -> None:
        """Write params and metrics; those that are shortened or renamed stand whole beside them."""
        from mlflow.entities import Metric, Param

        named = [(name, _text(value)) for name, value in params]
        keys = distinct_names(((n, name), name) for n, (name, _) in enumerate(named))
        texts = [
            Param(key, _cut(value, PARAM_LENGTH))
            for key, (_, value) in zip(keys.values(), named, strict=True)
        ]
        measured = {_measured(row): metric_name(row) for row in rows}
        splits = Counter(key[:-1] for key in measured)
        metrics = distinct_names(
            (key, name if splits[key[:-1]] == 1 else f"{name}.{key[-1]}")
            for key, name in measured.items()
        )
        numbers = [
            Metric(metrics[_measured(row)], float(row["value"]), at, int(row["step"]))
            for row in rows
        ]
        for batch in _batches(texts, PARAMS_PER_BATCH, lambda param: len(json.dumps(param.value))):
            self._write(item, batch, lambda some: self._client.log_batch(run_id, params=some))
        for batch in _batches(numbers, METRICS_PER_BATCH, lambda _: 0):
            self._write(item, batch, lambda some: self._client.log_batch(run_id, metrics=some))
        renamed = {
            key: name
            for key, name in [
                *((key, name) for key, (name, _) in zip(keys.values(), named, strict=True)),
                *((metrics[one], name) for one, name in measured.items()),
            ]
            if key != name
        }
        long = {
            key: value
            for key, (_, value) in zip(keys.values(), named, strict=True)
            if len(value) > PARAM_LENGTH
        }
        if renamed or long:
            whole = {"names": renamed, "params": long}
            self._artifact_text(run_id, "in_full.json", json.dumps(whole, indent=1))

    def _write(
        self, item: str, batch: Sequence[Any], log: Callable[[Sequence[Any]], object]
    ) -> None:
        """Log a batch; where it is refused, one by one, so that one does not hold the others."""
        try:
            log(batch)
        except Exception as error:
            if not _is_refusal(error):
                raise
            for one in batch if len(batch) > 1 else ():
                self._write(item, [one], log)
            if len(batch) == 1:
                self.refused[f"{item}: {batch[0].key}"] = _told(error)

    def _artifact_text(self, run_id: str, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            shown = without_secrets(text)
            path.write_text(shown, encoding="utf-8", errors="backslashreplace")
            self._artifact(run_id, path)

    def _artifact(self, run_id: str, path: Path) -> None:
        """Keep a file with a run; without it where MLflow has no place that we may write to."""
        try:
            self._client.log_artifact(run_id, str(path))
        except Exception as error:
            if _is_away(error):
                raise
            self.refused.setdefault("the runs' files", _told(error))

    def _complete(self, run_id: str, status: str, ended: int | None) -> None:
        self._client.set_terminated(run_id, status, ended)
        self._client.set_tag(run_id, "mm1.complete", "true")


def verdict_tags(compared: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a study's run, from what `mm1 compare --json` says: a verdict never without caveats.

    `mm1.verdict.CLAIM` is the verdict with its standing and its caveats in a word each, so that no
    column of MLflow's table shows one without the other; the sentences are beside it.
    """
    tags = {
        "mm1.notices": "\n".join(compared["notices"]) or "none",
        "mm1.warnings": "\n".join(compared["warnings"]) or "none",
    }
    for claim in compared["claims"]:
        verdict = "interim" if claim["interim"] else claim["verdict"]
        words = dict.fromkeys([claim["standing"], *(word for word, _ in claim["caveats"])])
        tags |= {
            f"mm1.verdict.{claim['name']}": f"{verdict} ({', '.join(words)})",
            f"mm1.standing.{claim['name']}": claim["standing"],
            f"mm1.caveats.{claim['name']}": "\n".join(
                f"{word}: {told}" for word, told in claim["caveats"]
            )
            or "none",
            f"mm1.sentence.{claim['name']}": f"{claim['sentence']} Holds {claim['scope']}.",
        }
    return tags


def metric_name(row: Mapping[str, Any]) -> str:
    """`easy_vqa.accuracy`; with `.4-shot` and `.shuffled` where it is not the plain variant."""
    name = f"{row['task']}.{row['metric']}"
    if row["shots"]:
        name += f".{row['shots']}-shot"
    return name if row["condition"] == INTACT else f"{name}.{row['condition']}"


Measured = tuple[str, str, int, str, str]


def _measured(row: Mapping[str, Any]) -> Measured:
    """What a row is a value of; the split comes last."""
    return row["task"], row["metric"], row["shots"], row["condition"], str(row["split"] or "")


_PLAIN = re.compile(r"[\w.,=+:/ -]+", re.ASCII)


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow takes them: names made valid, texts without what no database keeps."""
    keys = distinct_names((name, name) for name in tags)
    return {keys[name]: _cut(_text(value), TAG_LENGTH) for name, value in tags.items()}


def _text(value: Any) -> str:
    return without_secrets(visible(str(value)))


def _cut(text: str, longest: int) -> str:
    """A text that fits; of a longer one the beginning, its length and its hash."""
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[: longest - 80]}… ({len(text)} characters, sha256 {digest})"


# -- what went wrong ---------------------------------------------------------------------------


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _code(error: BaseException) -> int | None:
    """The HTTP status that an MLflow exception stands for."""
    status = getattr(error, "get_http_status_code", None)
    return status() if callable(status) else None


def _is_away(error: Exception) -> bool:
    """Whether MLflow could not be asked, or asks who we are: every item would fail alike."""
    import requests

    for one in _causes(error):
        if isinstance(one, requests.HTTPError):  # it answered
            return False
        if isinstance(one, requests.RequestException | ConnectionError | TimeoutError):
            return True
    return _code(error) in (401, 403, 404, 408, 429)


def _is_refusal(error: Exception) -> bool:
    """Whether MLflow understood and said no, and would say so again."""
    code = _code(error)
    return code is not None and 400 <= code < 500 and not _is_away(error)


_SAID = ("Connection refused", "timed out", "Name or service not known", "No route to host")


def _told(error: Exception, uri: str = "MLflow") -> str:
    """An exception in some words."""
    text = " ".join(str(error).split())
    for said in _SAID:
        if said.lower() in text.lower() and _is_away(error):
            return f"{shown_url(uri)} does not answer ({said.lower()})"
    code = _code(error)
    if code in (401, 403):
        return f"{shown_url(uri)} refuses the user or the password ({code})"
    found = re.search(r"(?:error code|too many) (\d{3})", text)
    if found and uri != "MLflow":
        return f"{shown_url(uri)} answers with error {found[1]}"
    return without_secrets(visible(text))[:300] or type(error).__name__


# -- the process -------------------------------------------------------------------------------


class MirrorProcess:
    """The process that mirrors a study while it runs; the driver only starts and ends it."""

    def __init__(self, store: Store, plan: Plan, uri: str):
        self._uri = uri
        self._told = b""  # what it has told and nobody has taken
        self._log = store.local / "mlflow.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **PATIENCE,
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),  # from any folder
            "PYTHONSAFEPATH": "1",  # not from a folder `sweeps` where the user is
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            "PYTHONUTF8": "1",  # what it reads from here and writes to its log
            # Addresses may hold passwords, and everybody on the machine sees arguments.
            "MLFLOW_TRACKING_URI": uri,
            "MM1_STORE": store.root,
        }
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.mlflow_mirror", plan.study],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the driver
            )

    def news(self) -> list[str]:
        """What it has told since: that MLflow cannot be written to, or can again."""
        while said := self._read(0.0):
            self._told += said
        return self._take_news()

    def _read(self, seconds: float) -> bytes | None:
        """What it says within some seconds, or None; nothing at its end."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        return os.read(self._process.stdout.fileno(), 2**16)

    def _take_news(self) -> list[str]:
        *lines, rest = self._told.split(b"\n")
        news = [line for line in lines if line.startswith(NEWS.encode())]
        self._told = b"\n".join([*(line for line in lines if line not in news), rest])
        return [line.decode(errors="replace").removeprefix(NEWS) for line in news]

    def finish(
        self,
        report: Path | None = None,
        comparison: Path | None = None,
        *,
        silence: float = SILENCE_SECONDS,
        seconds: float = FINISH_SECONDS,
        stop: Callable[[], bool] = lambda: False,
    ) -> str | None:
        """Let it write what is left; what went wrong, or None.

        Waits `seconds` at most, and `silence` for the answer to a question, which does not count
        what a busy machine takes to import MLflow; ends when `stop` says so.
        """
        files = {"report": report, "comparison": comparison}
        order = json.dumps({name: str(path.absolute()) for name, path in files.items() if path})
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended, and says why below
            self._process.stdin.write(order.encode())
            self._process.stdin.close()
        begun = heard = time.monotonic()
        later = "the next run of the study delivers the rest"
        try:
            while True:
                now = time.monotonic()
                if stop() or now - begun > seconds:
                    return f"it is not complete; {later}"
                if self._told.endswith(ASKED.encode()) and now - heard > silence:
                    return f"{shown_url(self._uri)} has not answered for {silence:.0f} s; {later}"
                said = self._read(0.2)
                if said == b"":
                    break
                if said is not None:
                    self._told += said
                    heard = now
                    self._take_news()  # too late for it
            code = self._process.wait()
        except KeyboardInterrupt:
            return f"it is not complete; {later}"
        last = self._told.decode(errors="replace").partition("\n")[2].strip()
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}; {later}"
        if code == 0:
            return last or None
        return f"{last or f'it ended with code {code}'}; {later} (all of it in {self._log})"

    def end(self) -> None:
        """Make sure that the process is gone; a half-written run is written anew some day."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def is_current(store: Store, plan: Plan, uri: str, comparison: Path | None = None) -> bool:
    """Whether this plan was mirrored there completely, with what a comparison says now."""
    path = unquote(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not Path(path).exists():
        return False
    marker = _marker(plan, uri)
    if not store.objects.exists(marker):
        return False
    # What stands beside the verdicts of a complete study may change: the results of other tries.
    known = json.loads(store.objects.read(marker)).get("comparison")
    return comparison is None or known == _digest(comparison)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _marker(plan: Plan, uri: str) -> str:
    what = f"{registration_name(plan)} {shown_url(uri)}"
    return f"mlflow/{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"


def main() -> None:
    """Mirror until the standard input ends, then once more; its text may name report, comparison.

    The arguments are the study's name; MM1_STORE and MLFLOW_TRACKING_URI say from where and where
    to. Prints a line of news when MLflow cannot be written to, or can again; at the end a sign for
    each question and answer, then a line with what went wrong, if anything did; the exit code is 1
    where that is worth another try.
    """
    os.nice(10)
    uri = os.environ["MLFLOW_TRACKING_URI"]
    driver = _WithoutSecrets(sys.stdout, secrets_of(uri))
    sys.stderr = sys.stdout = _WithoutSecrets(sys.stderr, secrets_of(uri))  # MLflow talks on both

    def heard(text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody is left to hear it
            driver.write(text)
            driver.flush()

    try:
        store = Store(os.environ["MM1_STORE"])
        trouble, again = _mirror(store, sys.argv[1], uri, heard)
    except Exception as error:
        traceback.print_exc()
        trouble, again = _told(error, uri), True
    heard(f"\n{trouble}\n")
    sys.exit(int(again))


def _mirror(store: Store, study: str, uri: str, heard: Callable[[str], None]) -> tuple[str, bool]:
    """Mirror until told to end; what went wrong in one line, and whether to try again."""
    plan, registration = store.snapshot(study)
    mirror, ended, order = None, False, {}
    away, tried = None, -math.inf

    def tell(sign: str) -> None:
        if ended or select.select([sys.stdin], [], [], 0)[0]:  # before, nobody reads it
            heard(sign)

    while not ended:
        ended = bool(select.select([sys.stdin], [], [], LOOK_SECONDS)[0])
        if ended:
            order = json.loads(sys.stdin.read() or "{}")
            signal.alarm(round(FINISH_SECONDS))  # nobody may be left who would end it
        elif not any(map(store.is_done, plan.stages)):
            continue  # importing MLflow can wait: the first minute belongs to training
        if away is not None and time.monotonic() - tried < AGAIN_SECONDS:
            continue
        before, away = away, None
        try:
            with _alone(store):
                mirror = mirror or Mirror(store, plan, registration, _without_user(uri), tell)
                mirror.asked, is_all = decided(plan, store)
                count, trials = mirror.stages(), mirror.study()
                if not ended:
                    if before is not None:
                        heard(f"{NEWS}{shown_url(uri)} is written to again\n")
                    continue
                files = {name: Path(path) for name, path in order.items()}
                comparison = files.get("comparison")
                mirror.conclude(files.get("report"), comparison)
                whole = (len(mirror.asked.stages), len(mirror.asked.trials))
                if is_all and (count, trials) == whole:
                    record = {"schema_version": 1, "uri": shown_url(uri), "stages": count}
                    if comparison is not None:
                        record["comparison"] = _digest(comparison)
                    store.objects.write(_marker(plan, uri), json.dumps(record).encode())
        except Exception as error:
            traceback.print_exc()
            away, tried = _told(error, uri), time.monotonic()
            if before is None and not ended:
                heard(f"{NEWS}{away}; what it lacks is kept, and written when that is over\n")
    if away is not None or mirror is None:
        return away or "", True
    found = [f"{name} ({said})" for name, said in {**mirror.failed, **mirror.refused}.items()]
    if not found:
        return "", False
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"without {'; '.join(found[:3])}{more}; all else is there", bool(mirror.failed)


class _WithoutSecrets(io.TextIOBase):
    """A stream whose secrets are hidden before they are written."""

    def __init__(self, stream: Any, known: Sequence[str]):
        self._stream, self._known = stream, known

    def write(self, text: str) -> int:
        self._stream.write(without_secrets(text, self._known))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _without_user(uri: str) -> str:
    """The address without user and password, which go into MLflow's variables.

    Every exception of a library would print an address with its password.
    """
    parts = urlsplit(uri)
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if parts.scheme not in ("http", "https") or not name or not password:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(name)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
    return urlunsplit(parts._replace(netloc=host))


@contextlib.contextmanager
def _alone(store: Store) -> Generator[None]:
    """Two mirrors would both find a stage missing and write it twice."""
    deadline = time.monotonic() + LEASE_SECONDS
    while (lease := leases.acquire(store.objects, "mlflow/lease")) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("another run is writing to MLflow")
        time.sleep(0.2)
    try:
        yield
    finally:
        lease.release()


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat


def _batches(items: Sequence[Item], most: int, size: Callable[[Item], int]) -> list[list[Item]]:
    """Parts of at most `most` items and about `BATCH_BYTES`."""
    batches: list[list[Item]] = []
    total = 0
    for item in items:
        total += size(item)
        if not batches or len(batches[-1]) == most or total > BATCH_BYTES:
            batches.append([])
            total = size(item)
        batches[-1].append(item)
    return batches


def _now() -> int:
    return int(time.time() * 1000)


if __name__ == "__main__":
    main()
