"""Setting paths of a config: what a level of a factor, an override or an arm does to the base.

    encoder.image_size: 16            a field
    connector.kind: mlp               another config of a group: its own fields stay, others drop
    encoder.preset: vit_l14           the fields that a published shape stands for
    data.mixture.captions: 0.5        the source's share; those not named keep their ratio
    data.mixture: {captions: 0.5}     the same: a mapping sets what it names and leaves the rest
    sft: null, sft: {}                leaves a group out, puts it there; a list is replaced whole

Two kinds of config are known: a pydantic model (`ModelSchema`), and any YAML or JSON of a user's
own (`MappingSchema`), whose keys and types are what may be set.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ablations.errors import UserError, nearest, shortened, shown
from ablations.schema import FOLLOWS, PresetConfig
from ablations.sections import affecting, free_paths, kind_of, plain, with_sections
from ablations.workload import Fail
from ablations.yaml_files import (
    MOST_WHOLE,
    KeyPath,
    YamlDocument,
    explain,
    load_model,
    load_yaml,
    models_at,
    place,
    places_at,
    too_large,
)

# -- what was written ----------------------------------------------------------------------------


def as_paths(
    written: Mapping[str, Any], fail: Fail, is_group: Callable[[str], bool], under: str = ""
) -> dict[str, Any]:
    """What was written as one value a path: a mapping stands for the paths of what it names.

    Lists stay whole. `fail(path, message)` is called where a path is set twice, or a group and
    something in it.
    """
    found: dict[str, Any] = {}
    for key, value in written.items():
        path = under + key
        inside = (
            as_paths(value, fail, is_group, f"{path}.")
            if isinstance(value, dict) and value and is_group(path)
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


def value_at(tree: Any, path: str) -> Any:
    """What stands at a path; None where the config leaves out a group above it."""
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def set_at(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path, and the groups above it that are not there."""
    *parents, last = path.split(".")
    for part in parents:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}  # an optional group that the base leaves out
        tree = tree[part]
    tree[last] = value


