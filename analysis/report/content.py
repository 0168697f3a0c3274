"""What a report says, in order, whatever its form: `document` makes it of a study's numbers.

Numbers come from `analysis.compare`; what needs the store (curves, examples, costs, how to repeat
it) is left out where the numbers came from a table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablations.contrasts import ScoreKey
from ablations.few import few
from ablations.workload import INTACT, LOWER, total, with_goal
from analysis import figures, forecast_words, words
from analysis.claim_words import numbers
from analysis.compare import (
    SYMBOLS,
    ClaimLine,
    Comparison,
    EffectLine,
    Table,
    beside,
    comparison,
    controls_table,
    costs_table,
    effect_words,
    effects_tables,
    family,
    lead_decimals,
    path_words,
    primary,
    scores_table,
    shown_metric,
    shown_verdict,
)
from analysis.controls import controls
from analysis.report import carried
from analysis.report.document import (
    Block,
    Bullets,
    Card,
    Document,
    Figure,
    Grid,
    Heading,
    Listing,
    Section,
    Text,
)
from analysis.report.examples import examples
from analysis.report.methods import counted, methods, plain, shortened
from analysis.results import StudyResults
from analysis.score_table import ScoreTable

MOST_ROWS = 40  # of a table or a picture of effects
MOST_CURVES = 8  # with a name
MOST_METRICS = 6  # columns of scores, and pictures of effects
MOST_WARNINGS = 60
MOST_FACTS = 8  # values of one


@dataclass(frozen=True)
class Source:
    """What a report is made of. `results` is None where the numbers came from a table."""

    made: Comparison
    table: ScoreTable
    results: StudyResults | None = None
    # Claim → what its effect must exceed.
    min_effects: Mapping[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """Arm → what it is called."""
        return {arm.name: arm.label for arm in self.made.arms}

    @property
    def everything(self) -> str:
        """Where all numbers are that a report leaves out."""
        if self.results is None:
            return "mm1 compare --table … --json prints all"
        return f"mm1 compare {self.made.study} --json prints all, mm1 dashboard draws them"


def document(source: Source) -> Document:
    """The whole report."""
    made, results = source.made, source.results
    sections = [
        Section("What the evidence says", tuple(_verdicts(made))),
        Section(
            "Methods, ready to paste",
            tuple(Text(one) for one in methods(made, source.table, results)),
        ),
        Section("Scores by the number of examples", tuple(_few_shot(source))),
        Section("Effects", tuple(_effects(source))),
        Section("Learning curves", tuple(_curves(source))),
        Section("All arms", tuple(_arms(source))),
        Section("Controls", tuple(_controls(source))),
        Section("Examples", tuple(examples(results)) if results else ()),
        Section("Cost", tuple(_cost(source))),
        Section("Warnings", tuple(_warnings(source))),
        Section("How to reproduce this", tuple(_reproduce(source))),
    ]
    whole = Document(
        kind="Table" if results is None else "Ablation study",
        study=made.study,
        question=made.question,
        facts=_facts(source),
        notices=made.notices,
        sections=tuple(one for one in sections if one.blocks),
        carried=carried.packed(made, source.table, results, source.min_effects),
    )
    if results is None:
        return whole
    # Where a store is decides nothing, and two reports of one that was moved are the same.
    return _changed(whole, lambda text: text.replace(str(results.store.root), "the store"))


def _changed(tree: Any, change: Callable[[str], str]) -> Any:
    """The same with every text changed; bytes and numbers stay."""
    if isinstance(tree, str):
        return change(tree)
    if isinstance(tree, tuple):
        return tuple(_changed(one, change) for one in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = dataclasses.fields(tree)
        return type(tree)(**{one.name: _changed(getattr(tree, one.name), change) for one in fields})
    return tree


def _facts(source: Source) -> str:
    made = source.made
    found = [f"Primary metric {primary(made)}"]
    if made.registered_at:
        at = words.minute(made.registered_at)
        found.append(f"registered {at} UTC as {made.hash}")
    return f"{'; '.join(found)}. {shortened(made.completeness.line)}"


# -- verdicts ----------------------------------------------------------------------------------


def _verdicts(made: Comparison) -> Iterable[Block]:
    if not made.claims:
        yield Text("This study makes no claims; its effects below are descriptive.")
        return
    told = family(made)
    scopes = {claim.scope for claim in made.claims}
    if len(scopes) == 1:
        told += f" All verdicts hold {scopes.pop()}."
    yield Text(told, "note")
    for claim in made.claims:
        yield _card(claim, one_scope=not scopes)


def _card(claim: ClaimLine, *, one_scope: bool) -> Card:
    shown = shown_verdict(claim)
    notes = [beside(claim)] + ([] if one_scope else [f"scope: {claim.scope}"])
    notes += [f"{caveat.word}: {caveat.told}" for caveat in claim.caveats]
    seeds = f"; seed by seed: {numbers(claim).by_seed}" if claim.by_seed else ""
    notes += [f"of {', '.join(claim.metrics)}{seeds}"]
    notes += [path_words(claim)] if claim.path else []
    said = claim.sentence.partition(": ")[2] if not claim.interim else claim.sentence
    sentence = said[0].upper() + said[1:]
    return Card(shown, SYMBOLS[shown], sentence, claim.name, claim.text, tuple(notes))


# -- effects -----------------------------------------------------------------------------------


def by_metric(made: Comparison) -> dict[str, list[EffectLine]]:
    """Metric → its effects, the primary metric first."""
    found: dict[str, list[EffectLine]] = {}
    for one in made.effects:
        found.setdefault(words.metric_name(one.task, one.metric, one.shots), []).append(one)
    return found


def _effects(source: Source) -> Iterable[Block]:
    made = source.made
    if not made.effects:
        yield Text("There is no effect to show: no factor has two levels that were both scored.")
        return
    yield Text(
        "Each factor level against the base level, the same seed against the same seed. A filled "
        "mark's interval leaves zero out. These intervals are descriptive: they stand outside the "
        "claims' family and each holds by itself.",
        "note",
    )
    found = by_metric(made)
    tables = dict(zip(found, effects_tables(made), strict=True))
    for index, (metric, lines) in enumerate(list(found.items())[:MOST_METRICS]):
        heading = with_goal(metric, lines[0].goal)
        shown = _largest(lines)
        floor = made.noise_floor if index == 0 else None
        caption = f"Mean over seeds and {words.percent(lines[0].ci_level)} t interval, unadjusted"
        caption += ", interim" if any(line.interim for line in lines) else ""
        caption += ". Shaded: the noise floor, ± 1 SD of null arms." if floor else "."
        caption += f" {_left_out(source, shown, lines, 'largest effects')}"
        picture = figures.forest(
            forest_rows(shown, len(made.seeds)), f"change of {heading}", noise=floor
        )
        yield Heading(heading)
        alt = f"Effects on {heading} with their intervals"
        rows = zip(tables[metric].rows, lines, strict=True)
        kept = tuple(row for row, line in rows if line in shown)
        table = dataclasses.replace(tables[metric], rows=kept)
        yield Figure(f"effects-{index + 1}", picture, alt, caption.strip(), table)
    if rest := list(found)[MOST_METRICS:]:
        yield Text(
            f"Effects on {counted(len(rest), 'more metric')} are not shown ({', '.join(rest[:10])}"
            f"{', …' if len(rest) > 10 else ''}); {source.everything}.",
            "note",
        )


def _largest(lines: Sequence[EffectLine]) -> list[EffectLine]:
    """The effects furthest from zero, in the design's order, of which a page has room for."""
    if len(lines) <= MOST_ROWS:
        return list(lines)
    order = sorted(range(len(lines)), key=lambda n: -abs(_known(lines[n].mean)))
    return [lines[n] for n in sorted(order[:MOST_ROWS])]


