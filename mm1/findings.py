"""What a study found, as DataFrames: the part of `import mm1` that notebooks are made of.

Every function takes a study, by its name, file or `mm1.load`, or a score table of other numbers.
Columns and units are in `docs/api.md`, which a test holds. All but `verdicts` describe: their
intervals are of 95 % and their p values uncorrected.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas

from ablations.errors import UserError, nearest, shown
from ablations.workload import INTACT, Asked
from analysis.results import StudyResults
from analysis.score_table import Form, ScoreTable
from analysis.tables.understood import Understood
from analysis.words import metric_name

if TYPE_CHECKING:
    from ablations.verdicts import Verdict
    from analysis.statistics.learning_rate import LearningRateLaw
    from analysis.statistics.scaling import ScalingFit

Source = str | Path | StudyResults | ScoreTable | Understood
COSTS = ("flops", "parameters", "training_seconds", "seconds_per_item")


@overload
def load(study: ScoreTable, *, store: str | None = None) -> ScoreTable: ...


@overload
def load(study: Understood, *, store: str | None = None) -> Understood: ...


@overload
def load(study: str | Path | StudyResults, *, store: str | None = None) -> StudyResults: ...


def load(study: Source, *, store: str | None = None) -> StudyResults | ScoreTable | Understood:
    """A study that has run, by its name or file; what was loaded before is given back.

    Worth calling once: every other function reads the store again where it is given a name. That
    somebody looked is put on record (`mm1 audit`).
    """
    if isinstance(study, StudyResults | ScoreTable | Understood):
        return study
    from mm1.api import results

    return results(study, store=store, by="mm1.load")


def table(source: str | Path, **reading: Any) -> Understood:
    """A table from elsewhere: whatever `mm1 table` reads, with its options as keywords.

    Print it to see what was understood and what is odd about it.

    Raises:
        UserError: what it says cannot be told; the message names the option that does.
    """
    from analysis.tables.reading import Reading
    from analysis.tables.sources import read_source
    from analysis.tables.understood import understand

    for name in reading:
        if name not in Reading.model_fields:
            raise UserError(f"no option {name!r} of a table{nearest(name, Reading.model_fields)}")
    many = {name: reading[name] for name in reading}
    for name, field in Reading.model_fields.items():
        if isinstance(many.get(name), str) and field.default == ():
            many[name] = (many[name],)
    said = Reading.model_validate(many)
    return understand(read_source(str(source), said.part), said)


def _table(study: Source, store: str | None) -> ScoreTable:
    found = load(study, store=store)
    return found if isinstance(found, ScoreTable) else found.table


def _results(study: Source, store: str | None, what: str) -> StudyResults:
    found = load(study, store=store)
    if not isinstance(found, StudyResults):
        raise UserError(f"{what} are in the store of a study; a table of numbers has none")
    return found


def _form(
    study: Source,
    store: str | None,
    metric: str,
    shots: int | None = None,
    condition: str = INTACT,
) -> tuple[ScoreTable, Form]:
    """The table and the form of it that is meant.

    Raises `UserError` where its numbers may be in two units, as a claim on them would be.
    """
    from analysis.statistics.per_seed import form_of

    found = load(study, store=store)
    table = found if isinstance(found, ScoreTable) else found.table
    form = form_of(table, metric, shots, condition)
    if isinstance(found, Understood) and (why := found.mixed.get(form[:2])) is not None:
        raise UserError(why)
    return table, form


def scores(study: Source, metric: str = "", *, store: str | None = None) -> pandas.DataFrame:
    """Every score, or those of one `task.metric`: a row a number, the primary metric first."""
    table = _table(study, store)
    known = {metric_name(task, name): None for task, name, _, _ in table.metrics}
    if metric and metric not in known:
        raise UserError(f"no metric {metric!r} was measured{nearest(metric, known)}")
    base = table.design.arms[table.base]
    wanted = dict(zip(table.metrics, itertools.count(), strict=False))
    rows = []
    for key in sorted(table.scores, key=lambda one: wanted.get(one[1:], -1)):
        values = table.scores[key]
        if key[1:] not in wanted or metric not in ("", metric_name(key.task, key.metric)):
            continue
        record = table.record(key.task, key.metric)
        rows += [
            {
                "arm": key.arm,
                "seed": seed,
                "score": value,
                "unit": record.unit,
                "lower_is_better": record.goal == "minimise",
                "role": record.role,
                "diverged": table.has_diverged(key, seed),
                **key._asdict(),
                **table.design.arms.get(key.arm, base),
            }
            for seed, value in values.items()
        ]
    columns = (
        *("arm", "seed", "score", "unit", "lower_is_better", "role", "diverged"),
        *("task", "metric", "shots", "condition", *table.design.factors),
    )
    return pandas.DataFrame(rows, columns=list(columns))


def effects(
    study: Source,
    metric: str = "",
    *,
    shots: int | None = None,
    condition: str = INTACT,
    store: str | None = None,
) -> pandas.DataFrame:
    """What each level did against the base level, on the primary metric or another."""
    from analysis.statistics.paired_effects import paired_effects

    return paired_effects(*_form(study, store, metric, shots, condition))


def interactions(
    study: Source, metric: str = "", *, shots: int | None = None, store: str | None = None
) -> pandas.DataFrame:
    """How much the effect of one factor differs with another's level."""
    from analysis.statistics.interactions import interactions

    return interactions(*_form(study, store, metric, shots))


