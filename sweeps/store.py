"""The record of everything that ran: content-addressed, written once, by many writers.

    format.json                              version of this layout
    stages/<id[:2]>/<id>/done.json           put if absent, last: the attempt that won, checksums
    stages/<id[:2]>/<id>/<attempt>/          stage.json  execution.json  results.parquet  output/
    stages/<id[:2]>/<id>/failures/…json      attempts that raised, with their tracebacks
    stages/<id[:2]>/<id>/lease/…json         who is working on it (`sweeps.leases`)
    studies/<name>/latest.json               which registration a name means now
    studies/<name>/<hash>-<stages>/          plan.json  registration.json
    scratch/<id>/                            checkpoints and reports of a stage that is not done

An attempt without a `done.json` that names it does not exist for any reader. Everything else
(MLflow, indexes, pictures) can be rebuilt from here.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from ablations.plan import Plan
from ablations.stages import Stage
from mm1_jax.config import Config
from mm1_jax.errors import UserError, nearest
from mm1_jax.stage import ResultRow
from sweeps.objects import flush, open_objects, told_when_full

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 1
# What was cheap to make is not worth waiting for the disk: a loss of power may damage it, which
# its checksums show.
DURABLE_SECONDS = 1.0

Status = Literal["ok", "diverged"]

# The one long result table; joined with a study's snapshot it gives arm and trial.
COLUMNS = (
    "stage",
    "seed",
    "task",
    "metric",
    "shots",
    "condition",
    "split",
    "step",
    "value",
    "n_items",
    "standard_error",
    "status",
)


class Registration(Config):
    """What was on record about a study before its first stage ran."""

    schema_version: int = SCHEMA_VERSION
    study: str
    hash: str
    registered_at: str  # UTC, ISO 8601
    known_stages: tuple[str, ...]  # had results already when the study was registered
    previous: tuple[str, ...]  # hashes registered earlier under the same name


@dataclass(frozen=True)
class Attempt:
    """One try at a stage, on this machine; invisible to readers until it is finished."""

    stage: Stage
    key: str  # stages/<id[:2]>/<id>/<name>
    name: str
    folder: Path

    @property
    def output(self) -> Path:
        """What the runner writes here is kept with the stage."""
        return self.folder / "output"


class Store:
    """A store at a path or fsspec URL; nothing is created before something is written.

    Raises:
        UserError: the store was written by a newer version, or cannot be opened.
    """

    def __init__(self, root: str | Path):
        self.objects = open_objects(root)
        self.root = self.objects.root
        self._results: dict[str, Any] = {}
        self._verified: set[str] = set()
        self._has_format = False
        try:
            record = json.loads(self.objects.read("format.json"))
        except FileNotFoundError:
            return
        except ValueError:
            raise UserError(f"{self.root}/format.json is damaged; is this a store?") from None
        _check_version(record, f"the store {self.root}")
        self._has_format = True

    @property
    def local(self) -> Path:
        """A folder of this machine: the store itself, or the local cache of a remote one."""
        return self.objects.local

    # -- stages ------------------------------------------------------------------------------

    def is_done(self, stage_id: str) -> bool:
        """Whether the stage has a result."""
        return self.objects.exists(f"{_stage(stage_id)}/done.json")

    def done(self, stage_ids: Iterable[str]) -> set[str]:
        """Those of the stages that have a result."""
        return {stage_id for stage_id in stage_ids if self.is_done(stage_id)}

    def matching(self, prefix: str) -> list[str]:
        """Finished stages whose identity begins with `prefix`, two characters at least."""
        if len(prefix) < 2:
            raise UserError(f"{prefix!r} is too short for the beginning of a stage's identity")
        known = self.objects.children(f"stages/{prefix[:2]}")
        return sorted(stage for stage in known if stage.startswith(prefix) and self.is_done(stage))

    def begin(self, stage: Stage) -> Attempt:
        """A fresh attempt at a stage, to be filled and then finished, failed or discarded."""
        self._write_format()
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"
        key = f"{_stage(stage.id)}/{name}"
        attempt = Attempt(stage, key, name, self.objects.staging(key))
        attempt.output.mkdir()
        return attempt

    def finish(
        self,
        attempt: Attempt,
        rows: Sequence[ResultRow],
        execution: Mapping[str, Any],
        status: Status = "ok",
    ) -> bool:
        """Make an attempt the stage's result; False, and the attempt is gone, if one was first."""
        import pyarrow.parquet

        seconds: float = execution["seconds"]
        with told_when_full(self.root):
            execution = {"schema_version": SCHEMA_VERSION, "attempt": attempt.name, **execution}
            (attempt.folder / "stage.json").write_text(
                attempt.stage.model_dump_json(indent=1), encoding="utf-8"
            )
            (attempt.folder / "execution.json").write_text(
                json.dumps(execution, indent=1), encoding="utf-8"
            )
            table = _table(attempt.stage, rows, status)
            pyarrow.parquet.write_table(table, attempt.folder / "results.parquet")
            durable = seconds >= DURABLE_SECONDS
            files = {}
            for path in sorted(attempt.folder.rglob("*")):
                if path.is_file():
                    files[path.relative_to(attempt.folder).as_posix()] = _file_checksum(path)
                    if durable:
                        flush(path)
        self.objects.upload(attempt.key)
        record = {
            "schema_version": SCHEMA_VERSION,
            "stage": attempt.stage.id,
            "attempt": attempt.name,
            "status": status,
            "finished_at": _now(),
            "files": files,
        }
        won = self.objects.create(
            f"{_stage(attempt.stage.id)}/done.json",
            json.dumps(record, indent=1).encode(),
            durable=durable,
        )
        if won:
            self._verified.add(attempt.stage.id)
            shutil.rmtree(self.scratch(attempt.stage.id), ignore_errors=True)
        else:
            self.objects.remove(attempt.key)
        return won

    def fail(self, attempt: Attempt, failure: Mapping[str, Any]) -> None:
        """Record why an attempt came to nothing, and remove what it wrote."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "stage": attempt.stage.id,
            "attempt": attempt.name,
            "failed_at": _now(),
            **failure,
        }
        self.record_failure(attempt.stage.id, attempt.name, record)
        self.discard(attempt)

    def record_failure(self, stage_id: str, attempt: str, record: Mapping[str, Any]) -> None:
        """Keep the record of an attempt that came to nothing."""
        key = f"{_stage(stage_id)}/failures/{attempt}.json"
        self.objects.create(key, json.dumps(record, indent=1).encode())

    def discard(self, attempt: Attempt) -> None:
        """Remove an attempt that will not be finished; its scratch folder stays."""
        self.objects.remove(attempt.key)

    def scratch(self, stage_id: str) -> Path:
        """A folder of this machine that outlives attempts at the stage, gone when it is done."""
        return self.local / "scratch" / stage_id

    def lease_folder(self, stage_id: str) -> str:
        """Where the lease of a stage is (`sweeps.leases`)."""
        return f"{_stage(stage_id)}/lease"

    # -- reading -----------------------------------------------------------------------------

    def stage_folder(self, stage_id: str) -> Path:
        """The runner's output of a finished stage, as a checked folder of this machine.

        Raises:
            UserError: the stage is not done, or its files do not match their checksums.
        """
        record = self._done_record(stage_id)
        folder = self.objects.fetch(f"{_stage(stage_id)}/{record['attempt']}")
        if stage_id not in self._verified:
            for name, checksum in record["files"].items():
                path = folder / name
                found = _file_checksum(path) if path.is_file() else None
                _check(stage_id, path, found, checksum)
            self._verified.add(stage_id)
        return folder / "output"

    def rows(self, stage_ids: Iterable[str]) -> pandas.DataFrame:
        """The long result table of those stages that are done, columns as in `COLUMNS`."""
        import pyarrow

        tables = [self._rows(stage_id) for stage_id in stage_ids if self.is_done(stage_id)]
        if not tables:
            return _schema().empty_table().to_pandas()
        # Results of before there was a column have nothing in it.
        return pyarrow.concat_tables(tables, promote_options="default").to_pandas()

    def _rows(self, stage_id: str) -> Any:
        import pyarrow.parquet

        if stage_id not in self._results:  # written once, so it never changes
            data = self._file(stage_id, "results.parquet")
            self._results[stage_id] = pyarrow.parquet.read_table(io.BytesIO(data))
        return self._results[stage_id]

    def status(self, stage_id: str) -> Status:
        """Whether a finished stage diverged, itself or what it took input from."""
        return self._done_record(stage_id)["status"]

    def examples(self, stage_id: str) -> pandas.DataFrame:
        """Prompt, prediction, references and score of each item of an evaluation stage.

        Raises:
            UserError: the stage is not done or keeps no examples.
        """
        import pandas

        if "output/examples.parquet" not in self._done_record(stage_id)["files"]:
            raise UserError(f"stage {stage_id} keeps no examples; only evaluations do")
        return pandas.read_parquet(io.BytesIO(self._file(stage_id, "output/examples.parquet")))

    def execution(self, stage_id: str) -> dict[str, Any]:
        """On what, with what and for how long a finished stage ran."""
        return json.loads(self._file(stage_id, "execution.json"))

    def stage(self, stage_id: str) -> Stage:
        """What a finished stage was asked to do."""
        return Stage.model_validate_json(self._file(stage_id, "stage.json"))

    def failures(self, stage_id: str) -> list[dict[str, Any]]:
        """Attempts that raised, oldest first: error, traceback, host, time."""
        folder = f"{_stage(stage_id)}/failures"
        return [
            json.loads(self.objects.read(f"{folder}/{name}"))
            for name in self.objects.children(folder)
        ]

    def progress(self, stage_id: str) -> list[dict[str, Any]]:
        """Reports of a stage that is running, by step: `step`, `time` and metrics.

        Read from this machine; a stage that runs elsewhere on a remote store shows nothing.
        """
        try:
            lines = (
                (self.scratch(stage_id) / "reports.jsonl").read_text(encoding="utf-8").split("\n")
            )
        except FileNotFoundError:
            return []
        reports: dict[int, dict[str, Any]] = {}
        for line in lines[:-1]:  # what follows the last newline is still being written
            try:
                report = json.loads(line)
            except ValueError:  # torn by a kill, then continued
                continue
            reports[report["step"]] = report  # a resumed stage reports some steps again
        return [reports[step] for step in sorted(reports)]

    def _done_record(self, stage_id: str) -> dict[str, Any]:
        try:
            record = json.loads(self.objects.read(f"{_stage(stage_id)}/done.json"))
        except FileNotFoundError:
            raise UserError(f"stage {stage_id} has no result in the store {self.root}") from None
        _check_version(record, f"stage {stage_id}")
        return record

    def _file(self, stage_id: str, name: str) -> bytes:
        record = self._done_record(stage_id)
        key = f"{_stage(stage_id)}/{record['attempt']}/{name}"
        try:
            data = self.objects.read(key)
        except FileNotFoundError:
            data = None
        found = None if data is None else _checksum(data)
        _check(stage_id, f"{self.root}/{key}", found, record["files"][name])
        return data or b""

    # -- studies -----------------------------------------------------------------------------

    def register(self, plan: Plan) -> Registration:
        """Snapshot a study before it runs; the first registration of a meaning stands.

        A study that comes to other stages with the same meaning (its code changed) is registered
        anew, because other results were known then.
        """
        self._write_format()
        study = _study(plan.study)
        folder = f"{study}/{registration_name(plan)}"
        try:
            registration = self._registration(folder)
        except FileNotFoundError:
            earlier = [
                self._registration(f"{study}/{name}")
                for name in self.objects.children(study)
                if self.objects.exists(f"{study}/{name}/registration.json")
            ]
            earlier.sort(key=lambda one: one.registered_at)
            registration = Registration(
                study=plan.study,
                hash=plan.hash,
                registered_at=_now(),
                known_stages=tuple(sorted(self.done(plan.stages))),
                previous=tuple(one.hash for one in earlier),
            )
            data = registration.model_dump_json(indent=1).encode()
            if not self.objects.create(f"{folder}/registration.json", data):
                registration = self._registration(folder)
        # Names and labels may have changed without changing the meaning, so the newest stands.
        self.objects.write(f"{folder}/plan.json", plan.model_dump_json(indent=1).encode())
        latest = {"schema_version": SCHEMA_VERSION, "folder": registration_name(plan)}
        self.objects.write(f"{study}/latest.json", json.dumps(latest).encode())
        return registration

    def snapshot(self, name: str) -> tuple[Plan, Registration]:
        """A study as it was last registered.

        Raises:
            UserError: no study of that name has run here.
        """
        study = _study(name)
        try:
            latest = json.loads(self.objects.read(f"{study}/latest.json"))
        except FileNotFoundError:
            raise UserError(
                f"no study {name!r} in the store {self.root}{nearest(name, self.studies())}"
            ) from None
        folder = f"{study}/{latest['folder']}"
        record = json.loads(self.objects.read(f"{folder}/plan.json"))
        _check_version(record, f"the snapshot of study {name!r}")
        return Plan.model_validate(record), self._registration(folder)

    def registrations(
        self, study: str, primary_metric: tuple[str, str]
    ) -> Iterator[tuple[Plan, Registration]]:
        """Registrations of a study's name, or with the same primary metric; in no order."""
        for name in self.studies():
            for one in self.objects.children(_study(name)):
                folder = f"{_study(name)}/{one}"
                if not self.objects.exists(f"{folder}/plan.json"):
                    continue  # no registration, or one that was killed before it had a plan
                record = json.loads(self.objects.read(f"{folder}/plan.json"))
                if name == study or tuple(record.get("primary_metric", ())) == primary_metric:
                    yield Plan.model_validate(record), self._registration(folder)

    def finished_at(self, stage_id: str) -> str | None:
        """When a stage was finished, UTC in ISO 8601; None if it is not."""
        try:
            return self._done_record(stage_id)["finished_at"]
        except UserError:
            return None

    def studies(self) -> list[str]:
        """Names of the studies that were registered here."""
        return [
            unquote(name)
            for name in self.objects.children("studies")
            if self.objects.exists(f"studies/{name}/latest.json")
        ]

    def _registration(self, folder: str) -> Registration:
        record = json.loads(self.objects.read(f"{folder}/registration.json"))
        _check_version(record, f"the registration {folder}")
        return Registration.model_validate(record)

    def _write_format(self) -> None:
        if not self._has_format:
            record = {"schema_version": SCHEMA_VERSION, "created_at": _now()}
            self.objects.create("format.json", json.dumps(record).encode())
            self._has_format = True


