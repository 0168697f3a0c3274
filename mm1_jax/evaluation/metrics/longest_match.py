"""Lexical rules: of several regular expressions, the one that matches the most text.

`re` takes the first alternative that works; a lexer's rules compete by length. So they are one
automaton here, whose states are made when a text first needs them.

Patterns are written as for `re`, with groups, `|`, `*`, `+`, `?`, `{m}`, `{m,n}` and classes, and
two differences: letters match in either case outside of classes and exactly inside, and a class may
hold named ones, as in `[[:digit:]-]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

Test = Callable[[str], bool]  # of one character
_ESCAPES = {"n": "\n", "t": "\t", "f": "\f", "r": "\r"}


@dataclass
class _Node:
    """A state of the automaton that may be in several states at once."""

    free: list[_Node] = field(default_factory=list)
    steps: list[tuple[Test, _Node]] = field(default_factory=list)
    rule: int | None = None


class _State:
    """A set of nodes: where every rule can be after the same text."""

    __slots__ = ("moves", "nodes", "rule")

    def __init__(self, nodes: list[_Node]) -> None:
        self.nodes = nodes
        self.rule = min((node.rule for node in nodes if node.rule is not None), default=None)
        self.moves: dict[str, _State | None] = {}


class LongestMatch:
    """Patterns that compete: the longest match wins, among equals the pattern that comes first."""

    def __init__(self, patterns: Sequence[str], classes: dict[str, Test]) -> None:
        start = _Node()
        for number, pattern in enumerate(patterns):
            first, last = _Parser(pattern, classes).parsed()
            start.free.append(first)
            last.rule = number
        self._states: dict[frozenset[int], _State] = {}
        self._start = self._state([start])

    def ends(self, text: str, start: int) -> Iterator[tuple[int, int]]:
        """Every (end, number of the first pattern that matches `text[start:end]`), in order."""
        state = self._start
        for position in range(start, len(text)):
            character = text[position]
            if character not in state.moves:
                state.moves[character] = self._after(state, character)
            following = state.moves[character]
            if following is None:
                return
            state = following
            if state.rule is not None:
                yield position + 1, state.rule

    def longest(self, text: str, start: int) -> tuple[int, int] | None:
        """(end, number of the pattern) of the longest match at `start`."""
        best = None
        for best in self.ends(text, start):  # noqa: B007
            pass
        return best

    def _after(self, state: _State, character: str) -> _State | None:
        reached = [target for node in state.nodes for test, target in node.steps if test(character)]
        return self._state(reached) if reached else None

    def _state(self, nodes: list[_Node]) -> _State:
        """The state of these nodes and of all that is free from there."""
        waiting = list(nodes)
        found: dict[int, _Node] = {}
        while waiting:
            node = waiting.pop()
            if id(node) not in found:
                found[id(node)] = node
                waiting += node.free
        key = frozenset(found)
        if key not in self._states:
            self._states[key] = _State(list(found.values()))
        return self._states[key]


Part = tuple[_Node, _Node]  # first and last node of what a piece of a pattern became


class _Parser:
    """One pattern to nodes."""

    def __init__(self, pattern: str, classes: dict[str, Test]) -> None:
        self.pattern = pattern
        self.position = 0
        self.classes = classes

    def parsed(self) -> Part:
        part = self.alternatives()
        if self.position < len(self.pattern):
            raise ValueError(f"{self.pattern!r}: unexpected {self.pattern[self.position :]!r}")
        return part

    def alternatives(self) -> Part:
        first, last = _Node(), _Node()
        while True:
            inner_first, inner_last = self.sequence()
            first.free.append(inner_first)
            inner_last.free.append(last)
            if not self.accept("|"):
                return first, last

    def sequence(self) -> Part:
        first = last = _Node()
        while self.position < len(self.pattern) and self.pattern[self.position] not in "|)":
            next_first, next_last = self.repeated()
            last.free.append(next_first)
            last = next_last
        return first, last

    def repeated(self) -> Part:
        begin = self.position
        part = self.atom()
        end = self.position
        least, most = self.counts()
        first = last = _Node()
        optional: list[_Node] = []
        for number in range(max(least, most or 1)):
            if number:  # another copy of the same piece
                after, self.position = self.position, begin
                part = self.atom()
                assert self.position == end
                self.position = after
            if number >= least:
                optional.append(last)
            last.free.append(part[0])
            last = part[1]
        if most is None:
            last.free.append(part[0])
        final = _Node()
        for node in [*optional, last]:
            node.free.append(final)
        return first, final

    def counts(self) -> tuple[int, int | None]:
        if self.accept("*"):
            return 0, None
        if self.accept("+"):
            return 1, None
        if self.accept("?"):
            return 0, 1
        if self.accept("{"):
            close = self.pattern.index("}", self.position)
            least, comma, most = self.pattern[self.position : close].partition(",")
            self.position = close + 1
            return int(least), int(most) if comma else int(least)
        return 1, 1

    def atom(self) -> Part:
        if self.accept("("):
            part = self.alternatives()
            if not self.accept(")"):
                raise ValueError(f"{self.pattern!r}: a group without end")
            return part
        first, last = _Node(), _Node()
        first.steps.append((self.character_class() if self.accept("[") else self.literal(), last))
        return first, last

    def literal(self) -> Test:
        character = self.character()
        either = {character, character.lower(), character.upper()}
        return either.__contains__

    def character_class(self) -> Test:
        negated = self.accept("^")
        named: list[Test] = []
        members: set[str] = set()
        while not self.accept("]"):
            if self.pattern.startswith("[:", self.position):
                close = self.pattern.index(":]", self.position)
                named.append(self.classes[self.pattern[self.position + 2 : close]])
                self.position = close + 2
                continue
            low = high = self.character()
            if self.pattern[self.position] == "-" and self.pattern[self.position + 1] != "]":
                self.position += 1
                high = self.character()
            members.update(map(chr, range(ord(low), ord(high) + 1)))
        return lambda c: negated != (c in members or any(test(c) for test in named))

    def character(self) -> str:
        character = self.pattern[self.position]
        self.position += 1
        if character == "\\":
            character = self.pattern[self.position]
            self.position += 1
            if character == "u":
                self.position += 4
                return chr(int(self.pattern[self.position - 4 : self.position], 16))
            return _ESCAPES.get(character, character)
        return character

    def accept(self, wanted: str) -> bool:
        found = self.pattern.startswith(wanted, self.position)
        self.position += found * len(wanted)
        return found
