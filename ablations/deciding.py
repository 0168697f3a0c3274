"""From scores to verdicts: what each claim of a study reads, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ablations.claims import Vocabulary, first_shots, keys_of, meaning
from ablations.conditions import Condition, mapped, quantities
from ablations.contrasts import Contrast, Place, ScoreKey, Scores
from ablations.metrics import BLIND, worst_value
from ablations.plan import Plan
from ablations.scope import scope

if TYPE_CHECKING:
    from ablations.verdicts import Evidence, Verdict


def vocabulary(plan: Plan) -> Vocabulary:
    """What the claims of a study that was planned may name."""
    arms = {arm.name: arm.levels for arm in plan.arms if arm.name not in plan.null_arms}
    evaluation = plan.arms[0].config["evaluation"]
    return Vocabulary(
        plan.factors,
        arms,
        plan.primary_metric,
        first_shots(evaluation),
        evaluation.get("average", ()),
        lambda task, metric: None,  # checked when the plan was made
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
    lost = places(plan, diverged) if diverged else frozenset()
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
    return frozenset(
        Place(trial.arm, e.task, e.shots, e.condition, trial.seed)
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
        lost: Collection[Place],
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
                # What a blind answerer scores does not depend on the model.
                if key.at(seed) in lost and not key.metric.startswith(BLIND):
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
