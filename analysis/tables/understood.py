"""A table from elsewhere, understood: its arms, seeds and metrics, and all that is odd about it.

Nothing is averaged, filled in or left out without a word. A run that is there twice, has no number
or did not end leaves its claims undecided until somebody says what is meant.
"""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pandas

from ablations.averages import AVERAGE
from ablations.contrasts import Design, ScoreKey
from ablations.errors import UserError, nearest, shown
from ablations.few import few
from ablations.workload import INTACT, Goal, Metric, Task
from analysis.score_table import COLUMNS, ScoreTable
from analysis.tables import cells, directions, words_of_columns
from analysis.tables.layouts import in_plain_form
from analysis.tables.raw import Raw, checked
from analysis.tables.reading import Reading
from analysis.tables.roles import MOST_ARMS, Roles, ended, find_roles
from analysis.words import metric_name

NO_TASK = ""  # of a table that names none
BASES = ("base", "baseline", "control", "default", "vanilla", "reference", "ref")
NAMED = 4  # runs, of many, by name
BLANK_LEVEL = "(blank)"
_COMMA = re.compile(r"[-+−]?\d+,\d+(?:[eE][-+]?\d+)? ?%?")
_DIGITS = re.compile(r"[-+−]?\d+ ?%?")


@dataclass(frozen=True)
class Run:
    """A training: an arm and a seed."""

    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm} seed {self.seed}"


@dataclass(frozen=True, repr=False)
class Understood:
    """What a table says.

    notes      how it was read
    problems   what is odd about it, in plain words
    directions metric → how it is known which way it is better; "" where nobody knows
    mixed      (task, metric) → why its numbers may be in two units
    uneven     (task, metric) → that its runs were measured at unlike steps
    times      run → when it began, or was written down, and whether the time zone was told
    defaults   whether it is plain which task and metric is meant where nobody says
    """

    raw: Raw
    reading: Reading
    roles: Roles
    table: ScoreTable
    base_why: str
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    directions: Mapping[tuple[str, str], str]
    mixed: Mapping[tuple[str, str], str]
    uneven: Mapping[tuple[str, str], str]
    times: Mapping[Run, tuple[datetime, bool]]
    has_seeds: bool
    is_plain: bool

    def __repr__(self) -> str:
        """What a notebook shows."""
        from analysis.tables.told import told

        return told(self)


@dataclass(frozen=True)
class _Number:
    """A cell of numbers."""

    run: Run
    task: str
    metric: str
    value: float | None  # None: the cell is empty
    is_percent: bool
    error: float | None
    step: float | None
    item: str
    state: str
    row: int

    @property
    def key(self) -> ScoreKey:
        return ScoreKey(self.run.arm, self.task, self.metric, 0, INTACT)


def understand(raw: Raw, reading: Reading, seeds: Sequence[int] = ()) -> Understood:
    """What a table says; `seeds` are those that were to come in, if somebody said.

    Raises:
        UserError: what it says cannot be told, or is no number where one is due.
    """
    raw, reading = with_decimal(checked(raw), reading)
    plain = in_plain_form(raw, reading)
    roles = find_roles(plain.raw, plain.reading)
    return _Assembly(_known_runs(plain.raw, roles), plain.reading, roles).understood(seeds)


def _known_runs(raw: Raw, roles: Roles) -> Raw:
    """Without runs that did not end and do not even tell their arm and seed."""
    needed = [*roles.of("factor"), *roles.of("seed")]
    kept = [
        ok or all(str(cell or "").strip() for cell in told)
        for ok, told in zip(ended(raw), _rows(raw, needed), strict=True)
    ]
    if all(kept):
        return raw
    count = kept.count(False)
    runs = "1 run" if count == 1 else f"{count} runs"
    note = f"{runs} did not end and tell no arm or seed: left out"
    return replace(raw, frame=raw.frame[kept], notes=(*raw.notes, note))


