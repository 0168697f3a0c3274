"""The dashboard: one study, live from the store, in the browser. Nothing comes from the network."""

from __future__ import annotations

import dataclasses
import logging
import math
import socket
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate
from werkzeug.serving import make_server

from analysis import figures, words
from analysis.compare import (
    SYMBOLS,
    Comparison,
    EffectLine,
    Table,
    arms_table,
    comparison,
    shown_verdict,
)
from analysis.report import by_metric, curve_lines
from analysis.results import StudyResults, difference, read_results
from mm1_jax.errors import UserError
from sweeps.store import Store

REFRESH_SECONDS = 2.0

STYLE = """
body { margin: 0; background: #f6f5f2; color: #222;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.2rem 1.5rem 3rem; }
header { display: flex; gap: 1.2rem; align-items: center; }
header h1 { font-size: 1.05rem; font-weight: 650; margin: 0; white-space: nowrap; }
#study { width: 22rem; }
section { background: #fff; border: 1px solid #e0ded8; border-radius: 6px; padding: 1rem 1.2rem;
  margin-top: 1rem; min-width: 0; }
h2 { font-size: .95rem; font-weight: 650; margin: 0 0 .5rem; }
h3 { font-size: 1.25rem; font-weight: 650; margin: 0 0 .5rem; }
p { margin: .35rem 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1rem; }
@media (max-width: 62rem) { .pair { grid-template-columns: 1fr; } }
.faint { color: #5c5c5c; font-size: .88rem; }
.bar { display: flex; height: 10px; border-radius: 5px; overflow: hidden; background: #e6e4de;
  margin: .5rem 0; }
.bar .done { background: #0072B2; } .bar .running { background: #8cc3e6; }
.bar .failed { background: #B84A00; }
.claim { display: grid; grid-template-columns: 7.4rem 1fr; gap: 0 1rem; padding: .5rem 0;
  border-top: 1px solid #eceae4; }
.claim p { margin: 0; }
.verdict { font-weight: 650; white-space: nowrap; color: #5c5c5c; }
.verdict.supported { color: #0072B2; } .verdict.refuted { color: #B84A00; }
.banner { background: #fdf3d8; border-left: 4px solid #c77f00; padding: .4rem .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
th { color: #5c5c5c; font-weight: 600; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid #eceae4;
  white-space: nowrap; vertical-align: bottom; }
th { white-space: normal; }
.text { text-align: left; }
"""
PAGE = (
    "<!doctype html><html lang='en'><head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}"
    f"<style>{STYLE}</style></head><body>{{%app_entry%}}<footer>{{%config%}}{{%scripts%}}"
    "{%renderer%}</footer></body></html>"
)


