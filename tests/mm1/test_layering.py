from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ablations.source_code import says_it_decides_nothing

ROOT = Path(__file__).parents[2]
LAYERS = ["ablations", "sweeps", "analysis", "mm1"]  # none imports one to its right
# What a model core shares with the language of studies: no study, no plan, no claim.
CONTRACT = {
    "content_hash",
    "errors",
    "fingerprints",
    "identity",
    "places",
    "resources",
    "schema",
    "sections",
    "settings",
    "shown_text",
    "source_code",
    "stage",
    "strict_json",
    "timeline",
    "workload",
}


def imported_modules(file: Path) -> set[str]:
    """Dotted names that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(file)}


@pytest.mark.parametrize("package", LAYERS)
def test_no_package_imports_a_higher_one(package):
    higher = set(LAYERS[LAYERS.index(package) + 1 :])
    for file in (ROOT / package).rglob("*.py"):
        assert not imported_packages(file) & higher, file


def test_the_model_core_knows_the_contract_of_a_workload_and_nothing_of_studies():
    for file in (ROOT / "mm1_jax").rglob("*.py"):
        assert not imported_packages(file) & {"sweeps", "analysis", "mm1"}, file
        ours = {name for name in imported_modules(file) if name.startswith("ablations.")}
        assert {name.split(".")[1] for name in ours} <= CONTRACT, file


@pytest.mark.parametrize("package", ["ablations", "sweeps", "analysis"])
def test_the_language_the_scheduler_and_the_analysis_name_no_model(package):
    for file in (ROOT / package).rglob("*.py"):
        assert "mm1_jax" not in imported_packages(file), file


@pytest.mark.parametrize(
    ("package", "never"),
    [("mm1_jax", {"ray", "mlflow"}), ("ablations", {"jax", "flax", "ray", "mlflow"})],
)
def test_lower_packages_know_nothing_of_what_runs_them(package, never):
    for file in (ROOT / package).rglob("*.py"):
        assert not imported_packages(file) & never, file


def test_a_package_of_the_model_hands_nothing_on():
    """So that a module's code is what it imports by name, and the rest of a wing is none of it."""
    for file in (ROOT / "mm1_jax").rglob("__init__.py"):
        said, *rest = ast.parse(file.read_text(encoding="utf-8")).body
        assert ast.get_docstring(ast.Module([said], [])), file
        assert not rest or (len(rest) == 1 and says_it_decides_nothing(ast.Module(rest, []))), file
