"""What each column of a table is: said by somebody, told by its source, or seen by its name.

Where two readings are possible the table is refused, with the words that say which is meant: a
guess that is wrong gives numbers that are wrong without a word. What was recognised is told, column
by column (`mm1 table`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas

from ablations.errors import UserError, nearest, shown
from analysis.tables import cells, words_of_columns
from analysis.tables.raw import Hint, Raw
from analysis.tables.reading import Reading
from analysis.tables.words_of_columns import key

Role = Literal[
    "factor",
    "seed",
    "metric",
    "value",
    "score",
    "standard error",
    "task",
    "step",
    "item",
    "time",
    "run",
    "state",
    "ignored",
]
MOST_ARMS = 500


@dataclass(frozen=True)
class Column:
    """A column of the table and what it is read as."""

    name: str
    role: Role
    why: str


@dataclass(frozen=True)
class Roles:
    """What every column is, in the table's order."""

    columns: tuple[Column, ...]

    def of(self, role: Role) -> list[str]:
        """The columns of a role."""
        return [column.name for column in self.columns if column.role == role]

    def one(self, role: Role) -> str:
        """The column of a role that at most one has; "" where there is none."""
        return next(iter(self.of(role)), "")


SAID = "named"


def find_roles(raw: Raw, reading: Reading) -> Roles:
    """What each column is. Raises `UserError` where it cannot be told."""
    return _Finding(raw, reading).found()


