"""What a study claims, in a small language, and what each claim means as a contrast of scores.

    score(base) > score(base, condition=shuffled)          a score and its control
    score(encoder.image_size=16, task=emoji_caption) < 20  against a number
    score(base) > blind(easy_vqa) by 5                     better by more than a margin
    score(connector.kind=c_abstractor) >= score(base) within 1        not worse by 1 or more
    score(connector.kind=c_abstractor) == score(base) within 3        equivalent
    effect(encoder.image_size, 16 -> 32) > abs(effect(connector.tokens, 4 -> 16))
    effect(connector.tokens, 4 -> 16, at: {encoder.image_size: 32}) > 0
    slope(training.steps, task=held_out_text) < 0
    slope(data.mixture.interleaved, task=average, shots=8) > 0        the mean of several tasks
    peak(connector.tokens)                           an interior level better than both ends
    best(connector.kind) == c_abstractor                   better than every other level
    score(b) > score(a) > score(base) and slope(connector.tokens) > 0

Grammar (spaces are free; a name with spaces or signs in it goes in quotes):

    claim      = comparison {"and" comparison}
    comparison = "peak" "(" factor {option} ")"
               | "best" "(" factor {option} ")" "==" level
               | term operator term {operator term} ["by" number | "within" number]
    term       = number | "score" "(" arm {option} ")" | "blind" "(" task ")" | effect
               | "abs" "(" effect ")" | "slope" "(" factor {option} ")"
    effect     = "effect" "(" factor "," level "->" level ["," "at" ":" "{" … "}"] {option} ")"
    arm        = "base" | factor "=" level {"," factor "=" level}
    option     = "," ("task" | "metric" | "shots" | "condition") "=" word

An effect is signed and names its two levels: picking the extreme levels after looking would favour
the factor with more of them. It is the mean over all cells of the other factors in which both
levels were run; in a one-at-a-time design that is the base. The metric is the study's primary
metric unless `task` or `metric` says otherwise. Better is higher or lower as the metric is
(`ablations.workload.Metric`); `>` and `<` are of the numbers. Only what has one unit is compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from ablations.errors import UserError, nearest, shown
from ablations.yaml_files import scalar

OPTIONS = ("task", "metric", "shots", "condition")
LONGEST = 4_000  # characters of a claim
LARGEST = 1e15  # number in a claim

Options = Mapping[str, str]


@dataclass(frozen=True)
class Number:
    """`67.0`."""

    value: float


@dataclass(frozen=True)
class Score:
    """`score(arm, …)`; the arm as written, `("base", None)` or `(factor, level)`."""

    arm: tuple[tuple[str, str | None], ...]
    options: Options


@dataclass(frozen=True)
class Blind:
    """`blind(task)`: the best answerer that never sees the image."""

    task: str


@dataclass(frozen=True)
class Effect:
    """`effect(factor, start -> end, at: {…}, …)`."""

    factor: str
    start: str
    end: str
    at: Mapping[str, str]
    options: Options


@dataclass(frozen=True)
class Slope:
    """`slope(factor, …)`: least squares over the levels, per unit of the factor."""

    factor: str
    options: Options


@dataclass(frozen=True)
class Magnitude:
    """`abs(effect(…))`."""

    of: Effect


Term = Number | Score | Blind | Effect | Slope | Magnitude


@dataclass(frozen=True)
class Comparison:
    """`left operator right`, with `by` (how much better) or `within` (how close)."""

    left: Term
    operator: str
    right: Term
    by: float | None = None
    within: float | None = None


@dataclass(frozen=True)
class Peak:
    """`peak(factor, …)`."""

    factor: str
    options: Options


@dataclass(frozen=True)
class Best:
    """`best(factor, …) == level`."""

    factor: str
    level: str
    options: Options


Statement = Comparison | Peak | Best


# -- reading -------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')
          |(?P<sign>->|>=|<=|==|[><(),{}:=])
          |(?P<word>(?:(?!->)[^\s(),{}:=<>"'])+))""",
    re.VERBOSE,
)
_OPERATORS = (">", "<", ">=", "<=", "==")
_TERMS = ("score", "blind", "effect", "abs", "slope", "peak", "best")


