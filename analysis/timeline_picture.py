"""A timeline as a picture: a bar for each worker, whether there are two or two hundred."""

from __future__ import annotations

from collections.abc import Iterator

from ablations.shown_text import in_html, visible
from analysis import words
from analysis.timeline import (
    ALL_KINDS,
    WHAT,
    Lane,
    Run,
    Timeline,
    attempts_of,
    useful_share,
    when,
)

# Okabe and Ito's, which colour-blind people tell apart; what is no work is grey.
COLOURS = {
    "steps": "#0072b2",
    "evaluation": "#56b4e9",
    "compile": "#e69f00",
    "data": "#cc79a7",
    "start": "#8a8a8a",
    "save": "#009e73",
    "run": "#4a5a8a",
    "idle": "#e4e4e4",
    "lost": "#d55e00",
    "unknown": "#c9b98f",
}
WIDTH, LEFT, RIGHT = 1240, 150, 20  # pixels
BARS = WIDTH - LEFT - RIGHT  # each is one moment of a worker: what took most of it
TALLEST, LOWEST, ALL_BARS = 30, 4, 800  # height of a bar, and of all where there are many
CHARACTER = 6.2  # pixels


def svg(timeline: Timeline) -> str:
    """All runs below each other, as one SVG that needs nothing else."""
    height = 46
    parts = []
    for run in timeline.runs:
        drawn, tall = _run(run, height)
        parts.append(drawn)
        height += tall
    count = f"{len(timeline.runs)} run" + "s" * (len(timeline.runs) != 1)
    title = _text(8, 18, f"{timeline.study}: core time of {count}", "bold")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
        f"{title}{_legend(timeline)}{''.join(parts)}</svg>\n"
    )


def _legend(timeline: Timeline) -> str:
    spent = timeline.core_seconds()
    total = sum(spent.values()) or 1.0
    parts, at = [], 8.0
    for kind in timeline.kinds():
        told = f"{kind} {100 * spent[kind] / total:.1f} %"
        parts.append(
            f'<rect x="{at:.0f}" y="27" width="11" height="11" fill="{COLOURS[kind]}" '
            f'stroke="#777" stroke-width="0.5"><title>{WHAT[kind]}</title></rect>'
            + _text(at + 15, 37, told)
        )
        at += 28 + CHARACTER * len(told)
    return "".join(parts)