def resolve(name: str, columns: Sequence[str], what: str) -> str:
    """The column that somebody calls so: by its whole name, or without what a tracker adds."""
    if name in columns:
        return name
    bare = [one for one in columns if words_of_columns.split_prefix(one)[0] == name]
    alike = bare or [one for one in columns if one.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UserError(f"{what} {shown(name)}: which one{nearest('', alike)}")
    raise UserError(f"{what} {shown(name)}: there is no such column{nearest(name, columns)}")


def ended(raw: Raw) -> list[bool]:
    """Whether each row is of a run that ended well, as far as a column tells; all, if none did."""
    for name in map(str, raw.frame.columns):
        states = [str(cell).casefold() for cell in raw.frame[name].tolist() if _there(cell)]
        is_state = raw.hints.get(name) == "state" or key(name) in words_of_columns.STATE
        if is_state and states and all(one in words_of_columns.STATES for one in states):
            cells_of = raw.frame[name].tolist()
            found = [words_of_columns.STATES.get(str(one).casefold(), True) for one in cells_of]
            return found if any(found) else [True] * len(found)
    return [True] * len(raw.frame)


class _Finding:
    """The search, column by column; each step takes what it knows, and leaves the rest."""

    def __init__(self, raw: Raw, reading: Reading):
        self.raw, self.reading = raw, reading
        self.names = [str(name) for name in raw.frame.columns]
        self.roles: dict[str, tuple[Role, str]] = {}
        # A run that did not end may lack what it was to be told, and would look like another arm.
        frame = raw.frame[ended(raw)]
        self.index = frame.index
        self.cells: dict[str, list[Any]] = {n: frame[n].tolist() for n in self.names}
        self.levels: dict[str, list[str]] = {}
        self.rows = len(frame)

    def found(self) -> Roles:
        self._said()
        self._empty()
        self._by_source()
        self._by_name()
        self._long()
        self._settings_and_scores()
        return Roles(tuple(Column(name, *self.roles[name]) for name in self.names))

    # -- steps ---------------------------------------------------------------------------------

    def _said(self) -> None:
        said: list[tuple[str, Role, Iterable[str]]] = [
            ("--arm", "factor", [self.reading.arm]),
            ("--factor", "factor", self.reading.factors),
            ("--seed", "seed", [self.reading.seed]),
            ("--metric", "metric", [self.reading.metric]),
            ("--task", "task", [self.reading.task]),
            ("--step-column", "step", [self.reading.step_column]),
            ("--item", "item", [self.reading.item]),
            ("--time", "time", [self.reading.time]),
            ("--run", "run", [self.reading.run]),
            ("--ignore", "ignored", self.reading.ignore),
        ]
        values: Role = "value" if self.reading.metric else "score"
        for option, role, given in [*said, ("--value", values, self.reading.values)]:
            for name in filter(None, given):
                column = resolve(name, self.names, option)
                if column in self.roles and self.roles[column][0] != role:
                    raise UserError(f"{option} {shown(name)}: is named as {self.roles[column][0]}")
                self._set(column, role, SAID)
        if self.reading.arm and self.reading.factors:
            raise UserError("--arm names the arms and --factor what they are made of: say one")
        if self.reading.seed and key(self.reading.seed) in words_of_columns.NO_SEED:
            self._refuse_no_seed(self.reading.seed)
        for name in self.roles:
            if self.roles[name][0] in ("factor", "seed") and not any(map(_there, self.cells[name])):
                raise UserError(f"column {shown(name)} is empty")

    def _refuse_no_seed(self, name: str) -> None:
        what = key(name)
        why = {
            "fold": "folds share most of their training data, so their scores are not independent",
            "step": "the steps of one run share its luck",
        }.get(
            {"cv_fold": "fold", "kfold": "fold", "epoch": "step", "checkpoint": "step"}.get(
                what, what
            )
        )
        why = why or f"the {what}s of one run share its luck: many {what}s of one seed are one seed"
        raise UserError(
            f"--seed {shown(name)}: a {what} is no replicate; {why}. A seed is a training of its "
            "own; if these are, rename the column"
        )

    def _empty(self) -> None:
        for name in self._open():
            if not any(map(_there, self.cells[name])):
                self._set(name, "ignored", "empty")

    def _by_source(self) -> None:
        plain: dict[Hint, Role] = {
            "run": "run",
            "time": "time",
            "state": "state",
            "task": "task",
            "ignored": "ignored",
        }
        for name in self._open():
            hint = self.raw.hints.get(name)
            if hint in plain and not (plain[hint] != "ignored" and self._has(plain[hint])):
                self._set(name, plain[hint], "as its source says")
            elif hint == "seed" and not self._has("seed"):
                self._set(name, "seed", "as its source says")

    def _by_name(self) -> None:
        for name in self._open():
            known = key(name)
            there = [cell for cell in self.cells[name] if _there(cell)]
            if known in words_of_columns.STATE and all(
                str(cell).casefold() in words_of_columns.STATES for cell in there
            ):
                self._take(name, "state")
            elif (metric := words_of_columns.error_of(name)) in self.names:
                self._set(name, "standard error", f"of {metric}")
            elif words_of_columns.is_spread(name):
                self._set(name, "ignored", "a spread is no number of a run")
            elif known in words_of_columns.TIME and any(cells.time(cell) for cell in there):
                self._take(name, "time")
        self._seed_by_name()
        for role, known in (
            ("task", words_of_columns.TASK),
            ("step", words_of_columns.STEP),
            ("item", words_of_columns.ITEM),
        ):
            self._first(role, known)
        for name in self._open():
            numeric = self._is_numeric(name)
            if key(name) == "split" and self._has("task"):
                self._set(name, "task", "by its name")
            elif key(name) in words_of_columns.SPLIT and not numeric:
                self._take(name, "task")
            elif key(name) in words_of_columns.RUN and self._each_once(name):
                self._take(name, "run", "another name in every row")
            elif key(name) in words_of_columns.ABOUT or name.startswith(("_", "system_attrs")):
                self._set(name, "ignored", "tells who, where or when; not what is compared")

    def _seed_by_name(self) -> None:
        if self._has("seed"):
            return
        found = [name for name in self._open() if key(name) in words_of_columns.SEED]
        found += [
            name
            for name in self._open()
            if name not in found and key(name).endswith("_seed") and self._is_numeric(name)
        ]
        apart: list[str] = []
        for name in found:
            if not any(self._levels(name) == self._levels(one) for one in apart):
                apart.append(name)
        plain = [name for name in apart if key(name) == "seed"]
        others = [name for name in apart if not plain or not self._follows(name, plain[:1])]
        if len(apart) > 1 and (len(plain) != 1 or others):
            raise UserError(f"which column is the seed: {_listed(apart)}? Say --seed COLUMN")
        for name in found:
            first = (plain or apart)[0]
            if name == first:
                self._set(name, "seed", "by its name")
            else:
                self._set(name, "ignored", f"goes with {first}")

    def _long(self) -> None:
        """A column of metric names beside one of numbers."""
        if not self._has("metric"):
            found = [
                name
                for name in self._open()
                if key(name) in words_of_columns.METRIC and not self._is_numeric(name)
            ]
            if len(found) > 1:
                raise UserError(f"which column names the metric: {_listed(found)}? Say --metric")
            if found:
                self._set(found[0], "metric", "by its name")
        if not self._has("metric") or self._has("value"):
            return
        for name in self.reading.values:
            self._set(resolve(name, self.names, "--value"), "value", SAID)
        if self.reading.values:
            return
        numeric = [name for name in self._open() if self._is_numeric(name)]
        usual = [name for name in numeric if key(name) in words_of_columns.VALUE]
        if len(usual) == 1:
            self._set(usual[0], "value", "by its name")
        elif len(numeric) == 1:
            self._set(numeric[0], "value", "the only numbers beside the names of metrics")
        else:
            raise UserError(
                f"column {shown(self._one('metric'))} names metrics; say --value COLUMN for their "
                f"numbers{nearest('', usual or numeric)}"
            )

    def _settings_and_scores(self) -> None:
        has_values = bool(self.reading.values) or self._has("value")
        said_arms = bool(self.reading.arm or self.reading.factors)
        settings: list[str] = []
        unknown: list[str] = []
        for name in self._open():
            hint = self.raw.hints.get(name) or words_of_columns.split_prefix(name)[1]
            numeric, known = self._is_numeric(name), key(name)
            if hint == "measurement":
                if numeric and not has_values:
                    self._set(name, "score", "as its source says")
                else:
                    why = "not among those that were named" if numeric else "no numbers"
                    self._set(name, "ignored", why)
            elif self._constant(name) and not (words_of_columns.is_score(name) and hint is None):
                self._set(name, "ignored", "the same in every row")
            elif hint == "setting" or known in words_of_columns.ARM or not numeric:
                self._refuse_spreads(name)
                if hint != "setting" and self._mostly_numbers(name):
                    row, bad = next(
                        (n, cell)
                        for n, cell in enumerate(self.cells[name])
                        if not cells.is_blank(cell) and not self._number(cell)
                    )
                    raise UserError(
                        f"row {int(self.index[row]) + 2}, column {shown(name)}: "
                        f"{shown(bad)} is no number, and others are: mend it, or say "
                        f"--factor {shown(name)} or --ignore {shown(name)}"
                    )
                settings.append(name)
            elif words_of_columns.is_score(name):
                if has_values:
                    self._set(name, "ignored", "not among those that were named")
                else:
                    self._set(name, "score", "by its name")
            elif known in words_of_columns.SETTING:
                settings.append(name)
            else:
                unknown.append(name)
        if said_arms:
            for name in settings:
                self._set(name, "ignored", "not among the arms that were named")
        else:
            self._choose_factors(settings)
        self._unknown(unknown, has_values)

    def _refuse_spreads(self, name: str) -> None:
        """A column of `71.2 ± 0.3` is one of scores that cannot be used."""
        odd = [n for n, cell in enumerate(self.cells[name]) if cells.is_spread(cell)]
        if odd and 2 * len(odd) >= self.rows:
            raise UserError(
                f"row {int(self.index[odd[0]]) + 2}, column {shown(name)}: "
                f"{shown(str(self.cells[name][odd[0]]))} is {cells.SPREAD}"
            )

    def _choose_factors(self, settings: list[str]) -> None:
        """Of settings those that tell arms apart; what follows from them tells nothing more."""
        seeds = [name for name in self.names if self._has_role(name, "seed")]
        order = sorted(
            settings,
            key=lambda name: (
                words_of_columns.ARM.index(key(name))
                if key(name) in words_of_columns.ARM
                else len(words_of_columns.ARM),
                self._is_numeric(name),
                name,
            ),
        )
        kept: list[str] = []
        for name in order:
            if self._is_of_each_row(name) and key(name) not in words_of_columns.ARM:
                others = [one for one in order if one != name and not self._is_of_each_row(one)]
                if others or self._is_numeric(name) or self._has("seed"):
                    self._set(name, "ignored", "another value in every row")
                    continue
            if seeds and self._follows(name, seeds):
                self._set(name, "ignored", f"goes with {seeds[0]}")
            elif kept and self._follows(name, kept):
                back = len(kept) == 1 and self._follows(kept[0], [name])
                why = f"{'varies' if back else 'goes'} together with {', '.join(kept)}"
                self._set(name, "ignored", why)
            else:
                kept.append(name)
                self._set(name, "factor", "tells arms apart")

    def _unknown(self, unknown: list[str], has_values: bool) -> None:
        """Numbers of which no name says whether they were set or measured."""
        factors = [name for name in self.names if self._has_role(name, "factor")]
        scored = has_values or self._has("score")
        one_each = self._rows_of_arms(factors) <= 1
        for name in unknown:
            if has_values:
                self._set(name, "ignored", "not among those that were named")
            elif factors and not one_each and self._follows(name, factors):
                self._set(name, "ignored", f"follows from {', '.join(factors)}")
            elif self._looks_like_a_grid(name) and (scored or len(unknown) > 1):
                raise UserError(
                    f"is {shown(name)} a setting, a seed or a score? Say --factor, --seed, --value "
                    f"or --ignore {shown(name)}"
                )
            else:
                self._set(name, "score", "numbers that no other role fits")

    # -- what is known of a column -----------------------------------------------------------

    def _open(self) -> list[str]:
        return [name for name in self.names if name not in self.roles]

    def _set(self, name: str, role: Role, why: str) -> None:
        self.roles[name] = role, why

    def _has(self, role: Role) -> bool:
        return any(one == role for one, _ in self.roles.values())

    def _has_role(self, name: str, role: Role) -> bool:
        return name in self.roles and self.roles[name][0] == role

    def _one(self, role: Role) -> str:
        return next(name for name in self.names if self._has_role(name, role))

    def _take(self, name: str, role: Role, why: str = "by its name") -> None:
        if self._has(role):
            self._set(name, "ignored", f"another {role} is there")
        else:
            self._set(name, role, why)

    def _first(self, role: Role, known: Sequence[str]) -> None:
        if self._has(role):
            return
        found = [name for name in self._open() if key(name) in known]
        if role == "step":
            found = [name for name in found if self._is_numeric(name)]
        if role == "task":
            found = [
                name
                for name in found
                if self.raw.hints.get(name) != "setting"
                and words_of_columns.split_prefix(name)[1] != "setting"
                and not self._is_numeric(name)
            ]
        for name in sorted(found, key=lambda one: known.index(key(one)))[:1]:
            self._set(name, role, "by its name")

    def _number(self, cell: Any) -> bool:
        return cells.is_number(cell, self.reading.decimal or ".")

    def _is_numeric(self, name: str) -> bool:
        there = [cell for cell in self.cells[name] if not cells.is_blank(cell)]
        return bool(there) and all(
            not isinstance(cell, bool)
            and (self._number(cell) or (words_of_columns.is_score(name) and _number_like(cell)))
            for cell in there
        )

    def _mostly_numbers(self, name: str) -> bool:
        there = [cell for cell in self.cells[name] if not cells.is_blank(cell)]
        numbers = sum(self._number(cell) for cell in there)
        return numbers > len(there) / 2 or (words_of_columns.is_score(name) and numbers > 0)

    def _levels(self, name: str) -> list[str]:
        if name not in self.levels:
            own = self.cells[name]
            self.levels[name] = [cells.level(cell) if _there(cell) else "" for cell in own]
        return self.levels[name]

    def _constant(self, name: str) -> bool:
        return len(set(self._levels(name))) == 1 and self.rows > 1

    def _each_once(self, name: str) -> bool:
        levels = self._levels(name)
        return len(set(levels)) == len(levels)

    def _is_of_each_row(self, name: str) -> bool:
        return self.rows > 2 and self._each_once(name)

    def _follows(self, name: str, others: Sequence[str]) -> bool:
        """Whether the rows that are alike in some columns are alike in this one."""
        rows = zip(*(self._levels(one) for one in others), strict=True)
        seen: dict[tuple[str, ...], str] = {}
        return all(
            seen.setdefault(row, mine) == mine
            for row, mine in zip(rows, self._levels(name), strict=True)
        )

    def _rows_of_arms(self, factors: Sequence[str]) -> int:
        """The most rows that one arm has."""
        keys = list(zip(*(self._levels(one) for one in factors), strict=True)) or [()] * self.rows
        return int(pandas.Series(keys).value_counts().max()) if keys else 0

    def _looks_like_a_grid(self, name: str) -> bool:
        """Whether each of a few values stands in several rows, as settings do."""
        counts = pandas.Series(self._levels(name)).value_counts()
        return 1 < len(counts) <= self.rows / 2 and int(counts.min()) > 1


def _there(cell: Any) -> bool:
    return cell is not None and str(cell).strip() != ""


def _number_like(cell: Any) -> bool:
    """A number, or what only a column of numbers would hold; its reading tells what is wrong."""
    try:
        cells.number(cell)
    except cells.NoNumberError as error:
        return str(error) != "no number"
    return True


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, names))
