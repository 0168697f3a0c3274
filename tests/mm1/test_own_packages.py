"""mm1 beside folders of somebody's own that have the names of its packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
STUDY = ROOT / "ablations/studies/demo.yaml"
CHECK = """
import sys
if "first" in sys.argv:
    import {name}.words
import mm1
plan = mm1.plan({study!r}, store="store")
assert plan.trials
try:
    mm1.results(plan.study, store="store")
except Exception as error:
    assert "no study" in str(error), error
from {name} import words
import {name}
assert words.MINE == 1 and words.__file__.startswith({here!r}), words
assert getattr({name}, "TOP", None) == {top}
assert mm1.plan({study!r}, store="store") == plan
print("both")
"""


@pytest.fixture(params=["package", "folder"])
def kind(request):
    return request.param


def make(folder: Path, name: str, kind: str) -> None:
    """A package, or a plain folder of modules, with the name of ours and of a module in it."""
    (folder / name).mkdir()
    (folder / name / "words.py").write_text("MINE = 1\n", encoding="utf-8")
    if kind == "package":
        (folder / name / "__init__.py").write_text("TOP = 2\n", encoding="utf-8")


def python(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )


@pytest.mark.parametrize("name", ["analysis", "sweeps", "ablations"])
def test_a_script_uses_both(tmp_path, name, kind):
    make(tmp_path, name, kind)
    top = 2 if kind == "package" else None
    script = CHECK.format(name=name, study=str(STUDY), here=str(tmp_path), top=top)
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    done = python(tmp_path, "script.py")
    assert done.stdout == "both\n", done.stderr


def test_it_does_not_matter_which_is_imported_first(tmp_path):
    make(tmp_path, "analysis", "package")
    script = CHECK.format(name="analysis", study=str(STUDY), here=str(tmp_path), top=2)
    done = python(tmp_path, "-c", script, "first")
    assert done.stdout == "both\n", done.stderr


@pytest.mark.parametrize("command", [["-m", "mm1"], ["console"]])
def test_the_command_is_ours_whatever_the_path_says(tmp_path, command, kind):
    for name in ("analysis", "sweeps", "ablations"):
        make(tmp_path, name, kind)
    if command == ["console"]:
        command = [str(Path(sys.executable).with_name("mm1"))]
    done = python(tmp_path, *command, "compare", "nothing", PYTHONPATH=str(tmp_path))
    assert done.stderr.startswith("mm1: no study 'nothing'"), done.stderr


def test_where_nothing_is_in_the_way_nothing_is_done(tmp_path):
    code = (
        "import sys; before = list(sys.meta_path); import mm1\n"
        f"mm1.plan({str(STUDY)!r}, store='store'); import ablations.plan as plan\n"
        "assert sys.meta_path == before; assert 'ablations.plan' in sys.modules"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr


def test_workers_find_a_package_of_the_users_and_ours(tmp_path, monkeypatch):
    from sweeps.shipping import HOME, import_paths

    assert import_paths(tmp_path / "own")[0] != str(tmp_path / "own")
    for name in ("analysis", "sweeps"):
        make(tmp_path, name, "package")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    paths = import_paths(tmp_path / "own")
    assert paths[0] == str(tmp_path / "own")
    code = "import analysis, sweeps.worker, ablations; print(analysis.__file__, sweeps.__file__)"
    done = python(Path("/"), "-c", code, PYTHONPATH=os.pathsep.join(paths))
    own, ours = done.stdout.split()
    assert own == str(tmp_path / "analysis/__init__.py")
    assert Path(ours).resolve() == HOME / "sweeps/__init__.py"


RUN = """
import sys
import analysis, sweeps
import mm1
from mm1.own_packages import own_packages
with own_packages:
    sys.path.append({noop!r})
    from noop_stage import a_plan
    from sweeps.run import run_plan
    plan = a_plan("mine", {{"base": {{}}}}, seeds=(1,))
    code = run_plan(plan, "store", data="data", workers=1, mlflow_uri="off")
assert sweeps.TOP == 2 and analysis.TOP == 2 and "sweeps.run" not in sys.modules
sys.exit(code)
"""


@pytest.mark.slow
def test_a_run_beside_packages_of_these_names(tmp_path):
    for name in ("analysis", "sweeps", "ablations"):
        make(tmp_path, name, "package")
    (tmp_path / "script.py").write_text(
        RUN.format(noop=str(ROOT / "tests/sweeps")), encoding="utf-8"
    )
    done = python(tmp_path, "script.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 1 trials are there" in done.stdout
