"""A report as one HTML file that loads nothing, and reads well on screen, phone and paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import singledispatch

from ablations.shown_text import in_html
from analysis.compare import Table
from analysis.report import carried
from analysis.report.document import (
    Block,
    Bullets,
    Card,
    Document,
    Example,
    Examples,
    Figure,
    Given,
    Grid,
    Heading,
    Listing,
    Section,
    Text,
)

STYLE = """
:root { --ink: #222; --faint: #5c5c5c; --rule: #d9d9d9; --paper: #fff; --wash: #f6f5f2;
  --supported: #0072B2; --refuted: #B84A00; --undecided: #6b6b6b; --interim: #6b6b6b; }
* { box-sizing: border-box; }
html { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); background: var(--paper); }
body { margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
p, li, h1, h2, h3, h4, figcaption, code { overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; margin: .2rem 0 .6rem;
  text-wrap: balance; }
h2 { font-size: 1.2rem; font-weight: 650; margin: 2.8rem 0 .7rem; padding-top: .7rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; font-weight: 600; margin: 1.4rem 0 .3rem; }
h4 { font-size: .9rem; font-weight: 600; color: var(--faint); margin: 1rem 0 .4rem; }
p, ul { margin: .4rem 0 .8rem; max-width: 46rem; }
.kicker, .meta, figcaption, .note { color: var(--faint); font-size: .9rem; }
.kicker { letter-spacing: .02em; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .84rem; }
pre { background: var(--wash); padding: .9rem 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.banner { background: #fdf3d8; border-left: 4px solid #c77f00; padding: .6rem .9rem;
  margin: .6rem 0; max-width: none; }
.claim { display: grid; grid-template-columns: 8.2rem minmax(0, 1fr);
  gap: .2rem 1rem; padding: .8rem 0;
  border-bottom: 1px solid var(--rule); break-inside: avoid; }
.claim:last-child { border-bottom: 0; }
.verdict { font-weight: 650; white-space: nowrap; }
.verdict b { display: inline-block; width: 1.5rem; height: 1.5rem; line-height: 1.5rem;
  border-radius: 50%; color: #fff; text-align: center; margin-right: .45rem; font-weight: 700; }
.supported { color: var(--supported); } .supported b { background: var(--supported); }
.refuted { color: var(--refuted); } .refuted b { background: var(--refuted); border-radius: 3px; }
.undecided, .interim { color: var(--undecided); }
.undecided b, .interim b { background: #fff; color: var(--undecided);
  box-shadow: inset 0 0 0 2px var(--undecided); }
.tie { white-space: nowrap; }
.claim p { margin: 0; max-width: none; }
.claim .name { font-weight: 600; }
figure { margin: .4rem 0 1.2rem; break-inside: avoid; overflow-x: auto; }
svg { width: 100%; min-width: 38rem; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem;
  margin: .4rem 0 1rem; }
caption { text-align: left; color: var(--faint); font-size: .9rem; padding: 0 0 .3rem; }
th { font-weight: 600; color: var(--faint); vertical-align: bottom; }
th, td { padding: .32rem .9rem .32rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
th.text, td.text { text-align: left; }
td { white-space: nowrap; }
td.text { white-space: normal; overflow-wrap: break-word; min-width: 9rem; }
td.text:first-child { min-width: 11rem; }
.examples { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(18.5rem, 100%), 1fr)); }
.example { border: 1px solid var(--rule); border-radius: 4px; padding: .8rem; margin: 0;
  break-inside: avoid; font-size: .86rem; display: grid; grid-template-columns: 84px 1fr;
  gap: .2rem .9rem; align-content: start; }
.example img, .example .noimage { width: 84px; height: 84px; border: 1px solid var(--rule);
  object-fit: contain; }
.noimage { color: var(--faint); display: grid; place-content: center; text-align: center;
  font-size: .75rem; }
.example .prompt { font-weight: 600; overflow-wrap: anywhere; }
.example table { grid-column: 1 / -1; width: 100%; margin: .3rem 0 0; font-size: .82rem; }
.example td { padding: .15rem .5rem .15rem 0; text-align: left; white-space: normal;
  overflow-wrap: break-word; }
.example tr:last-child td { border-bottom: 0; }
.right { color: var(--supported); } .wrong { color: var(--refuted); }
.example .arms { color: var(--faint); line-height: 1.35; }
.example .arms span { display: inline-block; }
.example td { vertical-align: top; }
.example td.mark { width: 1.3rem; font-weight: 700; white-space: nowrap; }
details { margin: .2rem 0 1rem; } summary { cursor: pointer; color: var(--faint);
  font-size: .9rem; }
.methods p { max-width: 46rem; }
@media (max-width: 40rem) {
  main { padding: 1.2rem 1rem 3rem; } h1 { font-size: 1.5rem; }
  .claim { grid-template-columns: minmax(0, 1fr); }
}
@media print {
  html { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3, h4 { break-after: avoid; } svg, td.text, td.text:first-child { min-width: 0; }
  figure, .wide { overflow: visible; }
  .examples { grid-template-columns: repeat(3, 1fr); }
  table { font-size: .74rem; }
}
"""


def html(document: Document) -> str:
    """The page."""
    sections = "\n".join(map(_section, document.sections))
    address = carried.as_address(document.carried)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{in_html(document.study)}: {in_html(document.question)}</title>"
        f"<style>{STYLE}</style></head>\n<body><main>\n{_head(document)}\n{sections}\n"
        f'<footer><p class="note"><a id="{carried.NAME}" download="{carried.FILE}" '
        f'href="{address}">What this report carries</a>: the study in resolved form and every '
        "number, as gzipped JSON.</p></footer>\n</main></body></html>\n"
    )


def _section(section: Section) -> str:
    body = "\n".join(map(_shown, section.blocks))
    return f"<section><h2>{in_html(section.title)}</h2>\n{body}\n</section>"


def _say(text: str) -> str:
    """Text for HTML, its percent signs tied to their numbers."""
    return in_html(text).replace(" %", "&nbsp;%")


def _name(name: str) -> str:
    """A name for HTML, which a narrow column may break after a dot, slash or equals sign."""
    return re.sub(r"([/=]|\.(?!\d))", r"\1<wbr>", _say(name))


def _head(document: Document) -> str:
    banners = "".join(f'<p class="banner">{_say(text)}</p>' for text in document.notices)
    return (
        f'<header><div class="kicker">{document.kind} <b>{in_html(document.study)}</b></div>'
        f"<h1>{in_html(document.question)}</h1>"
        f'<p class="meta">{_say(document.facts)}</p>{banners}</header>'
    )


@singledispatch
def _shown(block: Block) -> str:
    """A block as HTML."""
    raise TypeError(f"no form for {type(block).__name__}")


@_shown.register
def _(block: Text) -> str:
    kind = {"plain": "", "note": ' class="note"', "notice": ' class="banner"'}[block.kind]
    return f"<p{kind}>{_say(block.text)}</p>"


@_shown.register
def _(block: Heading) -> str:
    tag = "h4" if block.minor else "h3"
    return f"<{tag}>{in_html(block.text)}</{tag}>"


@_shown.register
def _(block: Bullets) -> str:
    return "<ul>" + "".join(f"<li>{_say(text)}</li>" for text in block.items) + "</ul>"


@_shown.register
def _(block: Listing) -> str:
    return f"<pre>{in_html(block.text)}</pre>"


@_shown.register
def _(block: Card) -> str:
    claim = in_html(block.claim).replace("-&gt;", '<span class="tie">-&gt;</span>')
    return (
        f'<div class="claim"><div class="verdict {block.verdict}"><b>{block.symbol}</b>'
        f"{block.verdict.capitalize()}</div><div><p>{_say(block.sentence)}</p>"
        f'<p class="note"><span class="name">{in_html(block.name)}</span>: '
        f"<code>{claim}</code></p>"
        + "".join(f'<p class="note">{_say(note)}</p>' for note in block.notes)
        + "</div></div>"
    )


@_shown.register
def _(block: Figure) -> str:
    caption = f"<figcaption>{_say(block.caption)}</figcaption>" if block.caption else ""
    numbers = ""
    if block.numbers is not None:
        numbers = f"<details><summary>The numbers</summary>{_table(block.numbers)}</details>"
    picture = _wide(block.svg, block.alt)
    return f"<figure>{picture}{caption}</figure>{numbers}"


@_shown.register
def _(block: Grid) -> str:
    rest = ""
    if block.rest:
        table = Table("", block.table.header, block.rest, block.table.text_columns)
        rest = (
            f"<details><summary>The other {len(block.rest):,} rows</summary>{_table(table)}"
            "</details>"
        )
    note = f'<p class="note">{_say(block.left_out)}</p>' if block.left_out else ""
    return f"{_table(block.table)}{note}{rest}"


def _wide(content: str, label: str) -> str:
    """What may be wider than a phone: it is scrolled by itself, also by keys."""
    name = in_html(label)
    return f'<div class="wide" tabindex="0" role="region" aria-label="{name}">{content}</div>'


def _table(table: Table) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="text">{_name(cell)}</{tag}>'
            if column in table.text_columns
            else f"<{tag}>{_name(cell) if tag == 'th' else _say(cell)}</{tag}>"
            for column, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    caption = f"<caption>{_say(table.title)}</caption>" if table.title else ""
    header = f"<thead><tr>{row(table.header, 'th')}</tr></thead>"
    return _wide(f"<table>{caption}{header}<tbody>{body}</tbody></table>", table.title or "table")


@_shown.register
def _(block: Examples) -> str:
    return f'<div class="examples">{"".join(map(_example, block.items))}</div>'


def _example(one: Example) -> str:
    if one.image is not None:
        content = base64.b64encode(one.image.content).decode()
        picture = (
            f'<img alt="{in_html(one.image.alt)}" '
            f'src="data:image/{one.image.kind};base64,{content}">'
        )
    else:
        picture = '<div class="noimage">no image</div>' if one.has_image else ""
    return (
        f'<figure class="example">{picture}'
        f'<div><div class="prompt">{in_html(one.prompt)}</div>'
        f'<span class="note">reference:</span> {in_html(one.reference)}</div>'
        f"<table>{''.join(map(_given, one.answers))}</table></figure>"
    )


def _given(one: Given) -> str:
    named = one.given_by(lambda label: f"<span>{_name(label)}</span>")
    answer = in_html(one.text) or '<span class="note">(nothing)</span>'
    return (
        f'<tr><td class="mark {one.verdict or "note"}">{in_html(one.mark)}</td><td>{answer}'
        f'<div class="arms">{named}</div></td></tr>'
    )
