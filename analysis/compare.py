"""`mm1 compare STUDY`: verdicts, effects, arms and controls as text, Markdown, LaTeX or JSON.

One `Comparison` is made from the results; every form prints its numbers and computes none.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pydantic_core
from pydantic import ConfigDict, Field

from ablations.contrasts import ScoreKey
from ablations.errors import UserError, nearest
from ablations.exclusions import counting
from ablations.no_collection import no_collection
from ablations.schema import Config
from ablations.shown_text import each_text, hiding, in_terminal
from ablations.workload import INTACT, Goal, total, with_goal
from analysis import exclusions, words
from analysis.audit import amended_after_results
from analysis.caveats import OWN_FAMILY, Caveat, caveats
from analysis.claim_words import numbers, sentence
from analysis.controls import controls
from analysis.effects import LEVEL, effects, noise_floor, paired, summarize
from analysis.escaping import in_latex, in_markdown
from analysis.registry import Standing
from analysis.results import StudyResults
from analysis.score_table import ScoreTable

SCHEMA_VERSION = 1


class Line(Config):
    """Frozen; what is not known is not-a-number here and null in JSON."""

    model_config = ConfigDict(allow_inf_nan=True)


class LookLine(Line):
    """A claim at one look, where seeds were added until there was a verdict."""

    n: int  # seeds
    effect: float
    ci_low: float  # repeated interval, at the claim's `ci_level`
    ci_high: float
    p_value: float  # sequential: holds however often was looked
    t: float  # of the contrast against its boundary, towards the verdict
    boundary_t: float  # that t must reach


class ClaimLine(Line):
    """A claim and its verdict; the interval is the verdict's own, at the level that is named."""

    name: str
    text: str  # as in the study file
    verdict: Literal["supported", "refuted", "undecided"]
    contrast: str  # what is compared: the claim's left side minus its right side
    metrics: tuple[str, ...]  # that it reads, with the shots where there are some
    relation: Literal[">", "<"]  # of the contrast to the boundary, as the claim has it
    boundary: float  # what the effect is compared with
    effect: float | None  # mean of the contrast over seeds
    is_difference: bool  # else the effect is a score itself
    ci_low: float | None
    ci_high: float | None
    ci_level: float
    p_value: float | None
    p_adjusted: float | None  # Holm, over the study's claims
    alpha: float  # what it is compared with
    by_seed: dict[int, float]  # the contrast seed by seed
    n: int  # seeds
    path: tuple[LookLine, ...]  # looks, in order; none where all seeds were fixed
    scope: str
    reason: str
    interim: bool  # registered seeds are still missing
    standing: Standing
    sensitive: bool
    caveats: tuple[Caveat, ...]  # all that a reader must know beside the verdict
    sentence: str  # the verdict in plain words


class ScoreLine(Line):
    """One metric of one arm over its seeds."""

    task: str
    metric: str
    goal: Goal | None  # which way it is better, where that is known
    shots: int
    condition: str
    mean: float
    sd: float
    n: int
    item_error: float | None  # standard error of one seed's score if other items had been asked
    by_seed: dict[int, float]


class ArmLine(Line):
    """One arm: what it costs and what it scores."""

    name: str
    label: str
    parameters: int
    figures: dict[str, float]  # what else the workload tells of it
    flops_per_trial: float | None  # None: nobody knows
    # Measured, means over the trials that are there, without imports and compilation.
    seconds_per_trial: float
    training_seconds_per_trial: float
    evaluation_seconds_per_trial: float
    # These: whichever arm came first in a worker paid for them.
    compilation_seconds_per_trial: float
    diverged_seeds: tuple[int, ...]
    scores: tuple[ScoreLine, ...]


class EffectLine(Line):
    """A factor level against the base level, on one metric, paired by seed."""

    factor: str
    base_level: str
    level: str
    task: str
    metric: str
    goal: Goal | None
    shots: int
    condition: str
    mean: float
    sd: float
    ci_low: float
    ci_high: float
    ci_level: float
    n: int
    by_seed: dict[int, float]
    diverged_seeds: tuple[int, ...]  # of either level
    interim: bool
    # Of a table from elsewhere: the true effect that so many seeds find in 4 of 5 cases.
    detectable: float | None = None


