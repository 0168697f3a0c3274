"""Notes and exclusions: what people wrote beside a study, what is left out, how it came about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update

from ablations.errors import UserError
from analysis import exclusions, words
from analysis.audit import audit
from analysis.dashboard.address import Place
from analysis.dashboard.elements import banner, empty, section, table
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import View, Views
from sweeps import notes
from sweeps.control import who


def show(asked: Asked) -> Shown:
    """Notes, tags, exclusions, warnings, history."""
    view = asked.of
    store, study = view.results.store, asked.study
    written, damaged = notes.notes_of(store.objects, study)
    tags = notes.tags_of(written)
    lines: list[Any] = [banner(line, "bad") for line in damaged]
    texts = [note for note in reversed(written) if note.kind == "note"]
    own: list[Any] = [
        html.Article(
            [html.P(f"{_time(note.at)}, {note.by}", className="faint"), html.P(note.text)],
            className="note",
        )
        for note in texts
    ]
    if not own:
        own = [empty("No notes yet.")]
    spans = [html.Span(tag, className="tag") for tag in tags]
    told = html.P(spans or "No tags.", className="faint")
    if asked.may_act:
        own.insert(0, _form(study, tags))
    else:
        need = "Writing needs mm1 dashboard --actions, and its token."
        own.append(html.P(need, className="faint"))
    left = exclusions.told(view.results)
    rows = [
        (one.trial, one.reason, t.word)
        for one, t in zip(view.results.plan.excluded, left, strict=True)
    ]
    out = (
        table(("trial", "reason", "decided"), rows, text=(0, 1, 2))
        if rows
        else empty("Nothing is excluded.")
    )
    warned = [*view.comparison.notices, *view.comparison.warnings]
    body = [
        *lines,
        section("Tags", told),
        section("Notes", *own),
        section("Excluded trials", out),
        section(
            "Notices and warnings",
            html.Ul([html.Li(text) for text in warned]) if warned else empty("None."),
        ),
        _history(view),
    ]
    return Shown(body, title="Notes")


def _time(at: str) -> str:
    return f"{words.minute(at)} UTC"


def _form(study: str | None, tags: list[str]) -> html.Div:
    # What is being written stays when the page is drawn anew, because something has changed.
    kept: Any = {"persistence": study, "persistence_type": "memory"}
    return html.Div(
        [
            dcc.Textarea(
                id="note-text",
                placeholder="A note, as plain text",
                className="note-text",
                **kept,
            ),
            html.Button("Add the note", id="note-add"),
            dcc.Input(id="tag-text", placeholder="a tag", maxLength=notes.LONGEST_TAG, **kept),
            html.Button("Add the tag", id="tag-add"),
            html.Button("Remove the tag", id="tag-remove", disabled=not tags),
            html.P(id="note-answer", role="status", className="faint"),
        ],
        className="form",
    )


def _history(view: View) -> html.Section:
    found = history(view)
    rows = [(_time(at) if at else "", study, what, told) for at, study, what, told in found]
    return section(
        "History",
        table(("time", "study", "what", "told"), rows, text=(0, 1, 2, 3)),
        note="From the store's records of this study and of all that could have read its answers",
    )


def history(view: View) -> list[tuple[str, str, str, str]]:
    """Time, study, what, told; in the order of time."""
    return view.once(
        "history",
        lambda: [(e.at, e.study, e.what, e.told) for e in audit(view.results).events],
    )


def history_numbers(asked: Asked) -> pandas.DataFrame:
    """A line an event."""
    return pandas.DataFrame(history(asked.of), columns=["at", "study", "what", "told"])


def mark(asked: Asked) -> Any:
    """How many notes there are."""
    return notes.how_many(asked.of.results.store.objects, asked.study)


def begin(app: Dash, views: Views, may_act: Callable[[], bool]) -> None:
    """Writing notes and tags, for who has the token."""

    @app.callback(
        Output("note-answer", "children"),
        Output("note-text", "value"),
        Input("note-add", "n_clicks"),
        Input("tag-add", "n_clicks"),
        Input("tag-remove", "n_clicks"),
        State("note-text", "value"),
        State("tag-text", "value"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def write(note: Any, tag: Any, untag: Any, text: Any, name: Any, path: Any) -> Any:
        study = Place.of(path if isinstance(path, str) else "").study
        if not may_act():
            return "This needs the token.", no_update
        if study is None or study not in views.store.studies():
            return "There is no such study.", no_update
        kinds: dict[str, notes.Kind] = {
            "note-add": "note",
            "tag-add": "tag",
            "tag-remove": "untag",
        }
        kind = kinds.get(str(ctx.triggered_id))
        if kind is None or not any((note, tag, untag)):
            return no_update, no_update
        told = text if kind == "note" else name
        try:
            text = told if isinstance(told, str) else ""
            notes.write(views.store.objects, study, kind, text, who())
        except (UserError, OSError) as error:
            return str(error), no_update
        return "Written.", "" if kind == "note" else no_update


PAGE = Page("notes", "Notes", show, {"history": history_numbers}, mark=mark, begin=begin)