def with_decimal(raw: Raw, reading: Reading) -> tuple[Raw, Reading]:
    """A comma in the numbers of texts, where all columns of numbers have one or none of either."""
    if reading.decimal:
        return raw, reading
    commas: list[str] = []
    for name in raw.frame.columns:
        texts = [
            c for c in raw.frame[name].tolist() if isinstance(c, str) and not cells.is_blank(c)
        ]
        if texts and all(_COMMA.fullmatch(text) or _DIGITS.fullmatch(text) for text in texts):
            commas += filter(_COMMA.fullmatch, texts)
        elif texts and all(map(cells.is_number, texts)):
            return raw, reading  # with points
    if not commas:
        return raw, reading
    if {len(text.rstrip("% ").rpartition(",")[2]) for text in commas} == {3}:
        raise UserError(
            f"{shown(commas[0])}: a decimal comma, or thousands? Say --decimal , if the former; "
            "write numbers without signs of thousands if the latter"
        )
    note = f"numbers have a decimal comma, such as {shown(commas[0])}"
    told = replace(raw, notes=(*raw.notes, note))
    return told, reading.model_copy(update={"decimal": ","})


def _rows(raw: Raw, names: Sequence[str]) -> list[tuple[Any, ...]]:
    if not names:
        return [()] * len(raw.frame)
    return list(zip(*(raw.frame[name].tolist() for name in names), strict=True))


