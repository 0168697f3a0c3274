"""Sections of a config, the models in its fields: what many configs share is worked on once.

The arms of a study differ from its base in a section or two, and a large design has each section in
a few forms. So a section is read from plain values once for each form that it takes, and written
as plain values once for each object that it is. What is given out belongs to many: nobody changes
it.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ablations.fingerprints import canonical
from ablations.yaml_files import models_at, places_at

MOST_KEPT = 2_000  # sections; a design has tens of them

Model = TypeVar("Model", bound=BaseModel)
Found = TypeVar("Found")


class _Section:
    """Stands for one section, equal to nothing but itself, which lives as long as this.

    `of` is the config around it, until the section has been written.
    """

    __slots__ = ("it", "of")

    def __init__(self, it: BaseModel, of: BaseModel | None):
        self.it, self.of = it, of

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Section) and self.it is other.it

    def written(self, name: str) -> dict[str, Any]:
        """Name → plain values, as the config writes it; nothing where it leaves it out."""
        assert self.of is not None
        dump = self.of.model_dump(mode="json", include={name})
        self.of = None
        return dump


def once_a_section(function: Callable[[Model], Found]) -> Callable[[Model], Found]:
    """A function of a frozen section, and of nothing else, that is asked once for each object."""

    @lru_cache(MOST_KEPT)
    def kept(section: _Section) -> Found:
        return function(typing.cast(Model, section.it))

    return lambda it: kept(_Section(it, None))


# -- as plain values -----------------------------------------------------------------------------


def plain(config: BaseModel) -> dict[str, Any]:
    """`config.model_dump(mode="json")`, whose sections are one object for all who share them."""
    model = type(config)
    if _writes_itself(model):
        return config.model_dump(mode="json")
    values = {name: getattr(config, name) for name in model.model_fields}
    others = {name for name, value in values.items() if not isinstance(value, BaseModel)}
    written = config.model_dump(mode="json", include=others) if others else {}
    for name in values.keys() - others:
        written |= _plain(model, name, _Section(values[name], config))
    return {name: written[name] for name in values if name in written}


def affecting(config: BaseModel) -> dict[str, Any]:
    """The config as plain values, without the fields that do not affect results."""
    model, found = type(config), plain(config)
    if _writes_itself(model):
        _leave_out(config, found)
        return found
    marked, below = fields(model)
    for name in marked:
        del found[name]
    for name in below:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            found |= _affecting(model, name, _Section(value, config))
        else:
            _leave_out_below(value, found[name])
    return found


def affecting_text(config: BaseModel) -> str:
    """Canonical JSON of `affecting`."""
    model = type(config)
    if _writes_itself(model):
        return canonical(affecting(config))
    marked, _ = fields(model)
    texts = []
    for name in sorted(model.model_fields.keys() - set(marked)):
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            texts.append(_affecting_text(model, name, _Section(value, config)))
        else:
            written = config.model_dump(mode="json", include={name})
            _leave_out_below(value, written.get(name))
            texts.append(canonical(written)[1:-1])
    return "{" + ",".join(filter(None, texts)) + "}"


@lru_cache(MOST_KEPT)
def _plain(model: type[BaseModel], name: str, section: _Section) -> dict[str, Any]:
    return section.written(name)


@lru_cache(MOST_KEPT)
def _affecting(model: type[BaseModel], name: str, section: _Section) -> dict[str, Any]:
    written = section.written(name)
    for values in written.values():
        _leave_out(section.it, values)
    return written


@lru_cache(MOST_KEPT)
def _affecting_text(model: type[BaseModel], name: str, section: _Section) -> str:
    return canonical(_affecting(model, name, section))[1:-1]


def _leave_out(config: BaseModel, dump: dict[str, Any]) -> None:
    """Take from a config's plain values the fields that do not affect results."""
    marked, below = fields(type(config))
    for name in marked:
        del dump[name]
    for name in below:
        _leave_out_below(getattr(config, name), dump[name])


def _leave_out_below(value: Any, dump: Any) -> None:
    if isinstance(value, BaseModel):
        _leave_out(value, dump)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, BaseModel):
                _leave_out(inner, dump[key])


@cache
def _writes_itself(model: type[BaseModel]) -> bool:
    """Whether what a model writes may be more than its fields, each as it is."""
    own = model.__pydantic_decorators__
    return bool(own.field_serializers or own.model_serializers or own.computed_fields)


# -- which fields affect results -----------------------------------------------------------------


@cache
def fields(model: type[BaseModel]) -> tuple[list[str], list[str]]:
    """Names of fields that are marked as not affecting results, and of others with such below."""
    marked = [name for name, info in model.model_fields.items() if is_marked(info)]
    below = {path.partition(".")[0] for path in free_paths(model)}
    return marked, [name for name in model.model_fields if name in below and name not in marked]


def free_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Paths of the fields that are marked; `*` is any name of one's own."""
    for name, info in model.model_fields.items():
        if is_marked(info):
            yield prefix + name
            continue
        for member in models_at(model, (name,)):
            yield from free_paths(member, f"{prefix}{name}.")
        if any(typing.get_origin(one) is dict for one in places_at(model, (name,))):
            for member in models_at(model, (name, "*")):
                yield from free_paths(member, f"{prefix}{name}.*.")


def is_marked(info: FieldInfo) -> bool:
    """Whether a field is marked as not affecting results."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and not extra.get("identity", True)


# -- from plain values ---------------------------------------------------------------------------


def with_sections(
    base: BaseModel, tree: Mapping[str, Any], names: Collection[str]
) -> BaseModel | None:
    """The base with the sections of these names as a tree of plain values has them.

    None where one of them is no section, something is wrong (reading the whole tells what), or a
    model could change in the hands of one of those who share it.
    """
    model = type(base)
    if not _is_frozen(model):
        return None
    values = dict(base)
    try:
        for name in names:
            section = tree[name]
            if section is not None:
                member = _member(model, name, section)
                if member is None:
                    return None
                section = _read(member, json.dumps(section))
            values[name] = section
        return model.model_validate(values, strict=True)
    except ValidationError:
        return None


def _member(model: type[BaseModel], name: str, section: Any) -> type[BaseModel] | None:
    """Which model a section is of; None where that is not plain."""
    if not isinstance(section, dict):
        return None
    members = models_at(model, (name,))
    if len(members) == 1:
        return members[0]
    fitting = [one for one in members if kind_of(one) == section.get("kind")]
    return fitting[0] if len(fitting) == 1 else None


@cache
def _is_frozen(model: type[BaseModel]) -> bool:
    places = [(name, *more) for name in model.model_fields for more in ((), ("*",))]
    inner = {member for place in places for member in models_at(model, place)}
    return bool(model.model_config.get("frozen")) and all(map(_is_frozen, inner))


@lru_cache(MOST_KEPT)
def _read(model: type[BaseModel], text: str) -> BaseModel:
    return model.model_validate_json(text, strict=True)


def kind_of(model: type[BaseModel]) -> Any:
    """The `kind` of a model that is one of several for a field."""
    return model.model_fields["kind"].default
