"""A field of a record as text or image, or why it is none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mm1_jax.data.raw import RawImage, RecordError

# What spreadsheets and data frames write where there was nothing.
_NOT_A_NUMBER = {"nan", "NaN"}


def text(value: Any, field: str) -> str:
    """The text of a field, as published.

    Raises:
        RecordError: it is absent, no text, not UTF-8, empty, or the NaN of a data frame.
    """
    if value is None:
        raise RecordError("missing_field", f"{field} is null")
    if isinstance(value, float) and math.isnan(value):
        raise RecordError("not_a_number", f"{field} is NaN")
    if isinstance(value, bytes):
        value = decoded(value, field)
    if not isinstance(value, str):
        raise RecordError("malformed", f"{field} is {_kind(value)}, expected text")
    # JSON can spell half of a surrogate pair, which no UTF-8 has; NUL is UTF-16 read as UTF-8.
    wrong = next((c for c in value if "\ud800" <= c <= "\udfff" or c == "\0"), None)
    if wrong is not None:
        raise RecordError("encoding", f"{field} has the code point U+{ord(wrong):04X}")
    if not value.strip():
        raise RecordError("empty_text", f"{field} is empty")
    if value.strip() in _NOT_A_NUMBER:
        raise RecordError("not_a_number", f"{field} is {value.strip()!r}")
    return value


def decoded(value: bytes, what: str) -> str:
    """UTF-8 as text. RecordError names the first byte that is not."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(
            "encoding", f"{what} is not UTF-8: byte 0x{value[error.start]:02x} at {error.start}"
        ) from None


def parsed(line: bytes | str, what: str) -> Any:
    """The value of a JSON text. RecordError if it has none."""
    if isinstance(line, bytes):
        line = decoded(line, what)
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError("malformed", f"{what} is not JSON: {error}") from None


def entry(record: Mapping[str, Any], field: str) -> Any:
    """The value of a key. RecordError if the record has no such key; lists those it has."""
    if field not in record:
        raise RecordError("missing_field", f"no {field}; found {', '.join(record) or 'nothing'}")
    return record[field]


def located(path: Any, field: str, folder: str) -> RawImage:
    """An image that a path or URL names; a relative path is below `folder`.

    Raises:
        RecordError: it is no text, or a relative path that leaves the folder.
    """
    path = text(path, field)
    if "://" in path or path.startswith("/"):
        return RawImage(None, path)
    if ".." in PurePosixPath(path).parts:
        raise RecordError("malformed", f"{field} leaves the folder of the images: {path}")
    return RawImage(None, f"{folder.rstrip('/')}/{path}" if folder else path)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a truth value", int: "a number"}
    return names.get(type(value), f"of type {type(value).__name__}")
