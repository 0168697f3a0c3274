"""Notebooks on findings, committed without outputs; their first code cell says what they are about.

That cell holds names and values alone, `STORE = ".mm1"`. `filled` gives it others, as papermill
would; `mm1 notebook` and the tests do. `python -m analysis.notebooks` takes outputs out again after
one was edited in Jupyter (`make notebooks`).
"""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.errors import UserError, nearest

FOLDER = Path(__file__).parent
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
Notebook = dict[str, Any]  # as `nbformat` 4.5 has it


def names() -> list[str]:
    """The notebooks that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name: str) -> Notebook:
    """A notebook. `UserError` that names the nearest where there is none of this name."""
    if name not in names():
        raise UserError(f"no notebook {name!r}{nearest(name, names())}")
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def title(notebook: Notebook) -> str:
    """Its first heading."""
    return "".join(notebook["cells"][0]["source"]).splitlines()[0].lstrip("# ")


def parameters(notebook: Notebook) -> dict[str, str]:
    """Name → value of the first code cell."""
    lines = ast.parse("".join(_parameter_cell(notebook)["source"])).body
    return {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in lines
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def filled(notebook: Notebook, values: Mapping[str, str]) -> Notebook:
    """A copy with other values in its first code cell; those it does not have are left out."""
    made = copy.deepcopy(notebook)
    cell = _parameter_cell(made)
    known = parameters(made)
    lines = "".join(cell["source"]).splitlines()
    for number, line in enumerate(lines):
        name = line.partition(" = ")[0]
        if name in known and name in values:
            lines[number] = f"{name} = {values[name]!r}"
    cell["source"] = _source("\n".join(lines))
    return made


def _parameter_cell(notebook: Notebook) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def cleaned(notebook: Notebook) -> Notebook:
    """A copy without outputs, counts and what an editor leaves; cells are named by their number."""
    cells = []
    for number, cell in enumerate(notebook["cells"], start=1):
        kept = {
            "cell_type": cell["cell_type"],
            "id": f"cell-{number}",
            "metadata": {},
            "source": _source("".join(cell["source"]).strip("\n")),
        }
        if cell["cell_type"] == "code":
            kept |= {"execution_count": None, "outputs": []}
        cells.append(kept)
    return {"cells": cells, "metadata": copy.deepcopy(KERNEL), "nbformat": 4, "nbformat_minor": 5}


def written(notebook: Notebook) -> str:
    """Its text as it is committed."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _source(text: str) -> list[str]:
    return text.splitlines(keepends=True)
