"""Where the files of a command stand on the machine that runs it.

Usually where the study was planned: in the study's folder, which a cluster's machines may share.
Where they do not, its files have travelled along (`pack`, `Standing`). An arm whose factor `code`
names a revision of git runs in a checkout of that commit, made for the run; the repository itself
is not touched, and data that the study names stand in it where they do in the study's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ablations.command import files
from ablations.command.files import git
from ablations.errors import UserError, nearest, shown
from ablations.fingerprints import fingerprint

TRAVELLED = Path(__file__).resolve().parents[2] / "travelled"  # beside the packages, on a cluster
STAYING = "staying.json"
MOST_BYTES = 100 * 2**20  # of data that travel along; more must be where the cluster finds it


# -- revisions -----------------------------------------------------------------------------------


def commit_of(home: Path, revision: str) -> str:
    """The commit that a revision of the repository around a folder means.

    Raises:
        UserError: there is no such revision, or no repository.
    """
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    found = git(home, *words)
    if found is None:
        names = git(home, "for-each-ref", "--format=%(refname:short)")
        if names is None:
            raise UserError(f"{home} is in no git repository, so there are no revisions of it")
        near = nearest(revision, names.split())
        raise UserError(f"git knows no revision {shown(revision)}{near}")
    return found.strip()


def lacking(home: Path, commit: str, folder: Path, names: Sequence[str]) -> list[str]:
    """Which files of a working folder a commit does not have, of those that lie inside at all."""
    root = root_of(home).resolve()
    inside = {}
    for name in names:
        place = Path(os.path.normpath(folder.resolve() / name))
        if place.is_relative_to(root):
            inside[name] = place.relative_to(root).as_posix()
    return [n for n, at in inside.items() if git(home, "cat-file", "-e", f"{commit}:{at}") is None]


def root_of(home: Path) -> Path:
    """The folder of the repository that a folder is in; the folder itself where it is in none."""
    found = git(home, "rev-parse", "--show-toplevel")
    return Path(found.rstrip("\n")) if found else home


def check_out(home: Path, commit: str, into: Path) -> Path:
    """Put the files of a commit into an empty folder; what `home` is in there.

    Raises:
        UserError: git cannot, or the commit has no such folder.
    """
    root = root_of(home)
    with tempfile.TemporaryDirectory(prefix="mm1-index-") as own:
        environment = {**os.environ, "GIT_INDEX_FILE": str(Path(own) / "index")}
        place = (git(root, "rev-parse", "--absolute-git-dir") or "").strip()
        words = ["git", f"--work-tree={into}", f"--git-dir={place}", "-C", str(root)]
        words += ["checkout", "-f", commit, "--", "."]
        done = subprocess.run(words, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise UserError(f"git cannot check out {commit[:12]}: {' '.join(done.stderr.split())}")
    there = into / os.path.relpath(home.resolve(), root.resolve())
    if not there.is_dir():
        raise UserError(f"commit {commit[:12]} has no folder {home.relative_to(root)}")
    return there


@cache
def _parts_at(home: Path, commit: str, globs: tuple[str, ...]) -> Mapping[str, str]:
    """`files.code_parts` of a commit, which never change."""
    with tempfile.TemporaryDirectory(prefix="mm1-code-") as into:
        there = check_out(home, commit, Path(into))
        return files.parts_of(files.code_files(there, globs, in_git=False), there)


# -- on the machine that runs it ------------------------------------------------------------------


def code_parts(home: Path, commit: str, globs: tuple[str, ...]) -> Mapping[str, str]:
    """Each file of the code → what it does, as a hash, wherever the code stands here.

    Raises:
        UserError: it does not stand here.
    """
    if not home.is_dir():
        travelled = _travelled(home, commit)
        names = json.loads((travelled / "code.json").read_text(encoding="utf-8"))[_key(globs)]
        there = travelled / "files" / _below(home, travelled)
        return files.parts_of([there / name for name in names], there)
    if commit:
        return _parts_at(home, commit, globs)
    return files.parts_of(files.code_files(home, globs), home)


def stand(
    home: Path, folder: Path, commit: str, data: Sequence[str], own: Path
) -> tuple[Path, Path]:
    """The study's folder and the command's working folder, as they are here for one run.

    `own` is a folder of the run, in which a commit is checked out.

    Raises:
        UserError: they are not here, and have not travelled along.
    """
    if not home.is_dir():
        travelled = _travelled(home, commit)
        there = travelled / "files"
        return there / _below(home, travelled), there / _below(folder, travelled)
    if not commit:
        return home, folder
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    there = check_out(home, commit, own)
    _link(home, there, own, data)
    return there, Path(os.path.normpath(there / os.path.relpath(folder, home)))


def _link(home: Path, there: Path, root: Path, data: Sequence[str]) -> None:
    """Let data of the study's folder stand at their place in a checkout."""
    for name in data:
        place = Path(os.path.normpath(there / name))
        if not place.is_relative_to(root):
            continue  # an absolute path, or one beside the repository
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path(os.path.normpath(home / name)))


