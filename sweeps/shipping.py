"""Which code goes along to a cluster, and where this process finds its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from ablations.plan import Plan
from mm1_jax.errors import UserError

PACKAGES = ("mm1_jax", "ablations", "sweeps", "analysis", "mm1")


@contextlib.contextmanager
def shipment(plan: Plan) -> Generator[Path]:
    """A folder with our packages and those that the plan's runners are in, as a `working_dir`."""
    runners = {stage.run.partition(":")[0].partition(".")[0] for stage in plan.stages.values()}
    with tempfile.TemporaryDirectory(prefix="mm1-") as folder:
        for name in {*PACKAGES, *runners}:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                raise UserError(f"cannot ship the package {name!r}: it is not installed here")
            source = Path(spec.origin)
            if source.name == "__init__.py":
                ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source.parent, Path(folder) / name, ignore=ignore)
            else:
                shutil.copy(source, folder)
        yield Path(folder)


def import_paths() -> list[str]:
    """Where this process finds its modules, absolute, so that any folder is good to run in."""
    ours = str(Path(__file__).resolve().parent.parent)
    paths = [ours, *(str(Path(path or ".").absolute()) for path in sys.path)]
    return [path for path in dict.fromkeys(paths) if Path(path).is_dir()]


def git_revision() -> str:
    """The commit of the code, `+` behind it if files were changed since.

    MM1_GIT_REVISION tells it where the code was shipped without its repository.
    """
    if told := os.environ.get("MM1_GIT_REVISION"):
        return told
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        commit = _output([*git, "rev-parse", "HEAD"])
        changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()
