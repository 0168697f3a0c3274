"""The record of everything that ran: content-addressed, written once, by many writers.

    format.json                              version of this layout
    stages/<id[:2]>/<id>/done.json           put if absent, last: the attempt that won, checksums
    stages/<id[:2]>/<id>/<attempt>/          stage.json  execution.json  results.parquet  output/
                                             printed.txt, where the stage printed anything
    stages/<id[:2]>/<id>/failures/…json      attempts that raised, with their tracebacks
    stages/<id[:2]>/<id>/lease/…json         who is working on it (`sweeps.leases`)
    studies/<name>/latest.json               which registration a name means now
    studies/<name>/<hash>-<stages>/          plan.json  registration.json  looks/…json
                                             cancelled/…json  runs/…json (`sweeps.run_times`)
                                             forecasts/…json (`sweeps.forecasts`)
    claims/<hash>.json                       claims on a table from elsewhere, put if absent
    runs/<name>/                             where a run is, and what it is asked (`sweeps.live`)
    scratch/<id>/                            checkpoints and reports of a stage that is not done
    damaged/<id>/<when>/                     what was set aside because it is not what was written

Names that begin with a dot are temporary. An attempt without a `done.json` that names it does not
exist for any reader. Everything else (MLflow, indexes, pictures) can be rebuilt from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import time
import uuid
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ablations import identity
from ablations.errors import UserError, nearest
from ablations.plan import Plan
from ablations.shown_text import each_text, hiding
from ablations.stage import ResultRow
from ablations.stages import Stage
from sweeps import leases
from sweeps.example_index import ExampleIndex, Examples, Read
from sweeps.finished import (
    STAGE_ID,
    NoResultError,
    check,
    check_place,
    done_of,
    file_of,
    rows_of,
    schema,
    stage_key,
    stage_of,
)
from sweeps.index import Finished, Index, read_scored, write_scored
from sweeps.objects import open_objects, told_when_refused
from sweeps.records import (
    SCHEMA_VERSION,
    Cancelled,
    ClaimsRecord,
    CodeRecord,
    DamagedError,
    Done,
    Format,
    Latest,
    Look,
    Registration,
    Status,
    UnreadableError,
    as_execution,
    as_object,
    check_seal,
    read,
    read_record,
    sealed,
    study_folder,
)
from sweeps.reports import Reports
from sweeps.worker_output import PRINTED

if TYPE_CHECKING:
    import pandas

KEPT_PLANS = 64  # in memory
_REGISTRATION = re.compile(r"[0-9a-z]+-[0-9a-f]{8}")  # `registration_name`


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
        self._index = Index(self.objects)
        self._example_index = ExampleIndex(self.objects)
        # As they were read last, each with what its files were then.
        self._snapshots: dict[str, tuple[Any, tuple[Plan, Registration]]] = {}
        self._plans: dict[str, tuple[Hashable, Plan]] = {}
        self._verified: set[str] = set()  # stages whose output was read and is in order
        self._has_format = False
        # A damaged one says nothing about the version, which every other record has as well.
        self._damage = ""
        try:
            read_record(self.objects, "format.json", Format)
            self._has_format = True
        except FileNotFoundError:
            pass
        except DamagedError as error:
            self._damage = str(error)

    @property
    def damage(self) -> str:
        """What is wrong with the store's own record, and what to do; "" where it is in order."""
        return f"{self._damage}; mm1 fsck --repair writes it anew" if self._damage else ""

    @property
    def local(self) -> Path:
        """A folder of this machine: the store itself, or the local cache of a remote one."""
        return self.objects.local

    # -- stages ------------------------------------------------------------------------------

    def is_done(self, stage_id: str) -> bool:
        """Whether the stage has a result; a damaged record of one is none."""
        try:
            self.done_record(stage_id)
        except (NoResultError, DamagedError):
            return False
        return True

    def done(self, stage_ids: Collection[str]) -> set[str]:
        """Those of the stages that have a result."""
        return self._index.done(stage_ids, self.objects)

    def look(self, stage_ids: Collection[str]) -> Finished:
        """What there is of some stages: their results, and what is wrong with those that have
        one which cannot be read.

        Their output is looked at only where it is read (`stage_folder`), and by `sweeps.fsck`.
        """
        return self._index.look(stage_ids, self.objects)

    def matching(self, prefix: str) -> list[str]:
        """Finished stages whose identity begins with `prefix`, two characters at least."""
        if len(prefix) < 2:
            raise UserError(f"{prefix!r} is too short for the beginning of a stage's identity")
        known = filter(STAGE_ID.fullmatch, self.objects.children(f"stages/{prefix[:2]}"))
        return sorted(stage for stage in known if stage.startswith(prefix) and self.is_done(stage))

    def begin(self, stage: Stage) -> Attempt:
        """A fresh attempt at a stage, to be filled and then finished, failed or discarded.

        The caller holds the stage's lease: a damaged record of an earlier result is set aside, and
        what dead processes left is removed.
        """
        self._write_format()
        self._make_room(stage.id)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"
        key = f"{stage_key(stage.id)}/{name}"
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

        with told_when_refused(self.root):
            execution = {"schema_version": SCHEMA_VERSION, "attempt": attempt.name, **execution}
            if failed := self.objects.children(f"{stage_key(attempt.stage.id)}/failures"):
                execution["failed_before"] = len(failed)
            (attempt.folder / "stage.json").write_text(
                json.dumps(attempt.stage.record(), indent=1), encoding="utf-8"
            )
            (attempt.folder / "execution.json").write_text(
                json.dumps(execution, indent=1), encoding="utf-8"
            )
            table = _table(attempt.stage, rows, status)
            written = pyarrow.BufferOutputStream()  # opening a file by Arrow takes twice as long
            pyarrow.parquet.write_table(table, written)
            (attempt.folder / "results.parquet").write_bytes(written.getvalue())
            files = {}
            paths = sorted(attempt.folder.rglob("*"))
            for path in paths:
                name = path.relative_to(attempt.folder).as_posix()
                if path.is_symlink():
                    raise UserError(f"the runner left a link in its output ({name}); copy the file")
                if path.is_file():
                    files[name] = _file_checksum(path)
        self.objects.upload(attempt.key)
        record = Done(
            stage=attempt.stage.id,
            attempt=attempt.name,
            status=status,
            finished_at=utc_now(),
            files=files,
        )
        done = f"{stage_key(attempt.stage.id)}/done.json"
        paths.append(attempt.folder)
        if not self.objects.create(done, sealed(record), durable=True, after=paths):
            self.objects.remove(attempt.key)
            return False
        if not self.objects.exists(f"{attempt.key}/results.parquet"):
            self.objects.remove(done)
            raise RuntimeError("this attempt was taken for a dead one's and removed")
        self._verified.add(attempt.stage.id)
        self.objects.remove(f"scratch/{attempt.stage.id}")  # here, and what all machines share
        return True

    def fail(self, attempt: Attempt, failure: Mapping[str, Any]) -> None:
        """Record why an attempt came to nothing, and remove what it wrote."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "stage": attempt.stage.id,
            "attempt": attempt.name,
            "failed_at": utc_now(),
            **failure,
        }
        self.record_failure(attempt.stage.id, attempt.name, record)
        self.discard(attempt)

    def record_failure(self, stage_id: str, attempt: str, record: Mapping[str, Any]) -> None:
        """Keep the record of an attempt that came to nothing."""
        key = f"{stage_key(stage_id)}/failures/{attempt}.json"
        told = each_text(record, hiding())
        self.objects.create(key, json.dumps(told, indent=1).encode())

    def discard(self, attempt: Attempt) -> None:
        """Remove an attempt that will not be finished; its scratch folder stays.

        Unless it may be the result after all: the answer to its last write was lost.
        """
        try:
            named = self.done_record(attempt.stage.id).attempt
        except NoResultError:
            named = None
        except (UnreadableError, OSError):
            return
        if named != attempt.name:
            self.objects.remove(attempt.key)

    def set_aside(self, stage_id: str) -> str:
        """Move what there is of a damaged result out of the way; where to.

        The caller holds the stage's lease. The next run does the stage again.
        """
        folder, to = stage_key(stage_id), f"damaged/{stage_id}/{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        names = set(self.objects.children(folder)) - {"lease", "failures", "done.json"}
        for name in ("done.json", *sorted(names)):
            with contextlib.suppress(FileNotFoundError):
                self.objects.move(f"{folder}/{name}", f"{to}/{name}")
        self._verified.discard(stage_id)
        return to

    def results_set_aside(self, stage_ids: Iterable[str]) -> dict[str, int]:
        """Those of the stages whose results were set aside as damaged → how often."""
        there = set(self.objects.children("damaged")) & set(stage_ids)
        return {stage: len(self.objects.children(f"damaged/{stage}")) for stage in sorted(there)}

    def _make_room(self, stage_id: str) -> None:
        with contextlib.suppress(NoResultError):
            try:
                self.done_record(stage_id)
            except DamagedError:
                self.set_aside(stage_id)
        folder = stage_key(stage_id)
        if self.objects.children(self.lease_folder(stage_id)) and leases.earlier_are_dead(
            self.objects, self.lease_folder(stage_id)
        ):
            for name in self.unfinished(stage_id):
                # What a runner was through with may be a result whose record was lost.
                if self.objects.exists(f"{folder}/{name}/results.parquet"):
                    self.set_aside(stage_id)
                else:
                    self.objects.remove(f"{folder}/{name}")

    def unfinished(self, stage_id: str) -> list[str]:
        """Attempts at a stage that are not its result, and temporary files, below its folder.

        They are nobody's if the stage's lease is free, or the caller's.
        """
        folder = stage_key(stage_id)
        try:
            attempt = self.done_record(stage_id).attempt
        except NoResultError:
            attempt = None
        found: set[str] = set()
        for key in self.objects.files(folder):
            first, _, rest = key.removeprefix(f"{folder}/").partition("/")
            if first.startswith("."):
                found.add(first)
            elif first in ("lease", "failures"):
                if rest.startswith("."):
                    found.add(f"{first}/{rest}".rstrip("/"))
            elif first not in ("done.json", attempt):
                found.add(first)
        return sorted(found)

    def scratch(self, stage_id: str) -> Path:
        """A folder of this machine that outlives attempts at the stage, gone when it is done."""
        return self.local / "scratch" / stage_key(stage_id).rpartition("/")[2]

    def _with_scratch(self) -> set[str]:
        """Stages that were begun on this machine and are not done."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return {path.name for path in (self.local / "scratch").iterdir()}
        return set()

    def lease_folder(self, stage_id: str) -> str:
        """Where the lease of a stage is (`sweeps.leases`)."""
        return f"{stage_key(stage_id)}/lease"

    # -- reading -----------------------------------------------------------------------------

    def stage_folder(self, stage_id: str) -> Path:
        """The runner's output of a finished stage, as a checked folder of this machine.

        Raises:
            UserError: the stage is not done, or its files do not match their checksums.
        """
        record = self.done_record(stage_id)
        key = f"{stage_key(stage_id)}/{record.attempt}"
        again = False
        while True:
            try:
                folder = self.objects.fetch(key, record.files, again=again)
                if stage_id not in self._verified:
                    for name, checksum in record.files.items():
                        path = folder / name
                        found = _file_checksum(path) if path.is_file() else None
                        check(stage_id, path, found, checksum)
                    self._verified.add(stage_id)
                return folder / "output"
            except DamagedError:
                if again or self.objects.local == Path(self.root):
                    raise
                again = True  # it may be the local cache that is damaged

    def rows(self, stage_ids: Iterable[str]) -> pandas.DataFrame:
        """The long result table of those stages that are done, columns as in `COLUMNS`.

        Of a few stages, from their folders; `look` has that of many.
        """
        import pyarrow

        tables = [schema().empty_table()]
        for stage_id in stage_ids:
            if self.is_done(stage_id):
                tables.append(rows_of(stage_id, self._file(stage_id, "results.parquet")))
        # Results of before there was a column have nothing in it.
        return pyarrow.concat_tables(tables, promote_options="default").to_pandas()

    def status(self, stage_id: str) -> Status:
        """Whether a finished stage diverged, itself or what it took input from."""
        return self.done_record(stage_id).status

    def examples(self, stage_id: str) -> pandas.DataFrame | None:
        """Prompt, prediction, references and score of each item; None where a stage keeps none.

        Raises:
            UserError: the stage is not done, or is damaged.
        """
        import pandas

        if "output/examples.parquet" not in self.done_record(stage_id).files:
            return None
        return pandas.read_parquet(io.BytesIO(self._file(stage_id, "output/examples.parquet")))

    def many_examples(
        self, found: Finished, stage_ids: Iterable[str], told: Read = lambda read, of: None
    ) -> Examples:
        """The examples of those stages that a look found to be done, in one table.

        Those that no index has yet are read from their folders, and `told` how far that is.
        """
        attempts = found.stages["attempt"]
        asked = [stage for stage in stage_ids if stage in found.sound]
        won = dict(zip(asked, attempts.loc[asked], strict=True))
        return self._example_index.look(won, told)

    def execution(self, stage_id: str) -> dict[str, Any]:
        """On what, with what and for how long a finished stage ran."""
        place = f"{self.root}/{stage_key(stage_id)}: execution.json"
        return as_execution(self._file(stage_id, "execution.json"), place)

    def stage(self, stage_id: str) -> Stage:
        """What a finished stage was asked to do."""
        return stage_of(stage_id, self._file(stage_id, "stage.json"))

    def failures(self, stage_id: str) -> list[dict[str, Any]]:
        """Attempts that raised, oldest first: error, traceback, host, time.

        Of a damaged record only that it is damaged, as its error.
        """
        folder = f"{stage_key(stage_id)}/failures"
        found = []
        for name in self.objects.children(folder):
            key = f"{folder}/{name}"
            try:
                found.append(as_object(read(self.objects, key), f"{self.root}/{key}"))
            except FileNotFoundError:  # removed meanwhile
                continue
            except UnreadableError as error:
                found.append({"error": str(error)})
        return found

    def printed(self, stage_id: str) -> str:
        """What a finished stage printed; "" where it printed nothing."""
        if PRINTED not in self.done_record(stage_id).files:
            return ""
        return self._file(stage_id, PRINTED).decode("utf-8", "replace")

    def progress(self, stage_id: str) -> list[dict[str, Any]]:
        """Reports of a stage that is running, by step: `step`, `time` and metrics.

        Read from this machine; a stage that runs elsewhere on a remote store shows nothing.
        """
        return Reports(self.scratch(stage_id)).read()

    def done_record(self, stage_id: str) -> Done:
        """Which attempt won. Raises `DamagedError`, and `UserError` where there is no result."""
        try:
            answer: bytes | OSError = self.objects.read(f"{stage_key(stage_id)}/done.json")
        except OSError as error:
            answer = error
        return done_of(self.objects, stage_id, answer)

    def _file(self, stage_id: str, name: str) -> bytes:
        record = self.done_record(stage_id)
        folder = f"{stage_key(stage_id)}/{record.attempt}"
        check_place(self.objects, stage_id, folder, [name])
        try:
            answer: bytes | OSError = self.objects.read(f"{folder}/{name}")
        except OSError as error:
            answer = error
        return file_of(self.objects, stage_id, record, name, answer)

    # -- studies -----------------------------------------------------------------------------

    def register(self, plan: Plan) -> Registration:
        """Snapshot a study before it runs; the first registration of a meaning stands.

        A study that comes to other stages with the same meaning (its code changed) is registered
        anew, because other results were known then.
        """
        self._write_format()
        study = study_folder(plan.study)
        folder = f"{study}/{registration_name(plan)}"
        registration = None
        with contextlib.suppress(FileNotFoundError):
            registration = self._registration(folder)
        # Names and labels may have changed without changing the meaning, so the newest stands.
        self.objects.write(f"{folder}/plan.json", sealed(plan), durable=True)
        self._keep_code(plan)
        if registration is None:
            known = self.done(plan.stages)
            begun = filter(self.progress, self._with_scratch() & (plan.stages.keys() - known))
            own = registration_mark(plan.study, registration_name(plan))
            registration = Registration(
                study=plan.study,
                hash=plan.hash,
                registered_at=utc_now(),
                known_stages=tuple(sorted(known)),
                begun_stages=tuple(sorted(begun)),
                previous=self._earlier(study),
                before=tuple(sorted(self.registration_marks() - {own})),
            )
            key = f"{folder}/registration.json"
            if not self.objects.create(key, sealed(registration), durable=True):
                registration = self._registration(folder)
        latest = Latest(folder=registration_name(plan))
        self.objects.write(f"{study}/latest.json", sealed(latest), durable=True)
        return registration

    def register_claims(self, hash_: str, content: Mapping[str, Any]) -> ClaimsRecord:
        """Put claims on a table from elsewhere on record; the first registration of them stands."""
        self._write_format()
        known, _ = self.claims()
        record = ClaimsRecord(
            hash=hash_,
            content=dict(content),
            registered_at=utc_now(),
            before={one.hash: one.registered_at for one in known if one.hash != hash_},
        )
        key = f"claims/{hash_}.json"
        if not self.objects.create(key, sealed(record), durable=True):
            return read_record(self.objects, key, ClaimsRecord)
        return record

    def claims(self) -> tuple[list[ClaimsRecord], list[str]]:
        """Claims that are on record, oldest first, and a line for each that cannot be read."""
        found, lines = [], []
        for name in self.objects.children("claims"):
            try:
                record = read_record(self.objects, f"claims/{name}", ClaimsRecord)
            except UnreadableError as error:
                lines.append(str(error))
                continue
            if name != f"{record.hash}.json":
                lines.append(f"{self.root}/claims/{name} is of other claims")
                continue
            found.append(record)
        return sorted(found, key=lambda one: (one.registered_at, one.hash)), lines

    def claims_written(self, hash_: str) -> float | None:
        """When the record of some claims was written, as its storage says; Unix time."""
        return self.objects.files("claims").get(f"claims/{hash_}.json")

    def _keep_code(self, plan: Plan) -> None:
        """Write down what each code of a plan consists of, once for a fingerprint."""
        codes = {stage.code_fingerprint: stage.work.code for stage in plan.stages.values()}
        for fingerprint in codes.keys() - self._names_of_code():
            code = codes[fingerprint]
            with contextlib.suppress(UserError):  # its source may be elsewhere, or another by now
                parts = identity.parts_of(code)
                if identity.original(identity.fingerprint(parts)) == fingerprint:
                    record = sealed(CodeRecord(parts=parts))
                    self.objects.create(f"code/{fingerprint}.json", record)

    def _names_of_code(self) -> set[str]:
        return {name.removesuffix(".json") for name in self.objects.children("code")}

    def code_parts(self, fingerprint: str) -> dict[str, str] | None:
        """Module or file → what it did in some code; None where that was not kept."""
        try:
            return read_record(self.objects, f"code/{fingerprint}.json", CodeRecord).parts
        except (FileNotFoundError, UnreadableError):
            return None

    def _earlier(self, study: str) -> tuple[str, ...]:
        """Hashes that were registered under a name; of a damaged one, the hash in its name."""
        found = []
        for name in self._registrations(study):
            try:
                one = self._registration(f"{study}/{name}")
                found.append((one.registered_at, one.hash))
            except DamagedError:
                found.append(("", name.partition("-")[0]))
        return tuple(hash_ for _, hash_ in sorted(found))

    def registration_marks(self) -> set[str]:
        """A mark of every registration that is there, whether it can be read or not."""
        return {
            registration_mark(unquote(name), one)
            for name in self.objects.children("studies")
            for one in self.objects.children(f"studies/{name}")
            if _REGISTRATION.fullmatch(one)
        }

    def removed_registrations(self, known: Iterable[Registration]) -> list[str]:
        """Study of each registration that was here when some others were made, and is gone."""
        before = {mark for one in known for mark in one.before}
        return sorted(mark.rpartition("/")[0] for mark in before - self.registration_marks())

    def _registrations(self, study: str) -> list[str]:
        return [
            name
            for name in self.objects.children(study)
            if self.objects.exists(f"{study}/{name}/registration.json")
        ]

    def snapshot(self, name: str) -> tuple[Plan, Registration]:
        """A study as it was last registered.

        Raises:
            UserError: no study of that name has run here.
            DamagedError: what was registered cannot be read any more.
        """
        study = study_folder(name)
        folder = f"{study}/{self._latest(study, name).folder}"
        files = (f"{folder}/plan.json", f"{folder}/registration.json")
        versions = (folder, *map(self.objects.version, files))
        known = self._snapshots.get(name)
        if known is not None and known[0] == versions and None not in versions:
            return known[1]
        try:
            plan = self._plan(folder)
            registration = self._registration(folder)
        except FileNotFoundError as error:
            raise DamagedError(
                f"study {name!r} is damaged: {folder} lacks a file ({error.filename or error})"
            ) from None
        except DamagedError as error:
            raise DamagedError(
                f"study {name!r} cannot be shown: {error}; {_STUDY_REMEDY}"
            ) from None
        if (plan.study, plan.hash) != (registration.study, registration.hash) or plan.study != name:
            raise DamagedError(f"study {name!r} is damaged: {folder} is of another study")
        stages = {stage for trial in plan.trials for stage in trial.stages.values()}
        if registration_name(plan) != folder.rpartition("/")[2] or not stages <= set(plan.stages):
            raise DamagedError(f"study {name!r} is damaged: {folder} has stages of another")
        self._snapshots[name] = versions, (plan, registration)
        return plan, registration

    def _plan(self, folder: str) -> Plan:
        """The plan of a registration; the same object while its file is the same."""
        key = f"{folder}/plan.json"
        version = self.objects.version(key)
        known = self._plans.get(key)
        if known is None or known[0] != version or version is None:
            known = version, read_record(self.objects, key, Plan)
            kept = list(self._plans.items())[1 - KEPT_PLANS :]
            self._plans = {**dict(kept), key: known}
        return known[1]

    def study_damage(self, name: str) -> list[str]:
        """What is damaged of a study that can be shown all the same, one line each."""
        study = study_folder(name)
        lines = []
        try:
            read_record(self.objects, f"{study}/latest.json", Latest)
        except FileNotFoundError:
            lines.append(f"{self.root}/{study}/latest.json is missing")
        except UnreadableError as error:
            lines.append(str(error))
        if lines:
            lines[0] += (
                ": the registration shown is the newest one, which need not be the one run last; "
                "mm1 run of the study's file says which it is"
            )
        for one in self._registrations(study):
            try:
                self._registration(f"{study}/{one}")
            except UnreadableError as error:
                lines.append(f"an earlier registration: {error}")
        return lines

    def _latest(self, study: str, name: str) -> Latest:
        try:
            return read_record(self.objects, f"{study}/latest.json", Latest)
        except (FileNotFoundError, DamagedError):
            known = []
            for one in self._registrations(study):
                with contextlib.suppress(DamagedError):
                    known.append((self._registration(f"{study}/{one}").registered_at, one))
            if known:
                return Latest(folder=max(known)[1])
            if self._registrations(study):
                raise DamagedError(
                    f"study {name!r} cannot be shown: none of its registrations can be read; "
                    f"{_STUDY_REMEDY}"
                ) from None
        raise UserError(
            f"no study {name!r} in the store {self.root}{nearest(name, self.studies())}"
        )

    def registrations(
        self, study: str, tasks: Collection[str]
    ) -> tuple[list[tuple[Plan, Registration]], list[str]]:
        """Registrations of a study's name, or that score any of some tasks; in no order.

        And a line for each that cannot be read, of any name: it may be one of them.
        """
        found, lines = [], []
        scored = read_scored(self.objects)
        before = dict(scored)
        for folder in self.objects.children("studies"):
            name = unquote(folder)
            for one in self.objects.children(f"studies/{folder}"):
                if not _REGISTRATION.fullmatch(one):
                    continue
                key = f"studies/{folder}/{one}"
                try:
                    registration = self._registration(key)
                    if name == study or not self._scored(key, scored).isdisjoint(tasks):
                        found.append((self._plan(key), registration))
                except FileNotFoundError:
                    lines.append(f"a registration of {name} is damaged: {key} lacks a file")
                except UnreadableError as error:
                    lines.append(f"a registration of {name} cannot be read: {error}")
        if scored != before:
            write_scored(self.objects, scored)
        return found, lines

    def _scored(self, folder: str, known: dict[str, tuple[str, tuple[str, ...]]]) -> set[str]:
        """The tasks that a registered plan scores; put with those that are known."""
        key = f"{folder}/plan.json"
        version = self.objects.version(key)
        if version is not None and known.get(key, ("",))[0] == str(version):
            return set(known[key][1])
        place = f"{self.root}/{key}"
        fields = as_object(read(self.objects, key), place)
        check_seal(fields, place)
        tasks = _scored(fields, place)
        known[key] = str(version), tuple(sorted(tasks))
        return tasks

    def looked(self, plan: Plan, done: Collection[str], by: str) -> None:
        """Put on record that results of a registered study are shown; once for each number of them.

        A store that may only be read keeps no record of who reads it.
        """
        folder = f"{registration_folder(plan)}/looks"
        with contextlib.suppress(OSError, UserError):
            key = f"{folder}/{len(done):08d}.json"
            if not self.objects.exists(key):
                newest = max(self.finished_times(done).values(), default="")
                look = Look(at=utc_now(), done=len(done), newest=newest, by=by)
                self.objects.create(key, sealed(look))

    def last_look(self, plan: Plan) -> Look | None:
        """When most results of a registered study were shown first; None if nobody looked."""
        folder = f"{registration_folder(plan)}/looks"
        names = self.objects.children(folder)
        try:  # names are numbers of stages, so the last has most
            return read_record(self.objects, f"{folder}/{names[-1]}", Look) if names else None
        except (FileNotFoundError, UnreadableError):
            return None

    def looks(self, plan: Plan) -> list[Look]:
        """When results of a registered study were shown, oldest first."""
        folder = f"{registration_folder(plan)}/looks"
        found = [
            read_record(self.objects, f"{folder}/{name}", Look)
            for name in self.objects.children(folder)
        ]
        return sorted(found, key=lambda look: look.at)

    def record_cancelled(self, plan: Plan, record: Cancelled) -> None:
        """Put on record that a run of a registered study leaves trials out."""
        folder = f"{registration_folder(plan)}/cancelled"
        self.objects.create(f"{folder}/{uuid.uuid4().hex[:16]}.json", sealed(record))

    def cancelled(self, plan: Plan) -> dict[tuple[str, int], Cancelled]:
        """(arm, seed) of trials of a registered study that a run left out → the latest record.

        A later run may have done them all the same.
        """
        folder = f"{registration_folder(plan)}/cancelled"
        found = []
        for name in self.objects.children(folder):
            with contextlib.suppress(FileNotFoundError, UnreadableError):  # fsck tells
                found.append(read_record(self.objects, f"{folder}/{name}", Cancelled))
        found.sort(key=lambda record: record.at)
        return {trial: record for record in found for trial in record.trials}

    def finished_at(self, stage_id: str) -> str | None:
        """When a stage was finished, UTC in ISO 8601; None if it is not.

        "", which is before every time, where its record can no longer be read: who took the record
        away may have read the result.
        """
        try:
            return self.done_record(stage_id).finished_at
        except UnreadableError:
            return ""
        except NoResultError:
            return None

    def finished_times(self, stage_ids: Collection[str]) -> dict[str, str]:
        """When those of some stages were finished that have a result (`finished_at`)."""
        found = self.look(stage_ids)
        times = dict(zip(found.stages.index, found.stages["finished_at"], strict=True))
        damaged = {one: self.finished_at(one) for one in found.damaged}
        return times | {one: time for one, time in damaged.items() if time is not None}

    def studies(self) -> list[str]:
        """Names of the studies that were registered here, damaged ones too."""
        return [
            unquote(name)
            for name in self.objects.children("studies")
            if self.objects.exists(f"studies/{name}/latest.json")
            or self._registrations(f"studies/{name}")
        ]

    def snapshots(self) -> tuple[dict[str, tuple[Plan, Registration]], list[str]]:
        """Every study that can be read, in order of registration, and a line for each other."""
        found = {}
        lines = [self.damage] if self.damage else []
        for name in self.studies():
            try:
                found[name] = self.snapshot(name)
            except UserError as error:
                lines.append(str(error))
        order = sorted(found, key=lambda name: (found[name][1].registered_at, name))
        return {name: found[name] for name in order}, lines

    def _registration(self, folder: str) -> Registration:
        return read_record(self.objects, f"{folder}/registration.json", Registration)

    def _write_format(self) -> None:
        if self._has_format:
            return
        self.objects.create("format.json", sealed(Format(created_at=utc_now())), durable=True)
        try:
            read_record(self.objects, "format.json", Format)
        except DamagedError as error:
            raise UserError(
                f"{error}; is this a store? If it is: mm1 fsck --repair writes it anew"
            ) from None
        self._has_format = True


