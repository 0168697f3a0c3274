"""From scores to verdicts: what each claim of a study reads, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ablations.claims import Vocabulary, first_shots, keys_of, meaning
from ablations.conditions import Condition, mapped, quantities
from ablations.contrasts import Contrast, Place, ScoreKey, Scores
from ablations.exclusions import counting
from ablations.plan import Plan
from ablations.scope import SCOPE, scope
from ablations.workload import Asked, Tasks, record_of

if TYPE_CHECKING:
    from ablations.verdicts import Evidence, Verdict


def vocabulary(plan: Plan) -> Vocabulary:
    """What the claims of a study that was planned may name."""
    arms = {arm.name: arm.levels for arm in plan.arms if arm.name not in plan.null_arms}
    base = plan.arms[0]
    return Vocabulary(  # checked when the plan was made
        plan.factors,
        arms,
        plan.primary_metric,
        plan.tasks,
        first_shots(one.asked for one in base.answers),
        plan.average,
    )


def conditions(plan: Plan) -> dict[str, Condition[Contrast]]:
    """Claim → what it states about the scores of a planned study."""
    names = vocabulary(plan)
    return {
        name: meaning(text, plan.min_effects.get(name, 0.0), names)
        for name, text in plan.claims.items()
    }


def claim_stages(plan: Plan) -> dict[str, set[str]]:
    """Claim → the stages its scores come from: evaluations and the checkpoints they score."""
    found: dict[str, set[str]] = {name: set() for name in plan.claims}
    read = {name: keys_of([condition]) for name, condition in conditions(plan).items()}
    wanted: dict[str, dict[Asked, list[str]]] = {}  # arm → form → claims
    seeds: dict[str, set[int]] = {}  # claim → those that it is decided on
    for name, keys in read.items():
        seeds[name] = set(counting(plan.seeds, {key.arm for key in keys}, plan.left_out))
        for key in keys:
            asked = Asked(key.task, key.shots, key.condition)
            wanted.setdefault(key.arm, {}).setdefault(asked, []).append(name)
    for trial in plan.trials:
        answers = plan.answers(trial) if trial.arm in wanted else {}
        for asked, names in wanted.get(trial.arm, {}).items():
            stage = answers[asked]
            for name in names:
                if trial.seed not in seeds[name]:
                    continue
                found[name] |= {stage, *plan.stages[stage].inputs.values()}
    return found


@dataclass(frozen=True)
class Claim:
    """A claim as it is decided."""

    name: str
    text: str  # as written
    condition: Condition[Contrast]
    scope: str  # what a verdict on it is limited to

    @classmethod
    def read(
        cls, name: str, text: str, names: Vocabulary, min_effect: float = 0.0, scope: str = SCOPE
    ) -> Claim:
        """A claim in the words of a study. Raises `UserError` where it means nothing."""
        return cls(name, text, meaning(text, min_effect, names), scope)


def claims_of(plan: Plan, family: Collection[str] | None = None) -> list[Claim]:
    """The claims of a planned study, or some of them, in the order of the study file."""
    return [
        Claim(name, plan.claims[name], condition, scope(plan, keys_of([condition])))
        for name, condition in conditions(plan).items()
        if family is None or name in family
    ]


def decide(
    claims: Sequence[Claim],
    scores: Scores,
    *,
    seeds: Sequence[int],
    alpha: float,
    tasks: Tasks,
    diverged: Collection[Place] = frozenset(),
    excluded: Collection[tuple[str, int]] = frozenset(),
    unscored: Mapping[ScoreKey, Mapping[int, str]] | None = None,
    is_as_found: bool = False,
) -> list[Verdict]:
    """The verdict of each claim; what is known beside the scores changes none.

    `scores` holds what has come in. Where a model was asked that had `diverged`, what it scored is
    the worst value of its metric; a claim on a metric without one is undecided. What was scored
    before, such as an encoder's probe, or without the model stands. A claim is undecided until all
    `seeds` of its arms are in, but for those of which a trial, (arm, seed), is `excluded`: it is
    decided without them. Holm's correction is over all of these claims, with p = 1 for those
    (a later p value can only help the others).

    `unscored` says of cells and seeds that were tried why there is no number: claims that read one
    are undecided. Where numbers are `is_as_found`, nobody having said which seeds there should be,
    a claim is decided on those that all of its cells have, or were tried with.
    """
    from ablations.verdicts import judge  # numpy; planning does without

    tried = unscored or {}
    keys = [keys_of([claim.condition]) for claim in claims]
    counted = [counting(seeds, {key.arm for key in own}, excluded) for own in keys]
    if is_as_found:
        counted = [
            paired_seeds(there, own, scores, tried)
            for there, own in zip(counted, keys, strict=True)
        ]
    read = [
        Read.of(claim.condition, own, scores, diverged, tasks)
        for claim, own in zip(claims, counted, strict=True)
    ]
    evidence = [
        one.evidence(claim, own) for one, claim, own in zip(read, claims, counted, strict=True)
    ]
    for index, own in enumerate(keys):
        whys = [tried.get(key, {}).get(seed) for seed in counted[index] for key in own]
        why = next(filter(None, whys), None)
        if is_as_found and not counted[index]:
            why = "there is no seed that all of its scores have"
        if why is not None:
            evidence[index] = replace(evidence[index], problem=why)
    verdicts = judge(evidence, alpha)
    for index, claim in enumerate(claims):
        affected, there = read[index].diverged_seeds, evidence[index].seeds
        if not affected or len(there) < len(counted[index]):
            continue
        rest = [seed for seed in counted[index] if seed not in affected]
        other = Read.of(claim.condition, rest, scores, frozenset(), tasks).evidence(claim, rest)
        without = judge([*evidence[:index], other, *evidence[index + 1 :]], alpha)[index]
        told = (*verdicts[index].warnings, _told_without(without))
        verdicts[index] = replace(verdicts[index], warnings=told)
    return verdicts


def paired_seeds(
    seeds: Sequence[int],
    keys: Sequence[ScoreKey],
    scores: Scores,
    unscored: Mapping[ScoreKey, Mapping[int, str]],
) -> list[int]:
    """The seeds with which all of some cells were tried."""
    tried = [scores.get(key, {}).keys() | unscored.get(key, {}).keys() for key in keys]
    return [seed for seed in seeds if all(seed in own for own in tried)]


def _told_without(verdict: Verdict) -> str:
    seeds = f"{verdict.n} seed{'' if verdict.n == 1 else 's'}"
    told = f"without what diverged: {verdict.verdict} ({seeds})"
    if verdict.effect is None:
        return told
    sign = "+" if verdict.is_difference else ""
    effect = f"{verdict.effect + 0.0:{sign}.4g}".replace("-", "−")
    boundary = f"{verdict.boundary + 0.0:.12g}".replace("-", "−")
    return f"{told}, {verdict.contrast} = {effect} against {boundary}"


def places(plan: Plan, diverged: Collection[str]) -> frozenset[Place]:
    """Where the model that was asked came from one of some stages."""
    if not diverged:  # as nearly always
        return frozenset()
    return frozenset(
        Place(trial.arm, *asked, trial.seed)
        for trial in plan.trials
        for asked, stage in plan.answers(trial).items()
        if not {stage, *plan.stages[stage].inputs.values()}.isdisjoint(diverged)
    )


@dataclass(frozen=True)
class Read:
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
        diverged: Collection[Place],
        tasks: Tasks,
    ) -> Read:
        """Read the scores of some seeds."""
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
                record = record_of(tasks, key.task, key.metric)
                # What an answerer without the model scores does not depend on it.
                if key.at(seed) in diverged and record.role == "score":
                    value = record.worst
                    fallen.add(key)
                    flagged[f"{trial} diverged"] = None
                    if value is None:
                        problem = f"{trial} diverged and {key.metric} has no worst value"
                        value = math.nan
                elif value is not None and not math.isfinite(value):
                    named = f"{key.task}.{key.metric}" if key.task else key.metric
                    problem = f"{trial}: {named} is {value}"
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

    def evidence(self, claim: Claim, seeds: Sequence[int]) -> Evidence:
        """As `judge` takes it; `seeds` are all that should be there."""
        from ablations.verdicts import Evidence, Values

        there = tuple(seed for seed in seeds if seed in self.table)
        missing = f"{len(there)} of {len(seeds)} seeds" if len(there) < len(seeds) else ""
        missing = missing if seeds else "no seed is left of which nothing is left out"
        return Evidence(
            name=claim.name,
            text=claim.text,
            condition=mapped(self.condition, lambda one: Values.of(one, self.table, there)),
            n=len(there),
            problem=self.problem or missing,
            warnings=tuple(self.warnings),
            seeds=there,
            scope=claim.scope,
        )
