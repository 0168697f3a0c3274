"""A study at a glance: how far it is, its claims, its effects, and every arm on every metric."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pandas
import plotly.graph_objects as go
from dash import dcc, html

from ablations.shown_text import in_html
from ablations.workload import with_goal
from analysis import figures, words
from analysis.claim_words import numbers as claim_numbers
from analysis.compare import (
    SYMBOLS,
    ArmLine,
    ClaimLine,
    Comparison,
    EffectLine,
    beside,
    effect_words,
    family,
    path_words,
    primary,
    shown_metric,
    shown_verdict,
)
from analysis.dashboard import actions, elements
from analysis.dashboard.address import link
from analysis.dashboard.elements import banner, drawing, framed, section
from analysis.dashboard.examples import claim_addresses
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import View
from analysis.effects import paired, summarize
from analysis.report.content import by_metric
from analysis.results import StudyResults

STATES = ("done", "running", "waiting", "failed")
FEW_WARNINGS = 3


def show(asked: Asked) -> Shown:
    """Progress, claims, effects, arms."""
    made = asked.of.comparison
    state = asked.state
    metrics = list(by_metric(made))
    metric = state.one_of("metric", metrics, metrics[0] if metrics else "")
    labels = {arm.label: arm.name for arm in made.arms}
    base = state.one_of("base", labels, made.arms[0].label)
    cells = state.one_of("cells", ["scores", "differences"], "scores")
    controls = [
        elements.select("metric", "Effects on", [(m, m) for m in metrics], metric, metrics[0])
        if len(metrics) > 1
        else None,
        elements.select("base", "Baseline", [(b, b) for b in labels], base, made.arms[0].label),
        elements.choose(
            "cells",
            "Table shows",
            [("scores", "scores"), ("differences", "differences from the baseline")],
            cells,
            "scores",
        ),
    ]
    body = [
        *actions.bar(asked),
        *status(asked.of, made),
        section("Claims", *verdicts(made, asked.of.results), kind="claims"),
    ]
    if metrics:
        body.append(_effects(asked, made, metric))
    body.append(_arms(asked, made, labels[base], cells))
    return Shown(body, [one for one in controls if one is not None], "Overview")


def status(view: View, made: Comparison) -> list[Any]:
    """Question, progress, and what a reader should be warned of."""
    counts = Counter(view.states.values())
    total = len(view.results.plan.trials)
    told = [f"{counts[state]} {state}" for state in STATES]
    bar = [
        html.Div(className=state, style={"width": f"{100 * counts[state] / (total or 1)}%"})
        for state in ("done", "running", "failed")
    ]
    line = f"{total} trials: {', '.join(told)}. {words.duration(made.seconds)} of work so far."
    warnings = [html.Li(text) for text in made.warnings]
    listed: list[Any] = [html.Ul(warnings[:FEW_WARNINGS], className="warnings")] if warnings else []
    if len(warnings) > FEW_WARNINGS:
        title = html.Summary(f"{len(warnings) - FEW_WARNINGS} more warnings")
        listed.append(html.Details([title, html.Ul(warnings[FEW_WARNINGS:])]))
    return [
        html.H1(made.question),
        html.Div(bar, className="bar", role="img", **{"aria-label": line}),
        html.P(line, className="faint"),
        *(banner(notice) for notice in made.notices),
        *([] if made.interim else [html.P(made.completeness.line, className="faint")]),
        *listed,
    ]


# -- claims --------------------------------------------------------------------------------------


def verdicts(made: Comparison, results: StudyResults) -> list[Any]:
    """A card for each claim: its verdict, the interval against the boundary, what to know."""
    if not made.claims:
        return [elements.empty("This study makes no claims.")]
    examples = claim_addresses(results)
    cards = html.Div(
        [card(claim, examples.get(claim.name)) for claim in made.claims], className="cards"
    )
    return [cards, html.P(family(made), className="faint")]


def card(claim: ClaimLine, examples: str | None = None) -> html.Article:
    """One claim, with the address of the examples behind it."""
    shown = shown_verdict(claim)
    said = claim.sentence if claim.interim else claim.sentence.partition(": ")[2]
    below = [beside(claim), *(f"{c.word}: {c.told}" for c in claim.caveats)]
    below += [f"scope: {claim.scope}", f"of {', '.join(claim.metrics)}"]
    below += [f"seed by seed: {claim_numbers(claim).by_seed}"] if claim.by_seed else []
    below += [path_words(claim)] if claim.path else []
    return html.Article(
        [
            html.H3(
                [
                    html.Span(
                        [html.Span(SYMBOLS[shown], className="sign"), f" {shown.capitalize()}"],
                        className=f"verdict {shown}",
                    ),
                    html.Span(claim.name, className="name"),
                ]
            ),
            html.P(said[:1].upper() + said[1:]),
            *strip(claim),
            html.Code(claim.text, className="faint"),
            *([dcc.Link("The answers behind it", href=examples)] if examples else []),
            html.Details(
                [
                    html.Summary(f"Standing: {below[0]}"),
                    *(html.P(text, className="faint") for text in below[1:]),
                ]
            ),
        ],
        className=f"claim {shown}",
    )


def strip(claim: ClaimLine) -> list[Any]:
    """The claim's own interval, drawn against the boundary that it is compared with."""
    low, high, mean = claim.ci_low, claim.ci_high, claim.effect
    told = claim_numbers(claim)
    if mean is None or not math.isfinite(mean):
        return []
    known = [one for one in (low, high) if one is not None and math.isfinite(one)]
    ends = [claim.boundary, mean, *known]
    # With few seeds an interval can be many times wider than what is measured.
    size = max(abs(mean - claim.boundary), 1e-12)
    first = max(min(ends), min(mean, claim.boundary) - 6 * size)
    last = min(max(ends), max(mean, claim.boundary) + 6 * size)
    room = 0.08 * (last - first or 1.0)
    first, last = first - room, last + room

    def at(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - first) / (last - first)))

    marks: list[Any] = [
        html.Div(className="edge", style={"left": f"{at(claim.boundary):.2f}%"}),
    ]
    words_ = f"effect {told.effect}"
    if len(known) == 2 and low is not None and high is not None:
        left, right = at(low), at(high)
        cut = (" from" if low < first else "") + (" to" if high > last else "")
        marks.append(
            html.Div(
                className=f"interval{cut}",
                style={"left": f"{left:.2f}%", "width": f"{right - left:.2f}%"},
            )
        )
        words_ += f", {words.percent(claim.ci_level)} interval {told.interval}"
    marks.append(html.Div(className="mean", style={"left": f"{at(mean):.2f}%"}))
    words_ += f"; claimed: {claim.relation} {told.boundary}"
    edge = html.Div(
        html.Span(
            f"{claim.relation} {told.boundary}",
            style={"left": f"{min(92.0, max(8.0, at(claim.boundary))):.2f}%"},
        ),
        className="scale",
    )
    drawn = html.Div(marks, className="strip", role="img", **{"aria-label": words_})
    return [drawn, edge]


