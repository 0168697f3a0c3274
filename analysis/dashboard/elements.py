"""What pages are made of: controls that write into the address, figures with their exports, grids.

Texts of other people go into these as they are: the app makes every text of a page visible and
takes secrets out before it leaves (`app.plain`). Texts within figures go through `in_html`, because
Plotly reads tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dash_ag_grid
import plotly.graph_objects as go
from dash import dcc, html

from ablations.shown_text import without_secrets
from analysis import figures
from analysis.dashboard.address import link
from analysis.dashboard.page import Asked

Option = tuple[str, str]  # value, label


# -- controls ------------------------------------------------------------------------------------


def _id(key: str, default: str) -> dict[str, str]:
    """A control's: `assets/dashboard.js` writes its value into the address under its key."""
    return {"type": "state", "key": key, "default": default}


def _field(label: str, control: Any, kind: str = "") -> html.Div:
    return html.Div([html.Span(label, className="label"), control], className=f"field {kind}")


def select(
    key: str, label: str, options: Iterable[Option], value: str, default: str = ""
) -> html.Div:
    """One of several."""
    known = [{"value": one, "label": told} for one, told in options]
    control = dcc.Dropdown(known, value, id=_id(key, default), clearable=False, searchable=True)
    return _field(label, control)


def select_some(
    key: str, label: str, options: Iterable[Option], values: Sequence[str], hint: str
) -> html.Div:
    """Any number of several; none stands for what `hint` says."""
    known = [{"value": one, "label": told} for one, told in options]
    control = dcc.Dropdown(known, list(values), id=_id(key, ""), multi=True, placeholder=hint)
    return _field(label, control, "broad")


def choose(key: str, label: str, options: Iterable[Option], value: str, default: str) -> html.Div:
    """One of a few that are all seen."""
    known = [{"value": one, "label": told} for one, told in options]
    control = dcc.RadioItems(known, value, id=_id(key, default), inline=True, className="choices")
    return _field(label, control)


def switch(key: str, label: str, is_on: bool) -> html.Div:
    """On or off; off is the default."""
    known = [{"value": "1", "label": label}]
    control = dcc.Checklist(known, ["1"] if is_on else [], id=_id(key, ""), className="choices")
    return html.Div(control, className="field")


def entry(key: str, label: str, value: str, hint: str = "") -> html.Div:
    """A text; it counts when it was entered or left."""
    control = dcc.Input(
        id=_id(key, ""), value=value, type="text", debounce=True, placeholder=hint, maxLength=200
    )
    return _field(label, control)


# -- what is said --------------------------------------------------------------------------------


def banner(text: str, kind: str = "notice") -> html.P:
    """Something to know before reading on."""
    return html.P(text, className=f"banner {kind}")


def is_like(told: str, search: str) -> bool:
    """Whether every word that is looked for stands in a text, whatever its case."""
    folded = told.casefold()
    return all(word in folded for word in search.casefold().split())


def empty(text: str) -> html.P:
    """In place of what is not there."""
    return html.P(text, className="empty")


def section(title: str, *parts: Any, note: str = "", kind: str = "") -> html.Section:
    """A part of a page under its heading."""
    below = [html.P(note, className="faint")] if note else []
    return html.Section([html.H2(title), *below, *parts], className=kind)


def table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], text: Iterable[int] = (0,)
) -> html.Div:
    """A small table; `text` are the columns that are no numbers. A cell may be made already."""
    words = set(text)

    def kind(column: int) -> str:
        return "text" if column in words else ""

    head = html.Tr(
        [html.Th(breakable(cell), className=kind(i), scope="col") for i, cell in enumerate(header)]
    )
    body = [
        html.Tr(
            [
                cell if isinstance(cell, html.Td) else html.Td(cell, className=kind(i))
                for i, cell in enumerate(row)
            ]
        )
        for row in rows
    ]
    return html.Div(
        html.Table([html.Thead(head), html.Tbody(body)]),
        className="wide",
        tabIndex=0,
        role="region",
        **{"aria-label": ", ".join(header)},
    )


def breakable(name: str) -> str:
    """A name that may be broken after its dots and strokes.

    Secrets are hidden first: what is broken looks like no address any more.
    """
    return without_secrets(name).replace(".", ".\u200b").replace("/", "/\u200b")


def pairs(rows: Iterable[tuple[str, Any]]) -> html.Dl:
    """Names and what they are."""
    return html.Dl([part for name, told in rows for part in (html.Dt(name), html.Dd(told))])


# -- figures -------------------------------------------------------------------------------------


