"""Whatever a user calls a table: a file, a folder, a database, an address, standard input."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ablations.errors import UserError, nearest, shown
from ablations.shown_text import shown_url
from analysis.tables import files
from analysis.tables.harness_results import is_harness, read_harness
from analysis.tables.mlflow_runs import is_mlflow, read_mlflow
from analysis.tables.optuna_trials import is_journal, read_optuna
from analysis.tables.raw import Raw
from analysis.tables.tensorboard_logs import is_tensorboard, read_tensorboard
from analysis.tables.wandb_runs import is_wandb, read_wandb


def read_source(source: str, part: str = "") -> Raw:
    """The rows of a source.

    `part` is the experiment, study or sheet that is meant where there are several.

    Raises:
        UserError: there is nothing of that name, nobody knows what it is, or it is damaged.
    """
    if source == files.STDIN:
        return files.read_stdin(part)
    for owner, read in (("mlflow:", read_mlflow), ("optuna:", read_optuna)):
        if source.startswith(owner):
            return read(source.removeprefix(owner), part)
    if "://" in source:
        return _address(source, part)
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _folder(path, part)
        if path.is_file():
            return _file(path, part)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{shown(source)} cannot be read: {reason}") from None
    if path.exists():
        raise UserError(f"{shown(source)} is neither a file nor a folder; pipe it into `-`")
    raise UserError(f"no such table {shown(source)}{_nearest_file(path)}")


def _nearest_file(path: Path) -> str:
    try:
        kinds = {*files.KINDS, ".db"}
        names = [one.name for one in path.parent.iterdir() if one.suffix.lower() in kinds]
    except OSError:
        return f": there is no folder {shown(str(path.parent))}"
    return nearest(path.name, names)


def _address(source: str, part: str) -> Raw:
    """A database, or a server: MLflow's, or what Optuna writes to."""
    scheme = source.partition("://")[0].casefold()
    if scheme == "sqlite":
        path = Path(source.partition(":///")[2])
        if not path.is_file():
            raise UserError(f"{shown_url(source)}: no such file{_nearest_file(path)}")
        return _database(path, part)
    if scheme in ("http", "https"):
        return read_mlflow(source, part)
    if scheme == "file":
        return read_source(source.partition("://")[2], part)
    raise UserError(
        f"{shown_url(source)}: whose is it? Say mlflow:{shown_url(source)} or "
        f"optuna:{shown_url(source)}"
    )


def _folder(path: Path, part: str) -> Raw:
    if is_wandb(path):
        return read_wandb(path)
    if is_harness(path):
        return read_harness(path)
    if is_tensorboard(path):
        return read_tensorboard(path)
    if is_mlflow(path):
        return read_mlflow(path.resolve().as_uri(), part)
    database = path / "mlflow.db"
    if database.is_file():
        return _database(database, part)
    raise UserError(
        f"{path}: holds no runs of W&B, no result files of a harness, no logs of TensorBoard and "
        "no MLflow experiments; a table in it is named by its file"
    )


def _file(path: Path, part: str) -> Raw:
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3"):
        return _database(path, part)
    if is_journal(path):
        return read_optuna(str(path), part, journal=True)
    if path.suffix == ".wandb":
        return read_wandb(path.parent)
    if "tfevents" in path.name:
        return read_tensorboard(path.parent)
    return files.read_file(path, part)


def _database(path: Path, part: str) -> Raw:
    """A file of SQLite: MLflow's, or Optuna's."""
    import sqlite3

    place = path.resolve()
    try:
        with contextlib.closing(sqlite3.connect(f"{place.as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("select name from sqlite_master where type = 'table'")
            tables = {name for (name,) in rows}
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be read as SQLite: {error}") from None
    if {"experiments", "runs", "latest_metrics"} <= tables:
        return read_mlflow(f"sqlite:///{place}", part)
    if {"studies", "trials", "trial_values"} <= tables:
        return read_optuna(f"sqlite:///{place}", part)
    raise UserError(f"{path}: a database, but neither MLflow's nor Optuna's")
