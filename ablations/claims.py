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
(`ablations.metrics`); `>` and `<` are of the numbers. Only what has one unit is compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ablations.conditions import Above, All, AnyOf, Condition, mapped, quantities
from ablations.designs import BASE
from ablations.errors import UserError, nearest, shown
from ablations.metrics import (
    ANSWERERS,
    AVERAGE,
    BLIND,
    TASKS,
    average_shots,
    check_form,
    check_metric,
    first_metric,
    goal_of,
    metric_called,
    worst_value,
)
from ablations.scope import scope
from ablations.yaml_files import scalar

if TYPE_CHECKING:
    from ablations.plan import Plan
    from ablations.verdicts import Evidence, Verdict

OPTIONS = ("task", "metric", "shots", "condition")
FORMER = {"images": "condition"}  # option as it was called → as it is called
LONGEST = 4_000  # characters of a claim
LARGEST = 1e15  # number in a claim
CONDITIONS = ("intact", "shuffled", "no_image", "wrong_demonstrations")


class ScoreKey(NamedTuple):
    """One cell of the score table, but for the seed."""

    arm: str
    task: str
    metric: str
    shots: int
    condition: str


Scores = Mapping[ScoreKey, Mapping[int, float]]  # key → seed → value


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of scores of one seed, plus a constant."""

    weights: Mapping[ScoreKey, float]
    constant: float = 0.0

    def plus(self, other: Contrast, sign: float = 1.0) -> Contrast:
        """This plus `sign` times another."""
        total = dict(self.weights)
        for key, weight in other.weights.items():
            total[key] = total.get(key, 0.0) + sign * weight
        kept = {key: weight for key, weight in total.items() if abs(weight) > 1e-12}
        return Contrast(kept, self.constant + sign * other.constant)

    def minus(self, other: Contrast) -> Contrast:
        """This minus another."""
        return self.plus(other, -1.0)

    def times(self, factor: float) -> Contrast:
        """This, so many times."""
        return Contrast({}).plus(self, factor)


@dataclass(frozen=True)
class Vocabulary:
    """What the claims of a study may name."""

    factors: Mapping[str, Sequence[str]]  # factor → level names, base level first
    arms: Mapping[str, Mapping[str, str]]  # arm → factor → level; without null arms
    primary_metric: tuple[str, str]
    shots: Mapping[str, int] = field(default_factory=dict)  # task → the recipe's first
    average: Sequence[str] = ()  # tasks
    check: Callable[[str, str], None] = check_metric  # of a task and a metric

    @classmethod
    def of(cls, plan: Plan) -> Vocabulary:
        """Of a study that was planned."""
        arms = {arm.name: arm.levels for arm in plan.arms if arm.name not in plan.null_arms}
        evaluation = plan.arms[0].config["evaluation"]
        return cls(
            plan.factors,
            arms,
            plan.primary_metric,
            first_shots(evaluation),
            evaluation.get("average", ()),
            lambda task, metric: None,  # checked when the plan was made
        )


def first_shots(evaluation: Mapping[str, object]) -> dict[str, int]:
    """Task → number of demonstrations a claim means if it says nothing."""
    official = evaluation.get("official", {})
    assert isinstance(official, Mapping)
    tasks = {**evaluation, **official}
    return {
        name: next(iter(task["shots"]), 0)
        for name, task in tasks.items()
        if isinstance(task, dict) and "shots" in task
    }


# -- what was written ----------------------------------------------------------------------------

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
            if level is not None and (name in OPTIONS or name in FORMER):
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
            if name not in OPTIONS and name not in FORMER:
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
        if name in FORMER:
            raise UserError(f"{name}={value}: the option is called {FORMER[name]}={value}")
        if name == "condition" and value not in CONDITIONS:
            raise UserError(f"condition={value}: no such condition{nearest(value, CONDITIONS)}")
        if name == "shots" and not re.fullmatch("[0-9]{1,9}", value):
            raise UserError(f"shots={value[:40]} is not a number of demonstrations")
        options[name] = value


# -- meaning -------------------------------------------------------------------------------------


def meaning(text: str, min_effect: float, names: Vocabulary) -> Condition[Contrast]:
    """The condition on contrasts that a claim states.

    Raises:
        UserError: the claim cannot be read, or names an arm, factor, level, task or metric that
            is not there.
    """
    parts = tuple(_meaning(statement, min_effect, names) for statement in parse(text))
    whole = parts[0] if len(parts) == 1 else All(parts)
    for contrast in quantities(whole):
        if not contrast.weights:
            raise UserError("no score is left to decide on: both sides are the same")
    return whole


def _meaning(statement: Statement, min_effect: float, names: Vocabulary) -> Condition[Contrast]:
    if isinstance(statement, Best):
        level = _level(statement.factor, statement.level, names)
        sides, better = _level_sides(statement, names), _better(statement, min_effect, names)
        others = [side for name, side in sides.items() if name != level]
        return All(tuple(better(sides[level], other) for other in others))
    if isinstance(statement, Peak):
        sides, better = _level_sides(statement, names), _better(statement, min_effect, names)
        order = sorted(sides, key=lambda level: _numeric(statement.factor, level))
        if len(order) < 3:
            raise UserError(f"peak({statement.factor}) needs at least 3 levels, not {len(order)}")
        first, *interior, last = (sides[level] for level in order)
        return AnyOf(tuple(All((better(inner, first), better(inner, last))) for inner in interior))
    return _compared(statement, min_effect, names)


def _better(
    statement: Best | Peak, min_effect: float, names: Vocabulary
) -> Callable[[_Side, _Side], Above[Contrast]]:
    """What "one level is better than another" says, by the metric's own direction."""
    (metric, *_) = {key.metric for key in _score(BASE, statement.options, names).weights}
    goal = goal_of(metric)
    if goal is None:
        form = "best" if isinstance(statement, Best) else "peak"
        raise UserError(
            f"nobody has said which way {metric} is better, so {form}(…) means nothing; "
            "compare scores by > or <"
        )
    if goal == "minimise":
        return lambda one, other: _beyond(one, other, -min_effect, below=True)
    return lambda one, other: _beyond(one, other, min_effect)


