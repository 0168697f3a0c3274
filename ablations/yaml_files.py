"""YAML files whose every mistake is told with file, line, key, value and the nearest valid choice.

Read as nodes, because nodes know their lines and keep duplicate keys. Scalars follow YAML 1.2:
`1e-3` is a number and `on` is a string, unlike in the YAML 1.1 of `yaml.safe_load`.

A file that would take more memory or time than any study needs is refused before it does: its size,
its depth, and what its aliases come to once they are written out are bounded.
"""

from __future__ import annotations

import json
import math
import re
import stat
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ablations.errors import UserError, nearest, shortened, shown
from ablations.schema import PresetConfig

MOST_BYTES = 1_000_000
MOST_LEVELS = 50  # mappings and lists inside one another
# Of all values with their aliases written out; a value counts its characters and these beside.
MOST_WRITTEN_OUT = 2_000_000
_CHARACTERS_PER_VALUE = 32
MOST_WHOLE = 2**31 - 1  # as a whole number of a config
# Tab, line feed and carriage return are the control characters that a text may need.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class YamlDocument:
    """A YAML file as plain values, with the line of every key and list element."""

    path: str
    text: str
    value: dict[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, at: Iterable[str | int]) -> int:
        """Line of a key, or of the nearest enclosing one that is in the file."""
        where = tuple(at)
        while where not in self.lines:
            where = where[:-1]
        return self.lines[where]

    def fail(self, message: str, at: Iterable[str | int] = ()) -> NoReturn:
        """Raise `UserError` that points at a key of this file."""
        raise UserError(message, file=self.path, line=self.line(at))


def load_yaml(path: str | Path, *, read_by_others: bool = False) -> YamlDocument:
    """Read a YAML mapping.

    `read_by_others`: somebody else's program reads the file too, as it likes, so what other readers
    take for something else is refused (`_ambiguous`).

    Raises:
        UserError: missing or unreadable file, YAML syntax, duplicate key, or not a mapping.
    """
    name = str(path)
    text = _read(Path(path), name)
    try:
        node = yaml.compose(text, Loader=_Yaml12)
        if read_by_others and node is not None:
            _refuse_ambiguous(node)
        lines: dict[KeyPath, int] = {(): 1}
        value = None if node is None else _plain(node, (), lines, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem)
        if not isinstance(error, _RefusedError):
            problem = f"not valid YAML: {shortened(problem)}{_hint(problem)}"
        raise UserError(problem, file=name, line=None if mark is None else mark.line + 1) from None
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {shortened(str(error))}", file=name) from None
    if not isinstance(value, dict):
        raise UserError("expected a mapping `key: value` at the top of the file", file=name, line=1)
    return YamlDocument(name, text, value, lines)


