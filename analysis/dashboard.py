"""The dashboard: one study, live from the store, in the browser. Nothing comes from the network."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import logging
import math
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.exceptions import DashException, PreventUpdate
from flask import Request, Response, abort, request
from plotly.io.json import to_json_plotly
from werkzeug.serving import WSGIRequestHandler, make_server

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.shown_text import each_text, in_html, shown_url, visible, without_secrets
from analysis import figures, words
from analysis.claim_words import numbers
from analysis.compare import (
    SYMBOLS,
    Comparison,
    EffectLine,
    Table,
    arms_table,
    beside,
    comparison,
    effect_words,
    family,
    path_words,
    primary,
    shown_verdict,
)
from analysis.registry import Elsewhere, History, Other
from analysis.report.content import by_metric, curve_lines, curve_name
from analysis.results import Origin, StudyResults, read_results
from sweeps.store import Registration, Store

REFRESH_SECONDS = 2.0
PAUSE_SECONDS = 0.25  # between two looks at the store, however many want one
MOST_BYTES = 100_000  # of a request; the page's own are below 1,000

STYLE = """
body { margin: 0; background: #f6f5f2; color: #222;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.2rem 1.5rem 3rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center; }
header h1 { font-size: 1.05rem; font-weight: 650; margin: 0; white-space: nowrap; }
#study { width: 22rem; max-width: 100%; }
section { background: #fff; border: 1px solid #e0ded8; border-radius: 6px; padding: 1rem 1.2rem;
  margin-top: 1rem; min-width: 0; }
h2 { font-size: .95rem; font-weight: 650; margin: 0 0 .5rem; }
h3 { font-size: 1.25rem; font-weight: 650; margin: 0 0 .5rem; }
p { margin: .35rem 0; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 1rem; }
@media (max-width: 62rem) { .pair { grid-template-columns: minmax(0, 1fr); } }
.faint { color: #5c5c5c; font-size: .88rem; }
.bar { display: flex; height: 10px; border-radius: 5px; overflow: hidden; background: #e6e4de;
  margin: .5rem 0; }
.bar .done { background: #0072B2; } .bar .running { background: #8cc3e6; }
.bar .failed { background: #B84A00; }
.claim { display: grid; grid-template-columns: 7.4rem 1fr; gap: 0 1rem; padding: .5rem 0;
  border-top: 1px solid #eceae4; }
.claim p { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { main { padding: .8rem .6rem 2rem; } section { padding: .8rem; }
  .claim { grid-template-columns: minmax(0, 1fr); } }
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


def serve(
    store: Store,
    host: str = "127.0.0.1",
    port: int = 8050,
    allowed: Iterable[str] = (),
    origin: Origin | None = None,
) -> int:
    """Serve the dashboard until interrupted; the exit code, 130 after Ctrl-C and 0 after SIGTERM.

    `allowed` are names that browsers may call it by, beside localhost, `host`, this machine's name
    and addresses in numbers. `origin` reads study files, to say which have changed. Raises
    `UserError` where the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot serve on {host}:{port} ({error.strerror}); choose another --port"
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else one line for each request
    with listening:
        app = make_app(store, [host, *allowed], origin).server
        server = make_server(
            host, port, app, threaded=True, fd=listening.fileno(), request_handler=_Requests
        )
        ended_by = []

        def end(number: int, _frame: object) -> None:
            ended_by.append(number)
            threading.Thread(target=server.shutdown, daemon=True).start()

        # Also where a shell has told a background process to ignore them.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, end)
        place = f"[{host}]" if ":" in host else host
        print(
            f"dashboard of {shown_url(store.root)}: http://{place}:{port} (Ctrl-C ends it)",
            flush=True,
        )
        server.serve_forever()
    return 130 if ended_by[:1] == [signal.SIGINT] else 0


class _Requests(WSGIRequestHandler):
    timeout = 60  # seconds; a browser that says nothing holds no thread for ever


def make_app(store: Store, allowed: Iterable[str] = (), origin: Origin | None = None) -> Dash:
    """The application; every view is read from the store anew when something has changed."""
    app = Dash(__name__, title="mm1", update_title="", serve_locally=True)
    app.index_string = PAGE
    views = Views(store, origin)

    def layout() -> html.Main:
        found, damaged = store.snapshots()
        names = list(found)
        options = [{"label": visible(name), "value": name} for name in names]
        return html.Main(
            [
                html.Header(
                    [
                        html.H1("mm1 studies"),
                        dcc.Dropdown(
                            options, names[-1] if names else None, id="study", clearable=False
                        ),
                        html.Span(visible(shown_url(store.root)), className="faint"),
                    ]
                ),
                *(html.P(_shown(line), className="banner") for line in damaged),
                html.Section(id="status"),
                html.Section([html.H2("Verdicts"), html.Div(id="verdicts")]),
                html.Div(
                    [
                        html.Section(
                            [
                                html.H2("Effects, 95 % intervals, unadjusted"),
                                _graph("effects"),
                            ]
                        ),
                        html.Section([html.H2("Learning curves"), _graph("curves")]),
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
    def show(study: str | None, _ticks: int | None, seen: Any) -> tuple[Any, ...]:
        if study is None:
            hint = "No study has run in this store yet: mm1 run ablations/studies/demo.yaml"
            return html.P(hint), [], go.Figure(), go.Figure(), [], seen
        view = views.of(study)
        if isinstance(view, str):
            return html.P(_shown(view), className="banner"), *(no_update,) * 4, None
        if view.version == seen:
            raise PreventUpdate
        return *view.parts, view.version

    _guard(app, allowed)
    return app


_UNREADABLE = (UserError, ValueError, KeyError, TypeError, OSError)


@dataclasses.dataclass(frozen=True)
class View:
    """What the page shows of a study, ready for JSON; another version of it is another view."""

    version: str
    parts: tuple[Any, ...]


@dataclasses.dataclass
class _Looked:
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    began: float = -math.inf
    ended: float = -math.inf
    view: View | str = ""
    results: StudyResults | None = None
    state: Any = None
    others: tuple[Plan, ...] = ()  # whose results tell of this study's claims


class Views:
    """The view of each study, made once for all who look at the same time."""

    def __init__(self, store: Store, origin: Origin | None = None):
        self._store, self._origin = store, origin
        self._lock = threading.Lock()
        self._studies: dict[str, _Looked] = {}

    def of(self, study: str) -> View | str:
        """The view as the store is now, or why there is none."""
        came = time.monotonic()
        if study not in self._store.studies():
            return f"no study {study[:100]!r} in this store"
        with self._lock:
            looked = self._studies.setdefault(study, _Looked())
        with looked.lock:
            if looked.began < came:  # else somebody has looked meanwhile, for us too
                time.sleep(max(0.0, looked.ended + PAUSE_SECONDS - came))
                looked.began = time.monotonic()
                try:
                    self._look(study, looked)
                except _UNREADABLE as error:
                    looked.view, looked.state, looked.results = str(error), None, None
                looked.ended = time.monotonic()
            return looked.view

    def _results(self, plan: Plan, registration: Registration) -> StudyResults:
        file = Path(plan.path)
        return read_results(plan, registration, self._store, file=file, origin=self._origin)

    def _look(self, study: str, looked: _Looked) -> None:
        snapshot = plan, registration = self._store.snapshot(study)
        found = self._store.look(plan.stages)
        results, is_new = looked.results, False
        if results is None or results.whole is not plan or results.found is not found:
            results, is_new = self._results(*snapshot), True
            looked.results = results
        live = live_curves(results)
        own = [registration.hash, len(results.done), _reported(live), results.states_now()]
        state = [own, self._around(looked.others)]
        if state == looked.state:
            return
        results = results if is_new else dataclasses.replace(results)  # what was tried is anew
        results.looked("mm1 dashboard")
        made = comparison(results)
        parts = (
            status(results, made),
            verdicts(made),
            effects_figure(made),
            curves_figure(results, live),
            arms(made),
        )
        plain = each_text(json.loads(to_json_plotly(parts)), _shown)
        histories = results.histories.values()
        told = [one.registered.plan for h in histories for one in _told(h)]
        # Others that are new are counted at the next look, before which nothing was shown of them.
        looked.others = tuple({id(plan): plan for plan in told}.values())
        looked.view, looked.state = View(secrets.token_hex(8), tuple(plain)), state

    def _around(self, others: Iterable[Plan]) -> Any:
        """What is told of a study beside its own results: other registrations, and how far."""
        marks = self._store.registration_marks()
        return marks, [len(self._store.look(plan.stages).sound) for plan in others]


def _told(history: History) -> list[Other | Elsewhere]:
    return [*history.others, *history.elsewhere, *history.since]


def _shown(text: str) -> str:
    return visible(without_secrets(text))


# -- who may ask what --------------------------------------------------------------------------


def _guard(app: Dash, allowed: Iterable[str]) -> None:
    """Refuse what no page of ours asks, before anything of it is read.

    A web page elsewhere can have its own name lead to this machine (DNS rebinding) and then read
    what it likes, so only names that we know are answered, and posts only of our own page.
    """
    names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in allowed)}
    app.server.config["MAX_CONTENT_LENGTH"] = MOST_BYTES

    @app.server.before_request
    def check() -> None:
        host = request.headers.get("Host", "")
        if not _is_known(host, names):
            abort(403, f"{visible(host)[:100]} is no name of this dashboard; see --allow")
        if (request.content_length or 0) > MOST_BYTES:
            abort(413)
        if request.method == "POST":
            if request.content_length is None:
                abort(411)
            origin = request.headers.get("Origin")
            site = request.headers.get("Sec-Fetch-Site", "same-origin")
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                abort(403, "a page of another origin asks")
            if site not in ("same-origin", "none"):
                abort(403, "a page of another site asks")
            if not _is_tick(request, app):
                abort(400)

    @app.server.after_request
    def protect(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response

    # What Dash raises for an address that is not there.
    app.server.register_error_handler(DashException, lambda _: ("not found", 404))


def _is_known(host: str, names: Collection[str]) -> bool:
    name = host.partition("]")[0].removeprefix("[") if host[:1] == "[" else host.partition(":")[0]
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)  # no name, so nobody else's either
        return True
    return name.lower().rstrip(".") in names


def _is_tick(asked: Request, app: Dash) -> bool:
    """Whether a post is what the page sends: else Dash fails somewhere in the middle."""
    (callback,) = app.callback_map.values()
    try:
        body = asked.get_json()
        study, ticks = body["inputs"]
        (seen,) = body["state"]
        return (
            body["output"] in app.callback_map
            and [study["id"], ticks["id"], seen["id"]] == ["study", "tick", "seen"]
            and isinstance(study.get("value"), str | None)
            and len(body["outputs"]) == len(callback["output"])
            and all({"id", "property"} <= set(one) for one in body["outputs"])
            and isinstance(body.get("changedPropIds", []), list)
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False


def _graph(name: str) -> dcc.Graph:
    # As high as the figure says: a responsive graph drops that height, and is left a strip.
    return dcc.Graph(id=name, config={"displaylogo": False, "displayModeBar": False})


Curves = dict[str, dict[int, list[tuple[float, float]]]]


def live_curves(results: StudyResults) -> Curves:
    """Label of the arm → seed → (step, value) of what is under way."""
    labels = {arm.name: arm.label for arm in results.plan.arms}
    found: Curves = {}
    for trial in results.plan.trials:
        stage = results.curve_stage(trial)
        if stage not in results.done:
            reports = results.store.progress(stage)
            name = results.curve
            line = [(report["step"], report[name]) for report in reports if name in report]
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
        below = [beside(claim), *(f"{c.word}: {c.told}" for c in claim.caveats)]
        below += [f"scope: {claim.scope}"]
        below += [f"of {', '.join(claim.metrics)}"]
        below += [f"seed by seed: {numbers(claim).by_seed}"] if claim.by_seed else []
        below += [path_words(claim)] if claim.path else []
        notes = [html.P(text, className="faint") for text in below]
        lines.append(
            html.Div(
                [
                    html.Div(told, className=f"verdict {shown}"),
                    html.Div([html.P(said[0].upper() + said[1:]), name, *notes]),
                ],
                className="claim",
            )
        )
    return [*lines, html.P(family(made), className="faint")]


def effects_figure(made: Comparison) -> go.Figure:
    """Effects on the primary metric with their intervals."""
    task, _, metric = made.primary_metric.partition(".")
    lines = by_metric(made).get(words.metric_name(task, metric, made.primary_shots), [])
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
                "{} [{}], ".format(*effect_words(e, lines))
                + f"{e.n} of {len(made.seeds)} seeds"
                + (", diverged" if e.diverged_seeds else "")
                for e in some
            ],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    figure.add_vline(x=0, line={"color": figures.INK, "width": 1})
    figure.update_xaxes(title=f"change of {in_html(primary(made))}")
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=[_change(e) for e in lines],
        range=[len(lines) - 0.5, -0.5],  # the first on top
        automargin=True,
        showgrid=False,
    )
    return figure


def _change(effect: EffectLine) -> str:
    # Plotly reads tags in texts.
    levels = f"{in_html(effect.base_level)} → {in_html(effect.level)}"
    return f"{in_html(effect.factor)}<br>{levels}"


def _is_sure(effect: EffectLine) -> bool:
    return effect.ci_low > 0 or effect.ci_high < 0


def curves_figure(results: StudyResults, live: Curves) -> go.Figure:
    """The curve that is shown, by step: one line a trial, one colour an arm."""
    shown, is_loss = curve_name(results)
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
                name=in_html(label),
                legendgroup=in_html(label),
                showlegend=index == 0,
                line={
                    "color": color,
                    "width": 1.5,
                    "dash": dash.replace(" ", "px,") + "px" if dash else "solid",
                },
                # The name by reference: what looks like a field in it is none.
                hovertemplate=f"%{{fullData.name}} seed {seed}: "
                "%{y:.3f} at step %{x}<extra></extra>",
            )
    values = [line["y"] for line in figure.data]
    if is_loss and all(value > 0 for line in values for value in line if math.isfinite(value)):
        figure.update_yaxes(type="log", tickvals=_log_ticks(values))
    figure.update_yaxes(title=in_html(shown))
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