def _compared(statement: Comparison, min_effect: float, names: Vocabulary) -> Condition[Contrast]:
    operator, within = statement.operator, statement.within
    if min_effect and (within is not None or statement.by is not None):
        raise UserError("give the margin once: `by`, `within` or min_effect")
    left = _side(statement.left, statement.right, names)
    right = _side(statement.right, statement.left, names)
    if left.measure and right.measure and left.measure != right.measure:
        raise UserError(
            f"{left.name} is in {left.measure} and {right.name} in {right.measure}: "
            "which is more cannot be said"
        )
    if operator == "==":
        if left.magnitude or right.magnitude:
            raise UserError("`==` compares signed effects; leave out abs( )")
        assert within is not None
        return All((_beyond(left, right, -within), _beyond(left, right, within, below=True)))
    margin = -within if within is not None else statement.by or min_effect
    below = operator in ("<", "<=")
    # |a| > |b| where a sign of a beats both signs of b.
    larger, smaller = (right, left) if below else (left, right)
    found = []
    for one in larger.signs:
        parts = []
        for other in smaller.signs:
            signed = (other, one) if below else (one, other)
            parts.append(_beyond(*signed, -margin if below else margin, below))
        found.append(parts[0] if len(parts) == 1 else All(tuple(parts)))
    return found[0] if len(found) == 1 else AnyOf(tuple(found))


