"""`mm1 notebook`: a notebook on a study, written here and opened where JupyterLab is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import click

from ablations.errors import UserError
from ablations.places import local_path
from ablations.shown_text import shown_url, visible
from mm1 import api
from mm1.options import store_option

TEMPLATE = "your-study"


@click.command()
@click.argument("study")
@store_option
@click.option(
    "--template",
    default=TEMPLATE,
    show_default=True,
    metavar="NAME",
    help="Which notebook; docs/notebooks.md has a list.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="[STUDY.ipynb, with another template its name]"
)
@click.option("--no-open", is_flag=True, help="Write it and no more.")
def notebook(study: str, store: str, template: str, out: Path | None, no_open: bool) -> int:
    """Write a notebook on a study, and open it with Jupyter.

    A file that is there already is opened as it is.

    \b
    Example: mm1 notebook demo
    Example: mm1 notebook first --template figure-4-connector
    """
    path = write(study, store, template, out)
    if no_open:
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        click.echo("to open it here: pip install 'mm1[notebook]'; any editor of notebooks does too")
        return 0
    return subprocess.run([sys.executable, "-m", "jupyterlab", str(path)]).returncode


def write(study: str, store: str, template: str, out: Path | None) -> Path:
    """The notebook's path, after saying whether it was written or there already.

    Raises `UserError` where there is no such study in the store, or no such notebook.
    """
    from analysis import notebooks
    from sweeps.store import Store

    made = notebooks.read(template)
    if "STUDY" not in notebooks.parameters(made):
        raise UserError(f"the notebook {template!r} is of no study; its first cell says of what")
    name = api.study_of(study)
    Store(store).snapshot(name)
    path = out or Path(
        f"{quote(name, safe='')}{'' if template == TEMPLATE else '-' + template}.ipynb"
    )
    if path.suffix != ".ipynb":
        raise UserError(f"--out {path}: a notebook's name ends in .ipynb")
    if path.exists():
        click.echo(f"{visible(str(path))} is there already and stays as it is")
        return path
    values = {"STUDY": name, "STORE": _place(store)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebooks.written(notebooks.filled(made, values)), encoding="utf-8")
    click.echo(f"{visible(str(path))}: {notebooks.title(made)}, of {visible(name)}")
    return path


def _place(store: str) -> str:
    """The store as a notebook names it, wherever it is opened.

    Raises `UserError` for an address with a secret: a notebook is handed on.
    """
    if "://" not in store:
        return str(local_path(store).absolute())
    if shown_url(store) != store:
        raise UserError(
            "the store's address holds a secret, which a notebook would hand on: give the store "
            "without it, and the secret in the environment"
        )
    return store
