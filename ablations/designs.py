"""From a design to arms: which recipes a study compares, and what each is called.

    one_at_a_time   each factor varied alone, the others at the base:  base, a=1, a=2, b=1
    factorial       every combination of levels:                       base, a=1, b=1, a=1,b=1
    arms            recipes named one by one

A factor is a path of the recipe with a list of levels, or a name of your own with named levels
that set several paths at once:

    encoder.image_size: [32, 16]
    encoder_size:
      small: {encoder.width: 48, encoder.layers: 1}
      large: {encoder.width: 96, encoder.layers: 4}

The level that equals the base is the factor's base level and is left out of arm names. The base
is always an arm.

**What setting a value means**, in `overrides`, arms and levels alike: a mapping sets what it names
and leaves the rest, so `data.mixture: {captions: 0.5}` is `data.mixture.captions: 0.5`; a list is
replaced whole; `null` leaves a group out and `{}` puts it there. See docs/studies.md.
"""

from __future__ import annotations

import itertools
import json
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError, model_validator

from ablations.errors import nearest, shortened, shown
from ablations.schema import FOLLOWS, Config, PresetConfig
from ablations.yaml_files import (
    MOST_WHOLE,
    KeyPath,
    YamlDocument,
    explain,
    models_at,
    place,
    places_at,
    too_large,
)
from mm1_jax.config.data import MixtureConfig
from mm1_jax.config.encoder_pretraining import EncoderPretrainingConfig
from mm1_jax.config.instruction_tuning import InstructionTuningConfig
from mm1_jax.config.language_model_pretraining import LanguageModelPretrainingConfig
from mm1_jax.config.recipe import Recipe

BASE = "base"
LONGEST_NAME = 200  # of a factor, level, arm or claim
# Words with a meaning of their own inside a claim's parentheses.
RESERVED = ("at", "condition", "images", "metric", "shots", "task")
# Groups of shares of a whole, and what they are where the base leaves out the group above.
MIXTURES: dict[str, dict[str, float]] = {
    "data.mixture": {},
    "data.kinds": {},
    "encoder_pretraining.mixture": EncoderPretrainingConfig().mixture.model_dump(),
    "language_model_pretraining.mixture": LanguageModelPretrainingConfig().mixture.model_dump(),
    "sft.mixture": InstructionTuningConfig().mixture.model_dump(),
}


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


Fail = Callable[[str, str], NoReturn]  # (path, message)


@dataclass(frozen=True)
class Level:
    """One value of a factor: what it sets, as written, and where it stands in the study file."""

    name: str
    written: Mapping[str, Any]
    at: KeyPath

    def settings(self, document: YamlDocument) -> dict[str, Any]:
        """Path → value. Raises `UserError` where a path is set twice."""
        return as_paths(self.written, lambda path, said: self.fail(document, path, said))

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
    """One recipe of the design, before costs and stages are known."""

    name: str
    levels: Mapping[str, str]  # every factor of the design
    recipe: Recipe
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
    design: DesignConfig, base: Recipe, document: YamlDocument
) -> tuple[tuple[Factor, ...], tuple[Cell, ...]]:
    """Factors (base level first) and cells (base first) of a design.

    Raises:
        UserError: unknown path, impossible model, duplicate or missing levels.
    """
    if design.arms is not None:
        return _named_arms(design.arms, base, document)
    form = "one_at_a_time" if design.one_at_a_time is not None else "factorial"
    written = design.one_at_a_time or design.factorial or {}
    factors = tuple(
        _factor(name, levels, base, document, ("design", form, name))
        for name, levels in written.items()
    )
    if form == "one_at_a_time":
        combinations = [{factor.name: level} for factor in factors for level in factor.levels[1:]]
    else:
        _refuse_shared_paths(factors, document)
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
        cells[name] = _cell(name, names, list(chosen.values()), base, document)
    return factors, tuple(cells.values())


def arm_name(levels: Mapping[str, str], base_levels: Mapping[str, str]) -> str:
    """`base`, else `factor=level` of what differs from it, in design order."""
    differing = [f"{f}={level}" for f, level in levels.items() if level != base_levels[f]]
    return ",".join(differing) or BASE