@dataclass(frozen=True)
class _Side:
    """One side of a comparison, as it is written."""

    contrast: Contrast
    name: str  # "" for a number
    magnitude: bool = False
    factor: str = ""  # of a slope, which is per unit of it

    @property
    def measure(self) -> str:
        """What it is measured in; "" for a number, which is in whatever the other side is in."""
        found = {_measure(key.metric) for key in self.contrast.weights}
        measure = found.pop() if len(found) == 1 else "the mean of several metrics" if found else ""
        return f"{measure} per {self.factor}" if self.factor else measure

    @property
    def signs(self) -> tuple[_Side, ...]:
        """Itself; of a magnitude the effect and its negative, one of which it is."""
        if not self.magnitude:
            return (self,)
        return _Side(self.contrast, self.name), _Side(self.contrast.times(-1.0), f"−{self.name}")


def _beyond(left: _Side, right: _Side, boundary: float, below: bool = False) -> Above[Contrast]:
    """`left - right` above (or below) a boundary; constants go into the boundary."""
    total = left.contrast.minus(right.contrast)
    boundary -= total.constant
    if not left.contrast.weights:  # 67 < score(base): show the score, not its negative
        right_alone = Contrast(right.contrast.weights)
        return Above(right_alone, 0.0 - boundary, not below, right.name)
    name = left.name
    if right.contrast.weights:
        name += f" + {right.name[1:]}" if right.name.startswith("−") else f" − {right.name}"
    return Above(Contrast(total.weights), boundary + 0.0, below, name)


def _side(term: Term, other: Term, names: Vocabulary) -> _Side:
    """A side of a comparison as a contrast."""
    if isinstance(term, Number):
        return _Side(Contrast({}, term.value), "")
    if isinstance(term, Magnitude):
        return _Side(_effect(term.of, names), written(term.of), magnitude=True)
    if isinstance(term, Blind):
        contrast = Contrast({_blind(term, other, names): 1.0})
    elif isinstance(term, Score):
        contrast = _score(_arm(term.arm, names), term.options, names)
    elif isinstance(term, Effect):
        contrast = _effect(term, names)
    else:
        return _Side(_slope(term, names), written(term), factor=term.factor)
    return _Side(contrast, written(term))


def _measure(metric: str) -> str:
    """The unit of a metric; of one that has none, the metric itself, whoever was measured."""
    for answerer in ANSWERERS:
        metric = metric.removeprefix(answerer)
    known = metric_called(metric)
    return known.unit if known and known.unit else metric


def written(term: Score | Blind | Effect | Slope) -> str:
    """A term in the language of claims, in its usual spaces."""
    if isinstance(term, Blind):
        return f"blind({term.task})"
    options = "".join(f", {name}={value}" for name, value in term.options.items())
    if isinstance(term, Slope):
        return f"slope({term.factor}{options})"
    if isinstance(term, Score):
        arm = ", ".join(name if level is None else f"{name}={level}" for name, level in term.arm)
        return f"score({arm}{options})"
    fixed = ", ".join(f"{factor}: {level}" for factor, level in term.at.items())
    at = f", at: {{{fixed}}}" if fixed else ""
    return f"effect({term.factor}, {term.start} -> {term.end}{at}{options})"


def _blind(term: Blind, other: Term, names: Vocabulary) -> ScoreKey:
    """The blind answerer's score on the items that the other side was asked."""
    metric = BLIND + (first_metric(term.task) if term.task in TASKS else "accuracy")
    names.check(term.task, metric)
    options: dict[str, str] = {"task": term.task, "metric": metric}
    arm = BASE
    if isinstance(other, Score):
        arm = _arm(other.arm, names)
        options = {**other.options, **options, "condition": CONDITIONS[0]}
    return _key(arm, options, names)


def _effect(effect: Effect, names: Vocabulary) -> Contrast:
    start = _level(effect.factor, effect.start, names)
    end = _level(effect.factor, effect.end, names)
    at = {other: _level(other, level, names) for other, level in effect.at.items()}
    if effect.factor in at:
        raise UserError(f"at: {{…}} fixes other factors than {effect.factor} itself")
    means = _means(effect.factor, (start, end), at, effect.options, names)
    return means[end].minus(means[start])


