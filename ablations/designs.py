"""From a design to arms: which configs a study compares, and what each is called.

    one_at_a_time   each factor varied alone, the others at the base:  base, a=1, a=2, b=1
    factorial       every combination of levels:                       base, a=1, b=1, a=1,b=1
    arms            configs named one by one

A factor is a path of the config with a list of levels, or a name of your own with named levels
that set several paths at once:

    encoder.image_size: [32, 16]
    encoder_size:
      small: {encoder.width: 48, encoder.layers: 1}
      large: {encoder.width: 96, encoder.layers: 4}

The level that equals the base is the factor's base level and is left out of arm names. The base
is always an arm.

What setting a value means is told in `ablations.settings`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import model_validator

from ablations.errors import shortened, shown
from ablations.schema import Config
from ablations.settings import level_name, written_at
from ablations.workload import AnyConfig, Schema
from ablations.yaml_files import KeyPath, YamlDocument

BASE = "base"
LONGEST_NAME = 200  # of a factor, level, arm or claim
# Words with a meaning of their own inside a claim's parentheses.
RESERVED = ("at", "condition", "images", "metric", "shots", "task")


class DesignConfig(Config):
    """Exactly one of the three forms."""

    one_at_a_time: dict[str, Any] | None = None
    factorial: dict[str, Any] | None = None
    arms: dict[str, dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> DesignConfig:
        forms = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(forms) != 1:
            raise ValueError(
                f"give exactly one of one_at_a_time, factorial, arms; got {forms or 'none'}"
            )
        if not getattr(self, forms[0]):
            raise ValueError(f"{forms[0]} is empty; name at least one factor with its levels")
        return self


@dataclass(frozen=True)
class Level:
    """One value of a factor: what it sets, as written, and where it stands in the study file."""

    name: str
    written: Mapping[str, Any]
    at: KeyPath

    def settings(self, schema: Schema, document: YamlDocument) -> dict[str, Any]:
        """Path → value. Raises `UserError` where a path is set twice."""
        return schema.as_paths(self.written, lambda path, said: self.fail(document, path, said))

    def fail(self, document: YamlDocument, path: str, message: str) -> NoReturn:
        """Raise `UserError` that points at the line where a path is set."""
        document.fail(message, (*self.at, *written_at(self.written, path)))


@dataclass(frozen=True)
class Factor:
    """What is varied; the base level comes first and sets nothing."""

    name: str
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Cell:
    """One config of the design, before costs and stages are known."""

    name: str
    levels: Mapping[str, str]  # every factor of the design
    config: AnyConfig
    dropped: tuple[str, ...]  # fields that a change of kind removed
    varied: tuple[str, ...]  # paths that were set


def count_arms(design: DesignConfig) -> int:
    """About how many arms a design has, without expanding it."""
    if design.factorial is not None:
        return math.prod(_size(levels) for levels in design.factorial.values())
    if design.one_at_a_time is not None:
        return 1 + sum(max(0, _size(levels) - 1) for levels in design.one_at_a_time.values())
    return 1 + len(design.arms or {})


def _size(levels: Any) -> int:
    return len(levels) if isinstance(levels, list | dict) else 1


def expand(
    design: DesignConfig, base: AnyConfig, schema: Schema, document: YamlDocument
) -> tuple[tuple[Factor, ...], tuple[Cell, ...]]:
    """Factors (base level first) and cells (base first) of a design.

    Raises:
        UserError: unknown path, impossible model, duplicate or missing levels.
    """
    if design.arms is not None:
        return _named_arms(design.arms, base, schema, document)
    form = "one_at_a_time" if design.one_at_a_time is not None else "factorial"
    written = design.one_at_a_time or design.factorial or {}
    factors = tuple(
        _factor(name, levels, base, schema, document, ("design", form, name))
        for name, levels in written.items()
    )
    if form == "one_at_a_time":
        combinations = [{factor.name: level} for factor in factors for level in factor.levels[1:]]
    else:
        _refuse_shared_paths(factors, schema, document)
        declared = [[lv for lv in factor.levels if lv.at] for factor in factors]
        combinations = [
            dict(zip((f.name for f in factors), chosen, strict=True))
            for chosen in itertools.product(*declared)
        ]
    base_levels = {factor.name: factor.levels[0].name for factor in factors}
    cells = {BASE: Cell(BASE, base_levels, base, (), ())}
    for chosen in combinations:
        names = {**base_levels, **{f: level.name for f, level in chosen.items()}}
        name = arm_name(names, base_levels)
        if name in cells:
            continue  # the combination of all base levels
        cells[name] = _cell(name, names, list(chosen.values()), base, schema, document)
    return factors, tuple(cells.values())


def arm_name(levels: Mapping[str, str], base_levels: Mapping[str, str]) -> str:
    """`base`, else `factor=level` of what differs from it, in design order."""
    differing = [f"{f}={level}" for f, level in levels.items() if level != base_levels[f]]
    return ",".join(differing) or BASE


def unusable_name(name: str) -> str | None:
    """What is wrong with a name of the user's; None if nothing is."""
    if not name.strip() or not name.isprintable():
        return f"{shown(name)} is no name: it must be text on one line, without control characters"
    if len(name) > LONGEST_NAME:
        return f"{shown(name)} has {len(name):,} characters; a name has at most {LONGEST_NAME}"
    return None


