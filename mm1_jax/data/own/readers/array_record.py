"""ArrayRecord: documents as MessagePack, for random access.

A record is a map: `name`, `parts` (a text, or a map with `image` bytes and `url`), and where they
are known `answers` and `facts`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack

from ablations.errors import UserError
from mm1_jax.data.files.urls import local_copy
from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage, RecordError
from mm1_jax.data.own.readers import fields

_RECORDS_AT_A_TIME = 64


def read(file: str, image_folder: str) -> Iterator[RawDocument | BadRecord]:
    """One document a record.

    Raises:
        UserError: the file cannot be read or is no ArrayRecord file.
    """
    with local_copy(file) as path:
        with _opened(path, file) as reader:
            count = reader.num_records()
        for start in range(0, count, _RECORDS_AT_A_TIME):
            numbers = range(start, min(start + _RECORDS_AT_A_TIME, count))
            for index, record in zip(numbers, _records(path, file, numbers), strict=True):
                origin = Origin(file, index)
                try:
                    yield _document(record, origin, image_folder)
                except RecordError as error:
                    yield BadRecord(origin, error.reason, error.detail)


@contextlib.contextmanager
def _opened(path: Path, file: str) -> Generator[Any]:
    # A native library: only who reads this format pays for loading it.
    from array_record.python.array_record_module import (  # ty: ignore[import-not-found]
        ArrayRecordReader,
    )

    reader = ArrayRecordReader(str(path))
    if not reader.ok():
        try:
            reader.close()  # says what is wrong
        except RuntimeError as error:
            told = str(error).partition("; reading")[0]
            raise UserError(f"{file}: expected an ArrayRecord file, found none: {told}") from None
    try:
        yield reader
    finally:
        with contextlib.suppress(RuntimeError):  # what reading said before
            reader.close()


def _records(path: Path, file: str, numbers: range) -> list[bytes | RecordError]:
    """Some records; where they cannot be read together, one by one, to say which are damaged."""
    with _opened(path, file) as reader:
        try:
            return reader.read([*numbers])
        except RuntimeError as error:
            if len(numbers) == 1:
                return [RecordError("unreadable", str(error).partition("; reading")[0])]
    return [
        record for number in numbers for record in _records(path, file, range(number, number + 1))
    ]


def _document(record: bytes | RecordError, origin: Origin, image_folder: str) -> RawDocument:
    if isinstance(record, RecordError):
        raise record
    try:
        value = msgpack.unpackb(record, unicode_errors="surrogateescape")
    except Exception as error:  # MessagePack's errors have no common class
        told = str(error) or type(error).__name__
        raise RecordError("malformed", f"the record is not MessagePack: {told}") from None
    if not isinstance(value, dict):
        raise RecordError("malformed", "the record is no map")
    listed, name = fields.entry(value, "parts"), fields.entry(value, "name")
    if not isinstance(listed, list) or not listed:
        raise RecordError("malformed", "parts is no list, or empty")
    parts = tuple(_part(part, f"parts[{n}]", image_folder) for n, part in enumerate(listed))
    facts = value.get("facts") or {}
    if not isinstance(facts, dict):
        raise RecordError("malformed", "facts is no map")
    # What another reader left out is no fact of this file.
    facts = {key: fact for key, fact in facts.items() if key != "left_out"}
    return RawDocument(
        fields.text(name, "name"), parts, origin, answers=_answers(value, parts), facts=facts
    )


def _answers(value: Mapping[str, Any], parts: Sequence[str | RawImage]) -> tuple[bool, ...] | None:
    answers = value.get("answers")
    if answers is None:
        return None
    if not isinstance(answers, list) or not all(isinstance(answer, bool) for answer in answers):
        raise RecordError("malformed", "answers is no list of truth values")
    texts = sum(isinstance(part, str) for part in parts)
    if len(answers) != texts:
        raise RecordError("malformed", f"{len(answers)} answers, {texts} texts")
    return tuple(answers)


def _part(part: Any, what: str, image_folder: str) -> str | RawImage:
    if not isinstance(part, dict):
        return fields.text(part, what)
    content, url = part.get("image"), part.get("url") or ""
    if not isinstance(url, str) or not (content is None or isinstance(content, bytes)):
        raise RecordError("malformed", f"{what} is no image: its bytes and url are expected")
    if content is not None:
        return RawImage(content, url)
    if not url:
        raise RecordError("missing_field", f"{what} has neither image nor url")
    return fields.located(url, f"{what}.url", image_folder)


def write(documents: Iterable[RawDocument], path: Path) -> None:
    """Write what `read` reads, one record a document, each compressed alone for random access."""
    from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

    writer = ArrayRecordWriter(str(path), "group_size:1")
    try:
        for document in documents:
            parts = [
                part if isinstance(part, str) else {"image": part.content, "url": part.url}
                for part in document.parts
            ]
            value: dict[str, Any] = {"name": document.name, "parts": parts}
            if document.answers is not None:
                value["answers"] = list(document.answers)
            if document.facts:
                value["facts"] = dict(document.facts)
            writer.write(msgpack.packb(value))
    finally:
        writer.close()  # the index is at the end of the file
