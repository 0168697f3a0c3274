"""From one number per seed to a verdict: the statistics of claims, as pure functions.

Example. Two arms, five seeds, the claim a > b:

    a  52.1 50.8 53.0 51.6 52.4
    b  50.3 50.1 51.2 50.9 50.6
    D   1.8  0.7  1.8  0.7  1.8      per seed: paired, because a seed is one data order

The seed is the unit of replication, so n = 5 whatever the number of test items. D has mean 1.36
and a one-sample t test gives p_sup = 0.0036 against "the claim is false" and p_ref = 0.9964
against "the claim is true". The smaller one is the claim's p value; with Holm's correction over
all claims of the study, the chance of any wrong verdict is at most alpha. Here the claim is alone:
0.0036 <= 0.05, supported.

Beside the verdict stands *its own* interval. A claim is wrong in one direction only, so each
direction is tested at the whole level and the interval that agrees with the test has level
1 - 2·alpha_j, alpha_j being the level at which Holm's procedure tested claim j: 90 % here,
[0.79, 1.93]. It excludes the claim's boundary exactly if the claim was decided.

Claims with several parts (`ablations.conditions`): "all of" has the largest p of its parts
(intersection-union test, Berger 1982), "any of" k times the smallest (Bonferroni). The part that
decides is shown, at 1 - 2·alpha_j/k.

Arrays have the axes `[…, seeds]`; `p_value` and `holm` work on many studies at once. Only numpy
and `scipy.special`: `scipy.stats` takes a second to import.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ablations.conditions import Above, All, Condition, mapped, negated
from ablations.scope import SCOPE

if TYPE_CHECKING:
    from ablations.contrasts import Contrast, ScoreKey

Array = NDArray[np.float64]
Outcome = Literal["supported", "refuted", "undecided"]

# From this many seeds on, "sensitive" means that one seed decides the verdict; below, where that
# is nearly always so, that one seed decides the sign.
SENSITIVE_FROM = 5

# Seeds that are further from the median than so many median absolute deviations are named.
EXTREME, EXTREME_FROM = 12.0, 4  # of normal seeds 5 studies in 100 have one at n = 5


@dataclass(frozen=True)
class Values:
    """A contrast's value for each seed, `[…, seeds]`, and the size of the scores it came from."""

    values: Array
    scale: Array  # […]: differences below 1e-12 of it are rounding
    is_difference: bool = True  # of scores; else a score itself, which is shown without a plus

    @classmethod
    def given(cls, values: Any) -> Values:
        """Values that are their own scale."""
        array = np.asarray(values, dtype=float)
        return cls(array, np.abs(array).max(axis=-1, initial=0.0))

    @classmethod
    def of(
        cls,
        contrast: Contrast,
        table: Mapping[int, Mapping[ScoreKey, float]],
        seeds: Sequence[int],
    ) -> Values:
        """A contrast over the scores of some seeds."""
        parts = np.array(
            [[w * table[seed][key] for key, w in contrast.weights.items()] for seed in seeds]
        ).reshape(len(seeds), len(contrast.weights))
        size = np.abs(parts).sum(axis=1).max(initial=0.0)
        signs = {weight > 0 for weight in contrast.weights.values()}
        return cls(parts.sum(axis=1) + contrast.constant, np.asarray(size), len(signs) > 1)

    def only(self, n: int) -> Values:
        """Keep the first n seeds; the size of the scores stays that of all."""
        return replace(self, values=self.values[..., :n])

    def without(self, seed: int) -> Values:
        """Leave out the seed at this index."""
        return replace(self, values=np.delete(self.values, seed, axis=-1))


def _student_cdf(df: int, t: Any) -> Any:
    from scipy.special import stdtr  # 0.3 s, and only deciding needs it

    return stdtr(df, t)


def t_interval(values: Any, level: float) -> tuple[float, float, float]:
    """Mean and t interval of one number per seed; not-a-number where seeds are too few."""
    array = np.asarray(values, dtype=float)
    mean, sd = mean_and_sd(array)
    half = half_width(sd, array.size, level)
    return mean, mean - half, mean + half


