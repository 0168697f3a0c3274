"""The run of a study: what it is at; pausing, resuming and cancelling it, for who has the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

from dash import Dash, Input, Output, State, ctx, html, no_update

from ablations.errors import UserError
from analysis import words
from analysis.dashboard.address import Place
from analysis.dashboard.page import Asked
from analysis.dashboard.view import Views
from sweeps.control import ask
from sweeps.live import Live, driver, read_live, token_of

ANSWER_SECONDS = 20.0
ACTIONS = {"run-pause": "pause", "run-resume": "resume", "run-cancel": "cancel"}


def run_of(asked: Asked) -> Live | None:
    """What the driver of the study says of itself; None where nobody runs it."""
    objects = asked.of.results.store.objects
    holder = driver(objects, asked.study)
    live = None if holder is None else read_live(objects, asked.study)
    return live if live is not None and live.token == token_of(holder) else None


def mark(asked: Asked) -> Any:
    """What of a run is shown."""
    live = run_of(asked)
    return None if live is None else [live.state, _left(live), live.workers]


def _left(live: Live) -> str:
    if live.remaining is None:
        return ""
    return words.duration(60 * max(1, round(live.remaining / 60)))


def bar(asked: Asked) -> list[Any]:
    """The run in a line; nothing where nobody runs the study."""
    live = run_of(asked)
    if live is None:
        return []
    left = f", about {_left(live)} left" if _left(live) else ""
    told = f"A run is {live.state} on {live.host}: {live.workers} workers{left}."
    parts: list[Any] = [html.Span(told)]
    if asked.may_act:
        name = "Resume" if live.state in ("paused", "pausing") else "Pause"
        parts += [
            html.Button(name, id=f"run-{name.lower()}"),
            html.Details(
                [
                    html.Summary("Cancel…"),
                    html.Button("Save what runs and end the run", id="run-cancel"),
                ]
            ),
        ]  # fmt: skip
    return [html.Div([*parts, html.Span(id="run-answer", role="status")], className="run")]


def begin(app: Dash, views: Views, may_act: Callable[[], bool]) -> None:
    """Answer the buttons. Each is there or not, so each has its own callback."""
    for button in ACTIONS:
        _begin(app, views, may_act, button)


def _begin(app: Dash, views: Views, may_act: Callable[[], bool], button: str) -> None:
    @app.callback(
        Output("run-answer", "children", allow_duplicate=True),
        Input(button, "n_clicks"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def act(clicks: Any, path: Any) -> Any:
        study = Place.of(path if isinstance(path, str) else "").study
        action = ACTIONS.get(str(ctx.triggered_id))
        if not clicks or study is None or action is None:
            return no_update
        if not may_act():
            return "This needs the token."
        if study not in views.store.studies():
            return "There is no such study."
        asked_for = cast(Literal["pause", "resume", "cancel"], action)
        try:
            return ask(views.store.objects, study, asked_for, seconds=ANSWER_SECONDS)
        except (UserError, OSError) as error:
            return str(error)
