"""The dashboard of a study as files that open from a disk: no server, no network.

The pages are those of the dashboard, made by the same functions; what leads to a page that is here
leads to its file, and what leads elsewhere is text. Controls are left out. Pictures and tables are
files beside the pages, so that the folder can be sent, and put on any web server.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ablations.errors import UserError
from analysis.dashboard import app as application
from analysis.dashboard import examples
from analysis.dashboard.address import State, link
from analysis.dashboard.page import Asked, Page, Shown
from analysis.dashboard.view import View, Views
from analysis.examples import StudyExamples, askings
from analysis.results import Origin
from sweeps.store import Store

QUESTIONS = 200  # of each form of a task that get a page of their own
ROWS = 2_000  # of a grid that are written
WAIT_SECONDS = 3_600.0
# What a page may be made of; all else is left out with what is in it, or shown as what is in it.
TAGS = frozenset(
    [
        "a",
        "article",
        "b",
        "br",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "h4",
        "header",
        "hr",
        "i",
        "img",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "small",
        "span",
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
EMPTY = frozenset(("br", "hr", "img"))
LEFT_OUT = frozenset(("Button", "Input", "Dropdown", "RadioItems", "Checklist", "Store", "Slider"))
ATTRIBUTES = {
    "className": "class",
    "title": "title",
    "role": "role",
    "alt": "alt",
    "colSpan": "colspan",
    "rowSpan": "rowspan",
    "scope": "scope",
    "open": "open",
    "tabIndex": "tabindex",
}
LEAD = "mm1 export dashboard"


@dataclass
class _Pages:
    """The files that are being written."""

    folder: Path
    client: Any  # answers for pictures and tables
    names: dict[tuple[str, ...], str]  # what an address means (`_keys`) → file
    copied: dict[str, str | None] = field(default_factory=dict)  # address → file; None: not there

    def file_of(self, address: str) -> str | None:
        """The file that an address of ours leads to; None where it has none."""
        for key in _keys(address):
            if key in self.names:
                return self.names[key]
        if not address.startswith("/") or address.startswith("//"):
            return None
        if not address.startswith(("/csv/", "/example-picture?")):
            return None
        if address not in self.copied:
            self.copied[address] = self._copy(address)
        return self.copied[address]

    def _copy(self, address: str) -> str | None:
        answer = self.client.get(address, headers={"Host": "localhost"})
        if answer.status_code != 200:
            return None
        end = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}
        kind = "csv" if address.startswith("/csv/") else end.get(answer.mimetype)
        if kind is None:
            return None
        data = answer.data
        name = f"files/{hashlib.sha256(data).hexdigest()[:24]}.{kind}"
        (self.folder / "files").mkdir(exist_ok=True)
        (self.folder / name).write_bytes(data)
        return name


def _keys(address: str) -> list[tuple[str, ...]]:
    """What an address means; of a question among some, then the same question by itself."""
    path, _, search = address.partition("?")
    said = parse_qs(search)
    given = tuple(sorted(f"{key}={one}" for key, ones in said.items() for one in ones))
    alone = tuple(one for one in given if one.startswith(("item=", "task=")))
    return [(path, *given), *([(path, *alone)] if "item" in said or given else [])]


def export(store: Store, study: str, folder: Path, origin: Origin | None = None) -> int:
    """Write the pages of a study into a new folder; how many there are.

    Raises `UserError` where the study is not there or cannot be read, or the folder is there.
    """
    if folder.exists():
        raise UserError(f"--out {folder} is there already; choose another place")
    views = Views(store, origin)
    app = application.make_app(store, views=views)
    view = views.of(study, wait=WAIT_SECONDS)
    if not isinstance(view, View):
        raise UserError(str(view))
    addresses = dict(_addresses(views, view, study))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        pages = _Pages(partial, app.server.test_client(), {})
        own = [page for page in application.PAGES if page.of_study]
        written: dict[str, str] = {}
        for number, (address, page) in enumerate(addresses.items()):
            end = f"-{number}" if "?" in address else ""
            written[address] = pages.names[_keys(address)[0]] = f"{page.name}{end}.html"
        for address, page in addresses.items():
            asked = Asked(views, State.of(address.partition("?")[2]), view)
            told = application.made(page, asked)
            text = _document(pages, study, own, page, told)
            (partial / written[address]).write_text(text, encoding="utf-8")
        start = written[link(own[0].name, study)]
        (partial / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; '
            f'url={start}"><a href="{start}">{escape(study)}</a>\n',
            encoding="utf-8",
        )
        _copy_looks(partial)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(addresses)


def _addresses(views: Views, view: View, study: str) -> Iterable[tuple[str, Page]]:
    """What is written: every page as its name leads to it, and questions by themselves."""
    for page in application.PAGES:
        if page.of_study and page is not examples.PAGE:
            yield link(page.name, study), page
    page = examples.PAGE
    yield link(page.name, study), page
    for address in examples.claim_addresses(view.results).values():
        yield address, page
    for form in askings(view.results):
        reading = examples.readings_of(views).of(view.results, form)
        reading.done.wait()
        found = reading.found
        if found is None:
            raise UserError(f"the examples cannot be read: {reading.wrong}")
        yield from _of_form(found, study, page)


def _of_form(found: StudyExamples, study: str, page: Page) -> Iterable[tuple[str, Page]]:
    name = examples.form_name(found.asked)
    yield link(page.name, study, task=name), page
    for number in found.drawn[:QUESTIONS].tolist():
        yield link(page.name, study, task=name, item=found.ids[number]), page


# -- a page --------------------------------------------------------------------------------------


def _document(pages: _Pages, study: str, own: Sequence[Page], page: Page, told: Shown) -> str:
    figures: list[str] = []
    body = _html(told.body, pages, figures)
    links = "".join(
        f'<a href="{pages.file_of(link(one.name, study))}"'
        f"{' class=here' if one is page else ''}>{escape(one.title)}</a>"
        for one in own
    )
    drawn = "".join(f"<script>{text}</script>" for text in figures)
    plotly = '<script src="plotly.min.js"></script>' if figures else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(study)} · {escape(told.title or page.title)}</title>"
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="style.css">'
        '<link rel="stylesheet" href="examples.css"></head><body>'
        f'<header><div id="navigation"><span class="brand">mm1</span><b>{escape(study)}</b>'
        f'<nav class="own" aria-label="This study">{links}</nav></div></header>'
        f'<main id="main"><p class="faint">Written by <code>{LEAD}</code>: as it was then, '
        f"and without what only the live dashboard can do.</p>{body}</main>{plotly}{drawn}"
        "</body></html>\n"
    )


def _html(part: Any, pages: _Pages, figures: list[str]) -> str:
    """Components as HTML: texts as texts, and nothing that is not known."""
    if part is None or isinstance(part, bool):
        return ""
    if isinstance(part, str | int | float):
        return escape(str(part))
    if isinstance(part, list | tuple):
        return "".join(_html(one, pages, figures) for one in part)
    kind, props = str(part.get("type", "")), part.get("props", {})
    if kind in LEFT_OUT:
        return ""
    if kind == "Graph":
        return _graph(props, figures)
    if kind == "AgGrid":
        return _grid(props, pages)
    inside = _html(props.get("children"), pages, figures)
    tag = "a" if kind == "Link" else kind.lower()
    if tag not in TAGS:
        return inside
    attributes = _attributes(props)
    if tag == "a":
        target = pages.file_of(str(props.get("href", "")))
        if target is None:
            return f"<span{attributes}>{inside}</span>"
        more = f' download="{escape(str(props["download"]))}"' if props.get("download") else ""
        attributes += f' href="{escape(target)}"{more}'
    if tag == "img":
        target = pages.file_of(str(props.get("src", "")))
        if target is None:
            return f"<span{attributes}></span>"
        attributes += f' src="{escape(target)}" loading="lazy"'
    return f"<{tag}{attributes}>" + ("" if tag in EMPTY else f"{inside}</{tag}>")


def _attributes(props: Mapping[str, Any]) -> str:
    found = []
    for key, value in props.items():
        name = ATTRIBUTES.get(key) or (key if key.startswith("aria-") else None)
        if name is not None and value not in (None, False, ""):
            found.append(f' {name}="{escape(str(value))}"')
    if isinstance(style := props.get("style"), dict):
        rules = "; ".join(f"{_dashed(key)}: {value}" for key, value in style.items() if value)
        found.append(f' style="{escape(rules)}"')
    return "".join(found)


def _dashed(name: str) -> str:
    return "".join(f"-{one.lower()}" if one.isupper() else one for one in name)


def _graph(props: Mapping[str, Any], figures: list[str]) -> str:
    number = len(figures) + 1
    figure = props.get("figure") or {}
    text = json.dumps(
        [figure.get("data", []), figure.get("layout", {}), {"displaylogo": False}]
    ).replace("<", "\\u003c")
    figures.append(f"Plotly.newPlot('figure{number}', ...{text});")
    height = figure.get("layout", {}).get("height", 340)
    return f'<div id="figure{number}" style="height: {float(height):g}px"></div>'


def _grid(props: Mapping[str, Any], pages: _Pages) -> str:
    """A grid as a table; a grid that asks for its rows as they are seen has none here."""
    columns = [one for one in props.get("columnDefs") or [] if one.get("field")]
    rows = props.get("rowData") or []
    head = "".join(f'<th scope="col">{escape(str(one["headerName"]))}</th>' for one in columns)
    lines = []
    for row in rows[:ROWS]:
        cells = []
        for one in columns:
            name = one["field"]
            beside = row.get(f"{name}_")
            target = pages.file_of(beside) if isinstance(beside, str) else None
            is_number = one.get("type") == "numericColumn"
            shown = beside if is_number and beside is not None else row.get(name)
            text = escape("" if shown is None else str(shown))
            link_ = f'<a href="{escape(target)}">{text}</a>' if target else text
            cells.append(f"<td{'' if is_number else ' class=text'}>{link_}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if not rows:
        return '<p class="empty">This table is in the live dashboard alone.</p>'
    cut = f'<p class="faint">{ROWS:,} of {len(rows):,} rows.</p>' if len(rows) > ROWS else ""
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{cut}"
    )


def _copy_looks(folder: Path) -> None:
    for name in ("style.css", "examples.css"):
        with as_file(files("analysis.dashboard").joinpath("assets", name)) as place:
            shutil.copy(place, folder / name)
    with as_file(files("plotly").joinpath("package_data", "plotly.min.js")) as place:
        shutil.copy(place, folder / "plotly.min.js")
