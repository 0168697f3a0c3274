"""The records of a finished stage: read from its folder, and checked against each other.

What is said here of a stage is the truth; `sweeps.index` only keeps what was read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ablations.errors import UserError
from ablations.stages import Stage
from sweeps.objects import Objects
from sweeps.records import (
    ALWAYS_THERE,
    DamagedError,
    Done,
    UnreadableError,
    as_execution,
    content,
    record_of,
)

if TYPE_CHECKING:
    import pyarrow

STAGE_ID = re.compile(r"[0-9a-f]{16,64}")

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
REMEDY = "mm1 fsck --repair sets the stage aside, and the next run does it again"


class NoResultError(UserError):
    """A stage that is not done."""


class Result(NamedTuple):
    """All that readers need of a finished stage but for its output."""

    done: Done
    execution: dict[str, Any]
    rows: pyarrow.Table  # columns as in `COLUMNS`, but for those that there were not yet


def stage_key(stage_id: str) -> str:
    """Where a stage's folder is. Raises `UserError` for what is no identity."""
    if not STAGE_ID.fullmatch(stage_id):
        raise UserError(f"{stage_id[:100]!r} is no stage's identity")
    return f"stages/{stage_id[:2]}/{stage_id}"


def done_of(objects: Objects, stage_id: str, answer: bytes | OSError) -> Done:
    """Which attempt won, from what its key was answered with.

    Raises:
        NoResultError: there is no result.
        UnreadableError: there is one that cannot be read.
    """
    key = f"{stage_key(stage_id)}/done.json"
    try:
        record = record_of(answer, f"{objects.root}/{key}", Done)
    except FileNotFoundError:
        raise NoResultError(f"stage {stage_id} has no result in the store {objects.root}") from None
    if record.stage != stage_id:
        raise DamagedError(f"{objects.root}/{key} is damaged: it is another stage's")
    return record


def file_of(
    objects: Objects, stage_id: str, record: Done, name: str, answer: bytes | OSError
) -> bytes:
    """The bytes of a stage's file, from what its key was answered with, if they are what was
    written. Raises `UnreadableError`."""
    place = f"{objects.root}/{stage_key(stage_id)}/{record.attempt}/{name}"
    try:
        data = content(answer, place)
    except FileNotFoundError:
        data = None
    found = None if data is None else hashlib.sha256(data).hexdigest()
    check(stage_id, place, found, record.files[name])
    return data or b""


def check(stage_id: str, place: object, found: str | None, expected: str) -> None:
    """Raise `DamagedError` where a file's checksum is not what is on record."""
    if found != expected:
        what = "is missing" if found is None else "does not match its checksum"
        raise DamagedError(f"stage {stage_id} is damaged: {place} {what}; {REMEDY}")


def stage_of(stage_id: str, data: bytes) -> Stage:
    """What the stage was asked to do. Raises `DamagedError`."""
    try:
        stage = Stage.of_record(json.loads(data))
    except (ValueError, LookupError, TypeError, AttributeError):
        stage = None
    if stage is None or stage.id != stage_id:
        raise DamagedError(f"stage {stage_id} is damaged: stage.json is not its own; {REMEDY}")
    return stage


def rows_of(stage_id: str, data: bytes) -> pyarrow.Table:
    """The stage's part of the long result table. Raises `DamagedError`."""
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)).read(use_threads=False)
        # Results of before there was a column lack it.
        there = set(found.column_names)
        rows = found.cast(pyarrow.schema([field for field in schema() if field.name in there]))
        owners = rows["stage"].unique().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedError(
            f"stage {stage_id} is damaged: its results.parquet cannot be read "
            f"({str(error)[:200]}); {REMEDY}"
        ) from None
    if owners not in ([], [stage_id]):
        raise DamagedError(
            f"stage {stage_id} is damaged: its results.parquet is of another stage; {REMEDY}"
        )
    return rows


@cache
def schema() -> pyarrow.Schema:
    """Of the long result table."""
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


def read_done(objects: Objects, stage_ids: Collection[str]) -> dict[str, Done | UnreadableError]:
    """Which attempts won, of those of some stages that have a result."""
    keys = {stage_id: f"{stage_key(stage_id)}/done.json" for stage_id in stage_ids}
    answers = objects.read_each(list(keys.values()))
    found: dict[str, Done | UnreadableError] = {}
    for stage_id, key in keys.items():
        try:
            found[stage_id] = done_of(objects, stage_id, answers[key])
        except NoResultError:
            continue
        except UnreadableError as error:
            found[stage_id] = error
    return found


def read_results(
    objects: Objects, records: Mapping[str, Done]
) -> dict[str, Result | UnreadableError]:
    """The results that some attempts won with, each checked whole, or what is wrong with it."""
    folders = {
        stage_id: f"{stage_key(stage_id)}/{one.attempt}" for stage_id, one in records.items()
    }
    answers = objects.read_each(
        [f"{folder}/{name}" for folder in folders.values() for name in ALWAYS_THERE]
    )
    found: dict[str, Result | UnreadableError] = {}
    for stage_id, record in records.items():
        try:
            folder = folders[stage_id]
            check_place(objects, stage_id, folder, ALWAYS_THERE)
            execution, rows, stage = (
                file_of(objects, stage_id, record, name, answers[f"{folder}/{name}"])
                for name in ALWAYS_THERE
            )
            stage_of(stage_id, stage)
            place = f"{objects.root}/{stage_key(stage_id)}: execution.json"
            found[stage_id] = Result(
                record, as_execution(execution, place), rows_of(stage_id, rows)
            )
        except UnreadableError as error:
            found[stage_id] = error
    return found


def check_place(objects: Objects, stage_id: str, folder: str, names: Collection[str]) -> None:
    """Raise `DamagedError` where a link in a stage's folder leads elsewhere."""
    if objects.local == Path(objects.root):
        try:
            objects.fetch(folder, names)
        except UserError as error:
            raise DamagedError(f"stage {stage_id} is damaged: {error}; {REMEDY}") from None
