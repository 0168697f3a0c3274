"""Whether every machine of a cluster reaches the same store and data as the one that asks.

The asker leaves a marker with a random text in both places; a task on each machine reads it. Data
of commands that did not travel along are looked for by their path.
`python -m sweeps.reach STORE DATA TOKEN`, run on the cluster, prints what was not found as JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import secrets
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ablations.command import standing
from ablations.errors import UserError
from sweeps.objects import open_objects, told_when_refused
from sweeps.offer import offered

PREFIX = "unreachable: "
OFFERS = "offered: "  # its nodes (`sweeps.offer.Node`)
ANSWER_SECONDS = 120.0  # a machine's first task may install things


@contextlib.contextmanager
def markers(store: str, data: Path) -> Generator[str]:
    """Leave markers for `missing` in a store and a data folder; yields their token."""
    token = secrets.token_hex(8)
    objects = open_objects(store)
    objects.write(f"reach/{token}", token.encode())
    marker = data / f".reach-{token}"
    with told_when_refused(str(data)):
        data.mkdir(parents=True, exist_ok=True)
        marker.write_text(token, encoding="utf-8")
    try:
        yield token
    finally:
        objects.remove("reach")
        marker.unlink(missing_ok=True)


def missing(store: str, data: str, token: str) -> list[str]:
    """What this machine does not reach."""
    found = []
    try:
        if open_objects(store).read(f"reach/{token}") != token.encode():
            found.append(f"the store {store}")
    except (OSError, UserError):
        found.append(f"the store {store}")
    if not (Path(data) / f".reach-{token}").exists():
        found.append(f"the data {data}")
    found += [f"the data {path}" for path in standing.staying() if not Path(path).exists()]
    return found


def missing_on_cluster(store: str, data: str, token: str) -> list[str]:
    """What machines of the connected Ray cluster do not reach, each with the machine's address."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look: Any = ray.remote(num_cpus=0)(missing)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    answers = [
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(store, data, token)
        for node in nodes
    ]
    found = []
    for node, answer in zip(nodes, answers, strict=True):
        address = node["NodeManagerAddress"]
        try:
            lacking = ray.get(answer, timeout=ANSWER_SECONDS)
        except Exception as error:  # a machine that died, code that cannot be imported there, …
            line = str(error).strip().partition("\n")[0][:200]
            raise UserError(
                f"the cluster's machine {address} cannot run mm1: {type(error).__name__} {line}"
            ) from error
        found += [f"{what} (from {address})" for what in lacking]
    return found


def refuse(unreachable: list[str]) -> None:
    """Tell what a cluster cannot reach, if there is anything.

    Raises:
        UserError: there is.
    """
    if unreachable:
        raise UserError(
            f"the cluster cannot reach {', '.join(unreachable)}; "
            "use a folder or URL that all its machines share"
        )


def main() -> None:
    """Ask all machines of the cluster that this runs on."""
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    store, data, token = sys.argv[1:]
    print(PREFIX + json.dumps(missing_on_cluster(store, data, token)), flush=True)
    print(OFFERS + json.dumps([dataclasses.asdict(node) for node in offered()]), flush=True)


if __name__ == "__main__":
    main()