class _Assembly:
    """From columns with roles to a score table."""

    def __init__(self, raw: Raw, reading: Reading, roles: Roles):
        self.raw, self.reading, self.roles = raw, reading, roles
        self.notes = list(raw.notes)
        self.problems: list[str] = []
        self.decimal = reading.decimal or "."
        self._columns: dict[str, list[Any]] = {}

    def understood(self, seeds: Sequence[int]) -> Understood:
        factors, levels = self._factors()
        design, arm_of, base_why = self._design(factors, levels)
        runs, has_seeds = self._runs([arm_of[row] for row in levels])
        runs_excluded = self._excluded(runs)
        numbers = [one for one in self._numbers(runs) if one.run not in runs_excluded]
        numbers = self._one_step(self._over_items(numbers))
        values, unscored = self._one_each(numbers)
        if not values:
            raise UserError(f"{self.raw.origin}: there are no numbers")
        tasks, known = self._tasks(values)
        unscored = {key: own for key, own in unscored.items() if key in values}
        wanted = tuple(seeds) or tuple(sorted({run.seed for run in runs}))
        table = ScoreTable(
            design=design,
            seeds=wanted,
            primary=self._primary(tasks, [*values]),
            tasks=tasks,
            numbers=_frame(values, numbers),
            averaged=self._averaged(tasks, values),
            excluded=frozenset((run.arm, run.seed) for run in runs_excluded),
            unscored=unscored,
            is_as_found=not seeds,
        )
        self._tell_pairs(table)
        if seeds and (more := sorted({run.seed for run in runs} - set(seeds))):
            told = ", ".join(map(str, more))
            self.problems.append(f"seeds {told} are not among those that were planned: left out")
        return Understood(
            raw=self.raw,
            reading=self.reading,
            roles=self.roles,
            table=table,
            base_why=base_why,
            notes=tuple(self.notes),
            problems=tuple(self.problems),
            directions=known,
            mixed=self._mixed(numbers),
            uneven=self._uneven(numbers),
            times=self._times(runs),
            has_seeds=has_seeds,
            is_plain=len({(k.task, k.metric) for k in values}) == 1 or bool(self.reading.primary),
        )

    # -- arms ----------------------------------------------------------------------------------

    def _column(self, name: str) -> list[Any]:
        if name not in self._columns:
            self._columns[name] = self.raw.frame[name].tolist()
        return self._columns[name]

    def _place(self, row: int) -> str:
        """`row 5`, as an editor counts, or the run's name."""
        if run := self.roles.one("run"):
            return f"run {shown(str(self._column(run)[row]))}"
        return f"row {int(self.raw.frame.index[row]) + 2}"

    def _factors(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """The columns that tell arms apart, and the levels of each row."""
        columns = self.roles.of("factor")
        if not columns:
            return self._without_factors()
        names = [words_of_columns.split_prefix(column)[0] for column in columns]
        if len(set(names)) < len(names):
            names = columns
        found: list[list[str]] = []
        for column in columns:
            own = []
            for row, cell in enumerate(self._column(column)):
                level = "" if cell is None else cells.level(cell)
                if not level and len(columns) == 1:
                    raise UserError(f"{self._place(row)}: column {shown(column)} is empty")
                if cell is not None and isinstance(cell, str) and cell != level:
                    trimmed = f"{shown(cell)} is read as {shown(level)}"
                    if " ".join(cell.split()) == level and trimmed not in self.notes:
                        self.notes.append(trimmed)
                own.append(level or BLANK_LEVEL)
            found.append(own)
        return names, list(zip(*found, strict=True))

    def _without_factors(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """Where no column tells arms apart: names of runs may, or there is one arm."""
        run, seed = self.roles.one("run"), self.roles.one("seed")
        rows = len(self.raw.frame)
        if run and seed:
            names = [str(cell) for cell in self._column(run)]
            seeds = [cells.seed(cell) for cell in self._column(seed)]
            bare = [_without_seed(*one) for one in zip(names, seeds, strict=True)]
            if all(bare) and len(set(bare)) < rows:
                self.notes.append(
                    f"arm from the names in {shown(run)}, which end in the row's seed, such as "
                    f"{shown(names[0])}"
                )
                return ["arm"], [(name or "",) for name in bare]
        unnamed = [c.name for c in self.roles.columns if c.why == "numbers that no other role fits"]
        if len(unnamed) > 1:
            listed = ", ".join(map(shown, unnamed))
            raise UserError(
                f"no column says which arm a row is of. If {listed} are arms, say --columns arms; "
                "if they are metrics of one arm, name them with --value"
            )
        if run and not seed and rows > 1:
            names = [str(cell) for cell in self._column(run)]
            long = self.roles.one("metric") or self.roles.one("step")
            if len(set(names)) == rows or long:
                self.notes.append(
                    f"each run is an arm of its own, by its name in {shown(run)}{_pattern(names)}"
                )
                return ["arm"], [(" ".join(name.split()),) for name in names]
        self.notes.append("no column tells arms apart: all rows are of one arm, base")
        return ["arm"], [("base",)] * rows

    def _design(
        self, factors: list[str], levels: list[tuple[str, ...]]
    ) -> tuple[Design, dict[tuple[str, ...], str], str]:
        """Arms named as in a study, the base first; one factor's arms by their levels alone."""
        found = sorted(set(levels), key=lambda row: [cells.natural(level) for level in row])
        if len(found) > MOST_ARMS:
            raise UserError(
                f"{len(found):,} arms, told apart by {', '.join(map(shown, factors))}: say which "
                "columns make an arm with --arm or --factor"
            )
        base, why = self._base(factors, found)
        levels_of = {
            factor: tuple(dict.fromkeys([base[n], *(row[n] for row in found)]))
            for n, factor in enumerate(factors)
        }
        levels_of = {
            factor: (own[0], *cells.in_order(own[1:])) for factor, own in levels_of.items()
        }
        names: dict[tuple[str, ...], str] = {}
        for row in [base, *(one for one in found if one != base)]:
            if len(factors) == 1:
                names[row] = row[0]
            else:
                parts = [
                    f"{factor}={level}"
                    for factor, level, its in zip(factors, row, base, strict=True)
                    if level != its
                ]
                names[row] = ",".join(parts) or "base"
        alike: dict[str, list[str]] = {}
        for name in names.values():
            alike.setdefault(_bare(name), []).append(name)
        for some in alike.values():
            if len(some) > 1:
                self.problems.append(f"arms that look alike: {', '.join(map(shown, some))}")
        if len(set(names.values())) < len(names):
            raise UserError("two arms would have one name: levels hold `,` and `=`; rename them")
        arms = {name: dict(zip(factors, row, strict=True)) for row, name in names.items()}
        return Design(levels_of, arms), names, why

    def _base(
        self, factors: list[str], found: list[tuple[str, ...]]
    ) -> tuple[tuple[str, ...], str]:
        if self.reading.base:
            return self._said_base(factors, found, self.reading.base), "named"
        if len(factors) == 1:
            usual = [row for row in found if row[0].casefold() in BASES]
            if len(usual) == 1:
                return usual[0], "by its name"
            return found[0], "the first by name; say --base ARM for another"
        near = {
            row: sum(sum(a != b for a, b in zip(row, other, strict=True)) == 1 for other in found)
            for row in found
        }
        base = max(found, key=lambda row: near[row])
        if list(near.values()).count(near[base]) == 1:
            return base, "the arm that most others differ from in one factor"
        return base, "the lowest levels by name; say --base for another"

    def _said_base(
        self, factors: list[str], found: list[tuple[str, ...]], said: str
    ) -> tuple[str, ...]:
        if len(factors) == 1:
            for row in found:
                if said in (row[0], f"{factors[0]}={row[0]}"):
                    return row
            raise UserError(f"--base: no arm {shown(said)}{nearest(said, [r[0] for r in found])}")
        wanted: dict[str, str] = {}
        for part in said.split(","):
            factor, sign, level = part.partition("=")
            if not sign or factor.strip() not in factors:
                raise UserError(
                    f"--base {shown(said)}: expected a level of each factor, such as "
                    + ",".join(f"{f}={v}" for f, v in zip(factors, found[0], strict=True))
                )
            wanted[factor.strip()] = cells.level(level.strip())
        rows = [
            row
            for row in found
            if all(wanted.get(f, v) == v for f, v in zip(factors, row, strict=True))
        ]
        if len(rows) != 1:
            raise UserError(f"--base {shown(said)}: {len(rows)} arms are so; give every factor")
        return rows[0]

    # -- runs ----------------------------------------------------------------------------------

    def _runs(self, arms: list[str]) -> tuple[list[Run], bool]:
        """The run of each row."""
        column = self.roles.one("seed")
        if column:
            seeds = []
            for row, cell in enumerate(self._column(column)):
                number = cells.seed(cell)
                if number is None:
                    what = "is empty" if cell is None else f"has {shown(str(cell))}"
                    raise UserError(
                        f"{self._place(row)}: column {shown(column)} {what}, and a seed is a whole "
                        "number; take out rows that are means over seeds"
                    )
                seeds.append(number)
            self._check_seeds(column, seeds)
            return [Run(*one) for one in zip(arms, seeds, strict=True)], True
        several = self._several_rows(arms)
        if several:
            raise UserError(self._told_no_seed(several))
        columns = self.roles.of("factor")
        hint = _pattern(list(dict.fromkeys(arms))) if len(columns) == 1 else ""
        hint += f" --run {shown(columns[0])}" if hint else ""
        self.problems.append(
            "one run of each arm, and no seed: there are effects, and nothing to test them against"
            + hint
        )
        return [Run(arm, 0) for arm in arms], False

    def _check_seeds(self, column: str, seeds: list[int]) -> None:
        """Two texts that are one number, such as s1 and 1, are told."""
        texts: dict[int, set[str]] = {}
        for cell, number in zip(self._column(column), seeds, strict=True):
            texts.setdefault(number, set()).add(cells.level(cell))
        for number, own in texts.items():
            if len(own) > 1:
                listed = ", ".join(map(shown, sorted(own)))
                raise UserError(
                    f"column {shown(column)}: {listed} would all be seed {number}; "
                    "write seeds as plain numbers"
                )

    def _several_rows(self, arms: list[str]) -> str:
        """An arm with several rows that differ in no task, metric, step or item."""
        apart = [c.name for c in self.roles.columns if c.role in ("task", "metric", "step", "item")]
        seen: dict[tuple[Any, ...], str] = {}
        for row, arm in enumerate(arms):
            key = arm, *(str(self._column(name)[row]) for name in apart)
            if key in seen:
                return arm
            seen[key] = arm
        return ""

    def _told_no_seed(self, arm: str) -> str:
        rows = f"no column is the seed, and {shown(arm)} has several rows"
        columns = [str(name) for name in self.raw.frame.columns]
        folds = [n for n in columns if words_of_columns.key(n) in words_of_columns.NO_SEED]
        if folds and not self.roles.of("task"):
            rows += f" ({shown(folds[0])} is no seed)"
        run = self.roles.one("run")
        if run:
            names = [str(cell) for cell in self._column(run)]
            hint = _pattern(names) or "; if names tell it, --names '{arm}-s{seed}'"
            return f"{rows}. Say --seed COLUMN{hint} ({shown(run)} has {shown(names[0])})"
        return (
            f"{rows}. Which rows of two arms belong together? Add a column with the seed of each "
            f"run, or say --seed COLUMN; there are {', '.join(map(shown, columns[:12]))}"
        )

    def _excluded(self, runs: list[Run]) -> set[Run]:
        by_name = {str(run): run for run in runs}
        found = set()
        for name, reason in self.reading.exclude.items():
            if name not in by_name:
                raise UserError(f"--exclude: no run {shown(name)}{nearest(name, by_name)}")
            found.add(by_name[name])
            self.problems.append(f"{name} is left out: {reason}")
        return found

    def _times(self, runs: list[Run]) -> dict[Run, tuple[datetime, bool]]:
        """When each run began, the earliest of its rows."""
        column = self.roles.one("time")
        found: dict[Run, tuple[datetime, bool]] = {}
        for run, cell in zip(runs, self._column(column) if column else (), strict=bool(column)):
            when = cells.time(cell)
            if when is not None and (run not in found or _naive(when) < _naive(found[run])):
                found[run] = when
        return found

    # -- numbers -------------------------------------------------------------------------------

    def _numbers(self, runs: list[Run]) -> list[_Number]:
        metric, task_columns = self.roles.one("metric"), self.roles.of("task")
        values = self.roles.of("value") if metric else self.roles.of("score")
        if not values:
            raise UserError(
                f"{self.raw.origin}: no column holds scores; say --value COLUMN. There are "
                + ", ".join(shown(str(name)) for name in self.raw.frame.columns[:20])
            )
        bare = [words_of_columns.split_prefix(name)[0] for name in values]
        bare = bare if len(set(bare)) == len(bare) else values
        errors = {
            of: self._column(name)
            for name in self.roles.of("standard error")
            if (of := words_of_columns.error_of(name)) is not None
        }
        tasks = [
            "/".join(" ".join(str(self._column(name)[row] or "").split()) for name in task_columns)
            for row in range(len(runs))
        ]
        steps, items, states = (
            self._column(name) if (name := self.roles.one(role)) else [None] * len(runs)
            for role in ("step", "item", "state")
        )
        metrics = self._column(metric) if metric else []
        found = []
        for name, shown_name in zip(values, bare, strict=True):
            own_errors = errors.get(name, [None] * len(runs))
            for row, cell in enumerate(self._column(name)):
                called = " ".join(str(metrics[row]).split()) if metric else shown_name
                if metric and metrics[row] is None:
                    raise UserError(f"{self._place(row)}: column {shown(metric)} is empty")
                value, is_percent = self._number(cell, name, row)
                error = self._number(own_errors[row], name, row)[0]
                step = cells.number(steps[row])[0] if not cells.is_blank(steps[row]) else None
                found.append(
                    _Number(
                        run=runs[row],
                        task=tasks[row] if task_columns else NO_TASK,
                        metric=called,
                        value=value,
                        is_percent=is_percent,
                        error=error,
                        step=step,
                        item=str(items[row]) if items[row] is not None else "",
                        state=str(states[row] or "").casefold(),
                        row=row,
                    )
                )
        return found

    def _number(self, cell: Any, column: str, row: int) -> tuple[float | None, bool]:
        if cells.is_blank(cell):
            return None, False
        try:
            return cells.number(cell, self.decimal)
        except cells.NoNumberError as error:
            raise UserError(
                f"{self._place(row)}, column {shown(column)}: {shown(str(cell))} is {error}"
            ) from None

    def _over_items(self, numbers: list[_Number]) -> list[_Number]:
        """The mean over the items of each run, which are one number of it."""
        column = self.roles.one("item")
        if not column:
            return numbers
        groups: dict[tuple[Any, ...], list[_Number]] = {}
        for one in numbers:
            groups.setdefault((one.run, one.task, one.metric, one.step, one.state), []).append(one)
        found = []
        items: dict[tuple[str, str], set[frozenset[str]]] = {}
        for own in groups.values():
            names = [one.item for one in own]
            if len(set(names)) < len(names):
                raise UserError(
                    f"{own[0].run}: item {shown(names[0])} of {shown(column)} is there twice"
                )
            there = [one.value for one in own if one.value is not None]
            if len(there) < len(own) and there:
                self.problems.append(f"{own[0].run}: {len(own) - len(there)} items have no score")
            items.setdefault((own[0].task, own[0].metric), set()).add(frozenset(names))
            mean = math.fsum(there) / len(there) if there else None
            spread = statistics.stdev(there) / len(there) ** 0.5 if len(there) > 1 else None
            found.append(replace(own[0], value=mean, error=spread, item=""))
        self.notes.append(
            f"{shown(column)} names items: each run's are averaged first, for they share its luck"
        )
        if any(len(sets) > 1 for sets in items.values()):
            self.problems.append("not all runs were asked the same items")
        return found

    def _one_step(self, numbers: list[_Number]) -> list[_Number]:
        """The last step of each run that has a number, or the one that was asked for."""
        column = self.roles.one("step")
        if not column:
            return numbers
        groups: dict[tuple[Any, ...], list[_Number]] = {}
        for one in numbers:
            groups.setdefault((one.run, one.task, one.metric), []).append(one)
        several = any(len({one.step for one in own}) > 1 for own in groups.values())
        found = []
        for own in groups.values():
            wanted: float | None
            if self.reading.step is not None and several:
                wanted = float(self.reading.step)
                if not any(one.step == wanted for one in own):
                    found.append(replace(own[0], value=None, step=wanted))
                    continue
            else:
                there = [one for one in own if one.value is not None] or own
                wanted = max((s for one in there if (s := one.step) is not None), default=None)
            found += [one for one in own if one.step == wanted]
        if several:
            which = "the last of each run" if self.reading.step is None else self.reading.step
            self.notes.append(f"{shown(column)} is the step of a curve; taken is {which}")
        return found

    def _one_each(
        self, numbers: list[_Number]
    ) -> tuple[dict[ScoreKey, dict[int, _Number]], dict[ScoreKey, dict[int, str]]]:
        """The number of each cell and seed; where there is none though it was tried, why."""
        groups: dict[tuple[ScoreKey, int], list[_Number]] = {}
        for one in numbers:
            groups.setdefault((one.key, one.run.seed), []).append(one)
        values: dict[ScoreKey, dict[int, _Number]] = {}
        unscored: dict[ScoreKey, dict[int, str]] = {}
        left_out: dict[str, None] = {}
        twice = 0
        for (key, seed), own in groups.items():
            ended = [one for one in own if words_of_columns.STATES.get(one.state, True)]
            if ended and len(ended) < len(own):
                states = ", ".join(dict.fromkeys(o.state for o in own if o not in ended))
                left_out[f"{own[0].run}: a {states} run is left out, a finished one is there"] = (
                    None
                )
            why = ""
            if not ended:
                why = f"its run is {own[0].state}, so its number is not the last"
            there = [one for one in ended if one.value is not None]
            if ended and not there:
                why = self._told_blank(own[0])
            picked = there[0] if there else own[0]
            if len(there) > 1:
                if len({one.value for one in there}) == 1:
                    twice += 1
                elif self.reading.repeats is None:
                    why = self._told_repeated(there)
                else:
                    picked = self._picked(there)
            if not why and (value := picked.value) is not None and not math.isfinite(value):
                why = f"{metric_name(key.task, key.metric)} is {value}"
            if why:
                unscored.setdefault(key, {})[seed] = f"{picked.run}: {why}"
            else:
                values.setdefault(key, {})[seed] = picked
        self.problems += left_out
        if twice:
            rows = "1 number is" if twice == 1 else f"{twice} numbers are"
            self.notes.append(f"{rows} there more than once and equal: each counts once")
        if self.reading.repeats is not None:
            self.notes.append(f"of runs that are there several times, the {self.reading.repeats}")
        self._tell_unscored(unscored, values)
        return values, unscored

    def _picked(self, there: list[_Number]) -> _Number:
        if self.reading.repeats == "mean":
            mean = math.fsum(one.value or 0.0 for one in there) / len(there)
            return replace(there[0], value=mean)
        rows = sorted(there, key=lambda one: one.row)
        return rows[0] if self.reading.repeats == "first" else rows[-1]

    def _told_blank(self, one: _Number) -> str:
        return (
            f"its row has no {metric_name(one.task, one.metric)}; if the run failed, leaving it "
            f"out would flatter {one.run.arm}: --exclude '{one.run}: WHY' does so and says it"
        )

    def _told_repeated(self, there: list[_Number]) -> str:
        values = few((f"{one.value:.6g}" for one in there), NAMED)
        roles = {column.name: column.role for column in self.roles.columns}
        apart = []
        for name in self.raw.frame.columns:
            own = {str(self._column(name)[one.row]) for one in there}
            if len(own) > 1 and roles[name] in ("ignored", "run", "time"):
                apart.append(f"{name} ({', '.join(sorted(own)[:3])})")
        differ = f"; they differ in {'; '.join(apart[:3])}" if apart else ""
        option = "--repeats mean, first or last says which counts"
        if apart:
            option += ", or --factor COLUMN makes them other arms"
        return f"is there {len(there)} times ({values}){differ}. {option}"

    def _tell_unscored(
        self,
        unscored: Mapping[ScoreKey, Mapping[int, str]],
        values: Mapping[ScoreKey, Mapping[int, _Number]],
    ) -> None:
        told = [why for key, own in unscored.items() if key in values for why in own.values()]
        self.problems += told[:NAMED]
        if len(told) > NAMED:
            self.problems.append(f"and {len(told) - NAMED} more numbers that do not count")

    # -- metrics -------------------------------------------------------------------------------

    def _tasks(
        self, values: Mapping[ScoreKey, Mapping[int, _Number]]
    ) -> tuple[dict[str, Task], dict[tuple[str, str], str]]:
        """Tasks and metrics as they are known, and how which way is better is known."""
        names = sorted(
            {(key.task, key.metric) for key in values}, key=lambda n: [*map(cells.natural, n)]
        )
        every = {metric for _, metric in names} | {metric_name(*name) for name in names}
        for option, given in (("--lower", self.reading.lower), ("--higher", self.reading.higher)):
            for metric in given:
                if metric not in every:
                    raise UserError(f"{option}: no metric {shown(metric)}{nearest(metric, every)}")
        found: dict[str, list[Metric]] = {}
        known: dict[tuple[str, str], str] = {}
        for task, metric in names:
            goal, known[task, metric] = self._direction(task, metric)
            numbers = [
                n for key, own in values.items() if key[1:3] == (task, metric) for n in own.values()
            ]
            unit = "%" if numbers and all(one.is_percent for one in numbers) else ""
            found.setdefault(task, []).append(Metric(name=metric, goal=goal, unit=unit))
        if AVERAGE in found:
            raise UserError(f"a task is called {AVERAGE!r}, which is the mean of all; rename it")
        return {task: Task(metrics=tuple(own)) for task, own in found.items()}, known

    def _direction(self, task: str, metric: str) -> tuple[Goal | None, str]:
        names = {metric, metric_name(task, metric)}
        by_name = directions.by_name(metric)
        said: Goal | None = None
        if names & set(self.reading.lower):
            said = "minimise"
        elif names & set(self.reading.higher):
            said = "maximise"
        if said is not None:
            against = " (against its name)" if by_name not in (None, said) else ""
            return said, f"named{against}"
        source = self.raw.goals.get(metric)
        if source is not None:
            if by_name not in (None, source):
                self.problems.append(
                    f"{metric} is better {_way(by_name)} by its name and {_way(source)} by its "
                    "source, whose word is taken; --lower or --higher says otherwise"
                )
            return source, "as its source says"
        return by_name, "by its name" if by_name else ""

    def _averaged(
        self, tasks: Mapping[str, Task], values: Mapping[ScoreKey, Mapping[int, _Number]]
    ) -> tuple[str, ...]:
        """Tasks of which there is a mean: all, where they have one metric, the same, on one scale.

        A mean of shares (0.35) and per cents (58.2) would be one of the per cents alone.
        """
        metrics = {tuple(metric.name for metric in task.metrics) for task in tasks.values()}
        alike = len(metrics) == 1 and len(next(iter(metrics))) == 1
        scales = {
            all(abs(one.value or 0.0) <= 1.0 for own in its for one in own)
            for task in tasks
            if (
                its := [
                    o for key, own in values.items() if key.task == task for o in [own.values()]
                ]
            )
        }
        return tuple(tasks) if alike and len(tasks) > 1 and len(scales) == 1 else ()

    def _primary(self, tasks: Mapping[str, Task], keys: list[ScoreKey]) -> tuple[str, str, int]:
        every = {(key.task, key.metric) for key in keys}
        said = self.reading.primary
        if not said:
            first = min(every, key=lambda name: [*map(cells.natural, name)])
            return (*first, 0)
        fits = [
            (task, metric)
            for task, metric in sorted(every)
            if said in (metric_name(task, metric), metric, task)
        ]
        if len(fits) != 1:
            known = {metric_name(*name) for name in every}
            what = "no metric" if not fits else "several metrics are called"
            raise UserError(f"--primary: {what} {shown(said)}{nearest(said, known)}")
        return (*fits[0], 0)

    def _mixed(self, numbers: list[_Number]) -> dict[tuple[str, str], str]:
        """Metrics that seem to be in two units: shares of one beside per cents."""
        groups: dict[tuple[str, str], list[_Number]] = {}
        for one in numbers:
            if one.value is not None and math.isfinite(one.value):
                groups.setdefault((one.task, one.metric), []).append(one)
        found = {}
        for (task, metric), own in groups.items():
            name = metric_name(task, metric)
            if {metric, name} & set(self.reading.as_is):
                continue
            signed = [one for one in own if one.is_percent]
            small = [one for one in own if 0 < abs(one.value or 0.0) <= 1.0]
            large = [one for one in own if 1.5 < abs(one.value or 0.0) <= 100.0]
            odd: tuple[_Number, _Number] | None = None
            if signed and len(signed) < len(own):
                odd = signed[0], next(one for one in own if not one.is_percent)
            elif small and large and directions.is_share(metric):
                odd = small[0], large[0]
            if odd is not None:
                texts = [f"{o.value:.6g}{' %' if o.is_percent else ''} ({o.run})" for o in odd]
                found[task, metric] = (
                    f"{name} seems to be in two units: {texts[0]} beside {texts[1]}. Mend the "
                    f"table, or say --as-is {shown(metric)} if both are right"
                )
        return found

    def _uneven(self, numbers: list[_Number]) -> dict[tuple[str, str], str]:
        groups: dict[tuple[str, str], dict[float, Run]] = {}
        for one in numbers:
            if one.step is not None and one.value is not None:
                groups.setdefault((one.task, one.metric), {}).setdefault(one.step, one.run)
        return {
            name: "its runs were measured at unlike steps: "
            + ", ".join(
                f"{step:.12g} ({run})" for step, run in sorted(own.items())[:: max(1, len(own) - 1)]
            )
            for name, own in groups.items()
            if len(own) > 1
        }

    def _tell_pairs(self, table: ScoreTable) -> None:
        """Seeds that not all arms have."""
        there: dict[str, set[int]] = {arm: set() for arm in table.arms}
        for key, own in table.scores.items():
            there[key.arm] |= own.keys()
        for key, why in table.unscored.items():
            there[key.arm] |= why.keys()
        everywhere = set(table.seeds)
        odd = {arm: sorted(everywhere - own) for arm, own in there.items() if everywhere - own}
        shared = set.intersection(*there.values()) if there else set()
        if not odd:
            return
        if not shared and len(there) > 1:
            self.problems.append(
                "no seed is there for every arm: arms are compared on the seeds that both have"
            )
        listed = [
            f"{arm} lacks seed{'s' if len(lacks) > 1 else ''} "
            + ", ".join(map(str, lacks[:6]))
            + (" …" if len(lacks) > 6 else "")
            for arm, lacks in odd.items()
        ]
        self.problems.append(
            f"broken pairs: {few(listed, NAMED, '; ')}. A comparison uses the seeds that "
            "all its arms have"
        )


def _frame(
    values: Mapping[ScoreKey, Mapping[int, _Number]], numbers: Iterable[_Number]
) -> pandas.DataFrame:
    """The numbers in an order that does not depend on the table's."""
    rows = [
        (*key, seed, one.value, math.nan if one.error is None else one.error)
        for key, own in values.items()
        for seed, one in own.items()
    ]
    rows.sort(key=lambda row: (row[1], row[2], cells.natural(row[0]), row[5]))
    names = [*ScoreKey._fields, "seed", "value", "standard_error"]
    return pandas.DataFrame(rows, columns=names)[list(COLUMNS)]


def _without_seed(name: str, seed: int | None) -> str | None:
    """A run's name without the seed that it ends in; None where it does not."""
    end = rf"(?:[ _./:=(\[-]+(?:seed|s|run|rep)?|seed)[ _=:-]*0*{seed}[)\]]?"
    found = re.fullmatch(rf"(.+?){end}", name, re.IGNORECASE)
    return found[1].strip() if found and found[1].strip() else None


def _pattern(names: Sequence[str]) -> str:
    """What to say if the digits at the end of all names are seeds; "" where they end otherwise."""
    found = [re.fullmatch(r"(.+?)([ _./:=-]+[A-Za-z]{0,6}[_=-]?)(\d{1,6})", name) for name in names]
    signs = {one[2] if one else "" for one in found}
    if len(signs) != 1 or "" in signs:
        return ""
    return f"; if their last digits are seeds, say --names '{{arm}}{signs.pop()}{{seed}}'"


def _bare(name: str) -> str:
    """A name as the eye sees it: without case, spaces, dashes and what is not printed."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if c.isprintable() and c not in " _-")


def _naive(when: tuple[datetime, bool]) -> datetime:
    return when[0].replace(tzinfo=None)


def _way(goal: Goal | None) -> str:
    return "lower" if goal == "minimise" else "higher"