def parse(text: str) -> tuple[Statement, ...]:
    """Statements joined by `and`. Raises `UserError` that says what was expected where."""
    return _Parser(text).claim()


class _Parser:
    """Recursive descent; one method per rule of the grammar."""

    def __init__(self, text: str):
        if len(text) > LONGEST:
            raise UserError(f"a claim has at most {LONGEST:,} characters, not {len(text):,}")
        self.text = text
        self.tokens: list[tuple[str, int, bool]] = []  # text, column, whether it is a word
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                rest = text[position:].strip()
                raise UserError(
                    f"{shown(rest)} cannot be read" + ("; close the quotes" if rest else "")
                )
            found = match["quoted"] or match["sign"] or match["word"]
            quoted = match["quoted"] is not None
            self.tokens.append(
                (found[1:-1] if quoted else found, match.end() - len(found), not match["sign"])
            )
            position = match.end()
        self.next = 0

    def fail(self, expected: str) -> NoReturn:
        if self.next < len(self.tokens):
            found, column, _ = self.tokens[self.next]
            raise UserError(f"expected {expected}, got {shown(found)} at column {column + 1}")
        raise UserError(f"expected {expected}, but the claim ends after {shown(self.text.strip())}")

    def peek(self) -> str:
        return self.tokens[self.next][0] if self.next < len(self.tokens) else ""

    def accept(self, *choices: str) -> str:
        """The next token if it is one of these, else nothing."""
        if self.peek() not in choices:
            return ""
        self.next += 1
        return self.tokens[self.next - 1][0]

    def expect(self, sign: str) -> None:
        if not self.accept(sign):
            self.fail(repr(sign))

    def word(self, what: str) -> str:
        if self.next >= len(self.tokens) or not self.tokens[self.next][2]:
            self.fail(what)
        self.next += 1
        return self.tokens[self.next - 1][0]

    def number(self, what: str) -> float:
        value = scalar(self.peek())
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
            self.fail(what)
        self.next += 1
        return float(value)

    def claim(self) -> tuple[Statement, ...]:
        statements = list(self.comparison())
        while self.accept("and"):
            statements += self.comparison()
        if self.next < len(self.tokens):
            self.fail("`and` or the end of the claim")
        return tuple(statements)

    def comparison(self) -> list[Statement]:
        if self.accept("peak"):
            self.expect("(")
            return [Peak(self.word("a factor"), self.options())]
        if self.accept("best"):
            self.expect("(")
            factor, options = self.word("a factor"), self.options()
            self.expect("==")
            return [Best(factor, self.word("a level"), options)]
        found: list[tuple[Term, str, Term]] = []
        left = self.term()
        while not found or self.peek() in _OPERATORS:
            operator = self.accept(*_OPERATORS)
            if not operator:
                self.fail("a comparison (> < >= <= ==)")
            right = self.term()
            found.append((left, operator, right))
            left = right
        by = self.number("a number after `by`") if self.accept("by") else None
        within = self.number("a number after `within`") if self.accept("within") else None
        return [self.checked(Comparison(*triple, by, within), len(found)) for triple in found]

    def checked(self, comparison: Comparison, chained: int) -> Comparison:
        operator, by, within = comparison.operator, comparison.by, comparison.within
        if operator in (">", "<"):
            if within is not None:
                raise UserError(f"`{operator} … within` means nothing; say `{operator}= … within`")
            if by is not None and by < 0:
                raise UserError(f"`by {by:g}` must be at least 0; say `{operator}= … within`")
        elif within is None:
            meaning = "equivalent" if operator == "==" else "not worse"
            raise UserError(f"`{operator}` needs a margin: `{operator} … within 1` ({meaning})")
        elif within <= 0:
            raise UserError(f"`within {within:g}` must be above 0")
        if chained > 1 and (by is not None or within is not None):
            raise UserError("a chain of comparisons takes no `by` or `within`; join two by `and`")
        return comparison

    def term(self) -> Term:
        name = self.peek()
        if name == "abs":
            self.next += 1
            self.expect("(")
            if not self.accept("effect"):
                self.fail("effect(…) inside abs( )")
            self.expect("(")
            effect = self.effect()
            self.expect(")")
            return Magnitude(effect)
        if self.accept("effect"):
            self.expect("(")
            return self.effect()
        if self.accept("slope"):
            self.expect("(")
            return Slope(self.word("a factor"), self.options())
        if self.accept("score"):
            self.expect("(")
            return self.score()
        if self.accept("blind"):
            self.expect("(")
            task = self.word("a task")
            self.expect(")")
            return Blind(task)
        if self.next + 1 < len(self.tokens) and self.tokens[self.next + 1][0] == "(":
            raise UserError(f"there is no {name}(…){nearest(name, _TERMS)}")
        return Number(self.number("score(…), effect(…), abs(…), slope(…), blind(…) or a number"))

    def score(self) -> Score:
        arm: list[tuple[str, str | None]] = []
        options: dict[str, str] = {}
        while True:
            name = self.word("an arm")
            level = self.word(f"a value of {name}") if self.accept("=") else None
            if level is not None and name in OPTIONS:
                self.add_option(options, name, level)
            else:
                arm.append((name, level))
            if self.accept(")"):
                break
            if not self.accept(","):
                self.fail("',' or ')'")
        if not arm:
            raise UserError("score(…) names no arm; say score(base, …)")
        return Score(tuple(arm), options)

    def effect(self) -> Effect:
        factor = self.word("a factor")
        if not self.accept(","):
            self.fail(f"two levels, effect({factor}, a -> b)")
        start = self.word("a level")
        self.expect("->")
        end = self.word("a level")
        at: dict[str, str] = {}
        if self.next + 2 < len(self.tokens) and self.tokens[self.next + 1][0] == "at":
            self.next += 2
            self.expect(":")
            self.expect("{")
            while True:
                other = self.word("a factor")
                self.expect(":")
                at[other] = self.word("a level")
                if not self.accept(","):
                    break
            self.expect("}")
        return Effect(factor, start, end, at, self.options())

    def options(self) -> dict[str, str]:
        """Options up to and with the closing parenthesis."""
        found: dict[str, str] = {}
        while self.accept(","):
            name = self.word("an option")
            if name not in OPTIONS:
                raise UserError(f"there is no option {shown(name)}{nearest(name, OPTIONS)}")
            self.expect("=")
            self.add_option(found, name, self.word(f"a value of {name}"))
        if not self.accept(")"):
            self.fail("',' or ')'")
        return found

    @staticmethod
    def add_option(options: dict[str, str], name: str, value: str) -> None:
        if name in options:
            raise UserError(f"option {name} is given twice")
        if name == "shots" and not re.fullmatch("[0-9]{1,9}", value):
            raise UserError(f"shots={value[:40]} is not a number of demonstrations")
        options[name] = value


def written(term: Score | Blind | Effect | Slope) -> str:
    """A term in the language of claims, in its usual spaces."""
    if isinstance(term, Blind):
        return f"blind({_word(term.task)})"
    options = "".join(f", {name}={_word(value)}" for name, value in term.options.items())
    if isinstance(term, Slope):
        return f"slope({_word(term.factor)}{options})"
    if isinstance(term, Score):
        arm = ", ".join(
            _word(name) if level is None else f"{_word(name)}={_word(level)}"
            for name, level in term.arm
        )
        return f"score({arm}{options})"
    fixed = ", ".join(f"{_word(factor)}: {_word(level)}" for factor, level in term.at.items())
    at = f", at: {{{fixed}}}" if fixed else ""
    change = f"{_word(term.start)} -> {_word(term.end)}"
    return f"effect({_word(term.factor)}, {change}{at}{options})"


def _word(name: str) -> str:
    """A name as one word of the language, in quotes where it would be several."""
    match = _TOKEN.fullmatch(name)
    if match and match["word"] == name:
        return name
    return f"'{name}'" if '"' in name else f'"{name}"'