def level_name(value: Any) -> str:
    """A scalar as YAML writes it."""
    return value if isinstance(value, str) else json.dumps(value)


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
    base: Recipe,
    document: YamlDocument,
) -> Cell:
    values: dict[str, Any] = {}
    setting: dict[str, Level] = {}
    for level in levels:
        paths_of_level = level.settings(document)
        values |= paths_of_level
        setting |= dict.fromkeys(paths_of_level, level)

    def fail(path: str, message: str) -> NoReturn:
        setting[path].fail(document, path, f"{name}: {message}")

    recipe, dropped = assign(base, values, fail)
    return Cell(name, dict(names), recipe, dropped, tuple(values))


def _factor(name: str, written: Any, base: Recipe, document: YamlDocument, at: KeyPath) -> Factor:
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
    found: dict[str, Recipe] = {}
    known: dict[str, str] = {}  # recipe → level
    for level in levels:
        names = {name: level.name}
        recipe = _cell(f"{name}={level.name}", names, [level], base, document).recipe
        same = known.setdefault(recipe.model_dump_json(), level.name)
        if same != level.name or level.name in found:
            document.fail(f"{name}: levels {same} and {level.name} are the same model", level.at)
        found[level.name] = recipe
    base_level = next((level for level in levels if found[level.name] == base), None)
    others = [level for level in levels if level is not base_level]
    if not others:
        document.fail(f"{name} has no level other than the base's; there is nothing to vary", at)
    if base_level is None:
        has_value = isinstance(written, list) and not name.endswith(".preset")
        value = _get(base.model_dump(mode="json"), name) if has_value else BASE
        if value is None and name.rpartition(".")[0] in MIXTURES:
            value = 0.0  # an own source that the base does not read
        base_level = Level(level_name(value), {}, ())
    return Factor(name, (base_level, *others))


def _refuse_shared_paths(factors: Iterable[Factor], document: YamlDocument) -> None:
    owner: dict[str, str] = {}  # path → factor
    for factor in factors:
        for level in factor.levels:
            for path in level.settings(document):
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
    arms: Mapping[str, Mapping[str, Any]], base: Recipe, document: YamlDocument
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
        cells.append(_cell(name, {"arm": name}, [levels[-1]], base, document))
    return (Factor("arm", tuple(levels)),), tuple(cells)


# -- setting paths of a recipe -------------------------------------------------------------------


def as_paths(written: Mapping[str, Any], fail: Fail, under: str = "") -> dict[str, Any]:
    """What was written as one value a path: a mapping stands for the paths of what it names.

    `data.mixture: {captions: 0.5}` is `data.mixture.captions: 0.5`. Lists stay whole. `fail(path,
    message)` is called where a path is set twice, or a group and something in it.
    """
    found: dict[str, Any] = {}
    for key, value in written.items():
        path = under + key
        inside = (
            as_paths(value, fail, f"{path}.")
            if isinstance(value, dict) and value and _is_group(path)
            else {path: value}
        )
        for one in inside:
            if one in found:
                fail(one, f"{one} is set twice")
        found |= inside
    for path in found if not under else ():
        *parents, _ = itertools.accumulate(path.split("."), lambda a, b: f"{a}.{b}")
        for parent in parents:
            if parent in found:
                fail(path, f"{path} is set, and so is {parent} as a whole; say one of them")
    return found


def written_at(written: Mapping[str, Any], path: str) -> KeyPath:
    """Keys that lead to where a path is set."""
    for key, value in written.items():
        if path == key:
            return (key,)
        if path.startswith(f"{key}.") and isinstance(value, dict):
            return (key, *written_at(value, path[len(key) + 1 :]))
    return ()


def _is_group(path: str) -> bool:
    """Whether a path of the recipe holds further paths."""
    return any(
        typing.get_origin(place) is dict or isinstance(place, type)
        for place in places_at(Recipe, tuple(path.split(".")))
    )


