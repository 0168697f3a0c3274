from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ["mm1_jax", "ablations", "sweeps", "analysis", "mm1"]  # none imports one to its right


def imported_packages(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", LAYERS)
def test_no_package_imports_a_higher_one(package):
    higher = set(LAYERS[LAYERS.index(package) + 1 :])
    for file in (ROOT / package).rglob("*.py"):
        assert not imported_packages(file) & higher, file


@pytest.mark.parametrize(
    ("package", "never"),
    [("mm1_jax", {"ray", "mlflow"}), ("ablations", {"jax", "flax", "ray", "mlflow"})],
)
def test_lower_packages_know_nothing_of_what_runs_them(package, never):
    for file in (ROOT / package).rglob("*.py"):
        assert not imported_packages(file) & never, file
