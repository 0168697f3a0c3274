"""Files of one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ablations.errors import UserError
from mm1_jax.data.files.urls import DAMAGED, opened
from mm1_jax.data.own.raw import BadRecord, Origin, RecordError
from mm1_jax.data.own.readers import fields

_LIMIT_BYTES = 256 << 20  # a line that is longer is none
_SKIPPED_BYTES = 1 << 20  # of what is left of it, at a time
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def objects(
    file: str, expected: tuple[str, ...], what: str
) -> Iterator[tuple[Origin, dict[str, Any]] | BadRecord]:
    """Each line's object with its origin (index = line number from 0); blank lines are none.

    Raises:
        UserError: the file cannot be read, or its first object has none of the keys `expected`.
    """
    first = True
    with opened(file) as stream:
        for index, line in enumerate(_lines(stream)):
            if isinstance(line, RecordError):
                yield BadRecord(Origin(file, index), line.reason, line.detail)
                return
            line = line.removeprefix(_BYTE_ORDER_MARK) if index == 0 else line
            if not line.strip():
                continue
            origin = Origin(file, index)
            try:
                if len(line) > _LIMIT_BYTES:
                    raise RecordError("malformed", f"a line of more than {_LIMIT_BYTES} bytes")
                value = fields.parsed(line, "the line")
                if not isinstance(value, dict):
                    raise RecordError("malformed", "the line is no JSON object")
            except RecordError as error:
                yield BadRecord(origin, error.reason, error.detail)
                continue
            if first and not value.keys() & {*expected}:
                raise UserError(
                    f"{file}: expected {what} with {', '.join(expected)}; found "
                    f"{', '.join(value) or 'nothing'}"
                )
            first = False
            yield origin, value


def _lines(stream: Any) -> Iterator[bytes | RecordError]:
    while True:
        try:
            line = rest = stream.readline(_LIMIT_BYTES + 1)
            while len(line) > _LIMIT_BYTES and rest and not rest.endswith(b"\n"):
                rest = stream.readline(_SKIPPED_BYTES)
        except DAMAGED as error:
            yield RecordError("truncated", f"cannot be read on, what follows is lost: {error}")
            return
        if not line:
            return
        yield line
