"""`mm1 cluster`: what a cluster offers, and which of a study's stages fit where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ablations import strict_json
from ablations.errors import UserError
from ablations.shown_text import visible
from mm1 import api
from mm1.options import json_option, machine_option, store_option

if TYPE_CHECKING:
    from sweeps.offer import Node


@click.command()
@click.argument("study", required=False)
@click.option("--cluster", default=None, help="Address of a running Ray cluster. [this machine]")
@machine_option
@store_option
@json_option
def cluster(
    study: str | None, cluster: str | None, machine: str | None, store: str, as_json: bool
) -> int:
    """Show what a cluster offers, and which of a study's stages fit where.

    Exit code 1 where a stage of STUDY fits nowhere.

    \b
    Example: mm1 cluster --cluster 10.0.0.1:6379 ablations/studies/demo.yaml
    """
    from sweeps.objects import open_objects
    from sweeps.ray_session import connected

    with connected(cluster, open_objects(store).local) as nodes:
        pass
    fits = [] if study is None else _fits(study, nodes, machine, store)
    if as_json:
        click.echo(strict_json.dumps({"nodes": [_figures(node) for node in nodes], "stages": fits}))
    else:
        _show(nodes, fits)
    return int(any(not one["workers"] for one in fits))


def _figures(node: Node) -> dict[str, Any]:
    has = node.has
    return {
        "address": node.address,
        "cores": has.get("CPU", 0.0),
        "gpus": has.get("GPU", 0.0),
        "tpu_chips": has.get("TPU", 0.0),
        "memory_bytes": has.get("memory", 0.0),
        "labels": dict(node.labels),
    }


def _fits(
    study: str, nodes: Sequence[Node], machine: str | None, store: str
) -> list[dict[str, Any]]:
    """What each kind of a study's stages holds there, and how many workers at once."""
    from ablations.machine import load_machine
    from ablations.placement import shape_of
    from mm1.placing import placed
    from sweeps.offer import most_workers, site_of

    made = api.plan(study, store=store, many=True)
    named = None if machine is None else load_machine(machine)
    if named is not None:
        made = placed(made, named, lambda line: None)
    site = site_of(nodes, named)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in made.stages.values():
        try:
            shape = shape_of(stage.work.resources, site, stage.label)
            holds, workers = str(shape), most_workers(shape, nodes)
        except UserError as error:
            holds, workers = str(error), 0
        what = stage.work.what or stage.kind
        known = found.setdefault(
            (what, holds), {"stage": what, "holds": holds, "workers": workers, "count": 0}
        )
        known["count"] += 1
    return list(found.values())


def _show(nodes: Sequence[Node], fits: Sequence[dict[str, Any]]) -> None:
    from sweeps.offer import in_words, node_in_words

    click.echo(in_words(nodes))
    for node in nodes:
        click.echo(f"  {visible(node.address):<16} {visible(node_in_words(node))}")
    for one in fits:
        at_once = f"{one['workers']:,} at once" if one["workers"] else "fits nowhere"
        said = f"{one['count']:,} × {one['stage']}: {one['holds']}; {at_once}"
        click.echo(visible(said))