# -- effects -------------------------------------------------------------------------------------


def _effects(asked: Asked, made: Comparison, metric: str) -> html.Figure:
    lines = by_metric(made)[metric]
    told = "; ".join(
        f"{e.factor} {e.base_level} to {e.level}: {effect_words(e, lines)[0]}" for e in lines[:12]
    )
    return framed(
        asked,
        "overview",
        "effects",
        f"Effects on {shown_metric(lines[0])}",
        effects_figure(made, metric),
        told=f"Effects with 95 % intervals. {told}",
        note="Change of one factor from its base level, paired by seed; bars are 95 % intervals, "
        "not adjusted for looking at several.",
        code=CODE_EFFECTS.format(
            study=made.study, metric=f"{lines[0].task}.{lines[0].metric}", shots=lines[0].shots
        ),
    )


CODE_EFFECTS = """\
import mm1
import plotly.express

found = mm1.effects({study!r}, {metric!r}, shots={shots})
found["plus"], found["minus"] = found.ci_high - found.effect, found.effect - found.ci_low
found["change"] = found.factor + ": " + found.base_level + " → " + found.level
figure = plotly.express.scatter(found, "effect", "change", error_x="plus", error_x_minus="minus")
figure.write_html("effects.html")
"""


def effects_figure(made: Comparison, metric: str = "") -> go.Figure:
    """Effects on a metric, the primary one by default, with their intervals."""
    found = by_metric(made)
    task, _, name = made.primary_metric.partition(".")
    first = words.metric_name(task, name, made.primary_shots)
    lines = found.get(metric or first, [])
    figure = drawing(f"{made.study} {metric}", max(200, 64 + 34 * len(lines)))
    for sure in (True, False):
        some = [e for e in lines if _is_sure(e) == sure and e.n]
        colour = figures.BLUE if sure else figures.FAINT
        figure.add_scatter(
            x=[e.mean for e in some],
            y=[_change(e) for e in some],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [e.ci_high - e.mean for e in some],
                "arrayminus": [e.mean - e.ci_low for e in some],
                "thickness": 2,
                "color": colour,
            },
            mode="markers",
            marker={
                "size": 10,
                "color": colour,
                "symbol": "circle" if sure else "circle-open",
                "line": {"width": 2, "color": colour},
            },
            text=[
                "{} [{}], ".format(*effect_words(e, lines))
                + f"{e.n} of {len(made.seeds)} seeds"
                + (", diverged" if e.diverged_seeds else "")
                for e in some
            ],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    figure.add_vline(x=0, line={"color": figures.INK, "width": 1})
    shown = primary(made) if metric in ("", first) or not lines else shown_metric(lines[0])
    figure.update_xaxes(title=f"change of {in_html(shown)}")
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=[_change(e) for e in lines],
        range=[len(lines) - 0.5, -0.5],  # the first on top
        showgrid=False,
    )
    return figure