class ControlLine(Line):
    """Beside an arm's score, what an answerer that does not see the image gets."""

    arm: str
    task: str
    metric: str
    goal: Goal | None
    shots: int
    # "shuffled images", "no image", "wrong demonstrations", "blind", "chance" or "oracle"
    control: str
    mean: float
    sd: float
    n: int
    lead: float  # score minus control, mean over seeds
    lead_low: float
    lead_high: float
    ci_level: float


class Completeness(Line):
    """Whether every planned trial is there exactly once."""

    planned: int
    there: int
    missing: dict[str, str]  # "arm seed n" → what is wrong
    line: str


class Comparison(Line):
    """What `mm1 compare --json` prints."""

    schema_version: int = SCHEMA_VERSION
    study: str
    hash: str
    question: str
    primary_metric: str
    primary_shots: int  # of claims that name none
    primary_goal: Goal | None
    alpha: float
    seeds: tuple[int, ...]
    seeds_in: tuple[int, ...]
    # Where seeds are added: from how many, by which rule, how many trials at most.
    replication: dict[str, Any] | None
    interim: bool
    registered_at: str
    claims: tuple[ClaimLine, ...]
    effects: tuple[EffectLine, ...]
    noise_floor: float | None = Field(description="SD of null arms' paired difference to the base")
    arms: tuple[ArmLine, ...]
    controls: tuple[ControlLine, ...]
    completeness: Completeness
    notices: tuple[str, ...]  # what changes how all of it is read: file changed, seeds missing
    warnings: tuple[str, ...]
    seconds: float  # measured, over all stages of the study, each once
    flops: float | None  # planned; None: nobody knows


def comparison(results: StudyResults) -> Comparison:
    """Everything that any of the four forms says."""
    plan, table = results.plan, results.table
    floor = noise_floor(table)
    costs = results.costs.drop_duplicates("stage")
    return Comparison(
        study=plan.study,
        hash=plan.hash,
        question=plan.question,
        primary_metric=".".join(plan.primary_metric),
        primary_shots=results.primary[2],
        primary_goal=table.record(*plan.primary_metric).goal,
        alpha=plan.alpha,
        seeds=plan.seeds,
        seeds_in=results.seeds_in,
        replication=_replication(results),
        interim=results.interim,
        registered_at=results.registration.registered_at,
        claims=tuple(_claims(results)),
        effects=tuple(effect_lines(table)),
        noise_floor=floor.sd if floor else None,
        arms=tuple(_arms(results)),
        controls=tuple(control_lines(table)),
        completeness=Completeness(
            planned=len(plan.trials),
            there=results.trials_there,
            missing={f"{arm} seed {seed}": text for (arm, seed), text in results.problems.items()},
            line=results.completeness,
        ),
        notices=tuple(_notices(results)),
        warnings=tuple(_warnings(results)),
        seconds=float(costs["seconds"].sum()),
        flops=total(plan.stages[one].flops for one in costs["stage"]),
    )


L = TypeVar("L", bound=Line)


def line_of(kind: type[L], *sources: object, **more: Any) -> L:
    """A line of what some sources have under the names of its fields, and of what else is given."""
    found = {
        name: getattr(source, name)
        for source in sources
        for name in kind.model_fields
        if hasattr(source, name)
    }
    return kind(**(found | more))


def _claims(results: StudyResults) -> list[ClaimLine]:
    lines = []
    for verdict in results.verdicts:
        interim = results.is_interim(verdict)
        least = results.plan.min_effects.get(verdict.name, 0.0)
        lines.append(
            line_of(
                ClaimLine,
                verdict,
                metrics=metrics_of(results.claim_keys[verdict.name]),
                relation="<" if verdict.below else ">",
                boundary=verdict.boundary + 0.0,
                path=tuple(line_of(LookLine, look) for look in verdict.path),
                interim=interim,
                standing=results.standing(verdict.name),
                caveats=caveats(results, verdict),
                sentence=sentence(
                    verdict, len(_counted(results, verdict.name)), least, interim=interim
                ),
            )
        )
    return lines