def level_name(value: Any) -> str:
    """A scalar as YAML writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _check_numbers(values: Mapping[str, Any], fail: Fail) -> None:
    for path, value in values.items():
        if too_large(value) is not None:
            fail(path, f"{path}: a whole number is at most {MOST_WHOLE:,}")
        if not _is_finite(value):
            fail(path, f"{path}: a number is finite, and this one is too large for any computer")


def _is_finite(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_is_finite, inner)) and (not isinstance(value, float) or math.isfinite(value))


# -- pydantic models -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelSchema:
    """Configs of a pydantic model.

    mixtures   groups of shares of a whole, and what they are where the base leaves out the group
               above
    shares     model of those groups that sources of one's own have a share in
    own        the names of such sources, from a config as plain values
    """

    model: type[BaseModel]
    mixtures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shares: type[BaseModel] | None = None
    own: Callable[[Mapping[str, Any]], Iterable[str]] = lambda tree: ()

    def load(self, path: Path) -> Any:
        """Read a config file. Raises `UserError` for whatever is wrong with it."""
        return load_model(path, self.model)

    def dump(self, config: BaseModel) -> dict[str, Any]:
        """The whole config as plain values."""
        return plain(config)

    def affecting(self, config: BaseModel) -> dict[str, Any]:
        """The config as plain values, without the fields marked as not affecting results."""
        return affecting(config)

    def as_paths(self, written: Mapping[str, Any], fail: Fail) -> dict[str, Any]:
        """What was written as one value a path."""
        return as_paths(written, fail, self._is_group)

    def level_of(self, base: BaseModel, path: str) -> str | None:
        """What the base has at a path; an own source that it does not read has no share."""
        if self._names_preset(path):
            return None
        value = value_at(self.dump(base), path)
        unread = value is None and path.rpartition(".")[0] in self.mixtures
        return level_name(0.0 if unread else value)

    def assign(
        self, base: Any, written: Mapping[str, Any], fail: Fail
    ) -> tuple[Any, tuple[str, ...]]:
        """The base with some paths set, and the fields that a change of `kind` dropped.

        The order of `written` does not matter: names of one's own first, then kinds, then presets,
        then fields, then mixtures. `fail(path, message)` is called for the first mistake.
        """
        values = self.as_paths(written, fail)
        if not values:
            return base, ()
        _check_numbers(values, fail)
        changed = {path.partition(".")[0] for path in values}
        tree = {**plain(base), **base.model_dump(mode="json", include=changed)}
        dropped: list[str] = []
        for path in sorted(values):
            self._name_entry(tree, path)
        for path in sorted(values):
            if self._chooses_kind(path):
                dropped += self._change_kind(tree, path, values[path], fail)
        for path in sorted(values):
            if self._names_preset(path):
                self._take_preset(tree, path, values[path], fail)
        shares: dict[str, dict[str, float]] = {}  # mixture → source → share
        for path, value in values.items():
            if self._names_preset(path):
                continue
            self._check_path(tree, path, fail)
            parent, _, source = path.rpartition(".")
            is_there = value == {} and isinstance(value_at(tree, path), dict)
            if parent in self.mixtures:
                shares.setdefault(parent, {})[source] = _share(path, value, fail)
            elif not self._chooses_kind(path) and not is_there:
                set_at(tree, path, value)
        for mixture, wanted in shares.items():
            weights = value_at(tree, mixture) or self.mixtures[mixture]
            set_at(tree, mixture, _mixture(mixture, weights, wanted, fail))
        made = with_sections(base, tree, changed)
        if made is not None:
            return made, tuple(dropped)
        try:
            return self.model.model_validate_json(json.dumps(tree), strict=True), tuple(dropped)
        except ValidationError as error:
            first = error.errors()[0]
            where = place(first, self.model, tree)
            fail(_responsible(values, where), explain(first, self.model, where))

    def paths(self, tree: Mapping[str, Any]) -> list[str]:
        """Every path that can be set in a config with the kinds that `tree` has."""
        return self._paths(tree, self.model, "", tuple(self.own(tree)))

    def _paths(
        self, tree: Mapping[str, Any], model: type[BaseModel], prefix: str, own: tuple[str, ...]
    ) -> list[str]:
        found: list[str] = []
        for name in model.model_fields:
            found.append(prefix + name)
            members = models_at(model, (name,))
            value = tree.get(name)
            kind = value.get("kind") if isinstance(value, dict) else None
            for member in members:
                if kind is None or len(members) == 1 or kind_of(member) == kind:
                    inner = value if isinstance(value, dict) else {}
                    found += self._paths(inner, member, f"{prefix}{name}.", own)
            if self.shares in members:
                found += [f"{prefix}{name}.{source}" for source in own]
            if any(typing.get_origin(one) is dict for one in places_at(model, (name,))):
                for entry, inner in (value or {}).items():
                    found.append(f"{prefix}{name}.{entry}")
                    for member in models_at(model, (name, entry)):
                        found += self._paths(inner or {}, member, f"{prefix}{name}.{entry}.", own)
        return found

    def _is_group(self, path: str) -> bool:
        """Whether a path of the config holds further paths."""
        return any(
            typing.get_origin(one) is dict or isinstance(one, type)
            for one in places_at(self.model, tuple(path.split(".")))
        )

    def _name_entry(self, tree: dict[str, Any], path: str) -> None:
        """Where a path goes through a mapping with names of one's own, put its name there."""
        parts = path.split(".")
        for end in range(1, len(parts)):
            group = tuple(parts[:end])
            if any(typing.get_origin(one) is dict for one in places_at(self.model, group)):
                entry = ".".join(parts[: end + 1])
                if value_at(tree, entry) is None:
                    inner = models_at(self.model, tuple(entry.split(".")))
                    set_at(tree, entry, {} if inner else None)
                return

    def _chooses_kind(self, path: str) -> bool:
        """Whether a path is the `kind` that says which of several configs a group is."""
        parent, _, name = path.rpartition(".")
        return name == "kind" and len(models_at(self.model, tuple(parent.split(".")))) > 1

    def _change_kind(self, tree: dict[str, Any], path: str, kind: Any, fail: Fail) -> list[str]:
        parent = path.rpartition(".")[0]
        self._check_path(tree, path, fail)
        current = value_at(tree, parent) or {}
        kinds = {kind_of(m): m for m in models_at(self.model, tuple(parent.split(".")))}
        if not isinstance(kind, str) or kind not in kinds:
            fail(path, f"{path}: {shown(kind)} is not valid{nearest(str(kind), kinds)}")
        if kind == current.get("kind"):
            return []
        fields = kinds[kind].model_fields
        kept = [name for name, info in fields.items() if info.json_schema_extra != FOLLOWS]
        set_at(tree, parent, {**{k: v for k, v in current.items() if k in kept}, "kind": kind})
        return [f"{parent}.{name}" for name in current if name not in kept]

    def _names_preset(self, path: str) -> bool:
        """Whether a path is no field but the `preset` that stands for several of a group."""
        parent, _, name = path.rpartition(".")
        if name != "preset" or not parent:
            return False
        members = models_at(self.model, tuple(parent.split(".")))
        return not any(name in member.model_fields for member in members)

    def _take_preset(self, tree: dict[str, Any], path: str, name: Any, fail: Fail) -> None:
        """Put the fields that a preset stands for in the place of those that `tree` has."""
        parent = path.rpartition(".")[0]
        if parent not in self.paths(tree):
            self._check_path(tree, parent, fail)
        kind = (value_at(tree, parent) or {}).get("kind")
        presets: Mapping[str, Any] = {}
        for member in models_at(self.model, tuple(parent.split("."))):
            if issubclass(member, PresetConfig) and kind_of(member) == kind:
                presets = member.presets
        if not presets:
            fail(path, f"unknown path {shown(path)}; {parent} has no presets")
        if not isinstance(name, str) or name not in presets:
            fail(path, f"{path}: {shown(name)} is not valid{nearest(str(name), presets)}")
        set_at(tree, parent, {**value_at(tree, parent), **presets[name]})

    def _is_path(self, tree: Mapping[str, Any], path: str) -> bool:
        """Whether `paths(tree)` has a path, without listing them all."""
        model: type[BaseModel] | None = self.model
        value: Any = tree
        parts = path.split(".")
        for index, part in enumerate(parts):
            if model is None or part not in model.model_fields:
                return False
            members = models_at(model, (part,))
            if index == len(parts) - 1:
                return True
            value = value.get(part) if isinstance(value, dict) else None
            kind = value.get("kind") if isinstance(value, dict) else None
            fitting = [m for m in members if len(members) == 1 or kind_of(m) == kind]
            if len(fitting) != 1:
                return False  # a mapping with names of one's own, or a union that is left out
            model = fitting[0]
        return False

    def _check_path(self, tree: Mapping[str, Any], path: str, fail: Fail) -> None:
        if self._is_path(tree, path):
            return
        known = self.paths(tree)
        if path in known:
            return
        parent, _, name = path.rpartition(".")
        if parent in known:
            members = models_at(self.model, tuple(parent.split(".")))
            having = [kind_of(m) for m in members if name in m.model_fields]
            if having:
                kind = value_at(tree, parent)["kind"]
                has = "has" if len(having) == 1 else "have"
                fail(path, f"{path}: {kind} has no {name!r}, only {', '.join(having)} {has}")
        unknown_path(path, known, tree, fail)

    @cached_property
    def free(self) -> frozenset[str]:
        """Paths that decide nothing, names of one's own as `*`."""
        return frozenset(free_paths(self.model))


