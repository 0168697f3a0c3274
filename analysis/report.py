"""A study's report: one HTML file that loads nothing, reads well on screen and on paper."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable
from pathlib import Path

import pandas

from ablations.command.examples import KINDS
from ablations.contrasts import ScoreKey
from ablations.errors import MissingFileError
from ablations.shown_text import in_html
from ablations.workload import INTACT, LOWER, Asked, total, with_goal
from analysis import figures, forecast_words, words
from analysis.claim_words import numbers
from analysis.compare import (
    SYMBOLS,
    ClaimLine,
    Comparison,
    EffectLine,
    Table,
    arms_table,
    beside,
    comparison,
    controls_table,
    effect_words,
    family,
    lead_decimals,
    path_words,
    primary,
    shown_verdict,
)
from analysis.controls import controls
from analysis.results import StudyResults
from analysis.score_table import ScoreTable
from sweeps.records import UnreadableError

EXAMPLES = 6  # of each kind: right and wrong
IMAGE = "<image>"  # where an image stands in a stored prompt
ARMS_NAMED = 6  # beside an answer that several arms gave

STYLE = """
:root { --ink: #222; --faint: #5c5c5c; --rule: #d9d9d9; --paper: #fff; --wash: #f6f5f2;
  --supported: #0072B2; --refuted: #B84A00; --undecided: #6b6b6b; --interim: #6b6b6b; }
* { box-sizing: border-box; }
html { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); background: var(--paper); }
body { margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; margin: .2rem 0 .6rem;
  text-wrap: balance; }