def _counted(results: StudyResults, claim: str) -> list[int]:
    """The seeds that a claim is decided on."""
    arms = {key.arm for key in results.claim_keys[claim]}
    return counting(results.plan.seeds, arms, results.plan.left_out)


def _replication(results: StudyResults) -> dict[str, Any] | None:
    its, made = results.whole.replication, results.replicated
    if its is None or made is None:
        return None
    return {**its.means, "most_trials": len(results.whole.trials), "ended": made.ended}


def metrics_of(keys: Iterable[ScoreKey]) -> tuple[str, ...]:
    """The metrics of some cells, each once."""
    return tuple(dict.fromkeys(words.metric_name(k.task, k.metric, k.shots) for k in keys))


def effect_lines(table: ScoreTable) -> list[EffectLine]:
    """Every factor level against the base level, on every metric."""
    return [
        line_of(
            EffectLine,
            one,
            one.summary,
            goal=table.record(one.task, one.metric).goal,
        )
        for one in effects(table)
    ]


def _arms(results: StudyResults) -> list[ArmLine]:
    plan = results.plan
    measured = _measured(results)
    diverged: dict[str, list[int]] = {}
    for name, seed in results.diverged:
        diverged.setdefault(name, []).append(seed)
    lines = []
    for arm in plan.arms:
        training, evaluation, compilation = measured.get(arm.name, (math.nan,) * 3)
        lines.append(
            ArmLine(
                name=arm.name,
                label=arm.label,
                parameters=sum(arm.parameters.values()),
                figures=arm.figures,
                flops_per_trial=arm.flops_per_trial,
                seconds_per_trial=training + evaluation,
                training_seconds_per_trial=training,
                evaluation_seconds_per_trial=evaluation,
                compilation_seconds_per_trial=compilation,
                diverged_seeds=tuple(diverged.get(arm.name, ())),
                scores=tuple(score_lines(results.table, arm.name)),
            )
        )
    return lines


def _measured(results: StudyResults) -> dict[str, tuple[float, float, float]]:
    """Arm → seconds a trial of training, evaluation and compilation, of the trials there."""
    costs = results.costs.dropna(subset=["seconds"])
    places = zip(costs["arm"], costs["seed"], strict=True)
    there = np.array([place not in results.problems for place in places], dtype=bool)
    costs = costs[there]
    found = {}
    seeds, scoring, seconds, once = (
        costs[name].to_numpy() for name in ("seed", "is_evaluation", "seconds", "once_seconds")
    )
    for arm, lines in costs.groupby("arm", sort=False).indices.items():
        trials, is_scored = len(set(seeds[lines])), scoring[lines]
        work = seconds[lines] - once[lines]
        parts = (work[~is_scored], work[is_scored], once[lines])
        training, evaluation, compilation = (float(part.sum()) / trials for part in parts)
        found[arm] = training, evaluation, compilation
    return found


def score_lines(table: ScoreTable, arm: str) -> list[ScoreLine]:
    """What an arm's model scored; what answerers without it do stands among the controls."""
    lines = []
    for form in table.metrics:
        key = ScoreKey(arm, *form)
        if not table.is_score(key.task, key.metric):
            continue
        summary = summarize(table.score(*key))
        if summary.n:
            goal = table.record(key.task, key.metric).goal
            lines.append(
                line_of(ScoreLine, key, summary, goal=goal, item_error=table.item_error(*key))
            )
    return lines


def control_lines(table: ScoreTable) -> list[ControlLine]:
    """Base first; for other arms only what their own model said: the answerers are the same."""
    lines = []
    for arm in table.arms:
        for form in table.scored:
            key = ScoreKey(arm, *form)
            for control in controls(table, key):
                if arm != table.base and not control.is_own:
                    continue
                level = table.score(*control.key)
                lead = summarize(paired(table.score(*key), level))
                lines.append(
                    line_of(
                        ControlLine,
                        key,
                        summarize(level),
                        goal=table.record(key.task, key.metric).goal,
                        control=control.name,
                        lead=lead.mean,
                        lead_low=lead.ci_low,
                        lead_high=lead.ci_high,
                        ci_level=lead.ci_level,
                    )
                )
    return lines


