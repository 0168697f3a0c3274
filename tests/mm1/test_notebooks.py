"""The notebooks are clean, and run from top to bottom on a store that a test filled."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ablations.errors import UserError
from analysis import notebooks
from mm1.notebook_command import _place, write

STUDIES = Path("ablations/studies")
LEARNING_RATE = """\
study: learning-rate
question: Which peak learning rate does each size want?
base: {base}
design:
  factorial:
    language_model.width: [64, 32, 48, 96]
    optimizer.peak_lr: [0.004, 0.0005, 0.001, 0.002, 0.008, 0.016]
seeds: 2
primary_metric: held_out_text.perplexity
"""
PAGE = Path("docs/notebooks.md").read_text(encoding="utf-8")


def run(notebook, folder):
    """Its cells with their outputs; raises with the traceback of the cell that failed."""
    made = nbformat.reads(notebooks.written(notebook), 4)
    nbformat.validate(made)
    NotebookClient(made, timeout=600, startup_timeout=600, kernel_name="python3").execute(
        cwd=str(folder)
    )
    return made


def shown(notebook):
    """Kinds of the outputs of all cells."""
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    assert not [one for one in outputs if one.output_type == "error"]
    return {kind for one in outputs for kind in one.get("data", {})}


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_is_committed_as_cleaning_leaves_it(name) -> None:
    text = (notebooks.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    made = notebooks.read(name)
    assert text == notebooks.written(notebooks.cleaned(made)), "run: make notebooks"
    nbformat.validate(nbformat.reads(text, 4))
    assert made["cells"][0]["cell_type"] == "markdown"
    assert notebooks.title(made)


@pytest.mark.parametrize("name", notebooks.names())
def test_the_page_tells_of_every_notebook(name) -> None:
    assert f"`{name}`" in PAGE


def test_cleaning_takes_out_what_an_editor_leaves() -> None:
    made = notebooks.read("your-study")
    dirty = notebooks.read("your-study")
    cell = next(cell for cell in dirty["cells"] if cell["cell_type"] == "code")
    cell |= {"execution_count": 3, "outputs": [{"output_type": "stream"}], "id": "f00"}
    cell["metadata"] = {"collapsed": True}
    dirty["metadata"]["language_info"] = {"version": "3.13"}
    assert notebooks.cleaned(dirty) == made


def test_other_values_are_text_and_nothing_else() -> None:
    made = notebooks.filled(
        notebooks.read("your-study"), {"STUDY": "a'\"\nimport os", "OTHER": "no"}
    )
    assert notebooks.parameters(made) == {"STORE": ".mm1", "STUDY": "a'\"\nimport os"}
    with pytest.raises(UserError, match="no notebook 'your-stduy'; did you mean 'your-study'"):
        notebooks.read("your-stduy")


def test_your_study_runs_from_top_to_bottom(tmp_path, demo_store) -> None:
    values = {"STORE": demo_store, "STUDY": "demo"}
    made = run(notebooks.filled(notebooks.read("your-study"), values), tmp_path)
    assert shown(made) >= {"text/html", "application/vnd.plotly.v1+json"}
    assert "refuted" in str(made.cells)  # a claim of the demonstration, by the drawn numbers


@pytest.mark.slow
def test_your_table_runs_from_top_to_bottom(tmp_path) -> None:
    rows = [
        f"{model},{seed},{70 + 5 * (model == 'b') + seed / 7:.3f}"
        for model in "ab"
        for seed in (1, 2, 3)
    ]
    rows[-1] = "b,3,75.9"
    table = tmp_path / "results.csv"
    table.write_text("\n".join(["model,seed,accuracy", *rows]), encoding="utf-8")
    made = run(notebooks.filled(notebooks.read("your-table"), {"TABLE": str(table)}), tmp_path)
    assert "application/vnd.plotly.v1+json" in shown(made)
    assert "supported" in str(made.cells)


def rate_scores(arm, task, shots):
    """Perplexities with the best rate of the published law's slope."""
    parameters = arm.parameters["language_model"]
    best = 0.002 * (parameters / 50_000) ** -0.42
    off = math.log(arm.config["optimizer"]["peak_lr"]) - math.log(best)
    return 40 + 3 * off**2


OWN = [
    name
    for name in notebooks.names()
    if name != "your-study" and "STUDY" in notebooks.parameters(notebooks.read(name))
]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_every_notebook_runs_from_top_to_bottom(name, tmp_path, fill_study) -> None:
    notebook = notebooks.read(name)
    study = notebooks.parameters(notebook)["STUDY"]
    file, value = STUDIES / f"{study}.yaml", None
    if study == "learning-rate":
        file, value = tmp_path / "learning-rate.yaml", rate_scores
        base = Path("ablations/recipes/mini.yaml").absolute()
        file.write_text(LEARNING_RATE.format(base=base), encoding="utf-8")
    fill_study(tmp_path / "store", file, value)
    made = run(notebooks.filled(notebook, {"STORE": str(tmp_path / "store")}), tmp_path)
    assert "application/vnd.plotly.v1+json" in shown(made)


def test_the_command_writes_one_and_leaves_what_is_there(tmp_path, mm1, demo_store) -> None:
    done = mm1("notebook", "demo", "--store", demo_store, "--no-open")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("demo.ipynb: Your study, of demo")
    (path,) = tmp_path.rglob("demo.ipynb")
    made = notebooks.parameters(json.loads(path.read_text(encoding="utf-8")))
    assert made == {"STORE": demo_store, "STUDY": "demo"}
    path.write_text("mine", encoding="utf-8")
    assert write("demo", demo_store, "your-study", path) == path
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("study", "template", "out", "told"),
    [
        ("demmo", "your-study", None, "no study 'demmo'"),
        ("demo", "few-shto", None, "did you mean 'few-shot'"),
        ("demo", "your-study", Path("a.txt"), "ends in .ipynb"),
        ("demo", "your-table", None, "is of no study"),
    ],
)
def test_what_cannot_be_written_is_told(demo_store, study, template, out, told) -> None:
    with pytest.raises(UserError, match=told):
        write(study, demo_store, template, out)


def test_a_store_with_a_secret_is_not_handed_on() -> None:
    assert _place("s3://bucket/store") == "s3://bucket/store"
    with pytest.raises(UserError, match="holds a secret"):
        _place("https://user:secret@host/store")
