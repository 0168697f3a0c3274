"""Effects and verdicts on a table from elsewhere, in the form that every output of a study has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ablations.claims import keys_of
from ablations.conditions import Condition
from ablations.contrasts import Contrast, ScoreKey
from ablations.deciding import Claim
from ablations.errors import UserError, shown
from ablations.few import few
from ablations.verdicts import Verdict
from analysis import words
from analysis.caveats import Caveat, about_alpha, about_directions, about_firmness, about_learning
from analysis.claim_words import sentence
from analysis.compare import (
    ArmLine,
    ClaimLine,
    Comparison,
    Completeness,
    EffectLine,
    control_lines,
    effect_lines,
    line_of,
    metrics_of,
    score_lines,
)
from analysis.tables.claims_file import USUAL_ALPHA, ClaimsFile, read_claims
from analysis.tables.power import detectable
from analysis.tables.raw import Raw
from analysis.tables.reading import Reading
from analysis.tables.registration import Registered, Resting, standing_of
from analysis.tables.understood import Understood, understand


@dataclass(frozen=True)
class TableResults:
    """A table with what is claimed on it; the same numbers for every form of output."""

    understood: Understood
    file: ClaimsFile | None  # what is claimed; None: nothing
    said: Reading  # beside the file, when its numbers could be known
    is_inline: bool = False  # the claims were given on the command line
    registered: Registered | None = None
    notices: tuple[str, ...] = ()

    @cached_property
    def claims(self) -> list[Claim]:
        """In the words of the table. Raises `UserError` for one that means nothing here."""
        found = [] if self.file is None else read_claims(self.file, self.understood)
        for claim in found:
            for key in keys_of([claim.condition]):
                if (why := self.understood.mixed.get((key.task, key.metric))) is not None:
                    raise UserError(f"claim {shown(claim.name)}: {why}")
        return found

    @property
    def alpha(self) -> float:
        """The chance of any wrong verdict."""
        return USUAL_ALPHA if self.file is None else self.file.alpha

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdict of each claim, in the order of the file."""
        return self.understood.table.verdicts(self.claims, self.alpha)

    def keys(self, claim: Claim) -> list[ScoreKey]:
        """The cells that a claim reads."""
        conditions: list[Condition[Contrast]] = [claim.condition]
        return keys_of(conditions)

    def resting(self, claim: Claim) -> Resting:
        """How far a claim was fixed before its results were known, and what that rests on."""
        return standing_of(self, claim)


def table_results(
    raw: Raw,
    reading: Reading,
    file: ClaimsFile | None = None,
    *,
    is_inline: bool = False,
    registered: Registered | None = None,
    notices: Sequence[str] = (),
) -> TableResults:
    """A table with its claims. `reading` is what is said beside the file, and has the last word.

    Raises:
        UserError: the table or a claim cannot be understood.
    """
    whole = reading if file is None else reading.over(file.table)
    understood = understand(raw, whole, () if file is None else file.seeds)
    return TableResults(understood, file, reading, is_inline, registered, tuple(notices))


def table_comparison(results: TableResults) -> Comparison:
    """Everything that any form of output says of a table."""
    understood = results.understood
    table = understood.table
    task, metric, shots = table.primary
    claims = _claims(results)
    runs = {(key.arm, seed) for key, own in table.scores.items() for seed in own}
    rows = len(understood.raw.frame)
    line = f"{understood.raw.origin}: {rows:,} rows, {told_shape(understood)}."
    return Comparison(
        study=understood.raw.name,
        hash="" if results.file is None else results.file.hash,
        question=(results.file.question if results.file else "")
        or "Effects and verdicts of a table",
        primary_metric=words.metric_name(task, metric),
        primary_shots=shots,
        primary_goal=table.record(task, metric).goal,
        alpha=results.alpha,
        seeds=table.seeds,
        seeds_in=tuple(
            seed for seed in table.seeds if all((arm, seed) in runs for arm in table.arms)
        ),
        replication=None,
        interim=False,
        registered_at=results.registered.at if results.registered else "",
        claims=tuple(claims),
        effects=tuple(_effects(understood)),
        noise_floor=None,
        arms=tuple(
            ArmLine(
                name=arm,
                label=arm,
                parameters=0,
                figures={},
                flops_per_trial=None,
                seconds_per_trial=math.nan,
                training_seconds_per_trial=math.nan,
                evaluation_seconds_per_trial=math.nan,
                compilation_seconds_per_trial=math.nan,
                diverged_seeds=(),
                scores=tuple(score_lines(table, arm)),
            )
            for arm in table.arms
        ),
        controls=tuple(control_lines(table)),
        completeness=Completeness(
            planned=len(table.arms) * len(table.seeds), there=len(runs), missing={}, line=line
        ),
        notices=tuple(_notices(results)),
        warnings=tuple(_warnings(results)),
        seconds=0.0,
        flops=None,
    )