def _notices(results: StudyResults) -> list[str]:
    found = [one for one in (results.changed, results.published) if one]
    found += amended_after_results(results)
    found += results.damage_lines
    found += [*results.gaps, *results.removed_registrations] if results.plan.claims else []
    if results.interim and results.replicated is not None:
        found.append("seeds are still being added: claims without a verdict may get one")
    elif results.interim:
        found.append(
            f"interim: {len(results.seeds_in)} of {len(results.plan.seeds)} seeds are complete; "
            "effects may still move"
        )
    return found


def _warnings(results: StudyResults) -> list[str]:
    plan = results.plan
    found = [one.told for one in exclusions.told(results)]
    found += [f"{arm} seed {seed} diverged" for arm, seed in results.diverged]
    found += plan.warnings
    found += [f"{arm.label}: {warning}" for arm in plan.arms for warning in arm.warnings]
    found += results.mixed_executions()
    found += results.unlike_images()
    found += results.tried_again()
    return found


# -- four forms --------------------------------------------------------------------------------


@no_collection()
def render(results: StudyResults, form: str = "text", *, color: bool = False) -> str:
    """The comparison as `text`, `markdown`, `latex` or `json`."""
    return render_made(comparison(results), form, color=color)


def render_made(made: Comparison, form: str = "text", *, color: bool = False) -> str:
    """The same of a comparison that was made before, also of a table from elsewhere."""
    if form == "json":
        # Not-a-number is null; what a terminal would obey is written as `\\u202e`.
        plain = each_text(json.loads(made.model_dump_json()), hiding())
        return pydantic_core.to_json(plain, indent=2, ensure_ascii=True).decode()
    if form == "text":
        return _text(made, color)
    forms: dict[str, Callable[[Comparison], str]] = {"markdown": _markdown, "latex": _latex}
    if form not in forms:
        raise UserError(f"no form {form!r}{nearest(form, ['text', 'json', *forms])}")
    return forms[form](made)