def drawing(name: str, height: float, **layout: Any) -> go.Figure:
    """An empty figure in our style; `name` keeps the reader's zoom while data comes in.

    It is drawn as for paper. On a dark screen the style sheet turns its ink light, so that what is
    exported is fit to print whatever the screen looks like.
    """
    return go.Figure(
        layout={
            "template": "plotly_white",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "height": height,
            "margin": {"l": 10, "r": 10, "t": 8, "b": 30},
            "font": {"family": figures.FONT.replace("'", ""), "size": 12.5, "color": figures.INK},
            "xaxis": {"zeroline": False, "automargin": True},
            "yaxis": {"zeroline": False, "automargin": True},
            "legend": {"orientation": "h", "y": -0.12, "yanchor": "top"},
            "hoverlabel": {"align": "left"},
            "uirevision": name,
            **layout,
        }
    )


def framed(
    asked: Asked,
    page: str,
    name: str,
    title: str,
    figure: go.Figure,
    *,
    told: str,
    code: str = "",
    note: str = "",
    zooms: bool = False,
) -> html.Figure:
    """A figure with its heading, what it shows in words, and its exports.

    `told` is read out in place of the picture; `code` is Python that makes the figure's numbers.
    One that `zooms` writes what of its axis is looked at into the address: `from` and `to`.
    """
    place = link(page, None if asked.view is None else asked.study, **state_of(asked))
    graph = dcc.Graph(
        id={"type": "figure", "name": name},
        figure=figure,
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
    )
    tools: list[Any] = [
        html.Button(
            kind.upper(),
            title=f"Save as {kind.upper()}",
            className="tool",
            **{"data-draw": kind, "data-name": name},
        )
        for kind in ("svg", "png")
    ]
    tools.append(csv(name, place))
    below: list[Any] = [html.P(note, className="faint")] if note else []
    if code:
        below.append(
            html.Details(
                [
                    html.Summary("Show the code"),
                    html.Button("Copy", className="tool", **{"data-copy": "1"}),
                    html.Pre(code, tabIndex=0),
                ],
                className="code",
            )
        )
    head = html.Div([html.H2(title), html.Div(tools, className="tools")], className="head")
    drawn = html.Div(graph, className="graph", role="img", **{"aria-label": told})
    more: dict[str, Any] = {"data-zoom": "1"} if zooms else {}
    return html.Figure([head, drawn, *below], className="card", **more)


def csv(name: str, place: str) -> html.A:
    """Leads to the numbers of a figure or table of the page at an address (`export`)."""
    return html.A("CSV", href=f"/csv/{name}{place}", className="tool", download=f"{name}.csv")


def state_of(asked: Asked) -> dict[str, Any]:
    """What the address says, for another one that says the same (`address.link`)."""
    return {key: list(values) for key, values in asked.state.values.items()}


# -- grids ---------------------------------------------------------------------------------------


def column(field: str, title: str, **more: Any) -> dict[str, Any]:
    """A column of texts."""
    return {"field": field, "headerName": title, "headerTooltip": title, **more}


def numbers(field: str, title: str, **more: Any) -> dict[str, Any]:
    """A column of numbers: sorted by `field`, shown as `field` with an underscore behind it."""
    return column(
        field,
        title,
        type="numericColumn",
        filter="agNumberColumnFilter",
        valueFormatter={"function": "told(params)"},
        **more,
    )


def links(field: str, title: str, **more: Any) -> dict[str, Any]:
    """A column of texts that lead to the address in `field` with an underscore behind it."""
    return column(field, title, cellRenderer="PageLink", **more)


def grid(
    name: str,
    columns: Sequence[dict[str, Any]],
    rows: Sequence[Mapping[str, Any]] | None,
    *,
    height: str = "",
    row_id: str = "",
    study: str = "",
    **options: Any,
) -> dash_ag_grid.AgGrid:
    """A large table: sorted and filtered by the reader, drawn as far as it is seen.

    Each `study` is sorted and filtered on its own, until the browser reads the page again.
    Without `rows` the page answers for those that are seen (`getRowsRequest`).
    """
    few = rows is not None and len(rows) <= 15
    more: dict[str, Any] = {} if rows is None else {"rowData": list(rows)}
    if row_id:
        more["getRowId"] = f"params.data.{row_id}"
    style = {"height": height} if height and not few else {}
    return dash_ag_grid.AgGrid(
        id={"type": "grid", "name": name},
        columnDefs=list(columns),
        defaultColDef={"resizable": True, "sortable": True, "filter": True, "minWidth": 70},
        columnSize="autoSize",
        # Which also stays when Dash draws the page anew.
        persistence=study or True,
        persistence_type="memory",
        persisted_props=["columnState", "filterModel"],
        rowModelType="clientSide" if rows is not None else "infinite",
        dashGridOptions={
            "domLayout": "autoHeight" if few else "normal",
            "rowHeight": 30,
            "headerHeight": 34,
            "suppressCellFocus": False,
            "tooltipShowDelay": 300,
            "enableCellTextSelection": True,
            "ensureDomOrder": True,
            **options,
        },
        style={"height": None, "width": "100%"} | style if few or style else {"height": "60vh"},
        **more,
    )
