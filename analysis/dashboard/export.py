"""The numbers of a figure as CSV, by the address of the page that shows it.

/csv/<figure>/study/<name>/<page>?key=value
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pandas
from dash import Dash
from flask import Response, abort, request

from ablations.shown_text import hiding, visible
from analysis.dashboard.address import Place, State
from analysis.dashboard.page import Asked, Page
from analysis.dashboard.view import UNREADABLE, View, Views

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute
WAIT_SECONDS = 120.0


def serve_tables(app: Dash, views: Views, pages: Iterable[Page]) -> None:
    """Answer for the numbers of every figure of some pages."""
    known = {(page.of_study, page.name): page for page in pages}

    @app.server.get("/csv/<figure>/<path:rest>")
    def table(figure: str, rest: str) -> Response:
        # As it was sent: what is quoted in a name is no stroke between names.
        path = request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or ""
        raw = path.partition("?")[0].partition(f"/csv/{figure}")[2] or f"/{rest}"
        place = Place.of(raw)
        page = known.get((place.study is not None, place.page))
        if page is None or figure not in page.tables:
            abort(404)
        asked = Asked(views, State.of(request.query_string.decode("ascii", "replace")))
        if place.study is not None:
            view = views.of(place.study, wait=WAIT_SECONDS)
            if not isinstance(view, View):
                abort(404 if view is not None else 503)
            asked.view = view
        try:
            frame = page.tables[figure](asked)
        except UNREADABLE as error:
            abort(409, visible(str(error))[:500])
        return Response(
            written(frame),
            mimetype="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{figure}.csv"'},
        )


def written(frame: pandas.DataFrame) -> Iterator[str]:
    """A table as CSV, a piece at a time; no text in it is a formula to a spreadsheet."""
    hide = hiding()

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        told = visible(hide(value))
        return f"'{told}" if told.startswith(FORMULA) else told

    texts = [not pandas.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    page = io.StringIO()
    out = csv.writer(page, lineterminator="\n")
    out.writerow([cell(str(name)) for name in frame.columns])
    for start in range(0, len(frame), 2_000):
        for row in frame.iloc[start : start + 2_000].itertuples(index=False, name=None):
            out.writerow([cell(one) if text else one for one, text in zip(row, texts, strict=True)])
        yield page.getvalue()
        page.seek(0)
        page.truncate()
    if not len(frame):
        yield page.getvalue()