def _read(path: Path, name: str) -> str:
    """The text of a file of UTF-8, with or without its mark."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UserError("cannot be read: it is a folder", file=name)
        if not stat.S_ISREG(status.st_mode):
            raise UserError("cannot be read: not a file with an end", file=name)
        if status.st_size > MOST_BYTES:
            raise UserError(
                f"cannot be read: {status.st_size:,} bytes, more than the {MOST_BYTES:,} of any "
                "study or config",
                file=name,
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no such file{_nearest_file(path)}", file=name) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot be read: {reason}", file=name) from None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError("cannot be read: UTF-16 text; save it as UTF-8", file=name, line=1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError("cannot be read: not UTF-8 text", file=name, line=line) from None
    control = _CONTROL.search(text)
    if control is not None:
        line = text[: control.start()].count("\n") + 1
        raise UserError(f"{_named(control[0])} is in the file", file=name, line=line)
    return text


def _named(character: str) -> str:
    return f"the character U+{ord(character):04X}, which is no text,"


def load_model(path: str | Path, model: type[Model]) -> Model:
    """Read a YAML file as a pydantic model. Raises `UserError` for whatever is wrong with it."""
    return as_model(load_yaml(path), model)


def as_model(document: YamlDocument, model: type[Model]) -> Model:
    """A whole file as a pydantic model. Raises `UserError` for whatever is wrong with it."""
    if (large := too_large(document.value)) is not None:
        key = shortened(".".join(map(str, large)))
        document.fail(f"{key}: a whole number is at most {MOST_WHOLE:,}", large)
    return validate(document, model, document.value)


def too_large(value: Any, at: KeyPath = ()) -> KeyPath | None:
    """Where a value has a whole number that no config needs and that loops would count to."""
    if isinstance(value, int):
        return at if abs(value) > MOST_WHOLE else None
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return next((w for key, one in inner if (w := too_large(one, (*at, key))) is not None), None)


def validate(document: YamlDocument, model: type[Model], value: Any, at: KeyPath = ()) -> Model:
    """Check `value`, which stands at key `at` of the document, against a pydantic model.

    Strict: a string is no number and `true` is no integer. Raises `UserError` for the first
    mistake.
    """
    try:
        # JSON's strict mode takes lists for tuples; Python's does not.
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        # A misspelt key is both unknown and missing; the first says what to do.
        first = min(
            error.errors(),
            key=lambda e: (e["type"] == "missing", document.line((*at, *place(e, model, value)))),
        )
        where = place(first, model, value)
        document.fail(explain(first, model, where), (*at, *where))


def explain(error: Any, model: type[BaseModel], where: KeyPath) -> str:
    """One pydantic error in our words: key, value, and what would be valid.

    `where` is the error's `place`.
    """
    key = shortened(".".join(map(str, where)))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{nearest(str(where[-1]), fields_at(model, error['loc'][:-1]))}"
    if kind == "missing":
        return f"key {key!r} is missing"
    if kind == "union_tag_not_found":
        return f"key {key!r} is missing{nearest('', kinds_at(model, error['loc']))}"
    if kind == "preset":
        return (
            f"{key}: {context['name']!r} is not valid{nearest(context['name'], context['known'])}"
        )
    if kind == "value_error":
        return f"{key}: {context['error']}" if key else str(context["error"])
    value = _as_json(error["input"])
    if kind == "union_tag_invalid":
        choices = re.findall(r"'([^']*)'", context["expected_tags"])
        return f"{key}: {shown(context['tag'])} is not valid{nearest(context['tag'], choices)}"
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", context["expected"])
        return f"{key}: {value} is not valid{nearest(str(error['input']), choices)}"
    bound = next((b for b in ("gt", "ge", "lt", "le") if b in context), None)
    if bound is not None:
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}[bound]
        return f"{key}: {value} is out of range; it must be {words} {context[bound]}"
    message = error["msg"].replace("Input should be", "expected").replace("Input", "the value")
    for json_word, yaml_word in (("an object", "a mapping"), ("a valid array", "a list")):
        message = message.replace(json_word, yaml_word)
    one = kind in ("list_type", "tuple_type") and isinstance(error["input"], str)
    cure = f"; write [{value}]" if one else ""
    return f"{key}: {value} is not valid: {message[0].lower()}{message[1:]}{cure}"


def _as_json(value: Any) -> str:
    """A value as YAML's users know it, shortened."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return shown(value) if abs(value) != float("inf") else json.dumps(value)
    return shortened(json.dumps(value, ensure_ascii=False))


def fields_at(model: type[BaseModel], loc: KeyPath) -> list[str]:
    """Keys that are valid at a place of a model; `loc` may hold the tags of unions."""
    found = models_at(model, loc)
    presets = ["preset"] if any(issubclass(m, PresetConfig) for m in found) else []
    return list(dict.fromkeys([*(field for m in found for field in m.model_fields), *presets]))


def kinds_at(model: type[BaseModel], loc: KeyPath) -> list[str]:
    """Values of `kind` that are valid at a place of a model."""
    found = [m.model_fields["kind"] for m in models_at(model, loc) if "kind" in m.model_fields]
    return [field.default for field in found]


@cache
def models_at(model: type[BaseModel], loc: KeyPath) -> tuple[type[BaseModel], ...]:
    """Models that may stand at a place of a model, each once; several where it is a union."""
    found = [place for place in places_at(model, loc) if isinstance(place, type)]
    return tuple(dict.fromkeys(found))


