"""Files of one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm1_jax.data.raw import BadRecord, Origin, RecordError
from mm1_jax.data.readers import fields
from mm1_jax.data.urls import opened
from mm1_jax.errors import UserError

_LIMIT_BYTES = 256 << 20  # a line that is longer is none
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


def _lines(stream: Any) -> Iterator[bytes]:
    while line := stream.readline(_LIMIT_BYTES + 1):
        rest = line
        while len(rest) > _LIMIT_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(_LIMIT_BYTES + 1)
        yield line