def mean_and_sd(values: Any) -> tuple[float, float]:
    """Mean and standard deviation (ddof 1); not-a-number where there are too few values."""
    array = np.asarray(values, dtype=float)
    if not array.size:
        return math.nan, math.nan
    mean = float(np.add.reduce(array)) / array.size
    if array.size < 2:
        return mean, math.nan
    # To the bit `array.std(ddof=1)`, in a third of its time: it is asked of every score of an arm.
    apart = array - mean
    return mean, math.sqrt(float(np.add.reduce(apart * apart)) / (array.size - 1))


def half_width(sd: float, n: int, level: float) -> float:
    """Of the t interval of the mean of n numbers; not-a-number where they are too few."""
    return _t_quantile(n - 1, 0.5 + level / 2) * sd / math.sqrt(n) if n > 1 else math.nan


@functools.cache
def _t_quantile(df: int, p: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def p_above(values: Values, boundary: float = 0.0, reverse: bool = False) -> Array:
    """One-sided t test per study `[…]` against "the mean is not above the boundary".

    1 where nothing can be tested: fewer than two seeds, all seeds alike, or no finite spread.
    """
    x = (values.values - boundary) * (-1.0 if reverse else 1.0)
    n = x.shape[-1]
    if n < 2:
        return np.ones(x.shape[:-1])
    spread = x.std(axis=-1, ddof=1)
    flat = no_spread(values)
    t = x.mean(axis=-1) / np.where(flat, 1.0, spread) * np.sqrt(n)
    p = np.maximum(_student_cdf(n - 1, -t), np.finfo(float).tiny)
    return np.where(flat | ~np.isfinite(spread), 1.0, p)  # squares of numbers above 1e154


def no_spread(values: Values) -> Array:
    """Whether all seeds gave the same value, but for rounding; `[…]`."""
    return values.values.std(axis=-1, ddof=1) <= 1e-12 * values.scale


def p_value(condition: Condition[Values]) -> Array:
    """p value per study `[…]` against "the condition does not hold"."""
    if isinstance(condition, Above):
        return p_above(condition.quantity, condition.boundary, condition.reverse)
    parts = np.stack([p_value(part) for part in condition.parts])
    if isinstance(condition, All):
        return parts.max(axis=0)
    return np.minimum(1.0, len(parts) * parts.min(axis=0))


def binding(condition: Condition[Values]) -> tuple[Above[Values], int]:
    """The part that decides a condition, and the Bonferroni factor of its p value."""
    if isinstance(condition, Above):
        return condition, 1
    p = [float(p_value(part)) for part in condition.parts]
    if isinstance(condition, All):
        return binding(condition.parts[int(np.argmax(p))])
    part, factor = binding(condition.parts[int(np.argmin(p))])
    return part, factor * len(p)


def holm(p: Any) -> Array:
    """Holm's adjusted p values along the last axis, `[…, claims]`."""
    p = np.asarray(p, dtype=float)
    m = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    factors = m - np.arange(m)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, -1) * factors, axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted


def holm_levels(p: Any, alpha: float) -> Array:
    """The level at which Holm's procedure tests each claim, `[claims]`.

    alpha/m for the smallest p, then alpha/(m - 1), … until one is not rejected; it and all that
    follow share its level. Equal p values share the strictest.
    """
    p = np.asarray(p, dtype=float)
    rejected = int((holm(p) <= alpha).sum())
    before = np.minimum((p[None, :] < p[:, None]).sum(axis=1), rejected)
    return alpha / (p.size - before)


@dataclass(frozen=True)
class Evidence:
    """What is known about a claim: its condition on the seeds that are in, and what is missing."""

    name: str
    text: str
    condition: Condition[Values]
    n: int  # seeds that are in
    problem: str = ""  # why there can be no verdict yet
    warnings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()  # that are in, in the order of the condition's values
    scope: str = SCOPE


