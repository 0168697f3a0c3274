"""Where a store's bytes live: a folder on disk, or any fsspec URL (s3://, gs://, memory://, …).

Two operations carry the whole design: `create`, which writes a key only if nobody has (so of two
writers exactly one wins), and `write`, which replaces a key at once (so no reader sees half a
file). Keys are relative paths with forward slashes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any, Protocol

from mm1_jax.errors import UserError


class Objects(Protocol):
    """A flat space of keys, each with bytes."""

    root: str
    local: Path  # a folder of this machine: the store itself, or its local cache

    def read(self, key: str) -> bytes:
        """The bytes of a key; FileNotFoundError if it is absent."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put or replace a key, at once."""
        ...

    def create(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """Put a key if it is absent; False if somebody was first.

        `durable` waits until it would survive a loss of power.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether the key is there."""
        ...

    def children(self, folder: str) -> list[str]:
        """Names right below a folder, sorted; empty if there is no such folder."""
        ...

    def remove(self, folder: str) -> None:
        """Remove all keys below a folder."""
        ...

    def staging(self, folder: str) -> Path:
        """A local folder to fill for `upload`; the place itself where the store is local."""
        ...

    def upload(self, folder: str) -> None:
        """Put what was filled in `staging(folder)` into the store."""
        ...

    def fetch(self, folder: str) -> Path:
        """A local folder with a stored folder's files."""
        ...


def open_objects(root: str | Path) -> Objects:
    """The kind of storage that a path or URL names.

    Raises:
        UserError: the URL's protocol is unknown, or a plain file is in the way.
    """
    text = str(root)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" in text:
        return RemoteObjects(text)
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise UserError(f"the store {path} is a file, not a folder")
    return LocalObjects(path)


class LocalObjects:
    """A folder on a disk that all writers share."""

    def __init__(self, root: Path):
        self.root = str(root)
        self.local = root

    def read(self, key: str) -> bytes:
        """See `Objects`."""
        return (self.local / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        """See `Objects`."""
        with self._complete_file(key, data) as temporary:
            temporary.replace(self.local / key)

    def create(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """See `Objects`."""
        # A hard link appears at once, whole, and fails if the name is taken.
        with self._complete_file(key, data, durable) as temporary:
            try:
                os.link(temporary, self.local / key)
            except FileExistsError:
                return False
        return True

    @contextlib.contextmanager
    def _complete_file(self, key: str, data: bytes, durable: bool = False) -> Generator[Path]:
        target = self.local / key
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
        with told_when_full(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                if durable:
                    flush(temporary)
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """See `Objects`."""
        return (self.local / key).exists()

    def children(self, folder: str) -> list[str]:
        """See `Objects`."""
        try:
            names = [path.name for path in (self.local / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, folder: str) -> None:
        """See `Objects`."""
        shutil.rmtree(self.local / folder, ignore_errors=True)

    def staging(self, folder: str) -> Path:
        """See `Objects`."""
        path = self.local / folder
        with told_when_full(self.root):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def upload(self, folder: str) -> None:
        """Nothing to do: it was filled in place."""

    def fetch(self, folder: str) -> Path:
        """See `Objects`."""
        return self.local / folder


class RemoteObjects:
    """An fsspec file system whose `pipe_file(mode="create")` is put-if-absent (s3, gcs, memory)."""

    def __init__(self, url: str):
        import fsspec

        try:
            self.files, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise UserError(f"cannot open the store {url}: {error}") from error
        self.root = url.rstrip("/")
        self.base = base.rstrip("/")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.local = cache / "mm1" / hashlib.sha256(self.root.encode()).hexdigest()[:16]

    def _at(self, key: str) -> str:
        return f"{self.base}/{key}"

    def read(self, key: str) -> bytes:
        """See `Objects`."""
        return self.files.cat_file(self._at(key))

    def write(self, key: str, data: bytes) -> None:
        """See `Objects`."""
        self.files.pipe_file(self._at(key), data)

    def create(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """See `Objects`; an object store is durable anyway."""
        try:
            self.files.pipe_file(self._at(key), data, mode="create")
        except FileExistsError:
            return False
        return True

    def exists(self, key: str) -> bool:
        """See `Objects`."""
        return self.files.exists(self._at(key))

    def children(self, folder: str) -> list[str]:
        """See `Objects`."""
        try:
            entries: list[Any] = self.files.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, folder: str) -> None:
        """See `Objects`."""
        with contextlib.suppress(FileNotFoundError):
            self.files.rm(self._at(folder), recursive=True)
        shutil.rmtree(self.local / folder, ignore_errors=True)

    def staging(self, folder: str) -> Path:
        """See `Objects`."""
        path = self.local / folder
        with told_when_full(str(self.local)):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def upload(self, folder: str) -> None:
        """See `Objects`."""
        source = self.local / folder
        for path in sorted(source.rglob("*")):
            if path.is_file():
                key = f"{folder}/{path.relative_to(source).as_posix()}"
                self.files.pipe_file(self._at(key), path.read_bytes())

    def fetch(self, folder: str) -> Path:
        """See `Objects`."""
        target = self.local / folder
        if target.exists():  # written whole, below, or by this machine's own attempt
            return target
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
        with told_when_full(str(self.local)):
            for key in self.files.find(self._at(folder)):
                path = partial / str(key).removeprefix(self._at(folder)).lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.files.cat_file(key))
            with contextlib.suppress(OSError):  # somebody else fetched it meanwhile
                partial.rename(target)
        shutil.rmtree(partial, ignore_errors=True)
        return target


def flush(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or what caused it, is a full disk or an exhausted quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Libraries in C++ (tensorstore, Arrow) only hand on the text.
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def told_when_full(place: str) -> Generator[None]:
    """Turns a full disk into one line for the user; everything finished is already in place."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise UserError(
                f"no space left on the disk of {place}; nothing finished is lost"
            ) from error
        raise
