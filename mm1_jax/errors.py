"""The one exception for a user's mistake: the command line prints it on one line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A user's mistake, told in one line: where, what, and the nearest valid choice."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None):
        place = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        super().__init__(place + " ".join(message.split()))
        self.message = message
        self.file = file
        self.line = line


class MissingFileError(UserError):
    """A file that is named is not there."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of an error message: `; did you mean X?` or the list of what is valid."""
    known = sorted(map(str, choices))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid: {', '.join(known)}" if known else ""