@dataclass(frozen=True)
class Table:
    """A table of texts, to be set in any form. Columns after the first are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: frozenset[int] = frozenset({0})
    verdicts: tuple[str, ...] = ()  # of each row, which its second column says
    notes: tuple[str, ...] = ()  # to stand under it where it may stand apart from the text


# The heading of an interval that stands beside no verdict.
UNADJUSTED = f"{words.percent(LEVEL)} interval, unadjusted"
# The heading of the true effect that a test at the usual level finds in 4 of 5 cases.
DETECTABLE = "could be seen"
ABOUT_DETECTABLE = (
    f"{DETECTABLE}: the smallest true effect that one claim about it, at 5 %, would have found in "
    "4 of 5 cases with so many seeds that spread so much."
)
WIDEST = 8  # columns of the table of scores; with more it has a row a metric
NARROWEST = 16  # characters of a column of names in a narrow terminal
SYMBOLS = {"supported": "✓", "refuted": "✗", "undecided": "?", "interim": "…"}


def shown_verdict(claim: ClaimLine) -> str:
    """`supported`, `refuted`, `undecided`, or `interim` while seeds are missing."""
    return "interim" if claim.interim else claim.verdict


def tables(made: Comparison) -> list[Table]:
    """Claims, effects, scores, controls, cost: those that have a line."""
    found = [claims_table(made), paths_table(made), contrasts_table(made)]
    found += [*effects_tables(made), _narrow(scores_table(made))]
    found += [controls_table(made), costs_table(made)]
    return [table for table in found if table.rows and len(table.header) > 1]


def claims_table(made: Comparison) -> Table:
    """Every claim with its verdict, its own interval, and what stands beside it in a word."""
    rows = []
    for claim in made.claims:
        shown, told = shown_verdict(claim), numbers(claim)
        rows.append(
            (
                claim.name,
                f"{SYMBOLS[shown]} {shown}",
                told.effect,
                f"{claim.relation} {told.boundary}",
                told.interval,
                words.percent(claim.ci_level),
                words.p_value(claim.p_adjusted, claim.alpha),
                f"{claim.n}/{len(made.seeds)}",
                beside(claim),
            )
        )
    header = (
        *("claim", "verdict", "effect", "claimed", "interval"),
        *("level", "adj. p", "seeds", "beside it"),
    )
    return Table(
        "Claims",
        header,
        tuple(rows),
        frozenset({0, 1, 8}),
        verdicts=tuple(map(shown_verdict, made.claims)),
        notes=tuple(_claim_notes(made)),
    )


def _claim_notes(made: Comparison) -> list[str]:
    notes = [(c.name, caveat) for c in made.claims for caveat in c.caveats]
    told = [f"{name}, {caveat.word}: {caveat.told}" for name, caveat in notes]
    return [*made.notices, *told, family(made)]


def beside(claim: ClaimLine) -> str:
    """The standing of a claim, and its caveats in a word each."""
    return ", ".join(dict.fromkeys([claim.standing, *(caveat.word for caveat in claim.caveats)]))


def paths_table(made: Comparison) -> Table:
    """Each claim look by look, where seeds were added."""
    rows = []
    for claim in made.claims:
        places = _path_decimals(claim)
        told = words.signed if claim.is_difference else words.number
        for look in claim.path:
            last = look is claim.path[-1] and claim.verdict != "undecided"
            rows.append(
                (
                    claim.name,
                    str(look.n),
                    told(look.effect, places),
                    words.interval(look.ci_low, look.ci_high, places, plus=claim.is_difference),
                    words.p_value(look.p_value, claim.alpha),
                    f"{look.t:.2f}".replace("-", "−"),
                    f"{look.boundary_t:.2f}",
                    claim.verdict if last else "",
                )
            )
    header = (
        *("claim", "seeds", "estimate", "repeated interval"),
        *("sequential p", "t", "boundary", "verdict"),
    )
    return Table("How the claims came about", header, tuple(rows), frozenset({0, 7}))


def _path_decimals(claim: ClaimLine) -> int:
    widths = [look.ci_high - look.ci_low for look in claim.path[-1:]]
    return words.decimals(widths, [look.effect for look in claim.path])


def path_words(claim: ClaimLine) -> str:
    """A claim's looks in a line: seeds, estimate and sequential p value of each."""
    places = _path_decimals(claim)
    told = words.signed if claim.is_difference else words.number
    looks = [
        f"{look.n} seeds {told(look.effect, places)}, p {words.p_value(look.p_value, claim.alpha)}"
        for look in claim.path
    ]
    end = f"; {claim.verdict} at {claim.n} seeds" if claim.verdict != "undecided" else ""
    return f"look by look: {'; '.join(looks)}{end}"


def contrasts_table(made: Comparison) -> Table:
    """What each claim's effect is: the contrast, seed by seed, and what it is limited to."""
    rows = tuple(
        (
            claim.name,
            claim.contrast,
            ", ".join(claim.metrics),
            numbers(claim).by_seed or words.MISSING,
            claim.scope,
        )
        for claim in made.claims
    )
    header = ("claim", "contrast", "of", "seed by seed", "holds")
    return Table("What the claims compare", header, rows, frozenset({0, 1, 2, 3, 4}))


def effects_tables(made: Comparison) -> list[Table]:
    """One table a metric, the primary metric first; one line a level."""
    found = []
    for key in dict.fromkeys(map(_column, made.effects)):
        lines = [one for one in made.effects if _column(one) == key]
        is_seen = any(one.detectable is not None for one in lines)
        rows = tuple(
            (
                f"{one.factor}: {one.base_level} → {one.level}",
                *effect_words(one, lines),
                *((_detectable(one),) if is_seen else ()),
                f"{one.n}/{len(made.seeds)}" + (", diverged" if one.diverged_seeds else ""),
            )
            for one in lines
        )
        interim = ", interim" if any(one.interim for one in lines) else ""
        seen = (DETECTABLE,) if is_seen else ()
        header = ("change", "effect", UNADJUSTED, *seen, "seeds")
        found.append(
            Table(f"Effects on {shown_metric(lines[0])}, paired by seed{interim}", header, rows)
        )
    return found