def _run(run: Run, top: int) -> tuple[str, int]:
    """A run's bars and its axis, and how tall they are."""
    each = max(LOWEST, min(TALLEST, ALL_BARS // max(1, len(run.lanes))))
    gap = 4 if each > 14 else 1 if each > 5 else 0
    scale = BARS / (run.seconds or 1.0)
    bottom = top + 28 + len(run.lanes) * (each + gap)
    end = "" if run.ended else ", its end is not on record"
    share = f"{words.number(100 * useful_share(run.core_seconds()), 1)} %"
    head = (
        f"run {run.number}: {when(run.began_at)}, {words.duration(run.seconds)}, "
        f"{len(run.lanes)} workers{end}; {share} "
        "in steps and evaluation batches"
    )
    parts = [_text(8, top + 18, head)]
    named = max(1, -(-13 // (each + gap)))  # bars from one name to the next
    for number, lane in enumerate(run.lanes):
        y = top + 28 + number * (each + gap)
        if number % named == 0:
            parts.append(_text(8, y + each / 2 + 4, _cut(lane.worker, LEFT - 16)))
        parts += _bar(run, lane, y, each, scale)
    parts += _axis(run.seconds, scale, bottom)
    return "".join(parts), bottom - top + 34


def _bar(run: Run, lane: Lane, y: float, tall: int, scale: float) -> Iterator[str]:
    worker = _shown(lane.worker)
    for kind, start, end in moments(lane, scale):
        told = f"{worker}: {kind}, {start / scale:.1f} to {end / scale:.1f} s"
        yield (
            f'<rect x="{LEFT + start:.1f}" y="{y}" width="{end - start:.1f}" height="{tall}" '
            f'fill="{COLOURS[kind]}"><title>{told}</title></rect>'
        )
    if tall < 18:
        return
    for stage, spans in attempts_of(lane):
        start, end = spans[0].start * scale, spans[-1].end * scale
        if stage and end - start > 70:
            yield (
                f'<rect x="{LEFT + start:.1f}" y="{y}" width="{end - start:.1f}" height="{tall}" '
                'fill="none" stroke="white"/>'
                + _text(
                    LEFT + start + 4,
                    y + tall - 9,
                    _cut(run.label(stage), end - start - 8),
                    "",
                    "white",
                )
            )


def moments(lane: Lane, scale: float) -> Iterator[tuple[str, float, float]]:
    """Kind, start and end in pixels, not narrower than one: what took most of each."""
    columns: list[dict[str, float]] = [{} for _ in range(BARS + 1)]
    for span in lane.spans:
        start, end = span.start * scale, min(float(BARS), span.end * scale)
        column = int(start)
        while start < end:
            until = min(end, column + 1.0)
            columns[column][span.kind] = columns[column].get(span.kind, 0.0) + until - start
            start, column = until, column + 1
    begun, kind = 0, ""
    for column, spent in enumerate([*columns, {}]):
        longest = max(spent, key=lambda one: spent[one], default="")
        if longest != kind:
            if kind:
                yield kind, begun, min(column, lane.end * scale)
            begun, kind = column, longest


def _axis(seconds: float, scale: float, y: float) -> Iterator[str]:
    yield f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + BARS}" y2="{y}" stroke="#777"/>'
    step = next(
        (
            nice
            for nice in (0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 86400)
            if seconds / nice <= 12
        ),
        seconds / 8,
    )
    for number in range(int(seconds / step) + 1):
        x = LEFT + number * step * scale
        yield f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 4}" stroke="#777"/>'
        yield _text(x, y + 17, words.duration(number * step), middle=True)


def _text(
    x: float, y: float, text: str, weight: str = "", fill: str = "#222", *, middle: bool = False
) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    anchor = ' text-anchor="middle"' if middle else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}"{bold}{anchor}>{_shown(text)}</text>'


def _shown(text: str) -> str:
    return in_html(" ".join(text.split()))


def _cut(text: str, pixels: float) -> str:
    room = max(1, int(pixels / CHARACTER))
    shown = visible(" ".join(text.split()))
    return shown if len(shown) <= room else shown[: room - 1] + "…"


def page(timeline: Timeline) -> str:
    """One HTML file that needs no network: the picture, the table, and what to know of them."""
    kinds = timeline.kinds()
    head = "".join(f'<th title="{WHAT[kind]}">{kind}</th>' for kind in kinds)
    rows = []
    for run in timeline.runs:
        for lane in run.lanes:
            host = f"{lane.worker} on {lane.host}" if lane.host else lane.worker
            rows.append(_row(f"run {run.number}, {host}", lane.core_seconds(), kinds))
    rows.append(_row("all", timeline.core_seconds(), kinds, "th"))
    notes = "".join(f"<li>{_shown(note)}</li>" for note in timeline.notes)
    name = _shown(timeline.study)
    meanings = "".join(
        f"<dt>{kind}</dt><dd>{WHAT[kind]}</dd>" for kind in ALL_KINDS if kind in kinds
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{name}: where the time went</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; }}
svg {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; }} th, td {{ padding: .15rem .6rem; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }} tr {{ border-bottom: 1px solid #ddd; }}
.rows {{ max-height: 30rem; overflow: auto; display: inline-block; }}
dt {{ font-weight: 600; }} dd {{ margin: 0 0 .3rem 1rem; }}
</style>
<h1>{name}: where the time went</h1>
{svg(timeline)}
<h2>Share of core time</h2>
<div class="rows"><table><tr><th>worker</th><th>core seconds</th>{head}</tr>
{"".join(rows)}</table></div>
<ul>{notes}</ul>
<dl>{meanings}</dl>
</html>
"""


def _row(name: str, spent: dict[str, float], kinds: list[str], cell: str = "td") -> str:
    total = sum(spent.values())
    shares = "".join(
        f"<{cell}>{words.number(100 * spent.get(kind, 0.0) / total, 1)} %</{cell}>"
        if total
        else f"<{cell}>{words.MISSING}</{cell}>"
        for kind in kinds
    )
    first = f"<{cell}>{_shown(name)}</{cell}><{cell}>{words.number(total, 1)}</{cell}>"
    return f"<tr>{first}{shares}</tr>\n"