def assign(base: Recipe, written: Mapping[str, Any], fail: Fail) -> tuple[Recipe, tuple[str, ...]]:
    """The base with some paths set, and the fields that a change of `kind` dropped.

    A mapping sets what it names and leaves the rest (`as_paths`). The order of `written` does not
    matter: names of one's own first, then kinds, then presets, then fields, then mixtures. A
    mixture's weight is the source's share; the sources that are not set keep their ratio.
    `fail(path, message)` is called for the first mistake.
    """
    values = as_paths(written, fail)
    if not values:
        return base, ()
    for path, value in values.items():
        if too_large(value) is not None:
            fail(path, f"{path}: a whole number is at most {MOST_WHOLE:,}")
    tree = base.model_dump(mode="json")
    dropped: list[str] = []
    for path in sorted(values):
        _name_entry(tree, path)
    for path in sorted(values):
        if _chooses_kind(path):
            dropped += _change_kind(tree, path, values[path], fail)
    for path in sorted(values):
        if path.endswith(".preset"):
            _take_preset(tree, path, values[path], fail)
    shares: dict[str, dict[str, float]] = {}  # mixture → source → share
    for path, value in values.items():
        if path.endswith(".preset"):
            continue
        _check_path(tree, path, fail)
        parent, _, source = path.rpartition(".")
        if parent in MIXTURES:
            shares.setdefault(parent, {})[source] = _share(path, value, fail)
        elif not _chooses_kind(path) and not (value == {} and isinstance(_get(tree, path), dict)):
            _set(tree, path, value)
    for mixture, wanted in shares.items():
        weights = _get(tree, mixture) or MIXTURES[mixture]
        _set(tree, mixture, _mixture(mixture, weights, wanted, fail))
    try:
        return Recipe.model_validate_json(json.dumps(tree), strict=True), tuple(dropped)
    except ValidationError as error:
        first = error.errors()[0]
        where = place(first, Recipe, tree)
        fail(_responsible(values, where), explain(first, Recipe, where))


def _name_entry(tree: dict[str, Any], path: str) -> None:
    """Where a path goes through a mapping with names of one's own, put its name there."""
    parts = path.split(".")
    for end in range(1, len(parts)):
        group = tuple(parts[:end])
        if any(typing.get_origin(place) is dict for place in places_at(Recipe, group)):
            entry = ".".join(parts[: end + 1])
            if _get(tree, entry) is None:
                _set(tree, entry, {} if models_at(Recipe, tuple(entry.split("."))) else None)
            return


def _chooses_kind(path: str) -> bool:
    """Whether a path is the `kind` that says which of several configs a group is."""
    parent, _, name = path.rpartition(".")
    return name == "kind" and len(models_at(Recipe, tuple(parent.split(".")))) > 1


def _change_kind(tree: dict[str, Any], path: str, kind: Any, fail: Fail) -> list[str]:
    parent = path.rpartition(".")[0]
    _check_path(tree, path, fail)
    current = _get(tree, parent) or {}
    kinds = {m.model_fields["kind"].default: m for m in models_at(Recipe, tuple(parent.split(".")))}
    if not isinstance(kind, str) or kind not in kinds:
        fail(path, f"{path}: {shown(kind)} is not valid{nearest(str(kind), kinds)}")
    if kind == current.get("kind"):
        return []
    kept = [k for k, info in kinds[kind].model_fields.items() if info.json_schema_extra != FOLLOWS]
    _set(tree, parent, {**{k: v for k, v in current.items() if k in kept}, "kind": kind})
    return [f"{parent}.{field}" for field in current if field not in kept]


def _take_preset(tree: dict[str, Any], path: str, name: Any, fail: Fail) -> None:
    """Put the fields that a preset stands for in the place of those that `tree` has."""
    parent = path.rpartition(".")[0]
    if parent not in paths(tree):
        _check_path(tree, parent, fail)
    kind = (_get(tree, parent) or {}).get("kind")
    presets: Mapping[str, Any] = {}
    for member in models_at(Recipe, tuple(parent.split("."))):
        if issubclass(member, PresetConfig) and member.model_fields["kind"].default == kind:
            presets = member.presets
    if not presets:
        fail(path, f"unknown path {shown(path)}; {parent} has no presets")
    if not isinstance(name, str) or name not in presets:
        fail(path, f"{path}: {shown(name)} is not valid{nearest(str(name), presets)}")
    _set(tree, parent, {**_get(tree, parent), **presets[name]})