@cache
def places_at(model: type[BaseModel], loc: KeyPath) -> tuple[Any, ...]:
    """Models, and annotations of mappings and lists, that may stand at a place of a model."""
    if not loc:
        return (model,)
    *above, part = loc
    found: list[Any] = []
    for place in places_at(model, tuple(above)):
        if isinstance(place, type) and issubclass(place, BaseModel):
            if part in place.model_fields:
                found += _models(place.model_fields[str(part)].annotation)
            elif _has_tag(place, part):
                found.append(place)
        else:  # a mapping's or list's own elements
            found += [m for a in typing.get_args(place) for m in _models(a)]
    return tuple(found)


def _models(annotation: Any) -> list[Any]:
    """Models and containers an annotation allows."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return [m for argument in typing.get_args(annotation) for m in _models(argument)]
    if origin in (dict, list, tuple):
        return [annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return []


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return "kind" in model.model_fields and model.model_fields["kind"].default == tag


def place(error: Any, model: type[BaseModel], value: Any) -> KeyPath:
    """Keys that lead to a pydantic error in `value`, without the tags pydantic adds for unions."""
    where: list[str | int] = []
    for index, part in enumerate(error["loc"]):
        tagged = [m for m in models_at(model, error["loc"][:index]) if _has_tag(m, part)]
        if part == "[key]" or tagged:
            continue  # a mark that the key itself is meant, or a union's tag
        where.append(part)
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            value = None
    if error["type"].startswith("union_tag"):
        where.append("kind")
    elif error["type"] == "preset":
        where.append("preset")
    return tuple(where)


class _Yaml12(yaml.SafeLoader):
    """PyYAML with the core schema of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own protocol
    _levels = 0  # of the node that is being read
    _written_out = 0  # characters so far, those of aliases counted where they stand

    def __init__(self, stream: str):
        super().__init__(stream)
        self._sizes: dict[str, int | None] = {}  # anchor → characters; None while it is read

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node, refused where it would take more than any study needs."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            size = self._sizes.get(event.anchor, 0)
            if size is None:
                raise _refused(event, f"*{shortened(event.anchor)}: a value contains itself")
            self._count(event, size)
            return super().compose_node(parent, index)
        if event.tag is not None:
            tag = shortened(event.tag.replace("tag:yaml.org,2002:", "!!"))
            raise _refused(event, f"tags are not read; leave out {tag}")
        if self._levels == MOST_LEVELS:
            raise _refused(event, f"more than {MOST_LEVELS} mappings and lists in one another")
        before = self._written_out
        self._count(event, _CHARACTERS_PER_VALUE + len(getattr(event, "value", "")))
        if isinstance(event, yaml.ScalarEvent) and (found := _CONTROL.search(event.value)):
            raise _refused(event, f"{_named(found[0])} is in a value")
        if event.anchor is not None:
            self._sizes[event.anchor] = None
        self._levels += 1
        node = super().compose_node(parent, index)
        self._levels -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._written_out - before
        return node

    def _count(self, event: yaml.Event, size: int) -> None:
        self._written_out += size
        if self._written_out > MOST_WRITTEN_OUT:
            raise _refused(
                event,
                f"more than about {MOST_WRITTEN_OUT // _CHARACTERS_PER_VALUE:,} values, those of "
                "aliases counted where they stand",
            )


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that no study needs."""


def _refused(event: yaml.Event, why: str) -> _RefusedError:
    return _RefusedError(problem=why, problem_mark=event.start_mark)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
):
    _Yaml12.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


class _Yaml12Dumper(yaml.SafeDumper):
    """Writes what `_Yaml12` reads back: by YAML 1.1 the text `1e3` would need no quotes."""

    yaml_implicit_resolvers = _Yaml12.yaml_implicit_resolvers


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Plain values as YAML that `load_yaml` reads as the same values."""
    return yaml.dump(value, Dumper=_Yaml12Dumper, sort_keys=False, allow_unicode=True, width=10**9)


def scalar(text: str) -> Any:
    """What an unquoted YAML scalar means: `16` is an integer, `1e-3` a number, `null` nothing."""
    node = yaml.ScalarNode(_Yaml12("").resolve(yaml.ScalarNode, text, (True, False)), text)
    return _scalar_value(node)


