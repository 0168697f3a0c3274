"""A claim and its verdict in plain words, for readers who have not learnt the claim language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ablations.claim_grammar import (
    Best,
    Blind,
    Comparison,
    Effect,
    Magnitude,
    Number,
    Peak,
    Score,
    Slope,
    Statement,
    Term,
    parse,
)
from ablations.verdicts import Verdict
from analysis import words


def plain(claim: str, min_effect: float = 0.0) -> str:
    """A claim as a clause: `the score of base is higher than …`."""
    return ", and ".join(_statement(statement, min_effect) for statement in parse(claim))


def _statement(statement: Statement, min_effect: float) -> str:
    more = f" by more than {words.boundary(min_effect)}" if min_effect else ""
    if isinstance(statement, Peak):
        options = _options(statement.options)
        return f"a level of {statement.factor} between its ends is better than both{more}{options}"
    if isinstance(statement, Best):
        options = _options(statement.options)
        return f"{statement.level} is the best level of {statement.factor}{more}{options}"
    relation = _relation(statement, min_effect)
    return f"{_term(statement.left)} {relation} {_term(statement.right)}"


def _relation(comparison: Comparison, min_effect: float) -> str:
    above = comparison.operator in (">", ">=")
    if comparison.within is not None:
        if comparison.operator == "==":
            return f"is within {words.boundary(comparison.within)} of"
        return f"is less than {words.boundary(comparison.within)} {'below' if above else 'above'}"
    if least := comparison.by or min_effect:
        return f"is more than {words.boundary(least)} {'above' if above else 'below'}"
    if isinstance(comparison.left, Score | Blind):
        return "is higher than" if above else "is lower than"
    return "is larger than" if above else "is smaller than"


def _term(term: Term) -> str:
    if isinstance(term, Number):
        return words.boundary(term.value)
    if isinstance(term, Score):
        arm = ",".join(name if level is None else f"{name}={level}" for name, level in term.arm)
        return f"the score of {arm}{_options(term.options)}"
    if isinstance(term, Blind):
        return f"the best answerer of {term.task} that never sees the image"
    if isinstance(term, Slope):
        return f"the slope over {term.factor}{_options(term.options)}"
    if isinstance(term, Magnitude):
        return f"the size of {_effect(term.of)}"
    return _effect(term)


def _effect(effect: Effect) -> str:
    at = " and ".join(f"{factor} at {level}" for factor, level in effect.at.items())
    return (
        f"the effect of {effect.factor} from {effect.start} to {effect.end}"
        f"{f' with {at}' if at else ''}{_options(effect.options)}"
    )


_CONDITIONS = {
    "shuffled": " with shuffled images",
    "no_image": " without images",
    "wrong_demonstrations": " with wrong demonstrations",
}


def _options(options: Mapping[str, str]) -> str:
    told = _CONDITIONS.get(options.get("condition", ""), "")
    name = ".".join(options[key] for key in ("task", "metric") if key in options)
    told += f" on {name}" if name else ""
    return told + (f" with {options['shots']} shots" if "shots" in options else "")


def sentence(verdict: Verdict, seeds: int, min_effect: float = 0.0, *, interim: bool) -> str:
    """The verdict as one sentence: what was compared, effect, boundary, interval, seeds, p."""
    said = plain(verdict.text, min_effect)
    shown = numbers(verdict)
    details = [f"{verdict.n} seeds" if verdict.n != 1 else "1 seed"]
    if verdict.ci_low is not None:
        kind = "repeated interval" if verdict.path else "interval"
        details.insert(0, f"{words.percent(verdict.ci_level)} {kind} {shown.interval}")
    if interim and verdict.is_open:
        so_far = f"so far {verdict.contrast} = {shown.effect} ({', '.join(details)})"
        text = f"Open: whether {said}; {verdict.n} of at most {seeds} seeds are in"
        return f"{text}; {so_far}." if verdict.n else f"{text}."
    if interim:
        text = f"Not yet: {verdict.n} of {seeds} seeds are in for whether {said}"
        so_far = f"; so far {verdict.contrast} = {shown.effect} ({', '.join(details)})"
        return f"{text}{so_far if verdict.n else ''}."
    if verdict.verdict == "undecided":
        so_far = f": {verdict.contrast} = {shown.effect} against {shown.boundary}"
        told = f"{so_far} ({', '.join(details)})" if verdict.n else ""
        return f"Undecided: whether {said}{told}; {verdict.reason}."
    p = words.p_value(verdict.p_adjusted, verdict.alpha)
    details.append(f"adjusted p {p}" if p.startswith("<") else f"adjusted p = {p}")
    side = "below" if verdict.below == (verdict.verdict == "supported") else "above"
    evidence = f"{verdict.contrast} = {shown.effect}, {side} {shown.boundary}"
    evidence += f" ({', '.join(details)})"
    if verdict.verdict == "supported":
        return f"Supported: {said}: {evidence}."
    return f"Refuted: it is not so that {said}: {evidence}."


class Numbers(NamedTuple):
    """A claim's numbers as they are shown."""

    effect: str
    interval: str
    boundary: str
    by_seed: str


class Numbered(Protocol):
    """What has a claim's numbers: a verdict, or a line of a comparison."""

    @property
    def effect(self) -> float | None: ...  # noqa: D102
    @property
    def ci_low(self) -> float | None: ...  # noqa: D102
    @property
    def ci_high(self) -> float | None: ...  # noqa: D102
    @property
    def boundary(self) -> float: ...  # noqa: D102
    @property
    def is_difference(self) -> bool: ...  # noqa: D102
    @property
    def by_seed(self) -> Mapping[int, float]: ...  # noqa: D102


def numbers(verdict: Numbered) -> Numbers:
    """Effect, interval, boundary and the values of the seeds, at the same decimals."""
    low, high = verdict.ci_low, verdict.ci_high
    values = [verdict.effect, *verdict.by_seed.values()]
    places = words.decimals([words.width(low, high)], values)
    places = words.telling_decimals(places, verdict.effect, low, high, verdict.boundary)
    plus = verdict.is_difference
    told = words.signed if plus else words.number
    return Numbers(
        effect=told(verdict.effect, places),
        interval=words.interval(low, high, places, plus=plus),
        boundary=words.boundary(verdict.boundary),
        by_seed=" ".join(told(value, places) for value in verdict.by_seed.values()),
    )
