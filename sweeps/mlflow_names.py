r"""Names that MLflow takes, and back.

MLflow takes letters, digits, `_ - . : /` and spaces, and no name that reads as another path. Any
other character becomes `_xHHHH_`, its code point in hexadecimal, as in XML names: `50% colour` is
`50_x0025_ colour`. `_x` itself becomes `_x005F_x`, so that no two names become one and `original`
has the name back. A name that is longer than MLflow's limit is cut and ends in its hash.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable
from typing import TypeVar

LONGEST = 250  # characters of a key

Key = TypeVar("Key")

_REFUSED = re.compile(r"[^\w.\-/: ]|_(?=x)")
_EDGE_SPACE = re.compile(r"^ | $")  # some databases do not see a space at the end
_CODE = re.compile(r"_x([0-9A-F]{4,6})_")
_EMPTY = "_x_"


def valid_name(name: str, longest: int = LONGEST) -> str:
    """A name as MLflow takes it: the same where it is valid, else as the module says."""
    valid = _EDGE_SPACE.sub(_code, _REFUSED.sub(_code, name)) or _EMPTY
    if _reads_as_another_path(valid):
        valid = re.sub(r"/|^\.+", _code, valid)
    if len(valid) > longest:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        valid = f"{valid[: longest - 20]}_x_{digest}"
    return valid


def original(valid: str) -> str:
    """The name that `valid_name` was given, unless it was cut."""
    if valid == _EMPTY:
        return ""
    return _CODE.sub(lambda found: chr(int(found[1], 16)), valid)


def distinct_names(names: Iterable[tuple[Key, str]]) -> dict[Key, str]:
    """Key → valid name. Of several keys with one name the second's ends in `_x_2`, and so on."""
    found: dict[Key, str] = {}
    used: dict[str, int] = {}
    for key, name in names:
        valid = valid_name(name)
        used[valid] = used.get(valid, 0) + 1
        if used[valid] > 1:
            suffix = f"_x_{used[valid]}"
            valid = valid[: LONGEST - len(suffix)] + suffix
        found[key] = valid
    return found


def _code(found: re.Match[str]) -> str:
    return "".join(f"_x{ord(character):04X}_" for character in found[0])


def _reads_as_another_path(name: str) -> bool:
    path = posixpath.normpath(name)
    return path != name or path.startswith(("..", "/")) or path == "."