def _detectable(one: EffectLine) -> str:
    """At the decimals of its spread: it is an estimate from that."""
    size = math.nan if one.detectable is None else one.detectable
    return words.number(size, words.decimals([size]))


def effect_words(one: EffectLine, beside: Sequence[EffectLine]) -> tuple[str, str]:
    """An effect and its interval, at the decimals of those that stand beside it or more."""
    places = words.decimals((e.ci_high - e.ci_low for e in beside), (e.mean for e in beside))
    places = words.telling_decimals(places, one.mean, one.ci_low, one.ci_high)
    interval = words.interval(one.ci_low, one.ci_high, places)
    return words.signed(one.mean, places), interval


def _column(one: EffectLine | ScoreLine) -> tuple[str, str, int]:
    return one.task, one.metric, one.shots


def shown_metric(one: EffectLine | ScoreLine | ControlLine) -> str:
    """A metric for readers: its name, and which way it is better where low is."""
    return with_goal(words.metric_name(one.task, one.metric, one.shots), one.goal)


def scores_table(made: Comparison) -> Table:
    """Every arm's scores, mean ± SD over seeds."""
    scores = {arm.name: {_column(s): s for s in arm.scores if _intact(s)} for arm in made.arms}
    keys = {key: shown_metric(one) for mine in scores.values() for key, one in mine.items()}
    places = {key: _score_decimals([m[key] for m in scores.values() if key in m]) for key in keys}
    rows = []
    for arm in made.arms:
        mine = scores[arm.name]
        cells = [
            words.mean_sd(mine[key].mean, mine[key].sd, places[key])
            if key in mine
            else words.MISSING
            for key in keys
        ]
        seeds = f"{max((s.n for s in mine.values()), default=0)}/{len(made.seeds)}"
        if arm.diverged_seeds:
            seeds += f", {len(arm.diverged_seeds)} diverged"
        rows.append((arm.label, *cells, seeds))
    header = ("arm", *keys.values(), "seeds")
    return Table("Scores, mean ± SD over seeds", header, tuple(rows))


def _score_decimals(scores: Sequence[ScoreLine]) -> int:
    return words.decimals((one.sd for one in scores), (one.mean for one in scores))


def _narrow(table: Table) -> Table:
    """The same with a row for each column where it has many, so that it fits on a page."""
    if len(table.header) <= WIDEST:
        return table
    corner, *columns = table.header
    rows = tuple((name, *(row[n] for row in table.rows)) for n, name in enumerate(columns, start=1))
    return Table(table.title, (corner, *(row[0] for row in table.rows)), rows)


def costs_table(made: Comparison) -> Table:
    """What every arm costs; of what nobody knows (parameters of a command) there is no column."""
    told = list(dict.fromkeys(name for arm in made.arms for name in arm.figures))
    columns = {
        "parameters": [arm.parameters and words.count(arm.parameters) for arm in made.arms],
        **{
            name.replace("_", " "): [words.figure(arm.figures.get(name)) for arm in made.arms]
            for name in told
        },
        "FLOPs/trial": [
            arm.flops_per_trial and words.count(arm.flops_per_trial) for arm in made.arms
        ],
        "training/trial": (
            [words.duration(arm.training_seconds_per_trial) for arm in made.arms]
            if made.seconds or not made.arms or made.completeness.missing
            else []
        ),
        "evaluation/trial": _durations(arm.evaluation_seconds_per_trial for arm in made.arms),
        "compilation/trial": _durations(arm.compilation_seconds_per_trial for arm in made.arms),
    }
    known = {
        name: [cell or words.MISSING for cell in cells]
        for name, cells in columns.items()
        if any(cells)
    }
    labels = [arm.label for arm in made.arms]
    rows = tuple(tuple(row) for row in zip(labels, *known.values(), strict=True))
    return Table("Cost", ("arm", *known), rows)


