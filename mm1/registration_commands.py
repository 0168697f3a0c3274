"""`mm1 register` and `mm1 audit`: what was fixed before the results, and everything since."""

from __future__ import annotations

from pathlib import Path

import click

from ablations import strict_json
from mm1 import api
from mm1.options import json_option, store_option
from mm1.table_command import is_claims_file, register_claims


@click.command()
@click.argument("study")
@store_option
@click.option("--out", type=click.Path(path_type=Path), help="[STUDY.registration.json]")
@click.option("--yes", is_flag=True, help="Allow more than 10,000 trials.")
def register(study: str, store: str, out: Path | None, yes: bool) -> None:
    """Register a study before it is run, and write its hash to a file to publish.

    So with claims on a table from elsewhere (docs/tables.md), before its runs.

    \b
    Example: mm1 register my-study.yaml --out my-study.registration.json
    Example: mm1 register claims.yaml
    """
    if is_claims_file(study):
        register_claims(study, store, out)
        return
    path, record = api.register(study, store=store, out=out, many=yes)
    click.echo(f"{record['study']} is registered as {record['hash']} ({path})")
    if record["known_stages"]:
        click.echo(f"{record['known_stages']} of its stages had results already")


@click.command()
@click.argument("study")
@store_option
@json_option
def audit(study: str, store: str, as_json: bool) -> None:
    """Tell the history of a study: registrations, amendments, looks, failures, what was left out.

    \b
    Example: mm1 audit demo
    """
    from analysis.audit import audit as audited
    from analysis.audit import told

    made = audited(api.results(study, store=store, by="mm1 audit"))
    click.echo(strict_json.dumps(made.model_dump(), indent=2) if as_json else "\n".join(told(made)))