def importance(
    study: Source, metric: str = "", *, shots: int | None = None, store: str | None = None
) -> pandas.DataFrame:
    """Factors in order: shares of variance of a full factorial, else sizes local to the base."""
    from analysis.statistics.importance import importance

    return importance(*_form(study, store, metric, shots))


def trends(
    study: Source,
    metric: str = "",
    *,
    shots: int | None = None,
    scale: Literal["linear", "log2"] = "linear",
    store: str | None = None,
) -> pandas.DataFrame:
    """Slope, curvature and order over each factor whose levels are numbers."""
    from analysis.statistics.trends import trends

    if scale not in ("linear", "log2"):
        raise UserError(f"scale: {scale!r}{nearest(scale, ('linear', 'log2'))}")
    return trends(*_form(study, store, metric, shots), scale)


def over_shots(
    study: Source, metric: str = "", *, condition: str = INTACT, store: str | None = None
) -> pandas.DataFrame:
    """Each arm's score by the number of demonstrations, and what it gains over the fewest."""
    from analysis.statistics.trends import over_shots

    return over_shots(*_form(study, store, metric, condition=condition))


def equivalence(
    study: Source,
    margin: float,
    metric: str = "",
    *,
    shots: int | None = None,
    store: str | None = None,
) -> pandas.DataFrame:
    """Whether each level is within `margin`, in the metric's unit, of the base level."""
    from analysis.statistics.equivalence import equivalence

    table, form = _form(study, store, metric, shots)
    return equivalence(table, margin, form)


def verdicts(
    study: Source,
    claims: Mapping[str, str] | None = None,
    *,
    alpha: float = 0.05,
    store: str | None = None,
) -> pandas.DataFrame:
    """The verdict of each claim of a study, as `mm1 compare` has it.

    Of a table of other numbers `claims`, name → text, are decided at `alpha`; nobody can say when
    they were written down, so their standing is "exploratory".
    """
    found = load(study, store=store)
    if isinstance(found, StudyResults):
        if claims is not None:
            raise UserError(
                "the claims of a study are those of its file, which were registered; others can be "
                "decided on its table: mm1.verdicts(mm1.load(study).table, claims)"
            )
        decided = found.verdicts
        standing = {one.name: str(found.standing(one.name)) for one in decided}
    else:
        decided = _decided(found, claims or {}, alpha)
        standing = {}
    columns = (
        *("name", "text", "verdict", "effect", "ci_low", "ci_high", "ci_level", "boundary"),
        *("p_value", "p_adjusted", "alpha", "n", "sensitive", "contrast", "scope", "reason"),
    )
    rows = [{name: getattr(one, name) for name in columns} for one in decided]
    found = pandas.DataFrame(rows, columns=list(columns))
    return found.assign(standing=[standing.get(name, "exploratory") for name in found["name"]])