def told_shape(understood: Understood) -> str:
    """`2 arms × 5 seeds (base: a, by its name), 2 metrics`."""
    table = understood.table
    arms, seeds = len(table.arms), len(table.seeds)
    metrics = len(table.metrics)
    shape = f"{arms} arm{'s' * (arms != 1)} × {seeds} seed{'s' * (seeds != 1)}"
    if not understood.has_seeds:
        shape = f"{arms} arm{'s' * (arms != 1)}, one run each"
    return (
        f"{shape} (base: {table.base}, {understood.base_why}), "
        f"{metrics} metric{'s' * (metrics != 1)}"
    )


def _effects(understood: Understood) -> list[EffectLine]:
    table = understood.table
    return [
        line.model_copy(update={"detectable": detectable(line.sd, line.n, USUAL_ALPHA)})
        for line in effect_lines(table)
        if (line.task, line.metric) not in understood.mixed
    ]


def _claims(results: TableResults) -> list[ClaimLine]:
    lines = []
    by_name = {claim.name: claim for claim in results.claims}
    table = results.understood.table
    for verdict in results.verdicts:
        claim = by_name[verdict.name]
        resting = results.resting(claim)
        least = results.file.claims[claim.name].min_effect if results.file else 0.0
        lines.append(
            line_of(
                ClaimLine,
                verdict,
                metrics=metrics_of(results.keys(claim)),
                relation="<" if verdict.below else ">",
                boundary=verdict.boundary + 0.0,
                path=(),
                interim=False,
                standing=resting.standing,
                caveats=_caveats(results, claim, verdict, resting),
                sentence=sentence(verdict, len(table.seeds), least, interim=False),
            )
        )
    return lines


def _caveats(
    results: TableResults, claim: Claim, verdict: Verdict, resting: Resting
) -> tuple[Caveat, ...]:
    table, keys = results.understood.table, results.keys(claim)
    return (
        *resting.caveats,
        *about_alpha(verdict),
        *_unpaired(results, claim, verdict),
        *(
            Caveat("excluded late", f"{run}: {why}")
            for run, why in results.understood.reading.exclude.items()
            if run.rpartition(" seed ")[0] in {key.arm for key in keys}
        ),
        *(
            Caveat("unlike steps", f"{words.metric_name(task, metric)}: {why}")
            for (task, metric), why in results.understood.uneven.items()
            if any((key.task, key.metric) == (task, metric) for key in keys)
        ),
        *about_firmness(verdict),
        *about_learning(table, claim.text, keys),
        *about_directions(table, keys),
    )


def _unpaired(results: TableResults, claim: Claim, verdict: Verdict) -> list[Caveat]:
    """Seeds that some arms of a claim have and others lack, so that they do not count."""
    table = results.understood.table
    if not table.is_as_found:
        return []
    keys = results.keys(claim)
    every = {seed for key in keys for seed in table.scores.get(key, {})}
    odd = [seed for seed in table.seeds if seed in every and seed not in verdict.by_seed]
    lacking = {}
    for seed in odd:
        for key in keys:
            if seed not in table.scores.get(key, {}) and seed not in table.unscored.get(key, {}):
                lacking.setdefault(key.arm, []).append(seed)
    if not lacking:
        return []
    told = "; ".join(
        f"{arm} has no seed {', '.join(map(str, own))}" for arm, own in lacking.items()
    )
    return [
        Caveat(
            "broken pairs",
            f"{told}: decided on the {verdict.n} seeds that all have. If runs are missing because "
            "they failed, the rest flatters their arm",
        )
    ]


def _notices(results: TableResults) -> list[str]:
    return [*results.notices, *results.understood.problems]


def _warnings(results: TableResults) -> list[str]:
    understood = results.understood
    found = list(understood.notes)
    found += understood.mixed.values()
    nobody = [words.metric_name(*name) for name, how in understood.directions.items() if not how]
    if nobody:
        found.append(
            f"nobody has said which way is better of {few(nobody, 6)} (--lower NAME or "
            "--higher NAME): a positive effect is a higher number, and no more"
        )
    return found
