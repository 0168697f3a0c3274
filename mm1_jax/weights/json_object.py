"""JSON files of others, of which one object is due: configs beside weights, indices."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablations.errors import UserError


def read_utf8(path: Path) -> str:
    """The text of a file. `UserError`, with its name, where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError("is a link that leads nowhere", file=str(path)) from None
        raise UserError(f"no file {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", file=str(path)) from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file. `UserError`, with the file's name, where it holds none."""
    text = read_utf8(path)
    if not text.strip():
        raise UserError("is empty; expected a JSON object {…}", file=str(path))
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error.msg}", file=str(path), line=error.lineno) from None
    except (RecursionError, ValueError) as error:  # a number of thousands of digits
        raise UserError(f"not JSON that can be read: {error}", file=str(path)) from None
    if not isinstance(found, dict):
        raise UserError(
            f"expected a JSON object {{…}}, found a {_KINDS[type(found)]}", file=str(path)
        )
    return found


def is_there(path: Path) -> bool:
    """Whether anything has that name: also a link that leads nowhere, which is no missing file."""
    return os.path.lexists(path)


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8; half of a surrogate pair, which JSON allows, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def stating(path: Path) -> Generator[None]:
    """Within, what is missing in a file's object or of another type is a `UserError` naming it."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"has no {error.args[0]!r}", file=str(path)) from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"is not as such files are written: {reason}", file=str(path)) from None


_KINDS = {
    list: "list",
    str: "text",
    int: "number",
    float: "number",
    bool: "truth value",
    type(None): "null",
}