def _travelled(home: Path, commit: str) -> Path:
    found = TRAVELLED / _place(home, commit)
    if not found.is_dir():
        raise UserError(f"the folder of the study, {home}, is not on this machine")
    return found


def _below(path: Path, travelled: Path) -> str:
    """Where a path of the planning machine stands below what travelled."""
    return os.path.relpath(path, (travelled / "root").read_text(encoding="utf-8"))


def _place(home: Path, commit: str) -> str:
    return fingerprint([str(home), commit])


def _key(globs: Sequence[str]) -> str:
    return json.dumps(list(globs))


# -- travelling ----------------------------------------------------------------------------------


class Travelling(NamedTuple):
    """What a step needs of the planning machine."""

    home: Path
    folder: Path
    commit: str
    globs: tuple[str, ...]
    data: tuple[str, ...]


def pack(steps: Iterable[Travelling], into: Path) -> None:
    """Put code and data of steps into `into`, so that they stand where `TRAVELLED` says there.

    Data do not travel that are named by an absolute path, lie outside the repository (without
    one: the study's folder), or would come to more than 100 MiB: `staying` says which.

    Raises:
        UserError: code or a working folder lies outside.
    """
    staying: dict[Path, None] = {}
    packed = 0
    for step in dict.fromkeys(steps):
        place = into / _place(step.home, step.commit)
        root = root_of(step.home).resolve()
        home = step.home.resolve()
        if not place.exists():
            (place / "files").mkdir(parents=True)
            (place / "root").write_text(str(root), encoding="utf-8")
            (place / "code.json").write_text("{}", encoding="utf-8")
            if step.commit:
                check_out(home, step.commit, place / "files")
        there = place / "files" / os.path.relpath(home, root)
        if step.commit:
            code = files.code_files(there, step.globs, in_git=False)
        else:
            code = files.code_files(home, step.globs)
            for path in code:
                _copy(path, root, place / "files")
        _inside(step.folder.resolve(), root, place / "files").mkdir(parents=True, exist_ok=True)
        known = json.loads((place / "code.json").read_text(encoding="utf-8"))
        known[_key(step.globs)] = [os.path.relpath(p, there if step.commit else home) for p in code]
        (place / "code.json").write_text(json.dumps(known), encoding="utf-8")
        for name in step.data:
            found = files.data_files(home, name)
            size = sum(path.stat().st_size for path in found)
            lies_inside = Path(os.path.normpath(home / name)).is_relative_to(root)
            if Path(name).is_absolute() or not lies_inside or packed + size > MOST_BYTES:
                staying[Path(os.path.normpath(home / name))] = None
                continue
            packed += size
            for path in found:
                _copy(path, root, place / "files")
    into.mkdir(exist_ok=True)
    (into / STAYING).write_text(json.dumps([str(path) for path in staying]), encoding="utf-8")


def staying() -> list[str]:
    """Data that did not travel to this machine, which must be there at their own path."""
    try:
        return json.loads((TRAVELLED / STAYING).read_text(encoding="utf-8"))
    except FileNotFoundError:  # nothing travelled: this is where it was planned
        return []


def _copy(path: Path, root: Path, into: Path) -> None:
    target = _inside(path, root, into)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def _inside(path: Path, root: Path, into: Path) -> Path:
    if not path.is_relative_to(root):
        raise UserError(f"{path} lies outside {root}, so it cannot travel to a cluster; move it in")
    return into / path.relative_to(root)