def _durations(seconds: Iterable[float]) -> list[str]:
    """As words; nothing where none was measured or all took no time at all."""
    seconds = list(seconds)
    if not any(one > 0 for one in seconds):
        return []
    return [words.duration(one) for one in seconds]


def arms_table(made: Comparison) -> Table:
    """Scores and cost of every arm side by side, for wide media."""
    scores, costs = scores_table(made), costs_table(made)
    rows = tuple((*a, *b[1:]) for a, b in zip(scores.rows, costs.rows, strict=True))
    return Table("All arms", (*scores.header, *costs.header[1:]), rows)


def primary(made: Comparison) -> str:
    """The primary metric for readers."""
    return with_goal(
        words.metric_name("", made.primary_metric, made.primary_shots), made.primary_goal
    )


def _intact(score: ScoreLine) -> bool:
    return score.condition == INTACT


def controls_table(made: Comparison) -> Table:
    """Each control, and by how much the score leads it."""
    labels = {arm.name: arm.label for arm in made.arms}
    scores = {(arm.name, *_column(s)): s for arm in made.arms for s in arm.scores if _intact(s)}
    rows = []
    for one in made.controls:
        if math.isnan(one.mean):  # claims ask for a control of some arms alone
            continue
        score = scores.get((one.arm, one.task, one.metric, one.shots))
        places = lead_decimals(one)
        rows.append(
            (
                labels[one.arm],
                shown_metric(one),
                one.control,
                words.number(score.mean if score else math.nan, places),
                words.mean_sd(one.mean, one.sd if one.sd else math.nan, places),
                words.signed(one.lead, places),
                words.interval(one.lead_low, one.lead_high, places),
            )
        )
    header = ("arm", "metric", "control", "score", "control's score", "lead", UNADJUSTED)
    return Table(
        "Controls: what can be had without seeing", header, tuple(rows), frozenset({0, 1, 2})
    )


def lead_decimals(one: ControlLine) -> int:
    """Decimals of a lead over a control: they show whether its interval leaves zero out."""
    places = words.decimals([one.lead_high - one.lead_low], [one.lead, one.mean])
    return words.telling_decimals(places, one.lead, one.lead_low, one.lead_high)


