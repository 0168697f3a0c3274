"""A folder on this machine or behind any fsspec URL: whole files, ranges of them, writing.

fsspec is imported where a URL is opened: planning reads one small local file and must be instant.
"""

from __future__ import annotations

import mmap
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablations.errors import MissingFileError, UserError

_OPEN_FILES = 1024
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs")


class Range(NamedTuple):
    """Some bytes of a file."""

    name: str
    start: int
    end: int


class Folder:
    """Files below a path or URL, by their names relative to it."""

    def __init__(self, url: str):
        self.url = url.rstrip("/") or "/"
        self._files: Any = None  # of a URL
        self._open: OrderedDict[str, mmap.mmap | bytes] = OrderedDict()  # local files
        self._lock = threading.Lock()
        if "://" in url:
            from mm1_jax.data.files.urls import file_system

            self._files, self._root = file_system(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return Folder, (self.url,)

    @property
    def is_local(self) -> bool:
        """Whether its files are on this machine."""
        return self._files is None

    def place(self, name: str) -> str:
        """Path or URL of a file, for messages and for other libraries."""
        return f"{self.url}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        if self._files is None:
            return Path(self.place(name)).is_file()
        return bool(self._tried(name, lambda: self._files.isfile(f"{self._root}/{name}")))

    def names(self, below: str = "") -> list[str]:
        """Names of the files at any depth below a folder, sorted; none if it is not there."""
        if self._files is None:
            top = Path(self.url)
            return sorted(
                str(path.relative_to(top)) for path in (top / below).rglob("*") if path.is_file()
            )
        root = f"{self._root}/{below}".rstrip("/")
        found = self._tried(below, lambda: self._files.find(root))
        return sorted(path.removeprefix(self._root).lstrip("/") for path in found)

    def read(self, name: str) -> bytes:
        """A whole file. MissingFileError if it is not there, UserError if it cannot be read."""
        if self._files is None:
            path = Path(self.place(name))
            if not path.is_file():
                raise MissingFileError(f"{path}: there is no such file")
            return path.read_bytes()
        return self._tried(name, lambda: self._files.cat_file(f"{self._root}/{name}"))

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Some bytes of some files, in the order given; those of a URL are fetched side by side.

        UserError where a file cannot be read or is shorter.
        """
        if self._files is None:
            found = [self._mapped(r.name)[r.start : r.end] for r in ranges]
        elif not ranges:
            return []
        else:
            columns = list(zip(*ranges, strict=True))
            paths = [f"{self._root}/{name}" for name in columns[0]]
            found = self._tried(
                columns[0][0],
                lambda: self._files.cat_ranges(
                    paths, list(columns[1]), list(columns[2]), on_error="raise"
                ),
            )
        for wanted, got in zip(ranges, found, strict=True):
            if len(got) != wanted.end - wanted.start:
                raise UserError(f"{self.place(wanted.name)} ends before byte {wanted.end}")
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file; what is there appears at once or not at all.

        UserError if it cannot be written, or its bucket is not there.
        """
        if self._files is None:
            path = Path(self.place(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(path.name + ".unfinished")
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            return
        self._put(name, lambda path: self._files.pipe_file(path, content))

    def take(self, path: Path, name: str) -> None:
        """Move a local file here."""
        if self._files is None:
            target = Path(self.place(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(target.name + ".unfinished")
            shutil.move(path, unfinished)
            unfinished.rename(target)
            return
        self._put(name, lambda there: self._files.put_file(str(path), there))
        path.unlink()

    def remove(self, below: str) -> None:
        """Delete all files below a folder, and the folder."""
        if self._files is None:
            shutil.rmtree(self.place(below), ignore_errors=True)
        else:
            self._tried(below, lambda: self._remove_all(f"{self._root}/{below}"))

    def _remove_all(self, path: str) -> None:
        if not any(mark in path for mark in "*?["):
            self._files.rm(path, recursive=True)
            return
        for file in self._files.find(path):  # `rm` would take the name for a glob
            self._files.rm_file(file)

    def _mapped(self, name: str) -> mmap.mmap | bytes:
        """A local file as memory, of which what is asked for is read."""
        with self._lock:
            if name not in self._open:
                try:
                    with open(self.place(name), "rb") as file:
                        empty = not os.fstat(file.fileno()).st_size
                        found = b"" if empty else mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                except FileNotFoundError:
                    raise UserError(f"{self.place(name)}: there is no such file") from None
                self._open[name] = found
            self._open.move_to_end(name)
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
            return self._open[name]

    def _put(self, name: str, attempt: Callable[[str], Any]) -> None:
        """Write a file of a URL.

        The folder around it is made first, but not in an object store, which has none: asked for
        one, it would make the bucket that a typing error names.
        """
        path = f"{self._root}/{name}"
        if self.url.partition("://")[0] not in _OBJECT_STORES:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            self._tried(name, lambda: attempt(path))
        except MissingFileError:
            raise UserError(f"{self.place(name)}: there is no such bucket") from None

    def _tried(self, name: str, attempt: Any) -> Any:
        from mm1_jax.data.files.urls import retried

        return retried(self.place(name), attempt)
