"""Names cut to a width so that no two of them become equal."""

from __future__ import annotations

from collections.abc import Iterable


def short_labels(names: Iterable[str], width: int) -> dict[str, str]:
    """Name → what is shown of it in `width` characters (3 at least); unlike names stay unlike.

    The end is cut where that keeps them apart, else the middle; where neither does, as with names
    that differ in their middle only, the cut ones get a number.
    """
    names, width = list(dict.fromkeys(names)), max(3, width)
    for tail in (0, width // 3, 2 * width // 3, width - 2):
        cut = {name: _cut(name, width, tail) for name in names}
        if len(set(cut.values())) == len(names):
            return cut
    digits = len(str(len(names)))
    return {
        name: name
        if len(name) <= width and list(cut.values()).count(cut[name]) == 1
        else f"{name[: max(0, width - digits - 1)]}…{number}"
        for number, name in enumerate(names, start=1)
    }


def _cut(name: str, width: int, tail: int) -> str:
    if len(name) <= width:
        return name
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"
