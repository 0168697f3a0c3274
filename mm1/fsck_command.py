"""`mm1 fsck`: is a store in order."""

from __future__ import annotations

import click

from ablations import strict_json
from mm1.options import json_option, store_option


@click.command()
@store_option
@click.option(
    "--repair",
    is_flag=True,
    help="Remove what is left over, write anew what can be, set damaged results aside.",
)
@json_option
def fsck(store: str, repair: bool, as_json: bool) -> int:
    """Check every file of a store: what is damaged, what is left over, and what to do about it.

    Changes nothing without --repair. Exit code 1 if anything is damaged.

    \b
    Example: mm1 fsck --store .mm1
    """
    from sweeps import fsck as check
    from sweeps.store import Store

    opened = Store(store)
    done = check.repair(opened) if repair else []
    found = check.examine(opened)
    damaged = [one for one in found if one.kind == "damage"]
    if as_json:
        findings = [one.model_dump() for one in found]
        text = {"store": opened.root, "repaired": done, "findings": findings}
        click.echo(strict_json.dumps(text, indent=2))
    else:
        for line in done:
            click.echo(f"repaired: {line}")
        for one in found:
            click.echo(f"{one.kind}: {one.place} {one.what}; {one.remedy}")
        others = len(found) - len(damaged)
        rest = f", {others} other {'finding' if others == 1 else 'findings'}" if others else ""
        damage = f"{len(damaged)} damaged" if damaged else "nothing is damaged"
        click.echo(f"store {opened.root}: {damage}{rest}")
    return 1 if damaged else 0
