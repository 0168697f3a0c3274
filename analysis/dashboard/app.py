"""The application: one page at a time, made of what the store holds and the address says."""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate
from flask import request
from plotly.io.json import to_json_plotly

from ablations.shown_text import each_text, hiding, shown_url, visible
from analysis.dashboard import (
    across,
    address,
    curves,
    data,
    examples,
    export,
    factors,
    notes,
    overview,
    security,
    studies,
    timeline,
    trial,
)
from analysis.dashboard.address import Place, link
from analysis.dashboard.elements import banner
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import UNREADABLE, Failed, Reading, View, Views
from analysis.results import Origin
from sweeps.store import Store

REFRESH_SECONDS = 2.0
SOON_SECONDS = 0.4  # until somebody who waits asks again
WAIT_SECONDS = 0.6  # for a page that is being made
# In the order of the navigation. The first of a study is what its name leads to.
PAGES: tuple[Page, ...] = (
    *(studies.PAGE, across.PAGE),
    *(overview.PAGE, factors.PAGE, curves.PAGE, examples.PAGE, trial.PAGE),
    *(timeline.PAGE, data.PAGE, notes.PAGE),
)
WORKING = Shown([html.P("Working this out …", className="empty", role="status").to_plotly_json()])
LOST = Page("", "Not found", lambda _: Shown([banner("There is no such page.")], title="Not found"))
INDEX = (
    "<!doctype html><html lang='en'><head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}"
    "</head><body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"
)


def make_app(
    store: Store,
    allowed: list[str] | tuple[str, ...] = (),
    origin: Origin | None = None,
    *,
    views: Views | None = None,
    token: str | None = None,
    actions: bool = False,
) -> Dash:
    """The application; with `actions` whoever has shown the `token` may act.

    `views` are those of somebody who reads the same store, so that it is read once.
    """
    app = Dash(
        __name__,
        title="mm1",
        update_title="",
        serve_locally=True,
        assets_folder=str(Path(__file__).parent / "assets"),
        suppress_callback_exceptions=True,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.index_string = INDEX
    app.layout = layout
    views = views or Views(store, origin)

    def may_act() -> bool:
        return actions and security.has_token(request, token)

    @app.callback(
        Output("navigation", "children"),
        Output("controls", "children"),
        Output("page", "children"),
        Output("seen", "data"),
        Output("tick", "interval"),
        Input("url", "pathname"),
        Input("url", "search"),
        Input("tick", "n_intervals"),
        State("seen", "data"),
        State("chosen", "data"),
    )
    def show(path: Any, search: Any, _ticks: Any, seen: Any, chosen: Any) -> tuple[Any, ...]:
        anew = ctx.triggered_id == "tick"
        return shown(views, path, search, seen, chosen, anew=anew, may_act=may_act())

    app.clientside_callback(
        ClientsideFunction("mm1", "address"),
        Output("url", "search"),
        Output("chosen", "data"),
        Input({"type": "state", "key": ALL, "default": ALL}, "value"),
        State("url", "search"),
    )
    app.clientside_callback(
        ClientsideFunction("mm1", "title"), Output("title", "children"), Input("seen", "data")
    )
    app.clientside_callback(
        ClientsideFunction("mm1", "study"),
        Output("url", "pathname"),
        Input({"type": "study", "of": ALL}, "value"),
        State("url", "pathname"),
    )
    for page in PAGES:
        if page.begin is not None:
            page.begin(app, views, may_act)
    export.serve_tables(app, views, PAGES)
    security.guard(app, allowed, token)
    return app


def layout() -> html.Div:
    """What is the same on every page."""
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            html.A("Skip to the content", href="#main", className="skip"),
            html.Header(
                [
                    html.Div(id="navigation"),
                    html.Div(
                        [
                            html.Details(
                                [html.Summary("Views"), html.Div(id="saved-views")], id="views"
                            ),
                            html.Button("Theme", id="theme", title="Light, dark, or the system's"),
                        ],
                        className="corner",
                    ),
                ]
            ),
            html.Main(
                [html.Div(id="controls", className="controls"), html.Div(id="page")],
                id="main",
                tabIndex=-1,
            ),
            html.Div(id="title", className="spoken", role="status"),
            dcc.Interval(id="tick", interval=REFRESH_SECONDS * 1000),
            dcc.Store(id="seen"),
            dcc.Store(id="chosen"),  # what the controls show: key → values
        ]
    )