h2 { font-size: 1.2rem; font-weight: 650; margin: 2.8rem 0 .7rem; padding-top: .7rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; font-weight: 600; margin: 1.4rem 0 .3rem; }
h4 { font-size: .9rem; font-weight: 600; color: var(--faint); margin: 1rem 0 .4rem; }
p, ul { margin: .4rem 0 .8rem; max-width: 46rem; }
.kicker, .meta, figcaption, .note { color: var(--faint); font-size: .9rem; }
.kicker { letter-spacing: .02em; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .84rem; }
pre { background: var(--wash); padding: .9rem 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.banner { background: #fdf3d8; border-left: 4px solid #c77f00; padding: .6rem .9rem;
  margin: .6rem 0; max-width: none; }
.claim { display: grid; grid-template-columns: 8.2rem 1fr; gap: .2rem 1rem; padding: .8rem 0;
  border-bottom: 1px solid var(--rule); break-inside: avoid; }
.claim:last-child { border-bottom: 0; }
.verdict { font-weight: 650; white-space: nowrap; }
.verdict b { display: inline-block; width: 1.5rem; height: 1.5rem; line-height: 1.5rem;
  border-radius: 50%; color: #fff; text-align: center; margin-right: .45rem; font-weight: 700; }
.supported { color: var(--supported); } .supported b { background: var(--supported); }
.refuted { color: var(--refuted); } .refuted b { background: var(--refuted); border-radius: 3px; }
.undecided, .interim { color: var(--undecided); }
.undecided b, .interim b { background: #fff; color: var(--undecided);
  box-shadow: inset 0 0 0 2px var(--undecided); }
.tie { white-space: nowrap; }
.claim p { margin: 0; max-width: none; }
.claim .name { font-weight: 600; }
figure { margin: .4rem 0 1.2rem; break-inside: avoid; overflow-x: auto; }
svg { width: 100%; min-width: 44rem; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem;
  margin: .4rem 0 1rem; }
th { font-weight: 600; color: var(--faint); vertical-align: bottom; }
th, td { padding: .32rem .9rem .32rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
th.text, td.text { text-align: left; }
td { white-space: nowrap; }
td.text { white-space: normal; overflow-wrap: break-word; min-width: 9rem; }
td.text:first-child { min-width: 11rem; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(18.5rem, 1fr));
  gap: 1rem; }
.example { border: 1px solid var(--rule); border-radius: 4px; padding: .8rem; margin: 0;
  break-inside: avoid; font-size: .86rem; display: grid; grid-template-columns: 84px 1fr;
  gap: .2rem .9rem; align-content: start; }
.example img, .example .noimage { width: 84px; height: 84px; border: 1px solid var(--rule);
  object-fit: contain; }
.noimage { color: var(--faint); display: grid; place-content: center; text-align: center;
  font-size: .75rem; }
.example .prompt { font-weight: 600; overflow-wrap: anywhere; }
.example table { grid-column: 1 / -1; width: 100%; margin: .3rem 0 0; font-size: .82rem; }
.example td { padding: .15rem .5rem .15rem 0; text-align: left; white-space: normal;
  overflow-wrap: break-word; }
.example tr:last-child td { border-bottom: 0; }
.right { color: var(--supported); } .wrong { color: var(--refuted); }
.example .arms { color: var(--faint); line-height: 1.35; }
.example .arms span { display: inline-block; }
.example td { vertical-align: top; }
.example td.mark { width: 1.3rem; font-weight: 700; white-space: nowrap; }
@media (max-width: 40rem) { .claim { grid-template-columns: 1fr; } }
@media print {
  html { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3, h4 { break-after: avoid; } svg, td.text, td.text:first-child { min-width: 0; }
  figure, .wide { overflow: visible; }
  .examples { grid-template-columns: repeat(3, 1fr); }
  table { font-size: .74rem; }
}
"""


def write_report(results: StudyResults, path: Path) -> Path:
    """Write the report to `path`, at once, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(report(results), encoding="utf-8")
    return partial.replace(path)


def report(results: StudyResults) -> str:
    """The report as HTML text."""
    made = comparison(results)
    sections = [
        _head(made),
        _section("What the evidence says", _verdicts(made)),
        *_few_shot(results.table, {arm.name: arm.label for arm in results.plan.arms}),
        _section("Effects", _effects(made)),
        _section("Learning curves", _curves(results)),
        _section("All arms", _arms(made)),
        _section("Controls", _controls(made)),
        _section("Examples", _examples(results)),
        _section("Cost", _cost(results, made)),
        _section("Warnings", _warnings(made)),
        _section("How to reproduce this", _reproduce(results)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{in_html(made.study)}: {in_html(made.question)}</title>"
        f"<style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{in_html(title)}</h2>\n{body}\n</section>"


def _say(text: str) -> str:
    """Text for HTML, its percent signs tied to their numbers."""
    return in_html(text).replace(" %", "&nbsp;%")


def _name(name: str) -> str:
    """A name for HTML, which a narrow column may break after a dot, slash or equals sign."""
    return re.sub(r"([./=])", r"\1<wbr>", _say(name))


def _head(made: Comparison) -> str:
    banners = "".join(f'<p class="banner">{_say(text)}</p>' for text in made.notices)
    return (
        f'<header><div class="kicker">Ablation study <b>{in_html(made.study)}</b></div>'
        f"<h1>{in_html(made.question)}</h1>"
        f'<p class="meta">Primary metric {in_html(primary(made))}; registered '
        f"{in_html(made.registered_at[:16].replace('T', ' '))} UTC as "
        f"<code>{in_html(made.hash)}</code>. "
        f"{_say(made.completeness.line)}</p>{banners}</header>"
    )


def _verdicts(made: Comparison) -> str:
    if not made.claims:
        return "<p>This study makes no claims; its effects below are descriptive.</p>"
    told = family(made)
    scopes = {claim.scope for claim in made.claims}
    if len(scopes) == 1:
        told += f" All verdicts hold {scopes.pop()}."
    cards = "".join(_claim(claim, one_scope=not scopes) for claim in made.claims)
    return f'<p class="note">{_say(told)}</p>{cards}'


def _claim(claim: ClaimLine, *, one_scope: bool) -> str:
    shown = shown_verdict(claim)
    notes = [beside(claim)] + ([] if one_scope else [f"scope: {claim.scope}"])
    notes += [f"{caveat.word}: {caveat.told}" for caveat in claim.caveats]
    notes += [f"of {', '.join(claim.metrics)}"]
    notes += [f"seed by seed: {numbers(claim).by_seed}"] if claim.by_seed else []
    notes += [path_words(claim)] if claim.path else []
    said = claim.sentence.partition(": ")[2] if not claim.interim else claim.sentence
    return (
        f'<div class="claim"><div class="verdict {shown}"><b>{SYMBOLS[shown]}</b>'
        f"{shown.capitalize()}</div><div><p>{_say(said[0].upper() + said[1:])}</p>"
        f'<p class="note"><span class="name">{in_html(claim.name)}</span>: '
        f"<code>{_code(claim.text)}</code></p>"
        + "".join(f'<p class="note">{_say(note)}</p>' for note in notes)
        + "</div></div>"
    )


def _code(claim: str) -> str:
    return in_html(claim).replace("-&gt;", '<span class="tie">-&gt;</span>')


def _effects(made: Comparison) -> str:
    parts = [
        '<p class="note">Each factor level against the base level, the same seed against the same '
        "seed. A filled mark's interval leaves zero out. These intervals are descriptive: they "
        "stand outside the claims' family and each holds by itself.</p>"
    ]
    for index, (metric, lines) in enumerate(by_metric(made).items()):
        heading = with_goal(metric, lines[0].goal)
        floor = made.noise_floor if index == 0 else None
        caption = f"Mean over seeds and {words.percent(lines[0].ci_level)} t interval, unadjusted"
        caption += ", interim" if any(line.interim for line in lines) else ""
        caption += ". Shaded: the noise floor, ± 1 SD of null arms." if floor else "."
        picture = figures.forest(
            forest_rows(lines, len(made.seeds)),
            f"change of {heading}",
            noise=floor,
        )
        parts.append(f"<h3>{in_html(heading)}</h3><figure>{picture}")
        parts.append(f"<figcaption>{_say(caption)}</figcaption></figure>")
    return "".join(parts)


def by_metric(made: Comparison) -> dict[str, list[EffectLine]]:
    """Metric → its effects, the primary metric first."""
    found: dict[str, list[EffectLine]] = {}
    for one in made.effects:
        found.setdefault(words.metric_name(one.task, one.metric, one.shots), []).append(one)
    return found


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


def _few_shot(table: ScoreTable, labels: dict[str, str]) -> list[str]:
    """A section with the scores of each task that was asked with several numbers of examples."""
    parts = []
    for task in dict.fromkeys(task for task, *_ in table.metrics):
        metric = _known_by(table, task)
        lines = few_shot_lines(table, labels, task, metric)
        if any(len(line) > 1 for seeds in lines.values() for line in seeds.values()):
            shown = with_goal(f"{task}.{metric}", table.record(task, metric).goal)
            picture = figures.curves(lines, "examples in the prompt", shown, log=False)
            parts.append(f"<figure>{picture}</figure>")
    if not parts:
        return []
    note = '<p class="note">Thin: one seed; thick: the mean over seeds.</p>'
    return [_section("Scores by the number of examples", "".join([*parts, note]))]


def _known_by(table: ScoreTable, task: str) -> str:
    """The metric that a task is shown by: the study's primary one, else the task's first."""
    primary_task, primary, _ = table.primary
    if task == primary_task:
        return primary
    if task in table.tasks:
        return table.tasks[task].first.name
    return next(metric for named, metric, *_ in table.metrics if named == task)


def few_shot_lines(
    table: ScoreTable, labels: dict[str, str], task: str, metric: str
) -> dict[str, dict[int, list[tuple[float, float]]]]:
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
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for label, key in shown:
        for seed, value in table.score(*key).items():
            found.setdefault(label, {}).setdefault(seed, []).append((key.shots, value))
    return found


def _curves(results: StudyResults) -> str:
    labels = {arm.name: arm.label for arm in results.plan.arms}
    shown, is_loss = curve_name(results)
    note = "Thin: one seed; thick: the mean over seeds."
    if not results.plan.is_own:
        note += (
            " Losses of arms with another data mixture are of other documents, so their heights do "
            "not compare."
        )
    step = "step" if results.plan.is_own else "training step"
    picture = figures.curves(curve_lines(results, labels), step, shown, log=is_loss)
    return f"<figure>{picture}<figcaption>{note}</figcaption></figure>"


def curve_name(results: StudyResults) -> tuple[str, bool]:
    """The curve for readers, and whether low is better, so that its scale is logarithmic."""
    if not results.plan.is_own:
        return f"training loss ({LOWER})", True
    goal = results.plan.metric(*results.plan.primary_metric).goal
    return with_goal(".".join(results.plan.primary_metric), goal), goal == "minimise"


def curve_lines(
    results: StudyResults, labels: dict[str, str]
) -> dict[str, dict[int, list[tuple[float, float]]]]:
    """Label of the arm → seed → (step, value) of the curve that is shown."""
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    curves = results.curves()
    for name, label in labels.items():
        mine = curves[curves["arm"] == name]
        if len(mine):
            found[label] = {
                int(seed): list(zip(line["step"], line["value"], strict=True))
                for seed, line in mine.groupby("seed")
            }
    return found


def _table(table: Table) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="text">{_name(cell)}</{tag}>'
            if column in table.text_columns
            else f"<{tag}>{_name(cell) if tag == 'th' else _say(cell)}</{tag}>"
            for column, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    return (
        f'<div class="wide"><table><thead><tr>{row(table.header, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _arms(made: Comparison) -> str:
    note = '<p class="note">Scores are mean ± SD over seeds.</p>'
    return note + _table(arms_table(made))


_CONTROLS = {
    "shuffled images": "its own score with shuffled images",
    "no image": "its own score without any image",
    "blind": "the blind answerer, who knows the training answers but never sees an image",
}


def _controls(made: Comparison) -> str:
    table = controls_table(made)
    if not table.rows:
        return "<p>No control was part of this study.</p>"
    base = made.arms[0].name
    told = []
    for one in made.controls:
        if one.arm == base and one.control in _CONTROLS and one.goal:
            sees = one.lead_high < 0 if one.goal == "minimise" else one.lead_low > 0
            answerer = _CONTROLS[one.control]
            places = lead_decimals(one)
            leads = "leads" if sees else "does not clearly lead"
            shown = with_goal(f"{one.task}.{one.metric}", one.goal)
            told.append(
                f"On {shown} the base {leads} {answerer}: "
                f"{words.signed(one.lead, places)} ({words.percent(one.ci_level)} interval "
                f"{words.interval(one.lead_low, one.lead_high, places)})."
            )
    note = (
        "Shuffled images: the same checkpoint, each question with another item's image. Blind: "
        "the majority answer per question of the training split. Oracle: the same from the test "
        "labels, the most any answerer without eyes could get."
    )
    return (
        "".join(f"<p>{_say(text)}</p>" for text in told)
        + _table(table)
        + f'<p class="note">{note}</p>'
    )


# -- examples ----------------------------------------------------------------------------------


def _examples(results: StudyResults) -> str:
    plan = results.plan
    tasks = dict.fromkeys([plan.primary_metric[0], *(task for task, *_ in results.table.metrics)])
    parts, missing = [], set()
    answers = plan.answers(plan.trials[0])
    shown: set[str] = set()  # a stage that answers several tasks has one set of examples
    for task in tasks:
        stage = answers.get(Asked(task), task)
        if stage in shown:
            continue
        shown.add(stage)
        try:
            found = _task_examples(results, task, missing)
        except UnreadableError as error:
            found = f'<p class="note">Left out: {in_html(str(error))}</p>'
        if found:
            parts.append(f"<h3>{in_html(task)}</h3>{found}")
    if missing:
        parts.insert(
            0,
            f'<p class="note">Images are not shown: the prepared data is not on this machine at '
            f"{in_html(', '.join(sorted(missing)))}.</p>",
        )
    return "".join(parts) or "<p>No example has been stored yet.</p>"


def _task_examples(results: StudyResults, task: str, missing: set[str]) -> str:
    """Cards of one task: the base's right and wrong answers, every arm's prediction in each."""
    plan = results.plan
    base = plan.arms[0].name
    for seed in plan.seeds:
        table = results.examples(base, seed, task)
        if table is not None:
            break
    else:
        return ""
    if "image" not in table:  # of ours, those without an image are pages of text
        table = table[table["image_id"] >= 0]
    if not len(table):
        return ""
    others = {
        arm.label: found.set_index("item_id")
        for arm in plan.arms
        if (found := results.examples(arm.name, seed, task)) is not None
    }
    # A fixed draw, so that nobody picks: the order of the items' hashes.
    order = table["item_id"].map(lambda item: hashlib.sha256(str(item).encode()).hexdigest())
    table = table.assign(order=order).sort_values("order")
    exact = (task, "accuracy") in {one[:2] for one in results.table.metrics}
    if exact:
        right, wrong = table[table["score"] > 0], table[table["score"] == 0]
        groups = {"Answered rightly by the base": right, "Answered wrongly by the base": wrong}
    else:
        groups = {"Drawn at random": table}
    parts = [f'<p class="note">Seed {seed}; drawn by the hash of the item, not picked.</p>']
    for title, group in groups.items():
        cards = [
            _card(results, task, item, others, exact, missing)
            for item in group.head(EXAMPLES).to_dict("records")
        ]
        if cards:
            parts.append(f'<h4>{title}</h4><div class="examples">{"".join(cards)}</div>')
    return "".join(parts)


def _card(
    results: StudyResults,
    task: str,
    item: dict,
    arms: dict[str, pandas.DataFrame],
    exact: bool,
    missing: set[str],
) -> str:
    given: dict[tuple[str, float], list[str]] = {}  # equal answers share a line
    for label, table in arms.items():
        if item["item_id"] in table.index:
            mine = table.loc[item["item_id"]]
            given.setdefault((str(mine["prediction"]), float(mine["score"])), []).append(label)
    lines = []
    for (prediction, score), labels in given.items():
        kind, mark = ("right", "✓") if score > 0 else ("wrong", "✗")
        if not exact:
            kind, mark = "note", f"{score:.2g}"
        more = f" and {len(labels) - ARMS_NAMED} more" if len(labels) > ARMS_NAMED else ""
        named = ", ".join(f"<span>{_name(one)}</span>" for one in labels[:ARMS_NAMED]) + more
        answer = in_html(prediction) or '<span class="note">(nothing)</span>'
        lines.append(
            f'<tr><td class="mark {kind}">{mark}</td><td>{answer}'
            f'<div class="arms">{named}</div></td></tr>'
        )
    references = " / ".join(map(str, list(item["references"])[:3]))
    prompt = str(item["prompt"])
    if prompt.count(IMAGE) == 1:
        prompt = prompt.removeprefix(IMAGE)  # the one beside it
    return (
        f'<figure class="example">{_picture(results, task, item, missing)}'
        f'<div><div class="prompt">{in_html(prompt)}</div>'
        f'<span class="note">reference:</span> {in_html(references)}</div>'
        f"<table>{''.join(lines)}</table></figure>"
    )


def _picture(results: StudyResults, task: str, item: dict, missing: set[str]) -> str:
    """The image of an example: kept with it, or in the prepared data."""
    if "image" not in item:
        return _image(results, task, item["image_id"], missing)
    kept = item["image"]
    kind = next((kind for start, kind in KINDS.items() if kept and kept.startswith(start)), None)
    if kind is None:
        return ""
    name, content = in_html(item["image_file"]), base64.b64encode(kept).decode()
    return f'<img alt="{name} of {in_html(task)}" src="data:image/{kind};base64,{content}">'


def _image(results: StudyResults, task: str, image_id: int, missing: set[str]) -> str:
    plan = results.plan
    stage = plan.stages[plan.main(plan.trials[0])]
    found = None
    if results.origin is not None:
        try:
            found = results.origin.picture(stage, results.data_root, int(image_id))
        except MissingFileError as error:
            missing.add(error.message)
    if found is None:
        return '<div class="noimage">no image</div>'
    content = base64.b64encode(found).decode()
    return f'<img alt="image {image_id} of {in_html(task)}" src="data:image/png;base64,{content}">'


# -- cost, warnings, reproduction --------------------------------------------------------------


def _cost(results: StudyResults, made: Comparison) -> str:
    costs = results.costs.drop_duplicates("stage").dropna(subset=["seconds"])
    planned, rows = results.plan.stages, []
    for kind, stages in costs.groupby("kind", sort=False):
        flops = words.count(total(planned[one].flops for one in stages["stage"]))
        counted = () if made.flops is None else (flops,)  # nobody counts those of a command
        rows.append(
            (
                str(kind),
                str(len(stages)),
                words.duration(float(stages["planned_seconds"].sum())),
                words.duration(float((stages["seconds"] - stages["once_seconds"]).sum())),
                words.duration(float(stages["once_seconds"].sum())),
                *counted,
            )
        )
    flops = "" if made.flops is None else f", {words.count(made.flops)}FLOP planned"
    in_all = (
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
    table = _table(Table("Cost", header, tuple(rows)))
    return f"<p>{_say(in_all)}</p>{table}{_estimates(results)}"


def _estimates(results: StudyResults) -> str:
    """How far off the estimates of the last whole run were."""
    forecast = results.forecast
    if forecast is None:
        return ""
    rows = tuple(forecast_words.rows(forecast))
    table = _table(Table("Estimates", forecast_words.HEADER, rows))
    return f"<p>{_say(_capital(forecast_words.line(forecast)))}.</p>{table}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _warnings(made: Comparison) -> str:
    found = [*made.notices, *made.warnings]
    found += [
        f"{claim.name}: {caveat.word}: {caveat.told}"
        for claim in made.claims
        for caveat in claim.caveats
    ]
    if not found:
        return "<p>None.</p>"
    return "<ul>" + "".join(f"<li>{_say(text)}</li>" for text in found) + "</ul>"


def _reproduce(results: StudyResults) -> str:
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
        found = _distinct(_plain(e[key]) for e in executions.values() if key in e)
        facts.append((key.replace("_", " "), "; ".join(found)))
    table = Table("", ("fact", "value"), tuple(facts), frozenset({0, 1}))
    return (
        f"<pre>{in_html(chr(10).join(commands))}</pre>"
        f"<h3>The study file</h3><pre>{in_html(plan.source)}</pre>"
        f"<h3>Identities and environment</h3>{_table(table)}"
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


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})