def _known(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _left_out(source: Source, shown: Sequence, whole: Sequence, what: str) -> str:
    """A sentence on what is shown of many; "" where all is."""
    if len(shown) == len(whole):
        return ""
    return f"Shown: the {len(shown)} {what} of {len(whole):,}; {source.everything}."


def forest_rows(lines: Iterable[EffectLine], seeds: int) -> list[figures.ForestRow]:
    """Rows of a forest plot: a heading for each factor, then its levels."""
    lines = list(lines)
    rows: list[figures.ForestRow] = []
    factor = None
    for line in lines:
        if line.factor != factor:
            factor = line.factor
            rows.append(figures.ForestRow(f"{factor} (base: {line.base_level})"))
        note, interval = effect_words(line, lines)
        if not math.isnan(line.ci_low):
            note += f"  [{interval}]"
        if line.diverged_seeds:
            note += "  diverged"
        if line.interim:
            note += f"  {line.n} of {seeds} seeds"
        rows.append(figures.ForestRow(line.level, line.mean, line.ci_low, line.ci_high, note))
    return rows


# -- curves ------------------------------------------------------------------------------------

Lines = dict[str, dict[int, list[tuple[float, float]]]]  # name → seed → (step, value)


def _few_shot(source: Source) -> Iterable[Block]:
    """The scores of each task that was asked with several numbers of examples."""
    table = source.table
    named = _few(source)
    labels = {name: label for name, label in source.labels.items() if name in named}
    for number, task in enumerate(dict.fromkeys(task for task, *_ in table.metrics), start=1):
        metric = _known_by(table, task)
        lines = few_shot_lines(table, labels, task, metric)
        if any(len(line) > 1 for seeds in lines.values() for line in seeds.values()):
            shown = with_goal(f"{task}.{metric}", table.record(task, metric).goal)
            picture = figures.curves(lines, "examples in the prompt", shown, log=False)
            alt = f"{shown} by the number of examples in the prompt"
            caption = f"Mean over seeds, band: ± 1 SD. {_arms_left_out(source, named)}"
            yield Figure(f"examples-in-prompt-{number}", picture, alt, caption.strip())


def _known_by(table: ScoreTable, task: str) -> str:
    """The metric that a task is shown by: the study's primary one, else the task's first."""
    primary_task, primary_metric, _ = table.primary
    if task == primary_task:
        return primary_metric
    if task in table.tasks:
        return table.tasks[task].first.name
    return next(metric for named, metric, *_ in table.metrics if named == task)


def few_shot_lines(table: ScoreTable, labels: Mapping[str, str], task: str, metric: str) -> Lines:
    """Label of the arm → seed → (examples in the prompt, score), and the same for chance."""
    shots = sorted({key[2] for key in table.metrics if key[0] == task and key[3] == INTACT})
    shown = [
        (label, ScoreKey(name, task, metric, count, INTACT))
        for name, label in labels.items()
        for count in shots
    ]
    shown += [
        (one.name, one.key)
        for count in shots
        for one in controls(table, ScoreKey(table.base, task, metric, count, INTACT))
        if one.name == "chance"
    ]
    found: Lines = {}
    for label, key in shown:
        for seed, value in table.score(*key).items():
            found.setdefault(label, {}).setdefault(seed, []).append((key.shots, value))
    return found


def _curves(source: Source) -> Iterable[Block]:
    results = source.results
    if results is None:
        return
    shown, is_loss = curve_name(results)
    lines = curve_lines(results, source.labels)
    named = _few(source)
    few = {source.labels[name]: None for name in named}
    picture = figures.curves(
        {name: seeds for name, seeds in lines.items() if name in few},
        "step" if results.plan.is_own else "training step",
        shown,
        behind=[seeds for name, seeds in lines.items() if name not in few],
        log=is_loss,
    )
    told = [
        "Mean over seeds at the steps that all of an arm's seeds have; band: ± 1 SD over seeds."
    ]
    if all(len(seeds) < 2 for seeds in lines.values()):
        told = ["One seed an arm, so there is no band."]
    if rest := len(lines) - len(few.keys() & lines.keys()):
        how = "grey lines" if rest <= figures.MOST_BEHIND else "the grey range"
        told.append(f"The means of the other {counted(rest, 'arm')} are {how}.")
    told.append(_arms_left_out(source, named))
    if not results.plan.is_own:
        told.append(
            "Losses of arms with another data mixture are of other documents, so their heights do "
            "not compare."
        )
    yield Figure("curves", picture, f"{shown} by step", " ".join(filter(None, told)))


def curve_name(results: StudyResults) -> tuple[str, bool]:
    """The curve for readers, and whether low is better, so that its scale is logarithmic."""
    if not results.plan.is_own:
        return f"training loss ({LOWER})", True
    goal = results.plan.metric(*results.plan.primary_metric).goal
    return with_goal(".".join(results.plan.primary_metric), goal), goal == "minimise"


def curve_lines(results: StudyResults, labels: Mapping[str, str]) -> Lines:
    """Label of the arm → seed → (step, value) of the curve that is shown."""
    curves = results.curves()
    found: Lines = {}
    columns = (curves[name].tolist() for name in ("arm", "seed", "step", "value"))
    for arm, seed, step, value in zip(*columns, strict=True):
        found.setdefault(arm, {}).setdefault(seed, []).append((step, value))
    return {label: found[name] for name, label in labels.items() if name in found}


def _few(source: Source, most: int = MOST_CURVES) -> list[str]:
    """Arms to be shown by name, in the design's order: all of them, where they are not more.

    Else the base, and of the others the best and the worst on the primary metric, half each.
    """
    made = source.made
    names = [arm.name for arm in made.arms]
    if len(names) <= most:
        return names
    task, metric, shots = source.table.primary
    sign = -1.0 if made.primary_goal == "minimise" else 1.0
    means = {
        arm.name: sign * one.mean
        for arm in made.arms[1:]
        for one in arm.scores
        if (one.task, one.metric, one.shots, one.condition) == (task, metric, shots, INTACT)
        and math.isfinite(one.mean)
    }
    order = sorted(means, key=lambda name: -means[name])
    best, worst = most // 2, most - 1 - most // 2
    chosen = {names[0], *order[:best], *(order[-worst:] if worst else ())}
    for name in names:  # where hardly any has a score yet
        if len(chosen) >= most:
            break
        chosen.add(name)
    return [name for name in names if name in chosen]


def _arms_left_out(source: Source, named: Sequence[str]) -> str:
    """Which arms are shown of many; "" where all are."""
    every = len(source.made.arms)
    if len(named) == every:
        return ""
    best, worst = len(named) // 2, len(named) - 1 - len(named) // 2
    return (
        f"Of {every:,} arms {len(named)} are named: the base, and the {best} best and {worst} "
        f"worst on {primary(source.made)}; {source.everything}."
    )


# -- tables ------------------------------------------------------------------------------------


def _of_arms(source: Source, table: Table) -> Grid:
    """A table with a row an arm; of many arms with those that `_few` names."""
    named = _few(source, MOST_ROWS)
    shown = set(named)
    rows = [(arm.name in shown, row) for arm, row in zip(source.made.arms, table.rows, strict=True)]
    kept, rest = (
        tuple(row for is_shown, row in rows if is_shown is want) for want in (True, False)
    )
    return Grid(dataclasses.replace(table, rows=kept), rest, _arms_left_out(source, named))


def _arms(source: Source) -> Iterable[Block]:
    scores = scores_table(source.made)
    metrics = len(scores.header) - 2
    if metrics > MOST_METRICS:
        columns = [*range(1 + MOST_METRICS), len(scores.header) - 1]
        scores = dataclasses.replace(
            scores,
            header=tuple(scores.header[c] for c in columns),
            rows=tuple(tuple(row[c] for c in columns) for row in scores.rows),
        )
    yield _of_arms(source, scores)
    if metrics > MOST_METRICS:
        left = counted(metrics - MOST_METRICS, "more metric")
        yield Text(f"{left} were measured; {source.everything}.", "note")
    if source.results is not None and len((costs := costs_table(source.made)).header) > 1:
        yield _of_arms(source, costs)


_CONTROLS = {
    "shuffled images": "its own score with shuffled images",
    "no image": "its own score without any image",
    "blind": "the blind answerer, who knows the training answers but never sees an image",
}


def _controls(source: Source) -> Iterable[Block]:
    made = source.made
    table = controls_table(made)
    if not table.rows:
        if source.results is not None:
            yield Text("No control was part of this study.")
        return
    base = made.arms[0].name
    for one in made.controls:
        if one.arm == base and one.control in _CONTROLS and one.goal:
            sees = one.lead_high < 0 if one.goal == "minimise" else one.lead_low > 0
            answerer = _CONTROLS[one.control]
            places = lead_decimals(one)
            leads = "leads" if sees else "does not clearly lead"
            yield Text(
                f"On {shown_metric(one)} the base {leads} {answerer}: "
                f"{words.signed(one.lead, places)} ({words.percent(one.ci_level)} interval "
                f"{words.interval(one.lead_low, one.lead_high, places)})."
            )
    kept, rest = table.rows[:MOST_ROWS], table.rows[MOST_ROWS:]
    left_out = f"{len(rest):,} more rows are left out; {source.everything}." if rest else ""
    yield Grid(dataclasses.replace(table, rows=kept), rest, left_out)
    told = {
        "shuffled images": "Shuffled images: the same checkpoint, each question with another "
        "item's image.",
        "blind": "Blind: the majority answer per question of the training split.",
        "oracle": "Oracle: the same from the test labels, the most any answerer without eyes "
        "could get.",
    }
    there = {one.control for one in made.controls if math.isfinite(one.mean)}
    if said := " ".join(text for name, text in told.items() if name in there):
        yield Text(said, "note")


# -- cost, warnings, reproduction --------------------------------------------------------------


def _cost(source: Source) -> Iterable[Block]:
    made, results = source.made, source.results
    if results is None:
        return
    costs = results.costs.drop_duplicates("stage").dropna(subset=["seconds"])
    planned, rows = results.plan.stages, []
    for kind, stages in costs.groupby("kind", sort=False):
        flops = words.count(total(planned[one].flops for one in stages["stage"]))
        counts = () if made.flops is None else (flops,)  # nobody counts those of a command
        rows.append(
            (
                str(kind),
                str(len(stages)),
                words.duration(float(stages["planned_seconds"].sum())),
                words.duration(float((stages["seconds"] - stages["once_seconds"]).sum())),
                words.duration(float(stages["once_seconds"].sum())),
                *counts,
            )
        )
    flops = "" if made.flops is None else f", {words.count(made.flops)}FLOP planned"
    yield Text(
        f"{words.duration(made.seconds)} of work in {len(costs)} stages{flops}. Stages that arms "
        "or studies share ran once."
    )
    header = (
        "kind of stage",
        "stages",
        "planned time",
        "measured time",
        "imports and compilation",
        *(() if made.flops is None else ("FLOPs",)),
    )
    if rows:
        yield Grid(Table("Cost by kind of stage", header, tuple(rows)))
    forecast = results.forecast
    if forecast is not None:  # how far off the estimates of the last whole run were
        line = forecast_words.line(forecast)
        yield Text(f"{line[:1].upper()}{line[1:]}.")
        yield Grid(Table("Estimates", forecast_words.HEADER, tuple(forecast_words.rows(forecast))))


def _warnings(source: Source) -> Iterable[Block]:
    made = source.made
    found = [*made.notices, *made.warnings]
    found += [
        f"{claim.name}: {caveat.word}: {caveat.told}"
        for claim in made.claims
        for caveat in claim.caveats
    ]
    if not found:
        yield Text("None.")
        return
    yield Bullets(tuple(found[:MOST_WARNINGS]))
    if len(found) > MOST_WARNINGS:
        yield Text(f"{len(found) - MOST_WARNINGS:,} more; {source.everything}.", "note")


def _reproduce(source: Source) -> Iterable[Block]:
    results = source.results
    yield Text(
        "This file carries the numbers that it is made of, each trial's score with every digit, "
        "and the study in resolved form. mm1 reproduce, with the path of this file, rebuilds it, "
        "runs what is missing and says by trial whether the numbers come out again."
        if results is not None
        else "This file carries the table that it is made of. mm1 reproduce, with the path of "
        "this file, decides the claims on it anew."
    )
    if results is None:
        return
    plan = results.plan
    executions = results.executions
    revisions = _distinct(e.get("git_revision") for e in executions.values())
    commits = [revision for revision in revisions if revision != "unknown"]
    commands = [f"git checkout {commits[-1].removesuffix('+')}"] if commits else []
    if commits and commits[-1].endswith("+"):
        commands[0] += "  # and changes that were not committed"
    commands += [
        "make env",
        f".venv/bin/mm1 run {plan.path}",
        f".venv/bin/mm1 report {plan.study}",
    ]
    if plan.is_own:  # the revision is the platform's, and a study of one's own is no file of it
        commands = [f"mm1 run {plan.path}", f"mm1 report {plan.study}"]
    facts = [
        ("study", plan.hash),
        ("seeds", ", ".join(map(str, plan.seeds))),
    ]
    if data := _distinct(stage.data_fingerprint for stage in plan.stages.values()):
        facts.append(("data", ", ".join(data)))
    codes: dict[str, list[str]] = {}
    for stage in plan.stages.values():
        codes.setdefault(stage.kind, []).append(stage.code_fingerprint)
    facts += [(f"code, {kind}", ", ".join(_distinct(found))) for kind, found in codes.items()]
    if revisions:
        facts.append(("git revision", ", ".join(revisions)))
    for key in sorted({key for e in executions.values() for key in e} - RUN_FACTS):
        found = _distinct(plain(e[key]) for e in executions.values() if key in e)
        facts.append((key.replace("_", " "), few(found, MOST_FACTS, "; ")))
    yield Listing("\n".join(commands))
    yield Heading("The study file")
    yield Listing(plan.source)
    yield Grid(
        Table("Identities and environment", ("fact", "value"), tuple(facts), frozenset({0, 1}))
    )


# Facts about one run of one stage, which say nothing about how to repeat it.
RUN_FACTS = {
    "schema_version",
    "attempt",
    "failed_before",
    "seconds",
    "cpu_seconds",
    "import_seconds",
    "compilation_seconds",
    "started_at",
    "finished_at",
    "git_revision",
}


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({value for value in values if value})


def source_of(results: StudyResults) -> Source:
    """What a report of a study of a store is made of."""
    return Source(comparison(results), results.table, results, results.plan.min_effects)