def shown(
    views: Views,
    path: Any,
    search: Any,
    seen: Any,
    chosen: Any = None,
    *,
    anew: bool,
    may_act: bool = False,
) -> tuple[Any, ...]:
    """Navigation, controls, page, and what tells them from other versions of the same address.

    Controls that show what they should (`chosen`: key → values) are not drawn anew: with a thousand
    arms to choose from that takes longer than all else.
    """
    path, search = (one if isinstance(one, str) else "" for one in (path, search))
    seen = seen if isinstance(seen, dict) else {}
    place = Place.of(path)
    view = None if place.study is None else views.of(place.study, anew=anew)
    page = find(place)
    asked = Asked(views, address.State.of(search), None, may_act)
    here = _hash(path, search, may_act)
    told: Shown | None
    if isinstance(view, View):
        asked.view = view
        mark = _mark(page, asked)
        version = _hash(here, view.version, mark)
        if seen.get("version") == version:
            raise PreventUpdate
        key = page.name, search, may_act, mark
        told = view.soon(key, lambda: made(page, asked), WAIT_SECONDS)
    else:
        told = _elsewhere(page, asked, view)
        version = "" if told is None else _hash(here, told.body)
        if version and seen.get("version") == version:
            raise PreventUpdate
    is_waiting = told is None
    if told is None:
        if seen.get("here") == here:  # what was there before stays until the new is ready
            raise PreventUpdate
        told, version = WORKING, ""
    body = told.body
    controls = told.controls
    values: dict[str, list[str]] = {}
    kind = _hash(path, _without_values(controls, values))
    title = " · ".join([*([place.study] if place.study else []), told.title or page.title, "mm1"])
    where = _hash(path, sorted(views.store.studies()))
    now = {
        "version": version,
        "here": here,
        "controls": kind,
        "title": visible(title),
        "where": where,
    }
    return (
        no_update if seen.get("where") == where else plain(navigation(views, place, page)),
        no_update if seen.get("controls") == kind and chosen == values else controls,
        body,
        now,
        1000 * (SOON_SECONDS if is_waiting else REFRESH_SECONDS),
    )


def made(page: Page, asked: Asked) -> Shown:
    """What a page shows, as plain values; why it shows nothing, where it fails."""
    told = _tried(page, asked)
    notices = [banner(line) for line in asked.state.notices]
    return Shown(plain([*notices, *told.body]), plain(told.controls), told.title)


def _elsewhere(page: Page, asked: Asked, view: Failed | Reading | None) -> Shown | None:
    """A page that is of no study, or why there is none of this one; None: it is being read."""
    if isinstance(view, Reading):
        return None
    if isinstance(view, Failed):
        return Shown(plain([banner(str(view), "bad")]), title="Not shown")
    return made(page, asked)


def _tried(page: Page, asked: Asked) -> Shown:
    try:
        return page.show(asked)
    except UNREADABLE as error:
        return Shown([banner(f"This page cannot be shown: {error}", "bad")])
    except Exception as error:
        # A fault of ours: told where it is seen, and the whole of it where the server runs.
        traceback.print_exc()
        return Shown([banner(f"This page failed: {type(error).__name__}: {error}", "bad")])


def _mark(page: Page, asked: Asked) -> str:
    try:
        mark = page.mark(asked)
    except UNREADABLE as error:
        mark = str(error)
    return "" if mark is None else json.dumps(mark, default=str)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def _without_values(controls: Any, values: dict[str, list[str]]) -> Any:
    """Controls but for what they show, which is put into `values` as the browser tells it."""
    if isinstance(controls, list):
        return [_without_values(one, values) for one in controls]
    if not isinstance(controls, dict):
        return controls
    own = controls.get("id")
    if isinstance(own, dict) and own.get("type") == "state":
        controls = dict(controls)
        value = controls.pop("value", None)
        several = value if isinstance(value, list) else [value]
        values[own["key"]] = [str(one) for one in several if one not in (None, "")]
    return {key: _without_values(one, values) for key, one in controls.items()}


def find(place: Place) -> Page:
    """The page of an address."""
    kind = [page for page in PAGES if page.of_study == (place.study is not None)]
    if place.page == "" and kind:
        return kind[0]
    return next((page for page in kind if page.name == place.page), LOST)


def navigation(views: Views, place: Place, current: Page) -> list[Any]:
    """Where one can go from here."""
    names = views.store.studies()
    picker = dcc.Dropdown(
        [{"value": name, "label": name} for name in names],
        place.study,
        id={"type": "study", "of": "navigation"},
        clearable=False,
        placeholder="a study",
    )

    def item(page: Page) -> dcc.Link:
        here = page is current
        return dcc.Link(
            page.title,
            href=link(page.name, place.study if page.of_study else None),
            className="here" if here else "",
        )

    of_all = [item(page) for page in PAGES if not page.of_study]
    own = [item(page) for page in PAGES if page.of_study] if place.study is not None else []
    parts: list[Any] = [
        html.Nav(of_all, **{"aria-label": "All studies"}),
        html.Div(picker, id="study"),
    ]
    if own:
        parts.append(html.Nav(own, className="own", **{"aria-label": "This study"}))
    store = html.Span(shown_url(views.store.root), className="faint place")
    return [html.Span("mm1", className="brand"), *parts, store]


def plain(parts: Any) -> Any:
    """Components as plain values; every text in them without secrets, nothing that is obeyed."""
    hide = hiding()
    # Most texts of a page are names of components and classes, and there hundreds of times.
    told = cache(lambda text: visible(hide(text)))

    def made(part: Any) -> Any:
        if isinstance(part, str):
            return told(part)
        if part is None or type(part) in (bool, int):
            return part
        if type(part) is float and math.isfinite(part):  # of which tables have thousands
            return part
        if isinstance(part, Component):
            part = part.to_plotly_json()
        if isinstance(part, list | tuple):
            return [made(one) for one in part]
        if isinstance(part, dict) and all(isinstance(key, str) for key in part):
            return {key: made(one) for key, one in part.items()}
        return each_text(json.loads(to_json_plotly(part)), told)  # a figure, a number of numpy's

    return made(parts)