def _text(made: Comparison, color: bool) -> str:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table as RichTable

    page = io.StringIO()
    width = shutil.get_terminal_size((110, 40)).columns
    console = Console(file=page, force_terminal=color, width=width, highlight=False)
    console.print(in_terminal(f"{made.study}  ", "bold") + in_terminal(made.question, "not bold"))
    for warning in (*made.notices, *made.warnings):
        console.print(in_terminal(f"! {warning}", "yellow"))
    styles = {"supported": "blue", "refuted": "red", "undecided": "dim", "interim": "dim"}
    for table in tables(made):
        console.print()
        console.print(in_terminal(table.title, "bold"))
        grid = RichTable(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for column, name in enumerate(table.header):
            left = column in table.text_columns
            # Narrower; and no name is cut, for cut ones may become equal.
            header = (
                name
                if left
                else name.replace(".", ".\n", 1).replace("/", "/\n", 1).replace(" (", "\n(")
            )
            cells = [*header.split("\n"), *(row[column] for row in table.rows)]
            longest = max(map(cell_len, cells))
            grid.add_column(
                in_terminal(header),
                justify="left" if left else "right",
                no_wrap=not left,
                overflow="fold",
                min_width=min(longest, NARROWEST) if left else longest,
                vertical="bottom",
            )
        for row, shown in itertools.zip_longest(table.rows, table.verdicts, fillvalue=""):
            style_of = {1: styles[shown]} if shown else {}
            cells = (in_terminal(cell, style_of.get(n, "")) for n, cell in enumerate(row))
            grid.add_row(*cells)
        # What is wider than the terminal is left to it to wrap: nothing is lost.
        console.width = 10_000
        console.width = max(width, console.measure(grid).minimum)
        console.print(grid)
        console.width = width
    if made.claims:
        console.print()
        for claim in made.claims:
            told = " ".join([claim.sentence, *(f"({c.word}: {c.told})" for c in claim.caveats)])
            console.print(in_terminal(f"{claim.name}: ", "bold") + in_terminal(told, "not bold"))
    console.print()
    for line in _closing(made):
        console.print(in_terminal(line))
    return page.getvalue().rstrip("\n")


def family(made: Comparison) -> str:
    """What the intervals and p values of the claims are corrected for; "" without claims."""
    if not made.claims:
        return ""
    apart = any(caveat.word == OWN_FAMILY for claim in made.claims for caveat in claim.caveats)
    together = "registered together" if apart else "of this study"
    alphas = dict.fromkeys(claim.alpha for claim in made.claims)
    chances = " or ".join(map(words.percent, alphas))
    if made.replication is not None:
        return (
            f"Each claim is judged on one number per seed, by t tests in both directions, looked "
            f"at after every seed from {made.replication['initial']} to {made.replication['most']} "
            f"against a boundary for all looks together. Holm's correction of the sequential p "
            f"values holds the chance of any wrong verdict among the claims {together} to "
            f"{chances}. Each claim's interval is repeated: it holds at all looks together, at the "
            "level at which the claim was decided. Where a small effect stops early its estimate "
            "is too large on average. All other intervals are unadjusted, and leave out that seeds "
            "were added by results."
        )
    return (
        f"Each claim is judged on one number per seed, by t tests in both directions. Holm's "
        f"correction holds the chance of any wrong verdict among the claims {together} to "
        f"{chances}. Each claim's interval is at the level at which it was "
        "decided; they are not simultaneous. All other intervals are unadjusted."
    )


def _closing(made: Comparison) -> list[str]:
    """What was corrected for, the noise floor where there is one, and whether all is there."""
    told = [family(made)] if made.claims else []
    told += [ABOUT_DETECTABLE] if any(one.detectable is not None for one in made.effects) else []
    floor = made.noise_floor
    if floor is None:
        return [*told, made.completeness.line]
    size = words.number(floor, words.decimals([floor]))
    return [
        *told,
        f"Noise floor: null arms differ from the base by an SD of {size} ({primary(made)}).",
        made.completeness.line,
    ]


def _markdown(made: Comparison) -> str:
    parts = [f"# {in_markdown(made.study)}", in_markdown(made.question)]
    parts += [f"> **Note:** {in_markdown(warning)}" for warning in (*made.notices, *made.warnings)]
    for table in tables(made):
        rule = [":--" if c in table.text_columns else "--:" for c in range(len(table.header))]
        header, *rows = (list(map(in_markdown, row)) for row in (table.header, *table.rows))
        lines = [header, rule, *rows]
        parts.append(f"## {in_markdown(table.title)}")
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    parts += [
        " ".join(
            [
                f"- **{in_markdown(claim.name)}**: {in_markdown(claim.sentence)}",
                *(f"*({in_markdown(f'{c.word}: {c.told}')})*" for c in claim.caveats),
            ]
        )
        for claim in made.claims
    ]
    parts += map(in_markdown, _closing(made))
    return "\n\n".join(parts)


def _latex_note(text: str) -> str:
    return rf"{{\footnotesize\raggedright {in_latex(text)}\par}}"


def _latex(made: Comparison) -> str:
    parts = [
        "% needs \\usepackage{booktabs,amssymb}",
        f"% study {in_latex(made.study)}, {made.hash}",
    ]
    parts += [_latex_note(note) for note in (() if made.claims else made.notices)]
    for table in tables(made):
        columns = "".join("l" if c in table.text_columns else "r" for c in range(len(table.header)))
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{in_latex(table.title)}.}}",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            " & ".join(map(in_latex, table.header)) + r" \\",
            r"\midrule",
            *(" & ".join(map(in_latex, row)) + r" \\" for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip\raggedright\footnotesize {in_latex(n)}" for n in table.notes),
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    notes = [*made.warnings, *_closing(made)[bool(made.claims) :]]
    parts += [_latex_note(note) for note in notes]
    return "\n\n".join(parts)