@dataclass(frozen=True)
class LookedAt:
    """A claim as it stood at one look, where seeds are added until there is a verdict."""

    n: int  # seeds
    effect: float  # mean of the contrast that decides at the end
    ci_low: float  # the interval that holds at all looks together, at the claim's last level
    ci_high: float
    p_value: float  # sequential, of the direction that is nearer
    t: float  # of the contrast against its boundary, in the direction of the verdict
    boundary_t: float  # what t must reach at this look


@dataclass(frozen=True)
class Verdict:
    """A claim, decided or not; of a claim with several parts, the one that decides."""

    name: str
    text: str
    verdict: Outcome
    contrast: str  # what is compared, in the language of claims: its left side minus its right
    effect: float | None  # mean of the contrast over seeds, in the metric's units
    ci_low: float | None
    ci_high: float | None
    ci_level: float  # 1 - 2·alpha_j: the interval that agrees with the verdict
    p_value: float | None  # of the direction that is nearer; None while seeds are missing
    p_adjusted: float | None  # Holm over the study's claims
    alpha: float  # what the adjusted p is compared with
    n: int  # seeds
    scope: str  # what it is limited to (`ablations.scope`)
    reason: str
    sensitive: bool  # one seed decides it
    warnings: tuple[str, ...]
    boundary: float  # what the effect is compared with
    below: bool  # the claim says that the effect is below the boundary, not above
    is_difference: bool  # else the effect is a score
    by_seed: Mapping[int, float]  # the contrast seed by seed
    extreme_seeds: tuple[int, ...]  # far from the others: failures, or luck
    path: tuple[LookedAt, ...] = ()  # where seeds were added: its looks in order
    is_open: bool = False  # seeds may still be added


def judge(evidence: Sequence[Evidence], alpha: float) -> list[Verdict]:
    """Verdicts on the claims of one study; the chance of any wrong one is at most `alpha`."""
    tests = [_directions(claim) for claim in evidence]
    p = np.array([min(p_sup, p_ref) for p_sup, p_ref in tests])
    if not len(p):
        return []
    rows = zip(evidence, tests, holm(p), holm_levels(p, alpha), strict=True)
    return [
        _verdict(claim, *directions, float(adjusted), float(level), alpha)
        for claim, directions, adjusted, level in rows
    ]


def _directions(claim: Evidence) -> tuple[float, float]:
    """p_sup and p_ref of a claim; 1 where there is no verdict to be had."""
    if claim.problem:
        return 1.0, 1.0
    return float(p_value(claim.condition)), float(p_value(negated(claim.condition)))


def _verdict(
    claim: Evidence, p_sup: float, p_ref: float, adjusted: float, level: float, alpha: float
) -> Verdict:
    interim = bool(claim.problem)
    nearer = claim.condition
    if not interim and p_ref < p_sup:
        nearer = negated(claim.condition)
    part, factor = binding(nearer)
    ci_level = 1 - 2 * level / factor
    outcome: Outcome = "undecided"
    if adjusted <= alpha:
        outcome = "supported" if p_sup <= p_ref else "refuted"
    return _record(
        claim,
        part,
        outcome=outcome,
        interval=t_interval(part.quantity.values, ci_level),
        ci_level=ci_level,
        p=None if interim else (min(p_sup, p_ref), adjusted),
        alpha=alpha,
        reason=claim.problem or _reason(claim, part, outcome, adjusted, alpha),
        sensitive=not interim and _sensitive(claim.condition, part, level, claim.n),
        below=part.reverse == (nearer is claim.condition),
    )


def sequential_verdict(
    claim: Evidence,
    part: Above[Values],
    *,
    is_against: bool,
    verdict: Outcome,
    interval: tuple[float, float, float],
    ci_level: float,
    p: float,
    adjusted: float,
    alpha: float,
    nominal_level: float,
    path: tuple[LookedAt, ...],
    is_open: bool,
) -> Verdict:
    """The verdict of a claim whose seeds were added one by one (`ablations.replicated`).

    `part` decides, of the claim or, `is_against`, of its negation. `nominal_level` is what the t
    test's p value had to reach at the last look.
    """
    reason = claim.problem
    if not reason or (claim.n > 1 and no_spread(part.quantity)):
        reason = _reason(claim, part, verdict, adjusted, alpha)
    return _record(
        claim,
        part,
        outcome=verdict,
        interval=interval,
        ci_level=ci_level,
        p=(p, adjusted) if path else None,
        alpha=alpha,
        reason=reason,
        sensitive=bool(path) and _sensitive(claim.condition, part, nominal_level, claim.n),
        below=part.reverse != is_against,
        path=path,
        is_open=is_open,
    )


