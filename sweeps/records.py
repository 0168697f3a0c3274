"""The small JSON records of a store: what each must have, and how damage to one is told.

A record of the store itself is sealed: it carries a checksum of everything else in it, so that a
changed digit is damage and not another number, and so is a record whose seal was taken off.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from json import JSONEncoder
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from pydantic import Field, ValidationError, model_validator

from ablations.errors import UserError
from ablations.no_collection import no_collection
from ablations.schema import Config
from sweeps.objects import Objects, is_inside

# 2: a plan keeps once what seeds share, stages are named by role. Nothing of before is read.
SCHEMA_VERSION = 2
SEAL = "checksum"
PIECE = 1_000  # members of a list that are written at a time
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of what a record says is beside it
# Of an execution record: what only the first stage of a class spends in a process.
ONCE = ("import_seconds", "compilation_seconds")
TIMELINE = "timeline"  # of an execution record, or a failed attempt's: `run_times.StageTimes`
ALWAYS_THERE = ("execution.json", "results.parquet", "stage.json")  # in every finished attempt

Status = Literal["ok", "diverged"]


def study_folder(study: str) -> str:
    """Where a store keeps what is registered of the studies of a name."""
    return f"studies/{quote(study, safe='')}"


class UnreadableError(UserError):
    """A record that is there and tells nothing: damaged, not ours to read, of a newer version."""


class DamagedError(UnreadableError):
    """A record or file of the store that is not what was written."""


class Format(Config):
    """The layout that a store was made with."""

    schema_version: int = SCHEMA_VERSION
    created_at: str


class Done(Config):
    """Which attempt at a stage won, and what it wrote."""

    schema_version: int = SCHEMA_VERSION
    stage: str
    attempt: str = Field(pattern=NAME)
    status: Status
    finished_at: str  # UTC, ISO 8601
    files: dict[str, str]  # name below the attempt's folder → SHA-256

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if odd := [name for name in self.files if not is_inside(name)]:
            raise ValueError(f"file {odd[0]!r} leads out of the attempt's folder")
        if lacking := set(ALWAYS_THERE) - set(self.files):
            raise ValueError(f"it lists no {sorted(lacking)[0]}")
        return self


class Registration(Config):
    """What was on record about a study before its first stage ran."""

    schema_version: int = SCHEMA_VERSION
    study: str
    hash: str
    registered_at: str  # UTC, ISO 8601
    known_stages: tuple[str, ...]  # had results already when the study was registered
    begun_stages: tuple[str, ...] = ()  # others whose training had told how it goes
    previous: tuple[str, ...]  # hashes registered earlier under the same name
    # Every registration that the store had then, so that none can go unnoticed.
    before: tuple[str, ...] = ()


class ClaimsRecord(Config):
    """That claims on a table from elsewhere were fixed, and when."""

    schema_version: int = SCHEMA_VERSION
    hash: str
    content: dict[str, Any]  # all that the file says, in plain values
    registered_at: str  # UTC, ISO 8601
    # Hash → time of every such record that the store had then, so that none can go, or become
    # older, unnoticed.
    before: dict[str, str] = Field(default_factory=dict)


class CodeRecord(Config):
    """What the code of some stages was, part by part, to say later which part is another."""

    schema_version: int = SCHEMA_VERSION
    parts: dict[str, str]  # module or file → hash of what it does


class Look(Config):
    """That somebody saw results of a study, the first time with so many stages done."""

    schema_version: int = SCHEMA_VERSION
    at: str  # UTC, ISO 8601
    done: int  # stages with a result
    newest: str = ""  # when the last of those results was finished
    by: str  # what showed them


class Cancelled(Config):
    """That a run was told not to run trials of a registered study (any further)."""

    schema_version: int = SCHEMA_VERSION
    trials: tuple[tuple[str, int], ...]  # (arm, seed)
    by: str  # user@host
    at: str  # UTC, ISO 8601
    token: str  # of the lease of the run that was told


class Latest(Config):
    """Which registration a study's name means now."""

    schema_version: int = SCHEMA_VERSION
    folder: str = Field(pattern=NAME)


Record = TypeVar("Record", bound=Config)


@no_collection()
def sealed(record: Config) -> bytes:
    """The bytes of a record, with its seal: a line for each key."""
    fields = record.model_dump(mode="json")
    data, before = io.BytesIO(), b"{\n"
    for key, value in {**fields, SEAL: _seal(fields)}.items():
        data.write(before + f" {json.dumps(key)}: ".encode())
        data.writelines(_pieces(value, JSONEncoder(allow_nan=False).encode))
        before = b",\n"
    data.write(b"\n}")
    return data.getvalue()