def _decided(
    found: ScoreTable | Understood, claims: Mapping[str, str], alpha: float
) -> list[Verdict]:
    """Verdicts on claims about a table."""
    if isinstance(found, ScoreTable) or not claims:
        from ablations.deciding import Claim

        table = found if isinstance(found, ScoreTable) else found.table
        read = [Claim.read(name, text, table.names) for name, text in claims.items()]
        return table.verdicts(read, alpha)
    from analysis.tables.claims_file import ClaimsFile
    from analysis.tables.comparison import TableResults

    file = ClaimsFile.model_validate({"claims": dict(claims), "alpha": alpha})
    return TableResults(found, file, found.reading, is_inline=True).verdicts


def curves(study: Source, metric: str = "", *, store: str | None = None) -> pandas.DataFrame:
    """A metric of training by step, of every arm and seed; the training loss by default."""
    found = _results(study, store, "curves")
    name = metric or found.curve
    return found.curves(metric).reset_index(drop=True).assign(metric=name)


def examples(
    study: Source,
    task: str = "",
    *,
    arms: Iterable[str] = (),
    seeds: Iterable[int] = (),
    shots: int | None = None,
    condition: str = INTACT,
    store: str | None = None,
) -> pandas.DataFrame:
    """What was asked and answered, a row an item, arm and seed; of all arms and seeds by default.

    Raises:
        UserError: a name that is not known, or nothing is stored.
    """
    found = _results(study, store, "examples")
    asked = _task(found, task, shots, condition)
    wanted, only = tuple(arms), {*seeds}
    for arm in wanted:
        if arm not in (known := [one.name for one in found.plan.arms]):
            raise UserError(f"no arm {shown(arm)}{nearest(arm, known)}")
    frames = []
    for trial in found.plan.trials:
        if (wanted and trial.arm not in wanted) or (only and trial.seed not in only):
            continue
        own = found.examples(trial.arm, trial.seed, *asked)
        if own is not None:
            own = own.drop(columns=["image"], errors="ignore")  # the bytes of a picture
            frames.append(own.assign(arm=trial.arm, seed=trial.seed))
    if not frames:
        raise UserError(f"no examples of {asked.task} ({asked.shots}-shot, {condition}) are stored")
    every = pandas.concat(frames, ignore_index=True)
    columns = (
        *("arm", "seed", "item_id", "image_id", "prompt", "prediction"),
        *("references", "score", "weight"),
    )
    return every.assign(weight=every.get("weight", 1.0))[list(columns)].assign(
        task=asked.task, shots=asked.shots, condition=condition
    )


def _task(found: StudyResults, task: str, shots: int | None, condition: str) -> Asked:
    """The asking that is meant: of the primary metric's task and its fewest shots by default."""
    there = [answer.asked for arm in found.plan.arms for answer in arm.answers]
    name = task or found.primary[0]
    if name not in {one.task for one in there}:
        raise UserError(f"no task {shown(name)}{nearest(name, {one.task for one in there})}")
    if shots is None:
        counts = {a.shots for a in there if (a.task, a.condition) == (name, condition)}
        shots = min(counts, default=0) if task else found.primary[2]
    asked = Asked(name, shots, condition)
    if asked not in there:
        own = dict.fromkeys(f"{a.shots}-shot {a.condition}" for a in there if a.task == name)
        raise UserError(
            f"{name} was not asked at {shots} shots, {condition}; there is: {', '.join(own)}"
        )
    return asked