def _scalar_value(node: yaml.ScalarNode) -> Any:
    kind = node.tag.rpartition(":")[2]
    convert = {
        "null": lambda text: None,
        "bool": lambda text: text.lower() == "true",
        "int": int,
        "float": float,
    }.get(kind, str)
    try:
        return convert(node.value)
    except ValueError:  # thousands of digits
        return node.value


def _plain(node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], file: str) -> Any:
    """Plain values of a node; writes down the line of each key on the way."""
    if isinstance(node, yaml.ScalarNode):
        return _scalar_value(node)
    if isinstance(node, yaml.SequenceNode):
        elements = []
        for index, element in enumerate(node.value):
            lines[*at, index] = element.start_mark.line + 1
            elements.append(_plain(element, (*at, index), lines, file))
        return elements
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError("a key must be a plain word", file=file, line=line)
        key = key_node.value
        if key in mapping:
            first = lines[*at, key]
            raise UserError(
                f"duplicate key {shown('.'.join(map(str, (*at, key))))}, first on line {first}",
                file=file,
                line=line,
            )
        lines[*at, key] = line
        mapping[key] = _plain(value_node, (*at, key), lines, file)
    return mapping


def _refuse_ambiguous(node: yaml.Node) -> None:
    """Raise `_RefusedError` for a scalar that means one thing here and another to others.

    Most readers speak the YAML 1.1 of PyYAML: to them `no` is false, `010` is eight, `1_000` a
    thousand, `<<` a merge, and a key `0` is no text. JSON's `NaN` is text to a reader of YAML. Only
    that `1e-3` is a number is taken for granted.
    """
    if isinstance(node, yaml.SequenceNode):
        for element in node.value:
            _refuse_ambiguous(element)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and (other := _other_than_text(key)):
                raise _RefusedError(
                    problem=f"the key {shown(key.value)} is text here and {other} to other "
                    "readers; put quotes around it if text is meant",
                    problem_mark=key.start_mark,
                )
            _refuse_ambiguous(value)
    elif isinstance(node, yaml.ScalarNode) and (others := _otherwise(node)):
        raise _RefusedError(
            problem=f"{shown(node.value)} is {_a(node.tag)} here and {others} to other readers; "
            "write what is meant: true or false, a plain number, or text in quotes",
            problem_mark=node.start_mark,
        )


def _other_than_text(key: yaml.ScalarNode) -> str:
    """What an unquoted key is to readers that know other keys than text; "" for text."""
    if key.style is not None:
        return ""
    tags = {_by_yaml_1_1(key.value), key.tag} - {"tag:yaml.org,2002:str"}
    return _a(min(tags)) if tags else ""


def _otherwise(node: yaml.ScalarNode) -> str:
    """What an unquoted scalar is to other readers, "" where it is the same."""
    if node.style is not None:
        return ""
    if node.value in ("NaN", "Infinity", "-Infinity"):
        return "a number"  # of JSON, as Python writes it
    there, value = _by_yaml_1_1(node.value), _scalar_value(node)
    if isinstance(value, float):
        return "" if math.isfinite(value) else "too large a number"
    if isinstance(value, int) and not isinstance(value, bool) and re.match(r"[-+]?0\d", node.value):
        return "another number"
    return "" if there == node.tag else _a(there)


def _by_yaml_1_1(text: str) -> str:
    """The tag that PyYAML gives to an unquoted scalar."""
    return yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))


def _a(tag: str) -> str:
    kind = tag.rpartition(":")[2]
    names = {"bool": "true or false", "int": "a number", "float": "a number", "str": "text"}
    return names.get(kind) or {"timestamp": "a date", "null": "nothing"}.get(kind, f"a {kind}")


def _hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "; put quotes around a value that contains ': '"
    if "cannot start any token" in problem and "\\t" in problem:
        return "; indent with spaces, not tabs"
    return ""


def _nearest_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix == path.suffix]
    except OSError:
        return f" and no folder {str(path.parent)!r}"
    return nearest(path.name, names)