def _share(path: str, value: Any, fail: Fail) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        fail(
            path,
            f"{path}: {shortened(level_name(value))} is not a share of the mixture, from 0 to 1; "
            "what is not named keeps its ratio in the rest",
        )
    return float(value)


def _mixture(
    mixture: str, weights: Mapping[str, float], shares: Mapping[str, float], fail: Fail
) -> dict[str, float]:
    """Weights in which the named sources have these shares and the others keep their ratio."""
    if all(math.isclose(weights.get(s, 0.0), share, abs_tol=1e-11) for s, share in shares.items()):
        return dict(weights)  # bit for bit: this is the base's own level
    path = f"{mixture}.{next(iter(shares))}"
    rest = 1.0 - math.fsum(shares.values())
    others = {s: w for s, w in weights.items() if s not in shares}
    total = math.fsum(others.values())
    if rest < -1e-9:
        fail(path, f"{mixture}: the shares {dict(shares)} add up to more than 1")
    if total == 0 and rest > 1e-9:
        fail(path, f"{path}: no other source has a weight, so the shares must add up to 1")
    scale = max(rest, 0.0) / total if total else 0.0
    return {**{s: w * scale for s, w in others.items()}, **shares}


def paths(
    tree: Mapping[str, Any],
    model: type[BaseModel] = Recipe,
    prefix: str = "",
    own: tuple[str, ...] = (),
) -> list[str]:
    """Every path that can be set in a recipe with the kinds that `tree` has.

    `own` are sources of one's own, which have a share in every mixture.
    """
    if model is Recipe:
        own = tuple((tree.get("data") or {}).get("sources") or {})
    found: list[str] = []
    for name in model.model_fields:
        found.append(prefix + name)
        members = models_at(model, (name,))
        value = tree.get(name)
        kind = value.get("kind") if isinstance(value, dict) else None
        for member in members:
            if kind is None or len(members) == 1 or member.model_fields["kind"].default == kind:
                inner = value if isinstance(value, dict) else {}
                found += paths(inner, member, f"{prefix}{name}.", own)
        if MixtureConfig in members:
            found += [f"{prefix}{name}.{source}" for source in own]
        if any(typing.get_origin(place) is dict for place in places_at(model, (name,))):
            for entry, inner in (value or {}).items():
                found.append(f"{prefix}{name}.{entry}")
                for member in models_at(model, (name, entry)):
                    found += paths(inner or {}, member, f"{prefix}{name}.{entry}.", own)
    return found


def _check_path(tree: Mapping[str, Any], path: str, fail: Fail) -> None:
    known = paths(tree)
    if path in known:
        return
    parent, _, name = path.rpartition(".")
    if parent in known:
        members = models_at(Recipe, tuple(parent.split(".")))
        having = [m.model_fields["kind"].default for m in members if name in m.model_fields]
        if having:
            kind = _get(tree, parent)["kind"]
            has = "has" if len(having) == 1 else "have"
            fail(path, f"{path}: {kind} has no {name!r}, only {', '.join(having)} {has}")
        inside = [p.rpartition(".")[2] for p in known if p.rpartition(".")[0] == parent]
        fail(path, f"unknown path {shown(path)}{nearest(name, inside)}")
    leaves = [p for p in known if not any(q.startswith(p + ".") for q in known)]
    # What the recipe has is meant before a stage that it does not have.
    there = [p for p in leaves if tree.get(p.partition(".")[0]) is not None]
    close = nearest(path, there)
    if not close.startswith("; did"):
        close = nearest(path, leaves)
    if not close.startswith("; did"):  # a hundred paths help nobody
        close = f"; it starts with one of {', '.join(Recipe.model_fields)}"
    fail(path, f"unknown path {shown(path)}{close}")


def _responsible(values: Mapping[str, Any], where: KeyPath) -> str:
    """The path that was set and shares most with the place of an error."""

    def common(path: str) -> int:
        pairs = zip(path.split("."), where, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    return max(values, key=common)


def _get(tree: Any, path: str) -> Any:
    """What stands at a path; None where the recipe leaves out a group above it."""
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}  # an optional group that the base leaves out
        tree = tree[part]
    tree[last] = value