def _cell(
    name: str,
    names: Mapping[str, str],
    levels: Iterable[Level],
    base: AnyConfig,
    schema: Schema,
    document: YamlDocument,
) -> Cell:
    values: dict[str, Any] = {}
    setting: dict[str, Level] = {}
    for level in levels:
        paths_of_level = level.settings(schema, document)
        values |= paths_of_level
        setting |= dict.fromkeys(paths_of_level, level)

    def fail(path: str, message: str) -> NoReturn:
        setting[path].fail(document, path, f"{name}: {message}")

    config, dropped = schema.assign(base, values, fail)
    return Cell(name, dict(names), config, dropped, tuple(values))


def _factor(
    name: str,
    written: Any,
    base: AnyConfig,
    schema: Schema,
    document: YamlDocument,
    at: KeyPath,
) -> Factor:
    if name in RESERVED:
        document.fail(f"a factor cannot be called {name!r}: claims use that word", at)
    levels: list[Level] = []
    if isinstance(written, list):
        for index, value in enumerate(written):
            if isinstance(value, list | dict):
                document.fail(
                    f"{name}: a level in a list is a single value; for several paths at once "
                    "write named levels, `small: {encoder.width: 48, …}`",
                    (*at, index),
                )
            levels.append(Level(level_name(value), {name: value}, (*at, index)))
    elif isinstance(written, dict):
        for label, values in written.items():
            if not isinstance(values, dict) or not values:
                document.fail(
                    f"{name}: level {label!r} must set paths, `{label}: {{encoder.width: 48, …}}`",
                    (*at, label),
                )
            levels.append(Level(label, values, (*at, label)))
    else:
        document.fail(
            f"{name}: expected a list of levels, got {shortened(level_name(written))}", at
        )

    for what, place_of in ((name, at), *((level.name, level.at) for level in levels)):
        if (wrong := unusable_name(what)) is not None:
            document.fail(wrong, place_of)
    found: dict[str, AnyConfig] = {}
    known: dict[str, str] = {}  # config → level
    for level in levels:
        names = {name: level.name}
        config = _cell(f"{name}={level.name}", names, [level], base, schema, document).config
        same = known.setdefault(json.dumps(schema.dump(config), sort_keys=True), level.name)
        if same != level.name or level.name in found:
            document.fail(f"{name}: levels {same} and {level.name} are the same model", level.at)
        found[level.name] = config
    base_level = next((level for level in levels if found[level.name] == base), None)
    others = [level for level in levels if level is not base_level]
    if not others:
        document.fail(f"{name} has no level other than the base's; there is nothing to vary", at)
    if base_level is None:
        value = schema.level_of(base, name) if isinstance(written, list) else None
        base_level = Level(BASE if value is None else value, {}, ())
    return Factor(name, (base_level, *others))


def _refuse_shared_paths(factors: Iterable[Factor], schema: Schema, document: YamlDocument) -> None:
    owner: dict[str, str] = {}  # path → factor
    for factor in factors:
        for level in factor.levels:
            for path in level.settings(schema, document):
                for other in [p for p in owner if owner[p] != factor.name and _overlap(p, path)]:
                    level.fail(
                        document,
                        path,
                        f"{factor.name} and {owner[other]} both set {min(path, other, key=len)}; "
                        "a combination would have two values",
                    )
                owner.setdefault(path, factor.name)


def _overlap(path: str, other: str) -> bool:
    """Whether two paths are the same or one lies in the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _named_arms(
    arms: Mapping[str, Mapping[str, Any]],
    base: AnyConfig,
    schema: Schema,
    document: YamlDocument,
) -> tuple[tuple[Factor, ...], tuple[Cell, ...]]:
    """Arms without factors are the levels of one factor, `arm`."""
    levels = [Level(BASE, {}, ())]
    cells = [Cell(BASE, {"arm": BASE}, base, (), ())]
    for name, values in arms.items():
        at = ("design", "arms", name)
        if (wrong := unusable_name(name)) is not None:
            document.fail(wrong, at)
        if name == BASE:
            document.fail("the base is always an arm; give this one another name", at)
        if not values:
            document.fail(f"arm {name!r} sets nothing; it would be the base", at)
        levels.append(Level(name, values, at))
        cells.append(_cell(name, {"arm": name}, [levels[-1]], base, schema, document))
    return (Factor("arm", tuple(levels)),), tuple(cells)