def flips(
    study: Source,
    first: str,
    second: str,
    task: str = "",
    *,
    shots: int | None = None,
    condition: str = INTACT,
    store: str | None = None,
) -> pandas.DataFrame:
    """McNemar's exact test of two arms on the same items, a row a seed: these checkpoints only."""
    from analysis.statistics.items import mcnemar

    pairs, lower = _pairs(study, first, second, task, shots, condition, store)
    rows = [
        mcnemar(*pair, lower_is_better=lower).assign(seed=seed, first=first, second=second)
        for seed, pair in pairs.items()
    ]
    return pandas.concat(rows, ignore_index=True)


def noise(
    study: Source,
    first: str,
    second: str,
    task: str = "",
    *,
    shots: int | None = None,
    condition: str = INTACT,
    store: str | None = None,
) -> pandas.DataFrame:
    """The noise of the difference of two arms: what of it is seeds, what is items."""
    from analysis.statistics.seeds_and_items import seed_and_item_noise

    pairs, _ = _pairs(study, first, second, task, shots, condition, store)
    return seed_and_item_noise(pairs).assign(first=first, second=second)


def _pairs(
    study: Source,
    first: str,
    second: str,
    task: str,
    shots: int | None,
    condition: str,
    store: str | None,
) -> tuple[dict[int, tuple[pandas.DataFrame, pandas.DataFrame]], bool]:
    """Seed → the examples of two arms, and whether lower scores of the task are better."""
    found = _results(study, store, "examples")
    known = [one.name for one in found.plan.arms]
    for arm in (first, second):
        if arm not in known:
            raise UserError(f"no arm {shown(arm)}{nearest(arm, known)}")
    asked = _task(found, task, shots, condition)
    pairs = {}
    for seed in found.plan.seeds:
        a, b = (found.examples(arm, seed, *asked) for arm in (first, second))
        if a is not None and b is not None:
            pairs[seed] = a, b
    if not pairs:
        raise UserError(f"no seed has examples of {asked.task} of both {first} and {second}")
    goal = found.plan.tasks[asked.task].first.goal
    if goal is None:
        raise UserError(f"nobody has said whether more of {asked.task} is better or less")
    return pairs, goal == "minimise"


def pareto(
    study: Source,
    cost: str | Mapping[str, float] = "flops",
    metric: str = "",
    *,
    shots: int | None = None,
    store: str | None = None,
) -> pandas.DataFrame:
    """Score against cost: the front of means, and which arms are beaten beyond noise.

    `cost` is arm → number, or a name: `flops` of a trial's trainings, `parameters`,
    `training_seconds`, `seconds_per_item` of asking, or a figure of the arms such as
    `image_tokens`. What was measured is compared seed by seed.
    """
    from analysis.statistics.pareto import pareto

    found = load(study, store=store)
    table, form = _form(found, store, metric, shots)
    if not isinstance(cost, str):
        return pareto(table, cost, "cost", form)
    if not isinstance(found, StudyResults):
        raise UserError(
            f"a table of numbers has no {cost}: give the cost of each arm (arm → number)"
        )
    return pareto(table, _costs(found, cost, form), cost, form)


def _costs(
    found: StudyResults, cost: str, form: Form
) -> dict[str, float] | dict[str, dict[int, float]]:
    """Arm → what it costs, exactly or by seed."""
    plan = found.plan
    arms = [arm for arm in plan.arms if arm.name not in plan.null_arms]
    if cost == "training_seconds":
        return _seconds(found, {}, is_evaluation=False)
    if cost == "seconds_per_item":
        rows = found.evaluations
        rows = rows[(rows[["task", "metric", "shots", "condition"]] == list(form)).all(axis=1)]
        items = rows.set_index("stage")["n_items"].to_dict()
        return _seconds(found, items, is_evaluation=True)
    if cost == "flops":
        exact = {arm.name: arm.flops_per_trial for arm in arms}
    elif cost == "parameters":
        exact = {arm.name: float(sum(arm.parameters.values())) or None for arm in arms}
    else:
        exact = {arm.name: arm.figures.get(cost) for arm in arms}
        known = [*COSTS, *dict.fromkeys(name for arm in arms for name in arm.figures)]
        if all(value is None for value in exact.values()):
            raise UserError(f"no cost {shown(cost)}{nearest(cost, known)}")
    lacking = [name for name, value in exact.items() if value is None]
    if lacking:
        raise UserError(
            f"{cost} of {', '.join(lacking[:3])} is not known: give the cost of each arm"
        )
    return {name: float(value) for name, value in exact.items() if value is not None}


