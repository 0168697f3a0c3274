"""A table as its source has it, before anybody says what its columns are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas

from ablations.errors import UserError, shown
from ablations.workload import Goal

# What a source itself knows of a column. A setting was given to the run, a measurement came out.
Hint = Literal["setting", "measurement", "run", "time", "state", "seed", "arm", "task", "ignored"]

MOST_ROWS = 5_000_000
MOST_COLUMNS = 20_000


@dataclass(frozen=True)
class Raw:
    """Rows of texts and numbers; an empty cell is None, a number that is none is NaN.

    name    for titles
    origin  what was read, in words
    hints   of columns that the source itself knows something of
    goals   metric → which way it is better, as the source says
    notes   what a reader should know of the reading
    """

    name: str
    origin: str
    frame: pandas.DataFrame
    hints: Mapping[str, Hint] = field(default_factory=dict)
    goals: Mapping[str, Goal] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def rows_of(records: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """A frame of records that need not have the same keys; columns in the order of first use."""
    records = list(records)
    columns = dict.fromkeys(key for record in records for key in record)
    cells = {name: [record.get(name) for record in records] for name in columns}
    return pandas.DataFrame(cells, dtype=object)


def flat(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Nested maps as one, `optim.lr`; a list is one text."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [(str(key), value) for key, value in tree.items()]
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, Mapping):
            inner = [(f"{name}{separator}{key}", one) for key, one in value.items()]
            waiting = inner + waiting
        else:
            found[name] = plain(value)
    return found


def plain(value: Any) -> Any:
    """A cell: text, a number, true or false, or None."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    return str(value)


def checked(raw: Raw) -> Raw:
    """The same with columns that can be told apart. Raises `UserError`."""
    frame = raw.frame
    if len(frame.columns) > MOST_COLUMNS or len(frame) > MOST_ROWS:
        raise UserError(
            f"{raw.origin}: more than {MOST_COLUMNS:,} columns or {MOST_ROWS:,} rows; "
            "keep what the claims are about"
        )
    names = _names(list(frame.columns))
    twice = (
        [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    )
    if twice:
        raise UserError(f"{raw.origin}: two columns are called {shown(twice[0])}; rename one")
    frame = frame.set_axis(names, axis=1)
    if frame.empty:
        raise UserError(f"{raw.origin}: there are no rows")
    return Raw(raw.name, raw.origin, frame, raw.hints, raw.goals, raw.notes)


def _names(columns: Sequence[Any]) -> list[str]:
    texts = [" ".join(str(name).split()) for name in columns]
    return [text or f"column {place}" for place, text in enumerate(texts, start=1)]
