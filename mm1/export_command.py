"""`mm1 export`: what the dashboard shows, as files to keep and to send."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from mm1 import api
from mm1.options import store_option
from mm1.terminal import say


@click.group()
def export() -> None:
    """Write what the dashboard shows as files."""


@export.command("dashboard")
@click.argument("study")
@store_option
@click.option("--out", type=click.Path(path_type=Path), default=None, help="[STUDY-dashboard]")
def export_dashboard(study: str, store: str, out: Path | None) -> None:
    """Write the dashboard of a STUDY as files that open from a disk: no server, no network.

    Open OUT/index.html. 200 questions of each task have a page of their own.

    \b
    Example: mm1 export dashboard demo --out demo-dashboard
    """
    from analysis.dashboard.static import export as written
    from mm1.origin import ORIGIN
    from sweeps.store import Store

    name = api.study_of(study)
    folder = out or Path(f"{quote(name, safe=' ')}-dashboard")
    pages = written(Store(store), name, folder, ORIGIN)
    say(f"{folder / 'index.html'}: {pages} pages")