def check_model(model: type[BaseModel], above: tuple[type[BaseModel], ...] = ()) -> None:
    """Whether every path of a model of somebody else's can be set.

    Raises:
        UserError: a group may be one of several models and no `kind` says which, or holds itself.
    """
    if model in above:
        raise UserError(f"{model.__name__} holds itself, so its paths have no end")
    for name in model.model_fields:
        entries = any(typing.get_origin(one) is dict for one in places_at(model, (name,)))
        members = models_at(model, (name, "*") if entries else (name,))
        for member in members:
            kind = member.model_fields.get("kind")
            if len(members) > 1 and (kind is None or not isinstance(kind.default, str)):
                several = ", ".join(one.__name__ for one in members)
                raise UserError(
                    f"{model.__name__}.{name} is one of {several}, and {member.__name__} has no "
                    'field such as kind: Literal["adam"] = "adam" that says which'
                )
            check_model(member, (*above, model))


# -- plain mappings ------------------------------------------------------------------------------


@dataclass(frozen=True)
class MappingSchema:
    """Configs that are any YAML or JSON mapping: what the base has is what may be set.

    A value has the type that the base has; where that is null, anything may stand. A number is
    written as the base has it, so that 0 and 0.0 are one level: only a fraction in the place of a
    whole number stays one.
    """

    def load(self, path: Path) -> dict[str, Any]:
        """Read a config file, JSON being YAML too.

        Raises:
            UserError: it cannot be read, holds what other readers take for something else, or has
                a key that cannot stand in a path.
        """
        document = load_yaml(path, read_by_others=True)
        _refuse_keys(document, document.value, ())
        return document.value

    def dump(self, config: dict[str, Any]) -> dict[str, Any]:
        """The whole config."""
        return config

    def affecting(self, config: dict[str, Any]) -> dict[str, Any]:
        """The whole config: what of somebody else's config decides nothing is not known."""
        return config

    def as_paths(self, written: Mapping[str, Any], fail: Fail) -> dict[str, Any]:
        """What was written as one value a path."""
        return as_paths(written, fail, lambda path: True)

    def level_of(self, base: dict[str, Any], path: str) -> str:
        """What the base has at a path."""
        return level_name(value_at(base, path))

    def assign(
        self, base: dict[str, Any], written: Mapping[str, Any], fail: Fail
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The base with some paths set; nothing is ever dropped."""
        values = self.as_paths(written, fail)
        if not values:
            return base, ()
        _check_numbers(values, fail)
        tree = copy.deepcopy(base)
        known = _keys(base)
        for path, value in values.items():
            if path not in known:
                unknown_path(path, list(known), tree, fail)
            there = known[path]
            if value == {} and isinstance(there, dict):
                continue  # it names nothing, and what is not named stays
            if not _fits(value, there):
                fail(
                    path,
                    f"{path}: {shortened(level_name(value))} is not valid: the base has "
                    f"{_type(there)} ({shortened(level_name(there))})",
                )
            set_at(tree, path, _as_there(value, there))
        return tree, ()

    free: frozenset[str] = frozenset()
    mixtures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def _refuse_keys(document: YamlDocument, tree: Any, at: KeyPath) -> None:
    """Fail for a key that a path cannot name; mappings in lists are set as a whole."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if not key or "." in key:
            document.fail(
                f"the key {shown(key)}: a path such as a.b goes from key to key at each dot, so a "
                "key has no dot and is not empty; nest it, a: {b: …}",
                (*at, key),
            )
        _refuse_keys(document, value, (*at, key))


def _keys(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Path → value, groups included."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found[above + key] = value
        if isinstance(value, dict):
            found |= _keys(value, f"{above}{key}.")
    return found


def _fits(value: Any, there: Any) -> bool:
    if there is None or value is None:
        return True
    if isinstance(there, bool) or isinstance(value, bool):
        return isinstance(there, bool) and isinstance(value, bool)
    if isinstance(there, float):
        return isinstance(value, int | float)
    return isinstance(value, type(there)) or (isinstance(there, int) and isinstance(value, float))


def _as_there(value: Any, there: Any) -> Any:
    """A number as the base has it, where that is the same number."""
    if isinstance(value, bool) or isinstance(there, bool):
        return value
    if isinstance(there, float) and isinstance(value, int):
        return float(value)
    if isinstance(there, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    names = {str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), type(value).__name__)


# -- mistakes ------------------------------------------------------------------------------------


def unknown_path(path: str, known: list[str], tree: Mapping[str, Any], fail: Fail) -> None:
    """Fail for a path that is not among the known ones, with the nearest."""
    parent, _, name = path.rpartition(".")
    if parent in known:
        inside = [p.rpartition(".")[2] for p in known if p.rpartition(".")[0] == parent]
        fail(path, f"unknown path {shown(path)}{nearest(name, inside)}")
    above = {p.rpartition(".")[0] for p in known}
    leaves = [p for p in known if p not in above]
    # What the config has is meant before a group that it does not have.
    there = [p for p in leaves if tree.get(p.partition(".")[0]) is not None]
    close = nearest(path, there)
    if not close.startswith("; did"):
        close = nearest(path, leaves)
    if not close.startswith("; did"):  # a hundred paths help nobody
        top = dict.fromkeys(p.partition(".")[0] for p in known)
        close = f"; it starts with one of {', '.join(top)}"
    fail(path, f"unknown path {shown(path)}{close}")


def _responsible(values: Mapping[str, Any], where: KeyPath) -> str:
    """The path that was set and shares most with the place of an error."""

    def common(path: str) -> int:
        pairs = zip(path.split("."), where, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    return max(values, key=common)


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