def _slope(slope: Slope, names: Vocabulary) -> Contrast:
    """Σ (x - x̄) y / Σ (x - x̄)² over the factor's levels x."""
    means = _level_means(slope.factor, slope.options, names)
    x = {level: _numeric(slope.factor, level) for level in means}
    center = sum(x.values()) / len(x)
    spread = sum((value - center) ** 2 for value in x.values())
    total = Contrast({})
    for level, mean in means.items():
        total = total.plus(mean, (x[level] - center) / spread)
    return total


def _level_sides(statement: Peak | Best, names: Vocabulary) -> dict[str, _Side]:
    """Level → its mean score, as a side of a comparison."""
    options, factor = statement.options, statement.factor
    return {
        level: _Side(mean, written(Score(((factor, level),), options)))
        for level, mean in _level_means(factor, options, names).items()
    }


def _level_means(factor: str, options: Options, names: Vocabulary) -> dict[str, Contrast]:
    return _means(factor, _levels(factor, names), {}, options, names)


def _means(
    factor: str,
    levels: Sequence[str],
    at: Mapping[str, str],
    options: Options,
    names: Vocabulary,
) -> dict[str, Contrast]:
    """Level → mean score over the cells of the other factors in which all `levels` were run."""
    cells: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for arm, where in names.arms.items():
        others = tuple((f, level) for f, level in where.items() if f != factor)
        if where[factor] in levels and all(where[f] == level for f, level in at.items()):
            cells.setdefault(others, {})[where[factor]] = arm
    complete = [cell for cell in cells.values() if len(cell) == len(set(levels))]
    if not complete:
        place = "".join(f", {f}={level}" for f, level in at.items())
        raise UserError(
            f"no arms of this design differ only in {factor} ({', '.join(levels)}){place}"
        )
    means = {}
    for level in levels:
        total = Contrast({})
        for cell in complete:
            total = total.plus(_score(cell[level], options, names), 1 / len(complete))
        means[level] = total
    return means


def _arm(written: Sequence[tuple[str, str | None]], names: Vocabulary) -> str:
    text = ",".join(name if level is None else f"{name}={level}" for name, level in written)
    if text in names.arms:
        return text
    unknown = UserError(f"no arm {shown(text)}{nearest(text, names.arms)}")
    for name, level in written:
        if level is not None and name not in names.factors:
            known = [*names.factors, *OPTIONS]
            raise UserError(f"no factor or option {shown(name)}{nearest(name, known)}")
    if any(level is None for _, level in written):
        raise unknown
    wanted = {name: _level(name, level or "", names) for name, level in written}
    base_levels = {factor: levels[0] for factor, levels in names.factors.items()}
    for arm, levels in names.arms.items():
        if levels == {**base_levels, **wanted}:
            return arm
    raise unknown


def _levels(factor: str, names: Vocabulary) -> Sequence[str]:
    if factor not in names.factors:
        raise UserError(f"no factor {shown(factor)} in the design{nearest(factor, names.factors)}")
    return names.factors[factor]


def _level(factor: str, written: str, names: Vocabulary) -> str:
    """The level's name; numbers may be written differently (`1e-3` for 0.001)."""
    levels = _levels(factor, names)
    if written in levels:
        return written
    for level in levels:
        if scalar(level) == scalar(written):
            return level
    raise UserError(f"{factor} has no level {shown(written)}{nearest(written, levels)}")


def _numeric(factor: str, level: str) -> float:
    value = scalar(level)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"the levels of {factor} must be numbers; {level!r} is none")
    return float(value)


def _score(arm: str, options: Options, names: Vocabulary) -> Contrast:
    """One score, or the mean of several tasks'."""
    task = options.get("task", names.primary_metric[0])
    if task != AVERAGE:
        return Contrast({_key(arm, options, names): 1.0})
    if not names.average:
        raise UserError(f"task {AVERAGE}: the recipe's evaluation.average names no tasks")
    primary_task, primary_metric = names.primary_metric
    metric = options.get("metric", primary_metric if primary_task == AVERAGE else "0_shot")
    shots = options.get("shots", str(average_shots(metric)))
    if "metric" in options and int(shots) != average_shots(metric):
        raise UserError(f"metric={metric} and shots={shots}; say one of them")
    asked = {key: value for key, value in options.items() if key != "metric"} | {"shots": shots}
    total = Contrast({})
    for one in names.average:
        chosen = {**asked, "task": one, "metric": first_metric(one)}
        key = _key(arm, chosen, names)
        total = total.plus(Contrast({key: 1.0}), 1 / len(names.average))
    return total