def read_record(objects: Objects, key: str, kind: type[Record]) -> Record:
    """A record of the store.

    Raises:
        FileNotFoundError: it is absent.
        UnreadableError: of a newer version, or not for us to read.
        DamagedError: it is not what was written.
    """
    try:
        answer: bytes | OSError = objects.read(key)
    except OSError as error:
        answer = error
    return record_of(answer, f"{objects.root}/{key}", kind)


@no_collection()
def record_of(answer: bytes | OSError, place: str, kind: type[Record]) -> Record:
    """A record from what its key was answered with; raises as `read_record` does."""
    fields = as_object(content(answer, place), place)
    version = fields.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UnreadableError(
            f"{place} was written by a newer version of mm1 (schema {version}, "
            f"this one reads up to {SCHEMA_VERSION}); upgrade, or use another --store"
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedError(f"{place} is damaged: it has no schema_version")
    if version < SCHEMA_VERSION:
        raise UnreadableError(
            f"{place} was written by an earlier version of mm1 (schema {version}, this one reads "
            f"{SCHEMA_VERSION}); its studies run anew in another --store"
        )
    check_seal(fields, place)
    del fields[SEAL]
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100]
        why = f"{where}: {first['msg']}" if where else first["msg"]
        raise DamagedError(f"{place} is damaged: {why[:300]}") from None


def check_seal(fields: Mapping[str, Any], place: str) -> None:
    """Raises `DamagedError` where a record has no checksum, or another one."""
    if SEAL not in fields:
        raise DamagedError(f"{place} is damaged: it has no checksum")
    if fields[SEAL] != _seal({name: value for name, value in fields.items() if name != SEAL}):
        raise DamagedError(f"{place} is damaged: it does not match its checksum")


def read(objects: Objects, key: str) -> bytes:
    """The bytes of a key; a folder in its place, or one that may not be read, is told."""
    try:
        return objects.read(key)
    except OSError as error:
        return content(error, f"{objects.root}/{key}")


def content(answer: bytes | OSError, place: str) -> bytes:
    """What a key was answered with, if it is bytes.

    Raises:
        FileNotFoundError: it is absent.
        UnreadableError: it may not be read, or is damaged: a folder in its place.
        OSError: its storage does not answer.
    """
    match answer:
        case bytes():
            return answer
        case IsADirectoryError():
            raise DamagedError(f"{place} is damaged: it is no file") from None
        case NotADirectoryError():
            raise DamagedError(f"{place} is damaged: above it is a file") from None
        case PermissionError():
            raise UnreadableError(
                f"{place} cannot be read: {answer.strerror or answer}"
            ) from answer
    raise answer


def as_object(data: bytes, place: str) -> dict[str, Any]:
    """A JSON object. Raises `DamagedError`."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        what = "it is empty" if not data.strip(b"\0 \n") else "it is no JSON"
        raise DamagedError(f"{place} is damaged: {what}") from None
    if not isinstance(fields, dict):
        raise DamagedError(f"{place} is damaged: it is no JSON object")
    return fields


def as_execution(data: bytes, place: str) -> dict[str, Any]:
    """How a stage ran: at least its `seconds`. Raises `DamagedError`."""
    fields = as_object(data, place)
    for name in ("seconds", *ONCE):
        seconds = fields.get(name, None if name == "seconds" else 0.0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise DamagedError(f"{place} is damaged: it has no {name}")
        if not 0 <= seconds < math.inf:
            raise DamagedError(f"{place} is damaged: {name}: {seconds}")
    return fields


def once_seconds(execution: Mapping[str, Any]) -> float:
    """Of an execution record: what went into imports and compilation; 0 where nobody measured."""
    return sum(float(execution.get(name, 0.0)) for name in ONCE)


def _seal(fields: Mapping[str, Any]) -> str:
    """SHA-256 of `json.dumps(fields, sort_keys=True)`."""
    digest, before = hashlib.sha256(), b"{"
    for key in sorted(fields):
        digest.update(before + f"{json.dumps(key)}: ".encode())
        for piece in _pieces(fields[key], JSONEncoder(sort_keys=True).encode):
            digest.update(piece)
        before = b", "
    digest.update(b"}" if fields else b"{}")
    return digest.hexdigest()


def _pieces(value: object, text: Callable[[object], str]) -> Iterator[bytes]:
    """The JSON of a value, a long list in pieces: what is large is not held as text as well."""
    if not isinstance(value, list) or len(value) <= PIECE:
        yield text(value).encode()
        return
    before = b"["
    for start in range(0, len(value), PIECE):
        yield before + text(value[start : start + PIECE])[1:-1].encode()
        before = b", "
    yield b"]"
