"""Which code goes along to a cluster, and where this process finds its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from ablations import identity
from ablations.command import standing
from ablations.command.runner import RUN, travelling
from ablations.errors import UserError
from ablations.plan import Plan

PACKAGES = ("mm1_jax", "ablations", "sweeps", "analysis", "mm1")


HOME = Path(__file__).resolve().parent.parent
IN_WORKERS = ("mm1_jax", "ablations", "sweeps")


@contextlib.contextmanager
def shipment(plan: Plan) -> Generator[Path]:
    """A folder with our packages, those that the plan's runners are in with what lies beside them
    and is imported, and the files of its commands, as a `working_dir`.

    Raises:
        UserError: a runner's package is not there or cannot be read, or has the name of one of
            ours; a command's files cannot travel.
    """
    modules = {stage.run.partition(":")[0] for stage in plan.stages.values()}
    modules |= {stage.work.code.module for stage in plan.stages.values()} - {""}
    modules = {module for root in modules for module in identity.closure(root)}
    runners = {module.partition(".")[0] for module in modules} - {"ablations", "mm1_jax"}
    sources = {name: HOME / name for name in PACKAGES}
    for name in sorted(runners):
        place = identity.package_place(name)
        if place is None:
            raise UserError(f"cannot ship the package {name!r}: it is not installed here")
        if name in sources and place.resolve() != sources[name]:
            raise UserError(
                f"a runner is in a package {name!r} of yours; on a cluster that name is mm1's: "
                "move the runner to a module of another name"
            )
        sources[name] = place
    with tempfile.TemporaryDirectory(prefix="mm1-") as folder:
        for name, source in sources.items():
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source, Path(folder) / name, ignore=ignore)
            else:
                shutil.copy(source, folder)
        if commands := _commands(plan):
            standing.pack(commands, Path(folder) / standing.TRAVELLED.name)
        yield Path(folder)


def _commands(plan: Plan) -> list[standing.Travelling]:
    """What each step of a command needs, each once."""
    found = {
        (stage.kind, stage.code_fingerprint, stage.data_fingerprint): stage.config
        for stage in plan.stages.values()
        if stage.run == RUN
    }
    return [travelling(config) for config in found.values()]


def import_paths(own: Path) -> list[str]:
    """Where workers find modules: where this process does, absolute, so from any folder.

    Where something else comes before a package of ours that they need (a folder `sweeps` of
    yours), a folder `own` comes first that has nothing but links to ours.
    """
    paths = [str(Path(path or ".").absolute()) for path in (*sys.path, str(HOME))]
    paths = [path for path in dict.fromkeys(paths) if Path(path).is_dir()]
    if all(_is_ours(PathFinder.find_spec(name, paths), name) for name in IN_WORKERS):
        return paths
    own.mkdir(parents=True, exist_ok=True)
    for name in IN_WORKERS:
        link = own / f".{name}-{os.getpid()}"
        link.symlink_to(HOME / name)
        link.replace(own / name)
    return [str(own), *paths]


def _is_ours(spec: ModuleSpec | None, name: str) -> bool:
    return spec is not None and spec.origin is not None and is_in(spec.origin, HOME / name)


def is_in(place: str, folder: Path) -> bool:
    """Whether a file is below a folder, links followed."""
    return Path(place).resolve().is_relative_to(folder)


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
