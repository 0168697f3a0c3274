"""What stands in a cell: a number, a level of a factor, a seed, a time, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

# What people and programs write where there is no number.
BLANK = frozenset({"", "-", "–", "—", "na", "n/a", "null", "none", "<na>", "tbd", "?"})
NOT_FINITE = {
    "nan": math.nan,
    "-nan": math.nan,
    "inf": math.inf,
    "+inf": math.inf,
    "-inf": -math.inf,
    "infinity": math.inf,
    "+infinity": math.inf,
    "-infinity": -math.inf,
}
_NUMBER = re.compile(r"[-+−]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+−]?\d+)?")
_SPREAD = re.compile(r"[-+−]?\d[\d.,]*\s*(?:±|\+/-|\+-|\()\s*\d")


SPREAD = "a mean with its spread; a verdict needs the number of each seed"


class NoNumberError(ValueError):
    """A cell that is neither empty nor a number; its text says why."""


def is_blank(cell: Any) -> bool:
    """Whether a cell of a column of numbers is empty."""
    return cell is None or (isinstance(cell, str) and cell.strip().casefold() in BLANK)


def number(cell: Any, decimal: str = ".") -> tuple[float, bool]:
    """A number, NaN and infinity too, and whether it was written as a per cent.

    Raises `NoNumberError`.
    """
    if isinstance(cell, bool):
        return float(cell), False
    if isinstance(cell, int | float):
        return float(cell), False
    text = str(cell).strip()
    if (odd := NOT_FINITE.get(text.casefold())) is not None:
        return odd, False
    is_percent = text.endswith("%")
    bare = text.removesuffix("%").strip().replace("\N{NO-BREAK SPACE}", "")
    if decimal == ",":
        bare = bare.replace(".", "\0").replace(
            ",", "."
        )  # a point is a sign of thousands: no number
    if not _NUMBER.fullmatch(bare):
        if _SPREAD.match(text):
            raise NoNumberError(SPREAD)
        if re.fullmatch(r"[-+−]?\d+,\d+%?", text):
            raise NoNumberError(
                "a decimal comma, or thousands? say --decimal , if it is the former"
            )
        raise NoNumberError("no number")
    return float(bare.replace("−", "-")), is_percent


def is_number(cell: Any, decimal: str = ".") -> bool:
    """Whether a cell can be read as a number."""
    try:
        number(cell, decimal)
    except NoNumberError:
        return False
    return True


def is_spread(cell: Any) -> bool:
    """Whether a cell is a mean with its spread, `71.2 ± 0.3`."""
    return isinstance(cell, str) and bool(re.search(r"±|\+/-", cell)) and bool(_SPREAD.match(cell))


def level(cell: Any) -> str:
    """A level's name: what is written, numbers in their shortest form (`0.10` is `0.1`)."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and math.isfinite(cell):
        return str(int(cell)) if cell == int(cell) and abs(cell) < 2**53 else repr(cell)
    text = " ".join(str(cell).split())
    if text in ("True", "False", "TRUE", "FALSE"):
        return text.lower()
    if re.fullmatch(r"-?(?:0|[1-9]\d{0,14})(?:\.\d+)?(?:[eE][-+]?\d{1,3})?", text):
        return level(float(text))
    return text


def seed(cell: Any) -> int | None:
    """A whole number, also where it is written `s3`, `seed_3` or `3.0`; None where it is none."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        return int(cell) if math.isfinite(cell) and cell == int(cell) else None
    found = re.fullmatch(r"(?:[A-Za-z]+[ _:=#-]*)?(\d{1,18})(?:\.0+)?", str(cell).strip())
    return int(found[1]) if found else None


def time(cell: Any) -> tuple[datetime, bool] | None:
    """When, and whether a time zone was told; seconds or milliseconds since 1970 are UTC."""
    if isinstance(cell, datetime):
        return cell, cell.tzinfo is not None
    if isinstance(cell, bool) or cell is None:
        return None
    if is_number(cell):
        seconds, _ = number(cell)
        for unit in (1.0, 1e3, 1e6, 1e9):
            if 1e9 <= seconds / unit < 4.2e9:  # 2001 to 2103
                return datetime.fromtimestamp(seconds / unit, UTC), True
        return None
    try:
        found = datetime.fromisoformat(str(cell).strip().replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return found, found.tzinfo is not None


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key by which names sort as people count: `8` before `16`, `a2` before `a10`."""
    if is_number(text) and math.isfinite(number(text)[0]):
        return [(0, number(text)[0], text)]
    parts = re.findall(r"\d+|\D+", text.casefold())
    key = [(1, float(p), "") if p.isdecimal() else (2, 0.0, p) for p in parts]
    return [*key, (3, 0.0, text)]


def in_order(names: Iterable[str]) -> list[str]:
    """Names as people count."""
    return sorted(set(names), key=natural)