_STUDY_REMEDY = "mm1 fsck says what to do"


def _scored(plan: Mapping[str, Any], place: str) -> set[str]:
    """The tasks that a plan's first seed is scored on. Raises `DamagedError`: of another shape."""
    try:
        return {one["task"] for arm in plan["arms"] for one in arm["answers"]}
    except (LookupError, TypeError):
        raise DamagedError(f"{place} is damaged: it is no plan") from None


def registration_mark(study: str, folder: str) -> str:
    """What tells a registration from others, short enough to list them all: name and folder."""
    hash_, _, stages = folder.partition("-")
    return f"{study}/{hash_[:8]}-{stages}"


def registration_folder(plan: Plan) -> str:
    """Where what belongs to a registered plan is."""
    return f"{study_folder(plan.study)}/{registration_name(plan)}"


def registration_name(plan: Plan) -> str:
    """What a registration is kept under: a study's meaning and the stages it comes to."""
    stages = hashlib.sha256("\n".join(sorted(plan.stages)).encode()).hexdigest()
    return f"{plan.hash}-{stages[:8]}"


def utc_now() -> str:
    """This moment, ISO 8601."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")


def _file_checksum(path: Path) -> str:
    with open(path, "rb") as file:  # a checkpoint may be larger than memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(stage: Stage, rows: Sequence[ResultRow], status: Status) -> Any:
    import pyarrow

    records = [
        {**vars(row), "value": float(row.value)}
        | {"stage": stage.id, "seed": stage.seed, "status": status}
        for row in rows
    ]
    return pyarrow.Table.from_pylist(records, schema=schema())
