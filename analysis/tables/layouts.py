"""Tables that are not a row a run: a column a seed, arm or task; names that say arm and seed.

Each is turned into the plain form first, a row for each number or run, and what was done is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas

from ablations.errors import UserError, nearest, shown
from analysis.tables import cells, words_of_columns
from analysis.tables.raw import Raw
from analysis.tables.reading import Reading
from analysis.tables.roles import resolve
from analysis.tables.words_of_columns import key

SCORE = "score"  # what numbers are called that stand under seeds, arms or tasks
_OF_SEED = re.compile(r"(?:seed|s|run|rep|replicate|repeat)[ _-]?(\d{1,9})", re.IGNORECASE)
_PLACE = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Plain:
    """A table with a row for each run or number, and how it is to be read from here on."""

    raw: Raw
    reading: Reading


def in_plain_form(raw: Raw, reading: Reading) -> Plain:
    """A row a run or a number. Raises `UserError` where that cannot be."""
    columns = [str(name) for name in raw.frame.columns]
    across = reading.across
    if across is None and not reading.seed and not reading.values:
        of_seeds = [name for name in columns if _OF_SEED.fullmatch(name)]
        numeric = [name for name in of_seeds if _numeric(raw, name, reading)]
        has_seed = any(key(name) in words_of_columns.SEED for name in columns)
        across = "seeds" if len(numeric) > 1 and not has_seed else None
    if across in ("seeds", "arms", "tasks"):
        raw, reading = _stacked(raw, reading, across)
    if reading.names:
        raw, reading = _named(raw, reading)
    elif not reading.seed:
        raw = _seeds_in_names(raw, reading)
    return Plain(raw, reading)


def _numeric(raw: Raw, name: str, reading: Reading) -> bool:
    there = [cell for cell in raw.frame[name].tolist() if not cells.is_blank(cell)]
    return bool(there) and all(cells.is_number(cell, reading.decimal or ".") for cell in there)


def _stacked(raw: Raw, reading: Reading, across: str) -> tuple[Raw, Reading]:
    """Columns of seeds, arms or tasks one below the other."""
    columns = [str(name) for name in raw.frame.columns]
    if reading.values:
        stacked = [resolve(name, columns, "--value") for name in reading.values]
    elif across == "seeds":
        stacked = [name for name in columns if _OF_SEED.fullmatch(name)]
        if not stacked:
            raise UserError(
                "--columns seeds: no column is called seed_1, s1 or run 1; name them with --value"
            )
    else:
        said = {reading.arm, reading.seed, reading.task, reading.item, *reading.factors}
        stacked = [
            name
            for name in columns
            if name not in {*said, *reading.ignore}
            and _numeric(raw, name, reading)
            and key(name) not in {*words_of_columns.SEED, *words_of_columns.STEP}
        ]
    if len(stacked) < 2:
        raise UserError(f"--columns {across}: needs at least two columns of numbers")
    kept = [name for name in columns if name not in stacked]
    new = {"seeds": "seed", "arms": "arm", "tasks": "task"}[across]
    if new in kept:
        raise UserError(f"--columns {across}: the table has a column {new!r} already; rename it")
    label = reading.primary or SCORE
    parts = []
    for name in stacked:
        part = raw.frame[kept].copy()
        number = _OF_SEED.fullmatch(name)
        part[new] = number[1] if across == "seeds" and number else name
        part[label] = raw.frame[name].to_numpy()
        parts.append(part)
    frame = pandas.concat(parts, ignore_index=True)
    if across == "seeds" and len(set(frame["seed"])) < len(stacked):
        raise UserError(f"--columns seeds: two columns are the same seed: {', '.join(stacked)}")
    note = f"columns {', '.join(map(shown, stacked))} are {across}"
    told: dict[str, Any] = {"across": None, "values": (label,)}
    if across == "arms":
        told["arm"] = "arm"
    return replace(raw, frame=frame.astype(object), notes=(*raw.notes, note)), reading.model_copy(
        update=told
    )


def _named(raw: Raw, reading: Reading) -> tuple[Raw, Reading]:
    """`--names '{arm}-s{seed}'`: what the names of the runs say."""
    column = _run_column(raw, reading)
    places = _PLACE.findall(reading.names)
    if not places or len(set(places)) < len(places):
        raise UserError(
            f"--names {shown(reading.names)}: expected places such as {{arm}}-s{{seed}}, each once"
        )
    parts = _PLACE.split(reading.names)
    pattern = "".join(
        re.escape(part) if n % 2 == 0 else f"(?P<p{n}>{r'[0-9]+' if part == 'seed' else '.+?'})"
        for n, part in enumerate(parts)
    )
    names = [str(cell) for cell in raw.frame[column].tolist()]
    found = [re.fullmatch(pattern, name) for name in names]
    if odd := [name for name, one in zip(names, found, strict=True) if one is None]:
        raise UserError(
            f"--names {shown(reading.names)}: {len(odd)} of {len(names)} names in "
            f"{shown(column)} are not like that, such as {shown(odd[0])}"
        )
    frame = raw.frame.copy()
    for number, place in enumerate(parts):
        if number % 2 == 0:
            continue
        if place in frame.columns and raw.hints.get(place) not in ("arm", "seed"):
            raise UserError(f"--names: the table has a column {shown(place)} already")
        frame[place] = [one[f"p{number}"] if one else None for one in found]
    told: dict[str, Any] = {"names": "", "run": column}
    told["seed"] = "seed" if "seed" in places else reading.seed
    others = [place for place in places if place != "seed"]
    if "arm" in places:
        told["arm"] = "arm"
    elif others:
        told["factors"] = (*reading.factors, *others)
    note = f"{', '.join(places)} from the names in {shown(column)}"
    hints = {**raw.hints, column: "run"}
    return replace(raw, frame=frame, hints=hints, notes=(*raw.notes, note)), reading.model_copy(
        update=told
    )


def _run_column(raw: Raw, reading: Reading) -> str:
    columns = [str(name) for name in raw.frame.columns]
    if reading.run:
        return resolve(reading.run, columns, "--run")
    hinted = [name for name in columns if raw.hints.get(name) == "run"]
    usual = [name for name in columns if key(name) in ("name", "run", "run_name", "runname")]
    found = hinted or usual
    if not found:
        raise UserError(f"--names: which column has the names{nearest('', columns)}? Say --run")
    return found[0]


def _seeds_in_names(raw: Raw, reading: Reading) -> Raw:
    """Where no column is the seed and every run's name says one in so many words (`…-seed3`)."""
    columns = [str(name) for name in raw.frame.columns]
    keys = {name: key(name) for name in columns}
    if any(k in words_of_columns.SEED or k.endswith("_seed") for k in keys.values()):
        return raw
    usual = [n for n in columns if raw.hints.get(n) == "run" or keys[n] in words_of_columns.RUN]
    for column in [reading.run] if reading.run in columns else usual:
        names = [str(cell) for cell in raw.frame[column].tolist()]
        found = [_split_seed(name) for name in names]
        if not all(found):
            continue
        arms, seeds = zip(*(one for one in found if one), strict=True)
        if len(set(seeds)) < 2 and len(names) > 1 and len(set(arms)) < len(names):
            continue
        frame = raw.frame.copy()
        frame["seed"] = list(seeds)
        note = f"seed from the names in {shown(column)}, such as {shown(names[0])}"
        if len(set(arms)) > 1 and "arm" not in frame.columns and all(arms):
            frame["arm"] = list(arms)
            note = f"arm and {note}"
        hints = {**raw.hints, column: "run"}
        return replace(raw, frame=frame, hints=hints, notes=(*raw.notes, note))
    return raw


def _split_seed(name: str) -> tuple[str, str] | None:
    """`vit-seed3-bf16` → `vit-bf16`, `3`."""
    found: Sequence[Any] = list(
        re.finditer(
            r"(?:^|[^A-Za-z0-9]+|(?<=[a-z0-9]))seed[ _:=-]*(\d{1,9})(?![0-9A-Za-z])", name, re.I
        )
    )
    if len(found) != 1:
        return None
    (match,) = found
    before, after = name[: match.start()], name[match.end() :].strip(" _-.,;:()[]")
    return "-".join(part for part in (before.strip(" _-.,;:()[]"), after) if part), match[1]