def _seconds(
    found: StudyResults, items: Mapping[str, float], *, is_evaluation: bool
) -> dict[str, dict[int, float]]:
    """Arm → seed → measured seconds, without importing and compiling; per item if given.

    Raises `UserError` where they were measured on unlike devices, which says nothing of arms.
    """
    costs = found.costs
    own = costs[(costs["is_evaluation"] == is_evaluation) & costs["seconds"].notna()]
    own = own[~own["arm"].isin(found.plan.null_arms)]
    lacking = {*found.problems}
    own = own[[place not in lacking for place in zip(own["arm"], own["seed"], strict=True)]]
    if items:
        own = own[own["stage"].isin(list(items))]
    if own.empty:
        raise UserError("no measured seconds are stored")
    ran = found.executions
    kinds = {str(ran[stage].get("device_kind")) for stage in own["stage"] if stage in ran}
    if len(kinds) > 1:
        raise UserError(
            f"seconds were measured on unlike devices ({', '.join(sorted(kinds))}), so they say "
            "nothing of arms"
        )
    worked = own["seconds"] - own["once_seconds"].fillna(0.0)
    if items:
        worked = worked / own["stage"].map(items)
    by_trial = worked.groupby([own["arm"], own["seed"]]).sum()
    seconds: dict[str, dict[int, float]] = {}
    for (arm, seed), value in by_trial.items():
        if math.isfinite(value):
            seconds.setdefault(str(arm), {})[int(seed)] = float(value)
    return seconds


def scaling_fit(
    study: Source,
    sizes: str | Mapping[str, float],
    metric: str = "",
    *,
    shots: int | None = None,
    ceiling: float | None = None,
    store: str | None = None,
) -> ScalingFit:
    """A score against size, curvature first; what it predicts, and of the size held out.

    `sizes` is a factor whose levels are numbers, `parameters` or `flops` of the arms, or arm →
    size. With `ceiling` the distance to it is fitted.
    """
    from analysis.statistics.scaling import scaling_fit

    found = load(study, store=store)
    table, form = _form(found, store, metric, shots)
    if sizes in ("parameters", "flops") and isinstance(found, StudyResults):
        exact = _costs(found, str(sizes), form)
        sizes = {arm: size for arm, size in exact.items() if isinstance(size, float)}
    return scaling_fit(table, sizes, form, ceiling)


def learning_rate_law(
    study: Source,
    size: str,
    rate: str = "optimizer.peak_lr",
    metric: str = "",
    *,
    sizes: Mapping[str, float] | None = None,
    store: str | None = None,
) -> LearningRateLaw:
    """The best peak rate of each size, and the line through them in log-log space.

    `size` and `rate` are factors that were varied together; `sizes` gives the parameters of levels
    that are names.
    """
    from analysis.statistics.learning_rate import learning_rate_law

    table, form = _form(study, store, metric)
    return learning_rate_law(table, size, rate, form, sizes)


def rank_agreement(
    first: Source,
    second: Source,
    first_metric: str = "",
    second_metric: str = "",
    *,
    store: str | None = None,
) -> pandas.DataFrame:
    """Whether two studies, or two metrics of one, rank the arms that both have alike."""
    from analysis.statistics.agreement import rank_agreement

    found = load(first, store=store)
    other = found if second is first else load(second, store=store)
    one_table, one_form = _form(found, store, first_metric)
    other_table, other_form = _form(other, store, second_metric)
    return rank_agreement(one_table, other_table, one_form, other_form)
