"""Options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.errors import UserError, nearest
from mm1 import api

if TYPE_CHECKING:
    from ablations.machine import Machine
    from mm1_jax.config.training import MeshConfig

store_option = click.option(
    "--store",
    default=api.default_store,
    show_default="$MM1_STORE or .mm1",
    help="Folder or URL where everything that was run is kept.",
)
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=None,
    show_default="STORE/data",
    help="Folder of the prepared data.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
machine_option = click.option(
    "--on",
    "machine",
    default=None,
    metavar="MACHINE",
    help="A machine by name (v5e-16, a100-8, laptop-core, …), or the path of your own file.",
)
price_option = click.option(
    "--price", type=float, default=None, metavar="HOURLY", help="Of all of MACHINE, an hour."
)
priority_option = click.option(
    "--priority",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    metavar="WEIGHT",
    help="Of its share of a cluster, against other studies' there. [1]",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=None,
    help="Workers, one core each. [all cores]",
)
yes_option = click.option("--yes", is_flag=True, help="Allow more than 10,000 trials.")
mlflow_option = click.option(
    "--mlflow",
    "mlflow_uri",
    default=None,
    help="MLflow tracking URI. `off` for none. [$MLFLOW_TRACKING_URI, else SQLite in the store]",
)


def machine_of(name: str | None, price: float | None) -> Machine | None:
    """What `--on` and `--price` say. Raises UserError for no machine, or a price without one."""
    from ablations.machine import load_machine, with_price

    if name is None:
        if price is not None:
            raise UserError("--price is a machine's: say which with --on")
        return None
    machine = load_machine(name)
    return machine if price is None else with_price(machine, price)


def worker_count(workers: int | None) -> int:
    """What `--workers` says, or all cores of this process."""
    return workers or len(os.sched_getaffinity(0))


def mesh_of(text: str) -> MeshConfig:
    """ "fsdp=32,expert=8" → a mesh. Raises UserError naming what is wrong."""
    from mm1_jax.config.training import MeshConfig

    axes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in MeshConfig.model_fields:
            raise UserError(f"--mesh: no axis {name!r}{nearest(name, MeshConfig.model_fields)}")
        if not size.isdecimal() or int(size) < 1:
            raise UserError(f"--mesh: {part!r} is no axis with its size; for example {name}=8")
        axes[name] = int(size)
    return MeshConfig.model_validate(axes)
