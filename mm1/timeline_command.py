"""`mm1 timeline`: where the core time of a study's runs went."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations import strict_json
from ablations.errors import UserError, nearest
from ablations.shown_text import visible, without_secrets
from analysis import words
from mm1 import api
from mm1.options import store_option

if TYPE_CHECKING:
    from analysis.timeline import Run, Timeline

FORMS = ("text", "svg", "html", "chrome", "json")
ENDINGS = {".svg": "svg", ".html": "html", ".htm": "html", ".txt": "text"}
MOST_WORKERS = 16  # that are shown one by one in a text


@click.command()
@click.argument("study")
@store_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The file to write.  [default: print]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default=None,
    help="chrome is what chrome://tracing and ui.perfetto.dev open.  [default: text, or by the "
    "ending of --out]",
)
def timeline(study: str, store: str, out: Path | None, form: str | None) -> None:
    """Show where the core time of a study's runs went: steps, compilation, data, idle, …

    STUDY is the name of a study that has run, or the path of its file.

    \b
    Example: mm1 timeline demo
    Example: mm1 timeline demo --out demo-timeline.html
    Example: mm1 timeline demo --format chrome --out demo-trace.json
    """
    from analysis import timeline as times
    from analysis import timeline_picture
    from sweeps.store import Store

    chosen = form or _form_of(out)
    name = api.study_of(study)
    made = times.load_timeline(Store(store), name)
    match chosen:
        case "svg":
            text = timeline_picture.svg(made)
        case "html":
            text = timeline_picture.page(made)
        case "chrome":
            text = strict_json.dumps(times.as_chrome_trace(made)) + "\n"
        case "json":
            text = strict_json.dumps(times.as_json(made), indent=2) + "\n"
        case _:
            text = "\n".join(_lines(made)) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        click.echo(out)


def _form_of(out: Path | None) -> str:
    if out is None:
        return "text"
    if out.suffix not in ENDINGS:
        raise UserError(
            f"--out {out}: its ending does not say what it is to be{nearest(out.suffix, ENDINGS)}; "
            f"or give --format {' | '.join(FORMS)}"
        )
    return ENDINGS[out.suffix]


def _lines(made: Timeline) -> Iterator[str]:
    kinds = made.kinds()
    for run in made.runs:
        yield from _run_lines(run, kinds)
        yield ""
    if len(made.runs) > 1:
        yield from _table([("all runs", made.core_seconds())], kinds)
        yield ""
    from analysis.timeline import useful_share

    spent = made.core_seconds()
    if spent:
        share = f"{100 * useful_share(spent):.1f} %"
        total = words.duration(sum(spent.values()))
        line = f"{share} of {total} core time in training steps and evaluation batches"
        if own := spent.get("run"):
            line += f", {_percent(own, sum(spent.values()))} in runners that say no more"
        yield line
    yield from (_shown(f"note: {note}") for note in made.notes)


def _run_lines(run: Run, kinds: list[str]) -> Iterator[str]:
    from analysis.timeline import useful_share, when

    end = "" if run.ended else ", its end is not on record"
    hosts = sorted({lane.host for lane in run.lanes if lane.host})
    where = f" on {hosts[0]}" if len(hosts) == 1 else f" on {len(hosts)} hosts" if hosts else ""
    yield _shown(
        f"run {run.number}: {when(run.began_at)}, {words.duration(run.seconds)}, "
        f"{len(run.lanes)} workers{where}{end}"
    )
    worst = sorted(run.lanes, key=lambda lane: useful_share(lane.core_seconds()))
    several = len({lane.host for lane in run.lanes}) > 1
    chosen = [lane for lane in run.lanes if lane in worst[:MOST_WORKERS]]
    rows = [
        (f"{lane.worker} ({lane.host})" if several else lane.worker, lane.core_seconds())
        for lane in chosen
    ]
    left = len(run.lanes) - len(chosen)
    yield from _table([*rows, ("all", run.core_seconds())], kinds)
    if left:
        yield f"(the {len(chosen)} workers with the smallest share of steps; {left} more in --out)"


def _table(rows: list[tuple[str, dict[str, float]]], kinds: list[str]) -> Iterator[str]:
    """Shares of each row's core time, in per cent."""
    cells = [["", "core time", *kinds]]
    for name, spent in rows:
        total = sum(spent.values())
        shares = [_percent(spent.get(kind, 0.0), total) for kind in kinds]
        cells.append([_shown(name), words.duration(total), *shares])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        first, *others = (
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()


def _percent(seconds: float, total: float) -> str:
    if not total or not seconds:
        return words.MISSING
    share = 100 * seconds / total
    return f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"


def _shown(text: str) -> str:
    return visible(without_secrets(" ".join(text.split())))
