"""A field of a record as text or image, or why it is none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ablations.errors import shown
from mm1_jax.data.files.urls import absolute, below, is_url
from mm1_jax.data.own.raw import RawImage, RecordError

# What spreadsheets and data frames write where there was nothing.
_NOT_A_NUMBER = {"nan", "NaN"}
_MOST_VALUES = 5_000_000  # of one JSON text: some hundred megabytes of memory
_SHOWN = 8  # names in a message
_WEB = ("http://", "https://")
_STORES = ("s3://", "s3a://", "gs://", "gcs://")


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
    check_characters(value, field)
    if not value.strip():
        raise RecordError("empty_text", f"{field} is empty")
    if value.strip() in _NOT_A_NUMBER:
        raise RecordError("not_a_number", f"{field} is {value.strip()!r}")
    return value


def check_characters(value: str, field: str) -> None:
    """RecordError where a text has what no UTF-8 has, or the NUL of UTF-16 read as UTF-8."""
    # JSON can spell half of a surrogate pair.
    wrong = next((c for c in value if "\ud800" <= c <= "\udfff" or c == "\0"), None)
    if wrong is not None:
        raise RecordError("encoding", f"{field} has the code point U+{ord(wrong):04X}")


def name(value: Any, otherwise: str) -> str:
    """The name that a record gives itself, if it is a text; else the other."""
    if not isinstance(value, str) or not value.strip():
        return otherwise
    check_characters(value, "the name")
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
    if sum(map(line.count, "[{,")) > _MOST_VALUES:
        raise RecordError("bomb", f"{what} has more than {_MOST_VALUES:,} values")
    try:
        return json.loads(line, object_pairs_hook=_one_of_each)
    except _TwiceError as error:
        raise RecordError("malformed", f"{what} has {error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError("malformed", f"{what} is not JSON: {error}") from None


class _TwiceError(ValueError):
    pass


def _one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = key_twice(pairs)
    if twice is not None:
        raise _TwiceError(twice)
    return dict(pairs)


def key_twice(pairs: Sequence[tuple[str, Any]]) -> str | None:
    """What is wrong with a JSON object that has a key twice: json keeps the last without a word."""
    if len({key for key, _ in pairs}) == len(pairs):
        return None
    keys = [key for key, _ in pairs]
    return f"the key {shown(next(key for key in keys if keys.count(key) > 1))} twice in one object"


def entry(record: Mapping[str, Any], field: str) -> Any:
    """The value of a key. RecordError if the record has no such key; lists those it has."""
    if field not in record:
        raise RecordError("missing_field", f"no {field}; found {_names(record)}")
    return record[field]


def located(path: Any, field: str, folder: str) -> RawImage:
    """An image that a path or URL names; a relative path is below `folder`.

    A record may name images of the web and of object stores; of this machine and all else only what
    is in `folder`.

    Raises:
        RecordError: it is no text, or a path that is not in the folder.
    """
    path = text(path, field)
    lower = path.lower()
    if lower.startswith(_WEB) or (lower.startswith(_STORES) and "::" not in path):
        return RawImage(None, path)
    if ".." in PurePosixPath(path).parts:
        raise RecordError("outside", f"{field} leaves the folder of the images: {path}")
    if not (path.startswith("/") or is_url(path)):
        return RawImage(None, below(folder, path))
    inside = path.removeprefix("file://")
    top = absolute(folder).removeprefix("file://").rstrip("/") + "/"
    if "::" in folder or not inside.startswith(top) or is_url(inside) != is_url(top):
        raise RecordError(
            "outside",
            f"{field} is not in the folder of the images, {folder} (`image_folder`): {path}",
        )
    return RawImage(None, inside)


def _names(record: Mapping[Any, Any]) -> str:
    names = [str(name) for name in record]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"of type {type(value).__name__}")