def _change(effect: EffectLine) -> str:
    # Plotly reads tags in texts.
    levels = f"{in_html(effect.base_level)} → {in_html(effect.level)}"
    return f"{in_html(effect.factor)}<br>{levels}"


def _is_sure(effect: EffectLine) -> bool:
    return effect.ci_low > 0 or effect.ci_high < 0


def effects_numbers(asked: Asked) -> pandas.DataFrame:
    """A line an effect, on the metric that the address names."""
    made = asked.of.comparison
    found = by_metric(made)
    metric = asked.state.one_of("metric", found, next(iter(found), ""))
    names = ["factor", "base_level", "level", "task", "metric", "shots", "mean", "sd"]
    names += ["ci_low", "ci_high", "ci_level", "n", "interim"]
    lines = [{name: getattr(e, name) for name in names} for e in found.get(metric, [])]
    return pandas.DataFrame(lines, columns=names)


# -- arms ----------------------------------------------------------------------------------------


def _columns(made: Comparison) -> dict[tuple[str, str, int, str], str]:
    """(task, metric, shots, condition) → how readers know it, for what any arm has."""
    return {
        (s.task, s.metric, s.shots, s.condition): with_goal(
            words.metric_name(s.task, s.metric, s.shots, s.condition), s.goal
        )
        for arm in made.arms
        for s in arm.scores
    }