def _stage(stage_id: str) -> str:
    return f"stages/{stage_id[:2]}/{stage_id}"


def _study(name: str) -> str:
    return f"studies/{quote(name, safe='')}"


def registration_name(plan: Plan) -> str:
    """What a registration is kept under: a study's meaning and the stages it comes to."""
    stages = hashlib.sha256("\n".join(sorted(plan.stages)).encode()).hexdigest()
    return f"{plan.hash}-{stages[:8]}"


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")


def _check_version(record: Mapping[str, Any], what: str) -> None:
    if record.get("schema_version", 0) > SCHEMA_VERSION:
        raise UserError(
            f"{what} was written by a newer version of mm1 (schema {record['schema_version']}, "
            f"this one reads up to {SCHEMA_VERSION}); upgrade, or use another --store"
        )


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_checksum(path: Path) -> str:
    with open(path, "rb") as file:  # a checkpoint may be larger than memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(stage_id: str, place: object, found: str | None, expected: str) -> None:
    if found != expected:
        what = "is missing" if found is None else "does not match its checksum"
        raise UserError(
            f"stage {stage_id} is damaged: {place} {what}; remove the stage's folder and run again"
        )


def _schema() -> Any:
    import pyarrow

    kinds = {
        "seed": pyarrow.int64(),
        "shots": pyarrow.int32(),
        "step": pyarrow.int64(),
        "value": pyarrow.float64(),
        "n_items": pyarrow.int64(),
        "standard_error": pyarrow.float64(),
    }
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])


def _table(stage: Stage, rows: Sequence[ResultRow], status: Status) -> Any:
    import pyarrow

    records = [
        {**vars(row), "value": float(row.value)}
        | {"stage": stage.id, "seed": stage.seed, "status": status}
        for row in rows
    ]
    return pyarrow.Table.from_pylist(records, schema=_schema())