def _key(arm: str, options: Options, names: Vocabulary) -> ScoreKey:
    primary_task, primary_metric = names.primary_metric
    task = options.get("task", primary_task)
    default = primary_metric if task == primary_task else next(iter(TASKS.get(task, ())), "")
    metric = options.get("metric", default)
    names.check(task, metric)
    shots = int(options["shots"]) if "shots" in options else names.shots.get(task, 0)
    condition = options.get("condition", CONDITIONS[0])
    check_form(task, shots, condition)
    return ScoreKey(arm, task, metric, shots, condition)


# -- deciding ------------------------------------------------------------------------------------


def conditions(plan: Plan) -> dict[str, Condition[Contrast]]:
    """Claim → what it states about the scores of a planned study."""
    names = Vocabulary.of(plan)
    return {
        name: meaning(text, plan.min_effects.get(name, 0.0), names)
        for name, text in plan.claims.items()
    }


def keys_of(found: Iterable[Condition[Contrast]]) -> list[ScoreKey]:
    """The cells of the score table that some conditions read, each once."""
    read = (key for condition in found for c in quantities(condition) for key in c.weights)
    return list(dict.fromkeys(read))


def claim_stages(plan: Plan) -> dict[str, set[str]]:
    """Claim → the stages its scores come from: evaluations and the checkpoints they score."""
    stages: dict[tuple[str, str, int, str], set[str]] = {}
    for trial in plan.trials:
        for e in trial.evaluations:
            place = (trial.arm, e.task, e.shots, e.condition)
            read = plan.stages[e.stage].inputs.values()
            stages.setdefault(place, set()).update((e.stage, *read))
    found: dict[str, set[str]] = {}
    for name, condition in conditions(plan).items():
        found[name] = set()
        for key in keys_of([condition]):
            found[name] |= stages[key.arm, key.task, key.shots, key.condition]
    return found


def claim_metrics(plan: Plan) -> dict[str, list[tuple[str, str]]]:
    """Claim → (task, metric) of every score that it reads."""
    return {
        name: sorted({(key.task, key.metric) for key in keys_of([condition])})
        for name, condition in conditions(plan).items()
    }


def decide(
    plan: Plan,
    scores: Scores,
    diverged: Collection[str] = frozenset(),
    family: Collection[str] | None = None,
) -> list[Verdict]:
    """The verdict of each claim of a study, in the order of the study file.

    `scores` holds what has come in. `diverged` names the stages whose loss was no longer a number,
    and those that took input from them: what they scored is their metric's worst value; a claim on
    a metric without one is undecided. What was scored before, such as an encoder's probe, stands.
    A claim is undecided until all registered seeds of its arms are in; Holm's correction is over
    the claims of `family`, all by default, with p = 1 for those (a later p value can only help the
    others).
    """
    from ablations.verdicts import judge  # numpy; planning does without

    meant = {n: c for n, c in conditions(plan).items() if family is None or n in family}
    lost = _scored_from(plan, diverged) if diverged else frozenset()
    evidence: list[Evidence] = []
    affected: dict[str, list[int]] = {}  # claim → seeds in which something it reads diverged
    for name, condition in meant.items():
        read = _Read.of(condition, plan.seeds, scores, lost)
        affected[name] = read.diverged_seeds
        claim = read.evidence(name, plan.claims[name], plan.seeds, tuple(read.warnings))
        evidence.append(replace(claim, scope=scope(plan, keys_of([condition]))))
    verdicts = judge(evidence, plan.alpha)
    for index, (claim, verdict) in enumerate(zip(evidence, verdicts, strict=True)):
        if not affected[claim.name] or any(seed not in claim.seeds for seed in plan.seeds):
            continue
        rest = [seed for seed in plan.seeds if seed not in affected[claim.name]]
        read = _Read.of(meant[claim.name], rest, scores, frozenset())
        other = [*evidence[:index], read.evidence(claim.name, claim.text, rest, ())]
        without = judge([*other, *evidence[index + 1 :]], plan.alpha)[index]
        verdicts[index] = replace(verdict, warnings=(*verdict.warnings, _told_without(without)))
    return verdicts


