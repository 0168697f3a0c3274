"""Options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mm1 import api

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
workers_option = click.option(
    "--workers", type=click.IntRange(1), default=None, help="Workers, one core each. [all cores]"
)


def worker_count(workers: int | None) -> int:
    """What `--workers` says, or all cores of this process."""
    return workers or len(os.sched_getaffinity(0))