def _record(
    claim: Evidence,
    part: Above[Values],
    *,
    outcome: Outcome,
    interval: tuple[float, float, float],
    ci_level: float,
    p: tuple[float, float] | None,
    alpha: float,
    reason: str,
    sensitive: bool,
    below: bool,
    path: tuple[LookedAt, ...] = (),
    is_open: bool = False,
) -> Verdict:
    """A verdict with what its claim and the part that decides say by themselves.

    `interval` is the mean and its ends, of which there are none where all seeds are alike; `p` is
    the p value and the adjusted one, None where there is none yet.
    """
    mean, low, high = interval
    if claim.n > 1 and no_spread(part.quantity):
        low = high = np.nan
    values = part.quantity.values
    return Verdict(
        name=claim.name,
        text=claim.text,
        verdict=outcome,
        contrast=part.name,
        effect=_finite(mean),
        ci_low=_finite(low),
        ci_high=_finite(high),
        ci_level=ci_level,
        p_value=None if p is None else p[0],
        p_adjusted=None if p is None else p[1],
        alpha=alpha,
        n=claim.n,
        scope=claim.scope,
        reason=reason,
        sensitive=sensitive,
        warnings=claim.warnings,
        boundary=part.boundary,
        below=below,
        is_difference=part.quantity.is_difference,
        by_seed=dict(zip(claim.seeds, map(float, values), strict=False)),
        extreme_seeds=tuple(claim.seeds[i] for i in _extreme(values) if claim.seeds),
        path=path,
        is_open=is_open,
    )


def _extreme(values: Array) -> list[int]:
    """Places of values that are far from the others: runs that failed, or one that was lucky.

    More than `EXTREME` median absolute deviations from the median, which a few failures cannot
    hide behind, as they do behind an SD that they have blown up themselves.
    """
    if len(values) < EXTREME_FROM or not np.isfinite(values).all():
        return []
    distance = np.abs(values - np.median(values))
    deviation = np.median(distance)
    return [int(i) for i in np.flatnonzero(distance > EXTREME * deviation)] if deviation else []


def _reason(
    claim: Evidence, part: Above[Values], outcome: Outcome, adjusted: float, alpha: float
) -> str:
    if claim.n < 2:
        return "1 seed has no spread to test against"
    if outcome == "undecided" and no_spread(part.quantity):
        return f"all {claim.n} seeds gave the same difference; there is no spread to test against"
    if not np.isfinite(part.quantity.values.std()):
        return "the numbers are too large to have a spread"
    relation = ">" if outcome == "undecided" else "<="
    digits = 3
    while (float(f"{adjusted:.{digits}g}") <= alpha) != (adjusted <= alpha):
        digits += 1
    return f"adjusted p {adjusted:.{digits}g} {relation} {alpha:.12g}"


def _sensitive(condition: Condition[Values], part: Above[Values], level: float, n: int) -> bool:
    """Whether leaving one seed out changes the verdict (few seeds: the sign)."""
    if n < 2:
        return False
    if n < SENSITIVE_FROM:
        values = part.quantity.values - part.boundary
        others = (values.sum() - values) / (n - 1)
        return bool((np.sign(others) != np.sign(values.mean())).any())

    def outcome(seen: Condition[Values]) -> Outcome:
        p_sup, p_ref = float(p_value(seen)), float(p_value(negated(seen)))
        if min(p_sup, p_ref) > level:
            return "undecided"
        return "supported" if p_sup <= p_ref else "refuted"

    whole = outcome(condition)
    return any(
        outcome(mapped(condition, lambda values, i=i: values.without(i))) != whole for i in range(n)
    )


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
