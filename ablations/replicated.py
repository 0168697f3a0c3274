"""A planned study whose seeds are added where the verdict is open: its trials and its verdicts.

All of it follows from the plan and the results that are there, by the rule of
`ablations.replication`. Who runs the study asks for the trials; who shows it, for the verdicts too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ablations.claims import keys_of
from ablations.conditions import Above, Condition, mapped, negated
from ablations.contrasts import Place, ScoreKey, Scores
from ablations.deciding import Claim, Read, claims_of
from ablations.paths import chances, p_path
from ablations.plan import Plan
from ablations.replication import Allocation, Budget, Course, Pair, Result, Rule
from ablations.sequential import boundary_t, nominal_p, repeated_interval
from ablations.verdicts import (
    Evidence,
    LookedAt,
    Values,
    Verdict,
    binding,
    holm,
    sequential_verdict,
)
from ablations.workload import Tasks

Trials = Callable[[str, int], Result]  # arm, seed → what is known of the trial's result


def rule_of(plan: Plan) -> Rule:
    """The rule by which a plan's seeds are added."""
    its = plan.replication
    assert its is not None
    seconds, hours = its.most_seconds, its.budget.core_hours
    if seconds is None and hours is not None:  # planned before budgets of machines
        seconds = 3600 * hours
    return Rule(
        its.initial, its.most, plan.alpha, its.lookahead, Budget(its.budget.trials, seconds)
    )


@dataclass
class Scored:
    """Evidence from scores, which may grow; what was asked once is not read again."""

    claims: Mapping[str, Claim]
    seeds: Sequence[int]
    most: int
    initial: int
    tasks: Tasks
    scores: Scores
    diverged: Collection[Place] = frozenset()
    _rows: dict[str, list[Read]] = field(default_factory=dict)
    _p: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)

    def problem(self, claim: str, n: int) -> str:
        """Why the n-th seed cannot be counted, or nothing."""
        rows = self._rows.setdefault(claim, [])
        seed = self.seeds[n - 1]
        if len(rows) < n:
            read = Read.of(
                self.claims[claim].condition, [seed], self.scores, self.diverged, self.tasks
            )
            if read.problem or seed not in read.table:
                keys = keys_of([self.claims[claim].condition])
                lacking = [key for key in keys if seed not in self.scores.get(key, {})]
                missing = [f"{key.arm} seed {seed} measured no {key.metric}" for key in lacking]
                return read.problem or missing[0]
            rows.append(read)
        return ""

    def values(self, claim: str, n: int) -> Condition[Values]:
        """What a claim states about the first n seeds."""
        table: dict[int, Mapping[ScoreKey, float]] = {}
        for row in self._rows.get(claim, [])[:n]:
            table |= row.table
        there = list(table)
        return mapped(self.claims[claim].condition, lambda one: Values.of(one, table, there))

    def warnings(self, claim: str, n: int) -> list[str]:
        """What is told of the first n seeds."""
        return [told for row in self._rows.get(claim, [])[:n] for told in row.warnings]

    def p(self, claim: str, n: int) -> tuple[float, float]:
        """Sequential p values after n seeds: for the claim and against it."""
        if (claim, n) not in self._p:
            seen, looks = self.values(claim, n), range(self.initial, n + 1)
            p_sup, p_ref = (
                float(p_path(one, looks, self.most)[-1]) for one in (seen, negated(seen))
            )
            self._p[claim, n] = p_sup, p_ref
        return self._p[claim, n]

    def chances(self, claim: str, n: int, level: float) -> Sequence[float]:
        """Chance of a verdict, either way, at n + 1, n + 2, … seeds."""
        seen, later = self.values(claim, n), range(n + 1, self.most + 1)
        sides = (seen, negated(seen))
        return np.minimum(
            1.0, sum(chances(one, n, later, level, self.most) for one in sides)
        ).tolist()