def _told_without(verdict: Verdict) -> str:
    effect = "" if verdict.effect is None else f", {verdict.effect:+.4g}".replace("-", "−")
    return f"without what diverged: {verdict.verdict}{effect} ({verdict.n} seeds)"


Cell = tuple[str, str, int, str, int]  # arm, task, shots, condition, seed


def _scored_from(plan: Plan, diverged: Collection[str]) -> frozenset[Cell]:
    """Which scores were made from some stages."""
    return frozenset(
        (trial.arm, e.task, e.shots, e.condition, trial.seed)
        for trial in plan.trials
        for e in trial.evaluations
        if not {e.stage, *plan.stages[e.stage].inputs.values()}.isdisjoint(diverged)
    )


@dataclass(frozen=True)
class _Read:
    """What a claim reads from the scores, seed by seed."""

    condition: Condition[Contrast]
    table: Mapping[int, Mapping[ScoreKey, float]]  # seeds that have every score
    problem: str  # why there can be no verdict
    warnings: Sequence[str]
    diverged_seeds: list[int]

    @classmethod
    def of(
        cls,
        condition: Condition[Contrast],
        seeds: Sequence[int],
        scores: Scores,
        lost: Collection[Cell],
    ) -> _Read:
        """Read the scores of some seeds; `lost` are those of models that had diverged."""
        keys = keys_of([condition])
        table: dict[int, dict[ScoreKey, float]] = {}
        problem = ""
        flagged: dict[str, None] = {}
        diverged_seeds: list[int] = []
        for seed in seeds:
            row: dict[ScoreKey, float] = {}
            fallen = set()
            for key in keys:
                value = scores.get(key, {}).get(seed)
                trial = f"{key.arm} seed {seed}"
                cell = (key.arm, key.task, key.shots, key.condition, seed)
                # What a blind answerer scores does not depend on the model.
                if cell in lost and not key.metric.startswith(BLIND):
                    value = worst_value(key.task, key.metric)
                    fallen.add(key)
                    flagged[f"{trial} diverged"] = None
                    if value is None:
                        problem = f"{trial} diverged and {key.metric} has no worst value"
                        value = math.nan
                elif value is not None and not math.isfinite(value):
                    problem = f"{trial}: {key.task}.{key.metric} is {value}"
                    value = math.nan
                if value is not None:
                    row[key] = value
            if fallen:
                diverged_seeds.append(seed)
            for contrast in quantities(condition):
                if len(contrast.weights) > 1 and fallen.issuperset(contrast.weights):
                    problem = f"all that it compares diverged in seed {seed}"
            if len(row) == len(keys):
                table[seed] = row
        return cls(condition, table, problem, list(flagged), diverged_seeds)

    def evidence(
        self, name: str, text: str, seeds: Sequence[int], warnings: tuple[str, ...]
    ) -> Evidence:
        """As `judge` takes it; `seeds` are all that should be there."""
        from ablations.verdicts import Evidence, Values

        there = tuple(seed for seed in seeds if seed in self.table)
        missing = f"{len(there)} of {len(seeds)} seeds" if len(there) < len(seeds) else ""
        return Evidence(
            name=name,
            text=text,
            condition=mapped(self.condition, lambda one: Values.of(one, self.table, there)),
            n=len(there),
            problem=self.problem or missing,
            warnings=warnings,
            seeds=there,
        )
