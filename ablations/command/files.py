"""Which files decide what a command results in, beside its config: its code and its data.

Code is what `code:` names, else what git tracks in the folder of the study file, without what
the study language reads itself (studies and the bases that they name) and without documentation.
Python files count by what they do (`ablations.source_code`): a comment changes nothing. Data are
files and folders named one by one, known by their content. No path outside the folder, time or
order on the disk enters either fingerprint.
"""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from ablations import identity
from ablations.content_hash import content_hash, file_hash
from ablations.errors import UserError, nearest, shown
from ablations.source_code import canonical_source

DOCUMENTATION = (
    "*.md",
    "*.rst",
    "LICENSE*",
    "NOTICE*",
    "CHANGELOG*",
    ".gitignore",
    ".gitattributes",
)
_SKIPPED = ("__pycache__", ".git", ".mm1", ".venv", ".ipynb_checkpoints")
_STUDY = re.compile(r"^study:", re.MULTILINE)
_BASE = re.compile(r"^base:[ \t]*[\"']?([^\"'#\n]+)", re.MULTILINE)
MOST_FILES = 100_000


def code_files(folder: Path, globs: Sequence[str], *, in_git: bool = True) -> list[Path]:
    """The files of the code, sorted by name; without globs, what git tracks in the folder.

    All that is in the folder is tracked where it is a checkout, and not `in_git` itself.

    Raises:
        UserError: a glob that matches nothing, or no globs and nothing that git tracks.
    """
    if not folder.is_dir():
        raise UserError(f"the folder of the study, {folder}, is not on this machine")
    if not globs:
        return _tracked(folder, in_git)
    found: set[Path] = set()
    for glob in globs:
        matched = set(_matching(folder, glob))
        if not matched:
            raise UserError(f"{shown(glob)} matches no file in {folder}{_near(folder, glob)}")
        found |= matched
    return sorted(found)


def parts_of(code: Iterable[Path], folder: Path) -> dict[str, str]:
    """Each file of the code → what it does, as a hash; `code_files` says which they are."""
    return {_name(path, folder): _meaning(path) for path in code}


def data_fingerprint(folder: Path, paths: Sequence[str]) -> str:
    """Fingerprint of what files and folders hold, "" where there are none.

    Raises:
        UserError: one is not there, or holds nothing.
    """
    held = []
    for path in paths:
        files, place = data_files(folder, path), folder / path
        root = place if place.is_dir() else place.parent
        held.append([place.name, content_hash(root, files)])
    return identity.fingerprint(["data", held]) if held else ""


def data_files(folder: Path, path: str) -> list[Path]:
    """The files of one entry of `data`, sorted. Raises `UserError` where there are none."""
    place = folder / path
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"{shown(path)}: no such file or folder in {folder}{_near(folder, path)}")
    files = sorted(_files_below(place))
    if not files:
        raise UserError(f"{shown(path)} holds no file")
    return files


def _matching(folder: Path, glob: str) -> Iterator[Path]:
    """Files that a glob names; a folder stands for all that is in it."""
    parts = Path(glob)
    if parts.is_absolute():
        found: Iterable[Path] = Path(parts.anchor).glob(str(parts.relative_to(parts.anchor)))
    else:
        try:
            found = list(folder.glob(glob))
        except (ValueError, NotImplementedError) as error:
            raise UserError(f"{shown(glob)} is no glob: {error}") from None
    for path in found:
        if path.is_dir():
            yield from _files_below(path)
        elif path.is_file():
            yield path


def _files_below(folder: Path) -> Iterator[Path]:
    count = 0
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(names):
            path = Path(place) / name
            if path.is_file() and not name.endswith(".pyc"):
                count += 1
                if count > MOST_FILES:
                    raise UserError(
                        f"{folder} holds more than {MOST_FILES:,} files; pack them, or name fewer"
                    )
                yield path


def _tracked(folder: Path, in_git: bool) -> list[Path]:
    """What git tracks in a folder and decides a result."""
    if in_git:
        names = _git_files(folder, "--cached", "--recurse-submodules")
        studies = _git_files(folder, *_UNIGNORED, "*.yaml", "*.yml")  # one may be new
    else:
        names = [_name(path, folder) for path in _files_below(folder)]
        studies = [name for name in names if name.endswith((".yaml", ".yml"))]
    read_here: set[Path] = set()
    for name in studies:
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        if _STUDY.search(text):
            read_here.add((folder / name).resolve())
            if (base := _BASE.search(text)) is not None:
                read_here.add(((folder / name).parent / base[1].strip()).resolve())
    found = [
        folder / name
        for name in names
        if not any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in DOCUMENTATION)
        and (folder / name).resolve() not in read_here
    ]
    if not found:
        raise UserError(
            f"git tracks no file of {folder} that could decide a result: git add the script, or "
            "name the files, code: [train.py]"
        )
    return sorted(found)


_UNIGNORED = ("--cached", "--others", "--exclude-standard")


def git(folder: Path, *words: str) -> str | None:
    """What git prints of a folder; None where it fails, or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True)
    except OSError:
        return None
    return None if done.returncode else os.fsdecode(done.stdout)


def _git_files(folder: Path, *which: str) -> list[str]:
    told = git(folder, "ls-files", "-z", *which)
    if told is None:
        raise UserError(
            f"nothing says which files decide the result: {folder} is in no git repository; name "
            "them, code: [train.py]"
        )
    names = told.split("\0")
    return [name for name in dict.fromkeys(names) if name and (folder / name).is_file()]


def _meaning(path: Path) -> str:
    """What a file of the code does, as a hash: a Python file without its comments."""
    status = path.stat()
    return _hashed(path, status.st_size, status.st_mtime_ns)


@cache
def _hashed(path: Path, size: int, changed: int) -> str:
    if path.suffix == ".py":
        try:
            source = path.read_text(encoding="utf-8")
            ast.parse(source)
            return identity.fingerprint(canonical_source(source, prints=True))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # then its bytes count: whether it is Python is the command's business
    return file_hash(path, size, changed)


def _name(path: Path, folder: Path) -> str:
    """A file's name in a fingerprint: below the folder, also where it lies beside it."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _near(folder: Path, name: str) -> str:
    """The end of a message: names that are there, like one that is not."""
    parent = folder / Path(name).parent
    try:
        there = [entry.name for entry in parent.iterdir()]
    except (OSError, ValueError):
        return ""
    return nearest(Path(name).name, there)


def untracked_sources(folder: Path) -> list[str]:
    """Python files of a folder that git neither tracks nor ignores."""
    return sorted(_git_files(folder, "--others", "--exclude-standard", "*.py"))
