"""What stands in braces in a command, and what it becomes when the command runs.

    python train.py --config {config} --seed {seed} --out {output}

    {config}        the step's resolved config, as a file
    {config:KEY}    one value of it
    {overrides}     all of it as KEY=VALUE, an argument each, as Hydra takes them
    {seed}          the trial's seed
    {output}        folder whose files are kept with the result
    {scratch}       folder for whatever need not be kept
    {input:STEP}    output folder of a step before

A brace that is not followed by a lower-case word and a closing brace stays as it is, and so does
`${NAME}`; `{{word}}` is `{word}`. A command is no line of a shell: it is split into words as a
shell does, and nothing else is done to it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ablations.errors import nearest, shown

CONFIG, OVERRIDES, SEED, OUTPUT, SCRATCH, INPUT = (
    "config",
    "overrides",
    "seed",
    "output",
    "scratch",
    "input",
)
NAMES = (CONFIG, OVERRIDES, SEED, OUTPUT, SCRATCH, INPUT)
_FORM = re.compile(
    r"\{\{(?P<literal>[a-z_]+(?::[^{}\s]*)?)\}\}|(?<!\$)\{(?P<name>[a-z_]+)(?::(?P<of>[^{}\s]*))?\}"
)
_SHELL_WORDS = ("&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>")
# A word that Hydra reads as text without quotes.
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_NOT_TEXT = ("true", "false", "null", "nan", "inf", "on", "off", "yes", "no")


class Placeholder(NamedTuple):
    """One pair of braces: `{name}` or `{name:of}`."""

    name: str
    of: str = ""

    def __str__(self) -> str:
        return f"{{{self.name}:{self.of}}}" if self.of else f"{{{self.name}}}"


def words(command: str | Sequence[str]) -> tuple[str, ...]:
    """The words of a command, placeholders still in them. Raises `ValueError` for what is none."""
    if isinstance(command, str):
        try:
            split = tuple(shlex.split(command))
        except ValueError as error:
            raise ValueError(f"{shown(command)} cannot be split into words: {error}") from None
        for word in split:
            if word in _SHELL_WORDS:
                raise ValueError(
                    f"{word!r} is for a shell, and none reads the command; write "
                    f"bash -c '… {word} …'"
                )
        if split and re.match(r"[A-Za-z_]\w*=", split[0]):
            raise ValueError(f"{shown(split[0])} sets a variable; write it under environment")
    else:
        split = tuple(command)
    if not split or not split[0]:
        raise ValueError("an empty command")
    for word in split:
        for one in placeholders(word):
            if one.name not in NAMES:
                raise ValueError(
                    f"unknown placeholder {{{one.name}}}{nearest(one.name, NAMES)} "
                    f"(the braces themselves are {{{{{one.name}}}}})"
                )
            if one.name == OVERRIDES and word != str(one):
                raise ValueError(
                    f"{{overrides}} becomes several arguments, so it is a word of its own: not "
                    f"{shown(word)}"
                )
            if one.name == INPUT and not one.of:
                raise ValueError("{input} of which step? write {input:STEP}")
            if one.of and one.name not in (INPUT, CONFIG):
                raise ValueError(f"{{{one.name}}} takes nothing behind a colon, and got {one.of!r}")
    return split


def placeholders(word: str) -> Iterator[Placeholder]:
    """The placeholders in a word, in order."""
    for found in _FORM.finditer(word):
        if found["literal"] is None:
            yield Placeholder(found["name"], found["of"] or "")


@dataclass(frozen=True)
class Values:
    """What placeholders stand for in one run of a step."""

    config_file: str
    config: Mapping[str, Any]
    seed: int
    output: str
    scratch: str
    inputs: Mapping[str, str]

    def of(self, one: Placeholder) -> str:
        """The text of one placeholder."""
        if one.name == INPUT:
            return self.inputs[one.of]
        if one.name == CONFIG and one.of:
            return argument(at(self.config, one.of))
        return {
            CONFIG: self.config_file,
            SEED: str(self.seed),
            OUTPUT: self.output,
            SCRATCH: self.scratch,
        }[one.name]

    def arguments(self, command: Sequence[str]) -> list[str]:
        """The command's words with everything filled in."""
        filled: list[str] = []
        for word in command:
            if word == f"{{{OVERRIDES}}}":
                filled += overrides(self.config)
            else:
                filled.append(self.filled(word))
        return filled

    def filled(self, word: str) -> str:
        """One word with everything filled in."""
        return _FORM.sub(_filling(self.of), word)


def _filling(of: Callable[[Placeholder], str]) -> Callable[[re.Match[str]], str]:
    def fill(found: re.Match[str]) -> str:
        if found["literal"] is not None:
            return f"{{{found['literal']}}}"
        return of(Placeholder(found["name"], found["of"] or ""))

    return fill


# -- a config, path by path ----------------------------------------------------------------------


def leaves(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything that is no mapping; an empty mapping is a value."""
    for key, value in config.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def at(config: Mapping[str, Any], path: str) -> Any:
    """The value at a path. Raises `KeyError` where there is none."""
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(path)
        value = value[key]
    return value


def argument(value: Any) -> str:
    """A value as one argument: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def overrides(config: Mapping[str, Any]) -> list[str]:
    """`key=value` of every value, in Hydra's grammar."""
    return [f"{path}={_hydra(value)}" for path, value in leaves(config)]


def _hydra(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
            return value
        # In a quoted value a backslash is itself, unless a quote follows it.
        escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
        ending = re.search(r"\\*$", escaped)
        return f"'{escaped}{ending[0] if ending else ''}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_hydra(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_hydra, value)) + "]"
    return json.dumps(value)
