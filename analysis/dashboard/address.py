"""What the address of a page says: the address is the state, so whatever is shown can be sent.

    /study/<name>/<page>?key=value&key=another    a page of a study
    /<page>?key=value                             a page of all studies

A key that is left out has its default. Texts in it come from anybody, and name things of the store
or nothing at all: what is not there is told on the page (`State.notices`), never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlencode

from ablations.errors import nearest
from ablations.shown_text import visible

LONGEST = 8_000  # characters of an address that are read
MOST_VALUES = 200  # of one key


@dataclass
class State:
    """What stands behind the question mark: key → its values."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)  # what was asked for and is not there

    @classmethod
    def of(cls, search: str | None) -> State:
        """Of `?key=value&key=another`."""
        found = parse_qs((search or "")[:LONGEST].removeprefix("?"), keep_blank_values=True)
        return cls({key: lines[:MOST_VALUES] for key, lines in found.items()})

    def text(self, key: str, default: str = "") -> str:
        """One text, whatever it says."""
        return self.values.get(key, [default])[0]

    def one_of(self, key: str, choices: Iterable[str], default: str = "") -> str:
        """One of some choices; the default where another is asked for, with a notice."""
        known = list(choices)
        asked = self.text(key, default)
        found = _among(asked, known)
        if found is None and asked != default:
            self.notices.append(
                f"{key}={visible(asked)[:100]} is not there{nearest(asked[:200], known)}"
                + (f"; shown: {visible(default)}" if default else "")
            )
        return default if found is None else found

    def some_of(self, key: str, choices: Iterable[str]) -> list[str]:
        """Those of some choices that are asked for, in the order of the choices."""
        known = list(choices)
        found = set()
        for asked in self.values.get(key, []):
            name = _among(asked, known)
            if name is None:
                self.notices.append(
                    f"{key}={visible(asked)[:100]} is not there{nearest(asked[:200], known)}"
                )
            else:
                found.add(name)
        return [name for name in known if name in found]

    def number(self, key: str, low: float, high: float, default: float) -> float:
        """A number within bounds."""
        asked = self.text(key)
        if not asked:
            return default
        try:
            value = float(asked)
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        told = f"{key}={visible(asked)[:100]} is no number from {low:g} to {high:g}"
        self.notices.append(f"{told}; shown: {default:g}")
        return default

    def switch(self, key: str, default: bool = False) -> bool:
        """On or off: `1` or `0`."""
        return self.one_of(key, ["0", "1"], str(int(default))) == "1"


def _among(asked: str, known: Sequence[str]) -> str | None:
    """A choice by its name, or by how pages show its name."""
    if asked in known:
        return asked
    return next((name for name in known if visible(name) == asked), None)


@dataclass(frozen=True)
class Place:
    """Which page an address means."""

    page: str = ""  # name; "" is the first page
    study: str | None = None

    @classmethod
    def of(cls, path: str | None) -> Place:
        """Of `/study/demo/curves` or `/across`."""
        _, *parts = [unquote(part) for part in f"{path or ''}/"[:LONGEST].split("/")]
        if parts[0] == "study" and len(parts) > 1 and parts[1]:
            return cls(parts[2] if len(parts) > 2 else "", parts[1])
        return cls("/".join(parts).rstrip("/"))


def link(page: str, study: str | None = None, /, **state: str | Iterable[str] | None) -> str:
    """The address of a page; keys that have no value are left out."""
    parts = [page] if study is None else ["study", study, page]
    path = "/" + "/".join(quote(part, safe="") for part in parts if part)
    given = {key: value for key, value in state.items() if value not in (None, "", [], ())}
    return path + (f"?{urlencode(given, doseq=True)}" if given else "")
