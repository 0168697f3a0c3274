"""A row of a published file: each field is read as what it should be, or refused in one line.

JSON, Parquet and tables hold anything where a text is due: null, a number, a list, NaN. A whole
number is read as its text, as the official loaders would, and so is a fraction; everything else is
a `UserError` with the file, the row and its id, never a score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from mm1_jax.weights.json_object import is_unicode

_SHOWN = 8  # names listed in an error message
_LONGEST = 40  # characters of a value in an error message
_WHOLE = re.compile(r"[0-9]{1,18}")


def listed(names: Iterable[object]) -> str:
    """The first names in alphabetic order, and how many more there are."""
    known = sorted(map(short, names))
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more if known else "nothing"


def short(value: object) -> str:
    """A value's text, cut, and with what no terminal can show as an escape."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def told(value: object) -> str:
    """What a value is, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value)
    if isinstance(value, str):
        return repr(short(value))
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence):
        return "a list"
    return short(value) if isinstance(value, int) else f"of type {type(value).__name__}"


def as_text(value: object) -> str | None:
    """A text, or a number as one; None if it is anything else.

    A number such as 2.0 is not read: it may have been the text "2" before some program made it a
    number, and would be compared as "2.0".
    """
    if isinstance(value, str):
        return value if value.isascii() or is_unicode(value) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return repr(value)
    return None


class Row:
    """An object of a file, and where it stands there.

    `number` counts from 1; None for the object that is the whole file. What names the row in an
    error message beside it: the field `id_name`, or `key`, under which the row stands.
    """

    __slots__ = ("_id_name", "_key", "fields", "number", "path", "task")

    def __init__(
        self,
        value: object,
        required: Sequence[str],
        path: Path,
        task: str,
        number: int | None = None,
        id_name: str = "",
        key: str = "",
    ):
        if not isinstance(value, Mapping) or any(name not in value for name in required):
            raise _lacking(value, required, path, task, number)
        self.fields: Mapping[str, Any] = value
        self.path = path
        self.task = task
        self.number = number
        self._id_name = id_name
        self._key = key

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def error(self, message: str) -> UserError:
        """An error that says where the row is."""
        before = f"row {self.number}: " if self.number is not None else ""
        own = as_text(self.fields.get(self._id_name))
        named = self._key or (own is not None and f"{self._id_name} {own}")
        after = f" ({short(named)})" if named else ""
        return UserError(before + message + after, file=str(self.path))

    def _value(self, name: str) -> Any:
        """A field; UserError if it is not there."""
        if name not in self.fields:
            raise self.error(f"no {name}; found {listed(self.fields)}")
        return self.fields[name]

    def _wrong(self, what: str, value: object, expected: str) -> UserError:
        if value is None:
            return self.error(f"{what} is null")
        if isinstance(value, str) and not is_unicode(value):
            return self.error(f"{what} holds half of a character: {told(value)}")
        if isinstance(value, float) and value.is_integer() and expected == "text":
            return self.error(f"{what} is the number {value!r}, not text: is it {int(value)}?")
        return self.error(f"{what} is {told(value)}, not {expected}")

    def text(self, name: str) -> str:
        """A field's text; a number is read as its text."""
        value = self._value(name)
        found = as_text(value)
        if found is None:
            raise self._wrong(name, value, "text")
        return found

    def optional(self, name: str) -> str:
        """The same, "" if there is no such field or it is null."""
        return "" if self.fields.get(name) is None else self.text(name)

    def label(self, name: str) -> str:
        """A text that groups are named by: as `optional`, and true and false are their names."""
        value = self.fields.get(name)
        return str(value).lower() if isinstance(value, bool) else self.optional(name)

    def answer(self, name: str) -> str:
        """A text that must not be empty: the right answer."""
        text = self.text(name)
        if not text.strip():
            raise self.error(f"{name} is empty; a split without answers?")
        return text

    def id(self, name: str) -> str:
        """What tells the row from others: a text that is not empty, or a whole number."""
        value = self._value(name)
        found = None if isinstance(value, float) else as_text(value)
        if not found:
            raise self._wrong(name, value, "text or a whole number")
        return found

    def whole(self, name: str) -> int:
        """A number from 0 without a fraction, or the text of one."""
        value = self._value(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            return int(value)
        raise self._wrong(name, value, "a whole number")

    def among(self, name: str, choices: Sequence[str]) -> int:
        """Where a field is among `choices`; UserError if not, as in a split without answers."""
        return list(choices).index(self.one_of(name, choices, "; a split without answers?"))

    def one_of(self, name: str, known: Sequence[str], hint: str = "") -> str:
        """A text that is one of those known: a kind of questions or of answers."""
        value = self._value(name)
        text = as_text(value)
        if text is None or text not in known:
            raise self.error(f"{name} is {told(value)}, not one of {', '.join(known)}{hint}")
        return text

    def image(self, name: str) -> str:
        """The name of an image file: a text that leads nowhere but below the images' folder."""
        text = self.text(name)
        if not text or "\0" in text or Path(text).is_absolute() or ".." in Path(text).parts:
            raise self.error(f"{name} is {told(text)}: expected a file below the images' folder")
        return text

    def items(self, name: str) -> Sequence[Any]:
        """A field that is a list."""
        value = self._value(name)
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise self._wrong(name, value, "a list")
        return value

    def texts(self, name: str, key: str = "", null: str | None = None) -> tuple[str, ...]:
        """A field that is a list of texts; with `key` also of objects with a text under it.

        `null` is what null is read as, if it may stand there.
        """
        texts = []
        for number, value in enumerate(self.items(name), start=1):
            if key and isinstance(value, Mapping):
                if key not in value:
                    raise self.error(f"{name}, {number}: no {key}; found {listed(value)}")
                value = value[key]
            found = null if value is None else as_text(value)
            if found is None:
                raise self._wrong(f"{name}, {number}:", value, "text")
            texts.append(found)
        return tuple(texts)

    def options(self, name: str) -> tuple[str, ...]:
        """A list of texts in which null is an option that is not there, as "" is."""
        return self.texts(name, null="")

    def part(self, name: str, *required: str) -> Row:
        """A field that is an object."""
        value = self._value(name)
        if not isinstance(value, Mapping):
            raise self._wrong(name, value, "an object")
        return Row(value, required, self.path, self.task, self.number, key=self._key)


def _lacking(
    value: object, required: Sequence[str], path: Path, task: str, number: int | None
) -> UserError:
    """What a value lacks that should be an object with the fields `required`."""
    if isinstance(value, Mapping):
        missing = [name for name in required if name not in value]
        have = listed(value)
    else:
        missing, have = list(required), f"a {type(value).__name__}"
    lacks = f", {', '.join(missing)} missing" if missing and isinstance(value, Mapping) else ""
    where = f" in row {number}" if number is not None and number > 1 else ""
    return UserError(
        f"not {task}: expected {', '.join(required) or 'an object'}{lacks}; found {have}{where}",
        file=str(path),
    )
