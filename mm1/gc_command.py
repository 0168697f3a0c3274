"""`mm1 gc`: what of a store nobody needs any more."""

from __future__ import annotations

import click

from ablations import strict_json
from ablations.byte_sizes import told_size
from ablations.shown_text import visible
from mm1.options import json_option, store_option


@click.command()
@store_option
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="Keep what was written since.",
)
@click.option("--delete", is_flag=True, help="Remove it; without, it is only told.")
@json_option
def gc(store: str, older_than: float, delete: bool, as_json: bool) -> int:
    """Tell what of a store no study needs, and how much room it takes; --delete removes it.

    Never what a registered study has, be it done or not, nor what somebody works on.

    \b
    Example: mm1 gc --older-than 90
    """
    from sweeps import gc as collect
    from sweeps.store import Store

    opened = Store(store)
    found = collect.rubbish(opened, older_than)
    removed = collect.remove(opened, found) if delete else []
    if as_json:
        text = {
            "store": opened.root,
            "found": [one.model_dump() for one in found.rubbish],
            "removed": [one.place for one in removed],
            "left_alone": found.left_alone,
        }
        click.echo(strict_json.dumps(text, indent=2))
        return 0
    for one in removed if delete else found.rubbish:
        click.echo(visible(f"{told_size(one.size_bytes):>9}  {one.kind:<14}  {one.place}"))
    if found.left_alone:
        click.echo(visible(found.left_alone))
    told = removed if delete else found.rubbish
    size = told_size(sum(one.size_bytes for one in told))
    count = f"{len(told)} {'thing' if len(told) == 1 else 'things'}"
    if not told:
        click.echo(f"store {opened.root}: nothing that is not needed is older than that")
    elif delete:
        click.echo(f"store {opened.root}: removed {count}, {size}")
    else:
        click.echo(f"store {opened.root}: {count}, {size}; mm1 gc --delete removes them")
    return 0
