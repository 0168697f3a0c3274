"""Runs of an MLflow experiment: a row a run, with its parameters and last metrics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ablations.errors import UserError, nearest, shown
from ablations.shown_text import shown_url
from analysis.tables.raw import Hint, Raw, rows_of

MOST_RUNS = 50_000


def is_mlflow(folder: Path) -> bool:
    """Whether a folder is a file store of MLflow: experiments with a `meta.yaml` each."""
    return any((one / "meta.yaml").is_file() for one in folder.iterdir() if one.is_dir())


def read_mlflow(uri: str, part: str = "") -> Raw:
    """The runs of an experiment; which one has to be said where there are several with runs.

    Raises `UserError` where the tracking server, or the experiment, is not there.
    """
    with _quiet():
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            client = mlflow.MlflowClient(tracking_uri=uri)
            experiments = {one.name: one for one in client.search_experiments()}
            if part and part not in experiments:
                raise UserError(
                    f"{shown_url(uri)}: no experiment {shown(part)}{nearest(part, experiments)}"
                )
            found = {
                name: _runs(client, one.experiment_id)
                for name, one in experiments.items()
                if not part or name == part
            }
        except (MlflowException, OSError, ImportError) as error:
            told = " ".join(str(error).split())
            raise UserError(f"{shown_url(uri)}: MLflow says {told}") from None
    full = {name: runs for name, runs in found.items() if runs}
    if not full:
        raise UserError(f"{shown_url(uri)}: there are no runs")
    if len(full) > 1:
        raise UserError(
            f"{shown_url(uri)}: several experiments have runs; say --experiment{nearest('', full)}"
        )
    ((name, runs),) = full.items()
    hints: dict[str, Hint] = {
        "run name": "run",
        "status": "state",
        "start_time": "time",
        "run_id": "ignored",
    }
    origin = f"{shown_url(uri)} (MLflow experiment {name!r}, {len(runs)} runs)"
    return Raw(name, origin, rows_of(runs), hints=hints)


def _runs(client: Any, experiment: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1_000, page_token=token)
        for run in page:
            record = {
                "run name": run.info.run_name,
                "run_id": run.info.run_id,
                "status": run.info.status,
                "start_time": run.info.start_time,
            }
            record |= {f"params.{key}": value for key, value in run.data.params.items()}
            record |= {f"metrics.{key}": float(value) for key, value in run.data.metrics.items()}
            records.append(record)
        token = page.token
        if not token or len(records) >= MOST_RUNS:
            return records


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Its library tells of migrations and deprecations, which nobody asked about."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
