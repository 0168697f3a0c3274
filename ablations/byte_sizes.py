"""Sizes in bytes as people write them: `16 GB`, `95 GiB`, or a plain number."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from ablations.errors import shown

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]i?)?B)?")
_UNITS = {None: 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("KMGT", start=1)
}


def parsed(value: Any) -> Any:
    """The bytes of a size. Raises `ValueError` for what is none."""
    found = _SIZE.fullmatch(str(value)) if isinstance(value, int | str) else None
    if found is None or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not a size such as 16 GB")
    return int(float(found[1]) * _UNITS[found[2]])


def told_size(size: int) -> str:
    """`312 B`, `4.0 KiB`, `1.5 GiB`."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


ByteSize = Annotated[int, BeforeValidator(parsed)]