def _arms(asked: Asked, made: Comparison, base: str, cells: str) -> html.Section:
    columns = _columns(made)
    fields = {key: f"m{number}" for number, key in enumerate(columns)}
    head = [elements.links("arm", "Arm", pinned="left", minWidth=150, maxWidth=420)]
    head += [elements.numbers(fields[key], told) for key, told in columns.items()]
    head += [
        elements.numbers("n", "Seeds"),
        elements.numbers("parameters", "Parameters"),
        elements.numbers("flops", "FLOPs per trial"),
        elements.numbers("training", "Training per trial"),
        elements.numbers("evaluation", "Evaluation per trial"),
    ]
    rows = arm_rows(made, base, cells, fields)
    first = [row for row in rows if row["is_base"]]
    others = [row for row in rows if not row["is_base"]]
    note = "mean ± standard deviation over seeds"
    if cells == "differences":
        note = "difference from the baseline, paired by seed, with its 95 % interval, unadjusted"
    table = elements.grid(
        "arms", head, others, height="60vh", study=made.study, pinnedTopRowData=first
    )
    csv = elements.csv("arms", link("overview", made.study, **elements.state_of(asked)))
    head_ = html.Div([html.H2("Arms"), html.Div(csv, className="tools")], className="head")
    return html.Section(
        [head_, html.P(f"{note}; the baseline is on top.", className="faint"), table]
    )


def arm_rows(
    made: Comparison, base: str, cells: str, fields: dict[tuple[str, str, int, str], str]
) -> list[dict[str, Any]]:
    """A row of the grid for each arm; numbers, and how they are shown under `<field>_`."""
    scores = {
        arm.name: {(s.task, s.metric, s.shots, s.condition): s for s in arm.scores}
        for arm in made.arms
    }
    places = {
        key: words.decimals(
            [mine[key].sd for mine in scores.values() if key in mine],
            [mine[key].mean for mine in scores.values() if key in mine],
        )
        for key in fields
    }
    rows = []
    for arm in made.arms:
        row: dict[str, Any] = {
            "arm": arm.label,
            "arm_": link("trial", made.study, arm=arm.name),
            "is_base": arm.name == base,
            "n": max((s.n for s in arm.scores), default=0),
            **_costs(arm),
        }
        told = f"{row['n']} of {len(made.seeds)}"
        row["n_"] = told + (f", {len(arm.diverged_seeds)} diverged" if arm.diverged_seeds else "")
        for key, name in fields.items():
            mine = scores[arm.name].get(key)
            if mine is None:
                row[name], row[f"{name}_"] = None, words.MISSING
            elif cells == "scores" or arm.name == base or key not in scores[base]:
                row[name] = mine.mean
                row[f"{name}_"] = words.mean_sd(mine.mean, mine.sd, places[key])
            else:
                change = summarize(paired(mine.by_seed, scores[base][key].by_seed))
                row[name] = change.mean
                row[f"{name}_"] = words.signed(change.mean, places[key])
                if math.isfinite(change.ci_low):
                    between = words.interval(change.ci_low, change.ci_high, places[key])
                    row[f"{name}_"] += f" [{between}]"
        rows.append(row)
    return rows


def _costs(arm: ArmLine) -> dict[str, Any]:
    told = {
        "parameters": (arm.parameters or None, words.count(arm.parameters or None)),
        "flops": (arm.flops_per_trial, words.count(arm.flops_per_trial)),
        "training": _seconds(arm.training_seconds_per_trial),
        "evaluation": _seconds(arm.evaluation_seconds_per_trial),
    }
    return {
        key: value
        for name, pair in told.items()
        for key, value in zip((name, f"{name}_"), pair, strict=True)
    }


def _seconds(value: float) -> tuple[float | None, str]:
    return (value if math.isfinite(value) else None), words.duration(value)


def arms_numbers(asked: Asked) -> pandas.DataFrame:
    """A line for each arm and metric: mean, SD and seeds."""
    lines: list[dict[str, Any]] = [
        {
            "arm": arm.name,
            "label": arm.label,
            "task": s.task,
            "metric": s.metric,
            "shots": s.shots,
            "condition": s.condition,
            "mean": s.mean,
            "sd": s.sd,
            "n": s.n,
        }
        for arm in asked.of.comparison.arms
        for s in arm.scores
    ]
    return pandas.DataFrame(lines)


PAGE = Page(
    "overview",
    "Overview",
    show,
    {"effects": effects_numbers, "arms": arms_numbers},
    mark=actions.mark,
    begin=actions.begin,
)
