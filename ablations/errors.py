"""The one exception for a user's mistake: the command line prints it on one line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ablations.few import few

MOST_CHARACTERS = 2_000  # of a message, whatever is wrong
_MOST_NAMED = 20  # valid choices in a message


class UserError(Exception):
    """A user's mistake, told in one line: where, what, and the nearest valid choice."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None):
        place = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        super().__init__(place + shortened(printable(" ".join(message.split())), MOST_CHARACTERS))
        self.message = message
        self.file = file
        self.line = line


class MissingFileError(UserError):
    """A file that is named is not there."""


def shortened(text: str, most: int = 100) -> str:
    """The text, or its beginning and end where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} … {text[-most // 4 :]}"


def printable(text: str) -> str:
    """The text with control characters, marks of direction and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """A user's value as messages show it: at most about 100 characters of its `repr`."""
    if isinstance(value, str):  # a repr of megabytes is not made first
        return repr(shortened(value))
    if isinstance(value, int) and abs(value) > 10**100:
        return f"a number of more than {value.bit_length() * 3 // 10} digits"
    return shortened(repr(value))


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of an error message: `; did you mean X?` or the list of what is valid."""
    known = sorted(map(str, choices))
    # Similarity to a text of megabytes takes hours, and is none.
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6) if len(name) < 300 else []
    if close:
        return f"; did you mean {close[0]!r}?"
    most = _MOST_NAMED if len(known) > _MOST_NAMED + 5 else len(known)
    return f"; valid: {few(known, most)}" if known else ""
