"""Where the core time of a study's runs went, worker by worker."""

from __future__ import annotations

from collections.abc import Sequence

import pandas
import plotly.graph_objects as go
from dash import html

from ablations.shown_text import in_html
from analysis import words
from analysis.dashboard import elements
from analysis.dashboard.elements import drawing, empty, framed, section, table
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import View
from analysis.timeline import WHAT, Run, Timeline, load_timeline, useful_share, when
from analysis.timeline_picture import BARS, COLOURS, moments

MOST_WORKERS = 200  # in one picture


def show(asked: Asked) -> Shown:
    """One run as a picture, all runs as a table."""
    found = timeline_of(asked.of)
    notes = [html.P(note[:1].upper() + note[1:] + ".", className="faint") for note in found.notes]
    if not found.runs:
        return Shown([empty("No run of this study is on record."), *notes], title="Timeline")
    numbers = [str(run.number) for run in found.runs]
    number = asked.state.one_of("run", numbers, numbers[-1])
    run = found.runs[numbers.index(number)]
    options = [
        (str(one.number), f"run {one.number}: {when(one.began_at)}, {words.duration(one.seconds)}")
        for one in found.runs
    ]
    controls = [elements.select("run", "Run", options, number, numbers[-1])]
    end = "" if run.ended else ", its end is not on record"
    share = words.number(100 * useful_share(run.core_seconds()), 1)
    drawn = framed(
        asked,
        "timeline",
        "timeline",
        f"Run {run.number}: {len(run.lanes)} workers, {words.duration(run.seconds)}{end}; "
        f"{share} % of core time in steps and evaluation",
        timeline_figure(run),
        told=_told(run.core_seconds()),
        note="Each moment shows what took most of it; zoomed in, a moment stays as long as it is. "
        "The whole record: mm1 timeline.",
        code=CODE.format(study=asked.study),
    )
    return Shown([drawn, _shares(found), *notes], controls, "Timeline")


CODE = """\
import os
from analysis.timeline import as_json, load_timeline
from sweeps.store import Store

print(as_json(load_timeline(Store(os.environ.get("MM1_STORE", ".mm1")), {study!r})))
"""


def timeline_of(view: View) -> Timeline:
    """The runs of the study, as this version knows them."""
    return view.once("timeline", lambda: load_timeline(view.results.store, view.results.plan.study))


def _told(spent: dict[str, float]) -> str:
    total = sum(spent.values()) or 1.0
    return ", ".join(f"{kind} {100 * seconds / total:.1f} %" for kind, seconds in spent.items())


def timeline_figure(run: Run) -> go.Figure:
    """A bar for each worker."""
    lanes = run.lanes[:MOST_WORKERS]
    names = [in_html(lane.worker) for lane in lanes]
    each = max(8, min(26, 700 // max(1, len(lanes))))
    figure = drawing(f"timeline {run.name}", 90 + each * len(lanes))
    scale = BARS / (run.seconds or 1.0)
    pieces: dict[str, list[tuple[str, float, float]]] = {}
    for name, lane in zip(names, lanes, strict=True):
        for kind, start, end in moments(lane, scale):
            pieces.setdefault(kind, []).append((name, start / scale, end / scale))
    for kind in COLOURS:
        if kind in pieces:
            mine = pieces[kind]
            figure.add_bar(
                y=[name for name, _, _ in mine],
                base=[start for _, start, _ in mine],
                x=[end - start for _, start, end in mine],
                orientation="h",
                name=kind,
                marker={"color": COLOURS[kind], "line": {"width": 0}},
                hovertemplate=f"%{{y}}: {kind}, %{{base:.1f}} s for %{{x:.1f}} s<extra></extra>",
            )
    figure.update_layout(barmode="overlay", bargap=0.15, legend={"y": 1.0, "yanchor": "bottom"})
    figure.update_xaxes(title="seconds since the run began", range=[0, run.seconds or 1.0])
    figure.update_yaxes(
        categoryorder="array", categoryarray=names, autorange="reversed", showgrid=False
    )
    return figure


def _shares(found: Timeline) -> html.Section:
    kinds = found.kinds()
    rows: list[Sequence[str]] = []
    for name, spent in [
        *((f"run {run.number}", run.core_seconds()) for run in found.runs),
        ("all", found.core_seconds()),
    ]:
        total = sum(spent.values())
        rows.append(
            (
                name,
                words.duration(total),
                *(
                    f"{words.number(100 * spent.get(kind, 0.0) / total, 1)} %" if total else ""
                    for kind in kinds
                ),
            )
        )
    meanings = elements.pairs((kind, WHAT[kind]) for kind in kinds)
    return section(
        "Share of core time",
        table(("", "core time", *kinds), rows),
        html.Details([html.Summary("What the words mean"), meanings]),
    )


def timeline_numbers(asked: Asked) -> pandas.DataFrame:
    """Every span of every worker in every run; seconds since the run began."""
    return pandas.DataFrame(
        [
            (run.number, lane.worker, lane.host, lane.cores, s.kind, s.start, s.end, s.stage)
            for run in timeline_of(asked.of).runs
            for lane in run.lanes
            for s in lane.spans
        ],
        columns=["run", "worker", "host", "cores", "kind", "start", "end", "stage"],
    )


PAGE = Page("timeline", "Timeline", show, {"timeline": timeline_numbers})
