"""`mm1 report`: of a study that has run, or of a table from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mm1 import api
from mm1.options import store_option
from mm1.table_command import study_of, table_of, table_options

if TYPE_CHECKING:
    from analysis.tables.comparison import TableResults


@click.command()
@click.argument("study", required=False)
@store_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "pdf", "latex"]),
    default="html",
    show_default=True,
)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="The file to write.")
@table_options
def report(study: str | None, store: str, form: str, out: Path | None, **of_table: Any) -> None:
    """Write a report: verdicts, methods, figures and tables in one file that needs no network.

    LaTeX has its figures in a folder beside it. With `--table SOURCE` it is of a table from
    elsewhere, as `mm1 compare --table` reads it, and lies in the working directory.

    \b
    Example: mm1 report demo --format pdf
    Example: mm1 report --table results.csv --claim "score(b) > score(a)" --out results.html
    """
    if (of := table_of(study, of_table, store)) is not None:
        click.echo(_of_table(of, form, out))
    else:
        click.echo(api.report(study_of(study), store=store, out=out, form=form))


def _of_table(results: TableResults, form: str, out: Path | None) -> Path:
    """Write the report of a table; without `out` it is called after it."""
    from analysis.report.content import Source
    from analysis.report.writing import usual_place, write
    from analysis.tables.comparison import table_comparison

    made = table_comparison(results)
    claims = {} if results.file is None else results.file.claims
    least = {name: one.min_effect for name, one in claims.items() if one.min_effect}
    name = re.sub(r"[^\w.-]+", "-", made.study).strip("-.") or "table"
    path = api.file_to_write(out or usual_place(Path(), f"{name}-report", form))
    return write(Source(made, results.understood.table, None, least), path, form)