class Replicated:
    """The decisions of a study, as far as its results allow; `advance` goes on when more came."""

    def __init__(self, plan: Plan, scores: Scores, diverged: Collection[Place], result: Trials):
        assert plan.replication is not None
        self.plan, self.rule, self._result = plan, rule_of(plan), result
        self._scores, self._diverged = scores, diverged
        self._claims = {one.name: one for one in claims_of(plan)}
        self._evidence = self._seen(self._claims)
        self._allocation = self._allocated(self._claims, self._evidence)
        self.advance()

    def advance(self) -> list[tuple[str, int]]:
        """Decide on what the results allow by now; the trials (arm, seed) that are new."""
        return [self._trial(pair) for pair in self._allocation.advance(self._known)]

    @property
    def ended(self) -> bool:
        """Whether nothing more will be run."""
        return self._allocation.ended

    @property
    def trials(self) -> list[tuple[str, int]]:
        """(arm, seed) of all that was decided on, in order."""
        return [self._trial(pair) for pair in self._allocation.trials]

    def verdicts(self, claims: Sequence[Claim]) -> list[Verdict]:
        """The verdict of each claim, with Holm's correction over these."""
        by_name = {one.name: one for one in claims}
        evidence, allocation = self._evidence, self._allocation
        if by_name.keys() != self._claims.keys():  # registered together with others
            evidence = self._seen(by_name)
            allocation = self._allocated(by_name, evidence)
            allocation.follow(self._allocation.trials, self._known)
        courses = allocation.courses
        adjusted = holm([min(courses[one.name].p) for one in claims]) if claims else []
        return [
            self._verdict(claim, courses[claim.name], float(p), evidence, allocation)
            for claim, p in zip(claims, adjusted, strict=True)
        ]

    def _verdict(
        self,
        claim: Claim,
        course: Course,
        adjusted: float,
        evidence: Scored,
        allocation: Allocation,
    ) -> Verdict:
        n = course.decided_n or course.n
        seen = evidence.values(claim.name, n)
        is_against = course.p[1] < course.p[0]
        part, factor = binding(negated(seen) if is_against else seen)
        level = course.level / factor
        looks = [looked for looked, _ in course.looks if looked <= n]
        is_open = course.verdict == "undecided" and not self.ended and not course.problem
        return sequential_verdict(
            Evidence(
                name=claim.name,
                text=claim.text,
                condition=seen,
                n=n,
                problem=allocation.reason(claim.name),
                warnings=tuple(evidence.warnings(claim.name, n)),
                seeds=tuple(self.plan.seeds[:n]),
                scope=claim.scope,
            ),
            part,
            is_against=is_against,
            verdict=course.verdict,
            interval=repeated_interval(part.quantity.values, level, self.rule.most),
            ci_level=1 - 2 * level,
            p=min(course.p),
            adjusted=adjusted,
            alpha=self.rule.alpha,
            nominal_level=float(nominal_p(course.level, n or 1, self.rule.most)),
            path=tuple(
                self._looked_at(part, n, level, min(evidence.p(claim.name, n))) for n in looks
            ),
            is_open=is_open,
        )

    def _looked_at(self, part: Above[Values], n: int, level: float, p: float) -> LookedAt:
        x = part.quantity.values[:n]
        mean, low, high = repeated_interval(x, level, self.rule.most)
        sign, sd = (-1.0 if part.reverse else 1.0), float(x.std(ddof=1))
        t = sign * (mean - part.boundary) / sd * math.sqrt(n) if sd else math.nan
        return LookedAt(n, mean, low, high, p, t, float(boundary_t(level, n, self.rule.most)))

    def _seen(self, claims: Mapping[str, Claim]) -> Scored:
        return Scored(
            claims,
            self.plan.seeds,
            self.rule.most,
            self.rule.initial,
            self.plan.tasks,
            self._scores,
            self._diverged,
        )

    def _allocated(self, claims: Mapping[str, Claim], evidence: Scored) -> Allocation:
        assert self.plan.replication is not None
        arms = {
            name: list(dict.fromkeys(key.arm for key in keys_of([claim.condition])))
            for name, claim in claims.items()
        }
        return Allocation(
            self.rule,
            [arm.name for arm in self.plan.arms],
            arms,
            self.plan.replication.seconds,
            evidence,
            lambda pair: "{} seed {}".format(*self._trial(pair)),
        )

    def _trial(self, pair: Pair) -> tuple[str, int]:
        return pair.arm, self.plan.seeds[pair.index]

    def _known(self, pair: Pair) -> Result:
        return self._result(*self._trial(pair))