def serve(store: Store, host: str = "127.0.0.1", port: int = 8050) -> None:
    """Serve the dashboard until interrupted. Raises `UserError` where the port is taken."""
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise UserError(
            f"cannot serve on {host}:{port} ({error.strerror}); choose another --port"
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else one line for each request
    with listening:
        app = make_app(store).server
        server = make_server(host, port, app, threaded=True, fd=listening.fileno())
        print(f"dashboard of {store.root}: http://{host}:{port} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def make_app(store: Store) -> Dash:
    """The application; every view is read from the store anew when something has changed."""
    app = Dash(__name__, title="mm1", update_title="", serve_locally=True)
    app.index_string = PAGE

    def layout() -> html.Main:
        found, damaged = store.snapshots()
        names = list(found)
        return html.Main(
            [
                html.Header(
                    [
                        html.H1("mm1 studies"),
                        dcc.Dropdown(
                            names, names[-1] if names else None, id="study", clearable=False
                        ),
                        html.Span(store.root, className="faint"),
                    ]
                ),
                *(html.P(line, className="banner") for line in damaged),
                html.Section(id="status"),
                html.Section([html.H2("Verdicts"), html.Div(id="verdicts")]),
                html.Div(
                    [
                        html.Section(
                            [
                                html.H2("Effects, 95 % intervals"),
                                _graph("effects"),
                            ]
                        ),
                        html.Section([html.H2("Training loss by step"), _graph("curves")]),
                    ],
                    className="pair",
                ),
                html.Section([html.H2("Arms"), html.Div(id="arms")]),
                dcc.Interval(id="tick", interval=REFRESH_SECONDS * 1000),
                dcc.Store(id="seen"),
            ]
        )

    app.layout = layout  # a function, so that a reload lists studies that are new

    @app.callback(
        Output("status", "children"),
        Output("verdicts", "children"),
        Output("effects", "figure"),
        Output("curves", "figure"),
        Output("arms", "children"),
        Output("seen", "data"),
        Input("study", "value"),
        Input("tick", "n_intervals"),
        State("seen", "data"),
    )
    def show(study: str | None, _ticks: int | None, seen: list[Any] | None) -> tuple[Any, ...]:
        if study is None:
            hint = "No study has run in this store yet: mm1 run ablations/studies/demo.yaml"
            return html.P(hint), [], go.Figure(), go.Figure(), [], seen
        try:
            plan, registration = store.snapshot(study)
            results = read_results(plan, registration, store)
        except UserError as error:
            banner = html.P(str(error), className="banner")
            return banner, *(no_update,) * 4, None
        live = live_curves(results)
        now = [study, results.registration.hash, len(results.done), _reported(live)]
        now.append(sorted(results.states.values()))
        if now == seen:
            raise PreventUpdate
        changed = difference(plan, Path(plan.path))
        made = comparison(dataclasses.replace(results, changed=changed))
        return (
            status(results, made),
            verdicts(made),
            effects_figure(made),
            curves_figure(results, live),
            arms(made),
            now,
        )

    return app


def _graph(name: str) -> dcc.Graph:
    return dcc.Graph(id=name, config={"displaylogo": False, "displayModeBar": False})


Curves = dict[str, dict[int, list[tuple[float, float]]]]


def live_curves(results: StudyResults) -> Curves:
    """Label of the arm → seed → (step, loss) of trainings that are under way."""
    labels = {arm.name: arm.label for arm in results.plan.arms}
    found: Curves = {}
    for trial in results.plan.trials:
        if trial.train not in results.done:
            reports = results.store.progress(trial.train)
            line = [(report["step"], report["loss"]) for report in reports if "loss" in report]
            if line:
                found.setdefault(labels[trial.arm], {})[trial.seed] = line
    return found


def _reported(live: Curves) -> int:
    return sum(len(line) for seeds in live.values() for line in seeds.values())


def status(results: StudyResults, made: Comparison) -> list[Any]:
    """Question, progress, and what a reader should be warned of."""
    counts = Counter(results.states.values())
    total = len(results.plan.trials)
    told = [f"{counts[state]} {state}" for state in ("done", "running", "waiting", "failed")]
    bar = [
        html.Div(className=state, style={"width": f"{100 * counts[state] / total}%"})
        for state in ("done", "running", "failed")
    ]
    line = f"{total} trials: {', '.join(told)}. {words.duration(made.seconds)} of work so far."
    warnings = []
    if made.warnings:
        title = html.Summary(f"Warnings: {len(made.warnings)}", className="faint")
        warnings = [html.Details([title, html.Ul([html.Li(text) for text in made.warnings])])]
    return [
        html.H3(made.question),
        html.Div(bar, className="bar"),
        html.P(line, className="faint"),
        *(html.P(notice, className="banner") for notice in made.notices),
        *([] if made.interim else [html.P(made.completeness.line, className="faint")]),
        *warnings,
    ]


def verdicts(made: Comparison) -> list[Any]:
    """Each claim: symbol, word, sentence."""
    if not made.claims:
        return [html.P("This study makes no claims.", className="faint")]
    lines = []
    for claim in made.claims:
        shown = shown_verdict(claim)
        told = f"{SYMBOLS[shown]} {shown.capitalize()}"
        said = claim.sentence if claim.interim else claim.sentence.partition(": ")[2]
        name = html.P([html.B(claim.name), " ", html.Code(claim.text)], className="faint")
        lines.append(
            html.Div(
                [
                    html.Div(told, className=f"verdict {shown}"),
                    html.Div([html.P(said[0].upper() + said[1:]), name]),
                ],
                className="claim",
            )
        )
    return lines


def effects_figure(made: Comparison) -> go.Figure:
    """Effects on the primary metric with their intervals."""
    lines = by_metric(made).get(made.primary_metric, [])
    figure = _figure(made.study, len(lines))
    for sure in (True, False):
        some = [e for e in lines if _is_sure(e) == sure and e.n]
        figure.add_scatter(
            x=[e.mean for e in some],
            y=[_change(e) for e in some],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [e.ci_high - e.mean for e in some],
                "arrayminus": [e.mean - e.ci_low for e in some],
                "thickness": 2,
                "color": figures.BLUE if sure else figures.FAINT,
            },
            mode="markers",
            marker={
                "size": 11,
                "color": figures.BLUE if sure else figures.FAINT,
                "symbol": "circle" if sure else "circle-open",
                "line": {"width": 2, "color": figures.BLUE if sure else figures.FAINT},
            },
            text=[
                f"{words.signed(e.mean, 2)} [{words.interval(e.ci_low, e.ci_high, 2)}], "
                f"{e.n} of {len(made.seeds)} seeds"
                for e in some
            ],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    figure.add_vline(x=0, line={"color": figures.INK, "width": 1})
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=[_change(e) for e in lines],
        range=[len(lines) - 0.5, -0.5],  # the first on top
        automargin=True,
        showgrid=False,
    )
    return figure


def _change(effect: EffectLine) -> str:
    return f"{effect.factor}<br>{effect.base_level} → {effect.level}"


def _is_sure(effect: EffectLine) -> bool:
    return effect.ci_low > 0 or effect.ci_high < 0


def curves_figure(results: StudyResults, live: Curves) -> go.Figure:
    """Training loss by step: one line a trial, one colour an arm."""
    labels = {arm.name: arm.label for arm in results.plan.arms}
    done = curve_lines(results, labels)
    figure = _figure(results.plan.study, len(labels))
    for number, label in enumerate(labels.values()):
        color, dash = figures.line_style(number)
        seeds = {**done.get(label, {}), **live.get(label, {})}
        for index, (seed, line) in enumerate(sorted(seeds.items())):
            figure.add_scatter(
                x=[step for step, _ in line],
                y=[value for _, value in line],
                mode="lines",
                name=label,
                legendgroup=label,
                showlegend=index == 0,
                line={
                    "color": color,
                    "width": 1.5,
                    "dash": dash.replace(" ", "px,") + "px" if dash else "solid",
                },
                hovertemplate=f"{label} seed {seed}: %{{y:.3f}} at step %{{x}}<extra></extra>",
            )
    values = [line["y"] for line in figure.data]
    figure.update_yaxes(type="log", tickvals=_log_ticks(values))
    figure.update_xaxes(rangemode="tozero")
    return figure


def _log_ticks(lines: Iterable[Iterable[float]]) -> list[float] | None:
    values = [value for line in lines for value in line if math.isfinite(value) and value > 0]
    return figures.log_ticks(min(values), max(values)) if values else None


def _figure(study: str, lines: int) -> go.Figure:
    return go.Figure(
        layout={
            "template": "plotly_white",
            "height": max(340, 60 + 42 * lines),
            "margin": {"l": 10, "r": 10, "t": 10, "b": 30},
            "font": {"family": figures.FONT.replace("'", ""), "size": 12.5, "color": figures.INK},
            "xaxis": {"zeroline": False},
            "legend": {"orientation": "h", "y": -0.1, "yanchor": "top"},
            "uirevision": study,  # keeps the reader's zoom while data comes in
        }
    )


def arms(made: Comparison) -> html.Div:
    """Scores and cost of every arm."""
    table = arms_table(made)
    head = html.Tr(
        [
            html.Th(_breakable(cell), className=_align(table, i))
            for i, cell in enumerate(table.header)
        ]
    )
    body = [
        html.Tr([html.Td(cell, className=_align(table, i)) for i, cell in enumerate(row)])
        for row in table.rows
    ]
    return html.Div(html.Table([html.Thead(head), html.Tbody(body)]), className="wide")


def _breakable(name: str) -> str:
    return name.replace(".", ".\u200b").replace("/", "/\u200b")


def _align(table: Table, column: int) -> str:
    return "text" if column in table.text_columns else ""
