"""What each claim means: a condition on contrasts of scores, in the vocabulary of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ablations import contrasts
from ablations.averages import AVERAGE, average, average_shots
from ablations.claim_grammar import (
    OPTIONS,
    Best,
    Blind,
    Comparison,
    Effect,
    Magnitude,
    Number,
    Options,
    Peak,
    Score,
    Slope,
    Statement,
    Term,
    parse,
    written,
)
from ablations.conditions import Above, All, AnyOf, Condition, quantities
from ablations.contrasts import Contrast, Design, ScoreKey
from ablations.designs import BASE
from ablations.errors import UserError, nearest, shown
from ablations.workload import INTACT, Asked, Metric, Tasks
from ablations.yaml_files import scalar


@dataclass(frozen=True)
class Vocabulary:
    """What the claims of a study may name."""

    factors: Mapping[str, Sequence[str]]  # factor → level names, base level first
    arms: Mapping[str, Mapping[str, str]]  # arm → factor → level; without null arms
    primary_metric: tuple[str, str]
    tasks: Tasks
    shots: Mapping[str, int] = field(default_factory=dict)  # task → the base's first
    average: Sequence[str] = ()  # tasks
    check: Callable[[str, str], None] = lambda task, metric: None  # raises `UserError`
    check_form: Callable[[Asked], None] = lambda asked: None  # raises `UserError`

    def metric(self, key: ScoreKey) -> Metric:
        """What is known of a metric."""
        task = self.tasks.get(key.task)
        return (task.metric(key.metric) if task else None) or Metric(name=key.metric)

    def first_metric(self, task: str) -> str:
        """What a task is known by; "" where the task is not known."""
        return self.tasks[task].first.name if task in self.tasks else ""

    def blind(self, task: str) -> str:
        """What the blind answerer scores of a task's first metric; what it would be called."""
        first = self.first_metric(task)
        known = self.tasks[task].metrics if first else ()
        named = f"blind_{first or 'accuracy'}"
        return next((one.name for one in known if (one.by, one.of) == ("blind", first)), named)

    @property
    def conditions(self) -> list[str]:
        """Everything that may be done to the questions of some task."""
        found = (condition for task in self.tasks.values() for condition in task.conditions)
        return list(dict.fromkeys(found))

    @property
    def design(self) -> Design:
        """Which cells were run."""
        return Design(self.factors, self.arms)


def first_shots(asked: Iterable[Asked]) -> dict[str, int]:
    """Task → number of demonstrations a claim means if it says nothing."""
    found: dict[str, int] = {}
    for one in asked:
        found.setdefault(one.task, one.shots)
    return found


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
    (key, *_) = _score(BASE, statement.options, names).weights
    metric, goal = key.metric, names.metric(key).goal
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
    its, theirs = left.measure(names), right.measure(names)
    if its and theirs and its != theirs:
        raise UserError(
            f"{left.name} is in {its} and {right.name} in {theirs}: which is more cannot be said"
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

    def measure(self, names: Vocabulary) -> str:
        """What it is measured in; "" for a number, which is in whatever the other side is in."""
        found = {_measure(names.metric(key)) for key in self.contrast.weights}
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


def _measure(metric: Metric) -> str:
    """The unit of a metric; of one that has none, the metric itself, whoever was measured."""
    return metric.unit or metric.of or metric.name


def _blind(term: Blind, other: Term, names: Vocabulary) -> ScoreKey:
    """The blind answerer's score on the items that the other side was asked."""
    if not any(one.by == "blind" for task in names.tasks.values() for one in task.metrics):
        raise UserError(
            f"nobody answers {term.task} blind here; a metric of a baseline is "
            "score(base, metric=NAME)"
        )
    metric = names.blind(term.task)
    names.check(term.task, metric)
    options: dict[str, str] = {"task": term.task, "metric": metric}
    arm = BASE
    if isinstance(other, Score):
        arm = _arm(other.arm, names)
        options = {**other.options, **options, "condition": INTACT}
    return _key(arm, options, names)


def _effect(effect: Effect, names: Vocabulary) -> Contrast:
    start = _level(effect.factor, effect.start, names)
    end = _level(effect.factor, effect.end, names)
    at = {other: _level(other, level, names) for other, level in effect.at.items()}
    if effect.factor in at:
        raise UserError(f"at: {{…}} fixes other factors than {effect.factor} itself")
    return _over(
        contrasts.effect(names.design, effect.factor, start, end, at), effect.options, names
    )


def _slope(slope: Slope, names: Vocabulary) -> Contrast:
    places = {level: _numeric(slope.factor, level) for level in _levels(slope.factor, names)}
    return _over(contrasts.slope(names.design, slope.factor, places), slope.options, names)


def _over(weights: contrasts.Weights, options: Options, names: Vocabulary) -> Contrast:
    return Contrast.over(weights, lambda arm: _score(arm, options, names))


def _level_sides(statement: Peak | Best, names: Vocabulary) -> dict[str, _Side]:
    """Level → its mean score, as a side of a comparison."""
    options, factor = statement.options, statement.factor
    sides = {}
    for level, mean in _level_means(factor, options, names).items():
        name = written(Score(((factor, level),), options))
        if (arms := len({key.arm for key in mean.weights})) > 1:  # that term is of one arm
            name = f"mean of {arms} arms of {name}"
        sides[level] = _Side(mean, name)
    return sides


def _level_means(factor: str, options: Options, names: Vocabulary) -> dict[str, Contrast]:
    means = contrasts.level_means(names.design, factor, _levels(factor, names))
    return {level: _over(weights, options, names) for level, weights in means.items()}


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
        raise UserError(f"task {AVERAGE}: the base names no tasks to average")
    primary_task, primary_metric = names.primary_metric
    metric = options.get("metric", primary_metric if primary_task == AVERAGE else "0_shot")
    shots = options.get("shots", str(average_shots(metric)))
    if "metric" in options and int(shots) != average_shots(metric):
        raise UserError(f"metric={metric} and shots={shots}; say one of them")
    condition = options.get("condition", INTACT)
    mean = average(arm, int(shots), condition, {t: names.first_metric(t) for t in names.average})
    for key in mean.weights:
        _check(key, names)
    return mean


def _key(arm: str, options: Options, names: Vocabulary) -> ScoreKey:
    primary_task, primary_metric = names.primary_metric
    task = options.get("task", primary_task)
    default = primary_metric if task == primary_task else names.first_metric(task)
    shots = int(options["shots"]) if "shots" in options else names.shots.get(task, 0)
    condition = options.get("condition", INTACT)
    key = ScoreKey(arm, task, options.get("metric", default), shots, condition)
    _check(key, names)
    return key


def _check(key: ScoreKey, names: Vocabulary) -> None:
    names.check(key.task, key.metric)
    if key.condition not in names.conditions:
        known = nearest(key.condition, names.conditions)
        raise UserError(f"condition={key.condition}: no such condition{known}")
    names.check_form(Asked(key.task, key.shots, key.condition))


def keys_of(found: Iterable[Condition[Contrast]]) -> list[ScoreKey]:
    """The cells of the score table that some conditions read, each once."""
    read = (key for condition in found for c in quantities(condition) for key in c.weights)
    return list(dict.fromkeys(read))
