"""Where a store's bytes live: a folder on disk, or any fsspec URL (s3://, gs://, memory://, …).

Two operations carry the whole design: `create`, which writes a key only if nobody has (so of two
writers exactly one wins), and `write`, which replaces a key at once (so no reader sees half a
file). Keys are relative paths with forward slashes. Names that begin with a dot are temporary.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

from ablations.errors import UserError
from ablations.places import local_path, remote_files, without_local_protocol

BUSY_TRIES = 5  # of a put that the server was too busy to compare with another
LONGEST_PATH = 3_400  # of a store; what is in it must come to less than the system's 4,096
FLUSHED_AT_ONCE = 8  # files
PUT_TRIES = 100  # of a put into a folder that others remove


class StorageError(OSError):
    """A remote store does not answer as it should; `filename` is the key's URL."""

    def __init__(self, place: str, error: BaseException):
        code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        super().__init__(code, " ".join(str(error).split()) or type(error).__name__, place)


class Objects(Protocol):
    """A flat space of keys, each with bytes."""

    root: str
    local: Path  # a folder of this machine: the store itself, or its local cache

    def read(self, key: str) -> bytes:
        """The bytes of a key; FileNotFoundError if it is absent."""
        ...

    def read_each(self, keys: Collection[str]) -> dict[str, bytes | OSError]:
        """Key → its bytes, or why it cannot be read, as `read` would raise it."""
        ...

    def version(self, key: str) -> Hashable:
        """Changes with whatever is written to the key; None where it is not there."""
        ...

    def write(self, key: str, data: bytes, *, durable: bool = False) -> None:
        """Put or replace a key, at once. `durable`: until it would survive a loss of power."""
        ...

    def create(
        self, key: str, data: bytes, *, durable: bool = False, after: Sequence[Path] = ()
    ) -> bool:
        """Put a key if it is absent; False if somebody was first.

        A durable one not before `after`, files and folders of this machine, is that as well.

        `data` of two writers must differ: an answer may be lost on its way and the put tried
        again, and what is found then is ours if it is what we wrote.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether the key is there."""
        ...

    def children(self, folder: str, *, hidden: bool = False) -> list[str]:
        """Names right below a folder, sorted; empty if there is no such folder.

        `hidden`: temporary ones too.
        """
        ...

    def files(self, folder: str) -> dict[str, float]:
        """Every key below a folder, temporary ones too → when it was written (Unix time).

        What is there without being a file ends in `/`: an empty folder, a link, a pipe.
        """
        ...

    def size_bytes(self, folder: str) -> int:
        """Of a key, or of all keys below a folder, together."""
        ...

    def remove(self, folder: str) -> None:
        """Remove a key, or all keys below a folder; it is no error if there are none."""
        ...

    def move(self, folder: str, to: str) -> None:
        """Give all keys below a folder another place."""
        ...

    def staging(self, folder: str) -> Path:
        """A local folder to fill for `upload`; the place itself where the store is local."""
        ...

    def upload(self, folder: str) -> None:
        """Put what was filled in `staging(folder)` into the store."""
        ...

    def fetch(self, folder: str, names: Iterable[str], *, again: bool = False) -> Path:
        """A local folder that has these files of a stored folder, where they are there.

        `again` reads them anew where a local cache has them. Names lead nowhere else: UserError.
        """
        ...


def open_objects(root: str | Path) -> Objects:
    """The kind of storage that a path or URL names.

    Raises:
        UserError: the URL's protocol is unknown, or a plain file is in the way.
    """
    text = without_local_protocol(str(root))
    if "://" in text:
        return RemoteObjects(text)
    path = local_path(text)
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise UserError(f"the store's path is too long (above {LONGEST_PATH} bytes): {text[:80]}…")
    if path.exists() and not path.is_dir():
        raise UserError(f"the store {path} is a file, not a folder")
    return LocalObjects(path)


def local_cache(root: str) -> Path:
    """A folder of this machine and user for what is kept of a store."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mm1" / hashlib.sha256(root.encode()).hexdigest()[:16]


def file_version(path: str | Path) -> tuple[int, int, int]:
    """What changes when a file of this machine is written, replaced or restored from elsewhere.

    Its number, its size and, in nanoseconds, when its content or its name changed last, which
    unlike the time of modification nobody can set.
    """
    return file_versions([path])[0]


def file_versions(
    paths: Iterable[str | Path], folder: int | None = None
) -> tuple[tuple[int, int, int], ...]:
    """The same of several files, whose paths may be relative to an open `folder`."""
    # Asked of each record of each stage: one call for all of them, and none of a Path.
    found = [os.stat(path, dir_fd=folder) for path in paths]
    return tuple([(facts.st_ino, facts.st_size, facts.st_ctime_ns) for facts in found])


def make_private(folder: Path) -> None:
    """Make a folder where there is none, and what is missing above it, for its owner alone."""
    if not folder.exists():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def is_inside(name: str) -> bool:
    """Whether a file's name stays below the folder that it is relative to."""
    parts = set(name.split("/")) - {"", "."}
    odd = "\0" in name or "\\" in name or name.startswith("/") or name.endswith("/")
    return bool(parts) and not odd and ".." not in parts


def open_file(path: Path) -> BufferedReader:
    """A file to read. IsADirectoryError for what has no end or is not there in truth.

    A folder, a pipe, which would be waited for, a device, a link to itself.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise
        raise IsADirectoryError(errno.EISDIR, "is no file", str(path)) from None
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return os.fdopen(opened, "rb")
    os.close(opened)
    raise IsADirectoryError(errno.EISDIR, "is no file", str(path))


class LocalObjects:
    """A folder on a disk that all writers share."""

    def __init__(self, root: Path):
        self.root = str(root)
        self.local = root

    def read(self, key: str) -> bytes:
        """See `Objects`."""
        with open_file(self.local / key) as file:
            return file.read()

    def read_each(self, keys: Collection[str]) -> dict[str, bytes | OSError]:
        """See `Objects`."""
        found: dict[str, bytes | OSError] = {}
        for key in keys:
            try:
                found[key] = self.read(key)
            except OSError as error:
                found[key] = error
        return found

    def version(self, key: str) -> Hashable:
        """See `Objects`."""
        try:
            return file_version(self.local / key)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: str, data: bytes, *, durable: bool = False) -> None:
        """See `Objects`."""
        self._put(key, data, durable, _replace)

    def create(
        self, key: str, data: bytes, *, durable: bool = False, after: Sequence[Path] = ()
    ) -> bool:
        """See `Objects`."""
        # A hard link appears at once, whole, and fails if the name is taken.
        try:
            self._put(key, data, durable, _link, after)
        except FileExistsError:
            return False
        return True

    def _put(
        self,
        key: str,
        data: bytes,
        durable: bool,
        place: Callable[[Path, Path], None],
        after: Sequence[Path] = (),
    ) -> None:
        target = self.local / key
        names = key.split("/")[:-1]
        inside = [self.local.joinpath(*names[:depth]) for depth in range(len(names) + 1)]
        temporary = target.with_name(f".{target.name[:64]}.{uuid.uuid4().hex[:12]}")
        with told_when_refused(self.root):
            for _ in range(PUT_TRIES):
                # While others remove the folder it may vanish at any point; then once more.
                with contextlib.suppress(FileNotFoundError):
                    if not self._make_folder(target.parent):
                        continue
                    try:
                        temporary.write_bytes(data)
                        if durable:  # names are in their folders, which are in theirs
                            flush_all([*after, temporary, *inside[:-1]])
                        place(temporary, target)
                        if durable:
                            flush(target.parent)
                        return
                    finally:
                        with contextlib.suppress(FileNotFoundError):
                            temporary.unlink()
            raise NotADirectoryError(errno.ENOTDIR, "it cannot be made a folder", target.parent)

    def _make_folder(self, folder: Path) -> bool:
        """Whether it is there now; not if others remove it meanwhile, or a file is in the way."""
        make_private(self.local)  # what is in it needs no more
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def exists(self, key: str) -> bool:
        """See `Objects`."""
        return (self.local / key).exists()

    def children(self, folder: str, *, hidden: bool = False) -> list[str]:
        """See `Objects`."""
        try:
            with os.scandir(self.local / folder) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if hidden or not name.startswith("."))

    def files(self, folder: str) -> dict[str, float]:
        """See `Objects`."""
        found: dict[str, float] = {}
        for at, folders, names in os.walk(self.local / folder):
            own = Path(at)
            for name in (*names, *folders):
                path = own / name
                kept = path.is_file() and not path.is_symlink()
                with contextlib.suppress(FileNotFoundError):  # others remove things meanwhile
                    if name in names or path.is_symlink() or not any(path.iterdir()):
                        key = path.relative_to(self.local).as_posix()
                        found[key if kept else f"{key}/"] = path.lstat().st_mtime
        return found

    def size_bytes(self, folder: str) -> int:
        """See `Objects`."""
        size, path = 0, self.local / folder
        for one in (path, *path.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # others remove things meanwhile
                size += one.lstat().st_size if one.is_symlink() or one.is_file() else 0
        return size

    def remove(self, folder: str) -> None:
        """See `Objects`."""
        path = self.local / folder
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            # Meanwhile others remove it, or make a folder of that name.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()

    def move(self, folder: str, to: str) -> None:
        """See `Objects`."""
        with told_when_refused(self.root):
            self._make_folder((self.local / to).parent)
            (self.local / folder).replace(self.local / to)

    def staging(self, folder: str) -> Path:
        """See `Objects`."""
        path = self.local / folder
        with told_when_refused(self.root):
            make_private(self.local)
            path.mkdir(parents=True, exist_ok=True)
        return path

    def upload(self, folder: str) -> None:
        """Nothing to do: it was filled in place."""

    def fetch(self, folder: str, names: Iterable[str], *, again: bool = False) -> Path:
        """See `Objects`."""
        path = self.local / folder
        for name in names:
            parts = [path.joinpath(*Path(name).parts[:n]) for n in range(len(Path(name).parts) + 1)]
            if not is_inside(name) or any(map(os.path.islink, parts)):
                raise UserError(f"{path}: {name!r} leads out of the folder")
        return path


class RemoteObjects:
    """An fsspec file system whose `pipe_file(mode="create")` is put-if-absent (s3, gcs, memory)."""

    def __init__(self, url: str):
        try:
            self._files, base = remote_files(url, use_listings_cache=False)
        except UserError as error:
            raise UserError(f"cannot open the store {error.message}") from None
        self.root = url.rstrip("/")
        self.base = base.rstrip("/")
        self.local = local_cache(self.root)

    def _at(self, key: str) -> str:
        return f"{self.base}/{key}"

    @contextlib.contextmanager
    def _asked(self, key: str) -> Generator[str]:
        """Yields where a key is; whatever the client raises about it becomes a `StorageError`."""
        try:
            yield self._at(key)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            raise StorageError(f"{self.root}/{key}", error) from error

    def read(self, key: str) -> bytes:
        """See `Objects`."""
        with self._asked(key) as place:
            return self._files.cat_file(place)

    def read_each(self, keys: Collection[str]) -> dict[str, bytes | OSError]:
        """See `Objects`; many at the same time, where the client can."""
        places = {key: self._at(key) for key in keys}
        if not places:
            return {}
        # Signs of a pattern in the store's own name are none.
        asked = [glob.escape(place) for place in places.values()]
        try:
            answers = self._files.cat(asked, on_error="return")
        except FileNotFoundError:  # of all of them
            answers = {}
        except Exception as error:
            raise StorageError(self.root, error) from error
        found: dict[str, bytes | OSError] = {}
        for key, place in places.items():
            answer = answers.get(place, FileNotFoundError(errno.ENOENT, "is not there", key))
            if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                raise StorageError(f"{self.root}/{key}", answer) from answer
            found[key] = answer
        return found

    def version(self, key: str) -> Hashable:
        """See `Objects`."""
        with self._asked(key) as place:
            try:
                facts: dict[str, Any] = self._files.info(place)
            except FileNotFoundError:
                return None
        return str(sorted(facts.items(), key=lambda fact: fact[0]))

    def write(self, key: str, data: bytes, *, durable: bool = False) -> None:
        """See `Objects`; an object store is durable anyway."""
        with self._asked(key) as place:
            self._files.pipe_file(place, data)

    def create(
        self, key: str, data: bytes, *, durable: bool = False, after: Sequence[Path] = ()
    ) -> bool:
        """See `Objects`; what comes before it was uploaded."""
        for number in range(1, BUSY_TRIES + 1):
            try:
                with self._asked(key) as place:
                    self._files.pipe_file(place, data, mode="create")
                return True
            # "Exists already" may be about our own first try, whose answer was lost; any other
            # error may have come after the put.
            except OSError as error:
                try:
                    return self.read(key) == data
                except FileNotFoundError:
                    if number == BUSY_TRIES or error.errno != errno.EBUSY:
                        raise error from None
                time.sleep(0.1 * 2**number)
        raise AssertionError

    def exists(self, key: str) -> bool:
        """See `Objects`."""
        with self._asked(key) as place:
            return self._files.exists(place)

    def children(self, folder: str, *, hidden: bool = False) -> list[str]:
        """See `Objects`."""
        with self._asked(folder) as place:
            try:
                entries: list[Any] = self._files.ls(place, detail=False)
            except FileNotFoundError:
                return []
        below = [str(entry).rstrip("/").removeprefix(place.rstrip("/")) for entry in entries]
        names = {name.strip("/") for name in below}  # a folder's own mark is ""
        return sorted(name for name in names if name and (hidden or not name.startswith(".")))

    def files(self, folder: str) -> dict[str, float]:
        """See `Objects`."""
        with self._asked(folder) as place:
            found: dict[str, Any] = self._files.find(place, detail=True)
        return {
            str(key).removeprefix(self.base).removeprefix("/"): _written(entry)
            for key, entry in found.items()
        }

    def size_bytes(self, folder: str) -> int:
        """See `Objects`."""
        with self._asked(folder) as place:
            found: dict[str, Any] = self._files.find(place, detail=True)
        return sum(int(entry.get("size") or 0) for entry in found.values())

    def remove(self, folder: str) -> None:
        """See `Objects`."""
        with self._asked(folder) as place, contextlib.suppress(FileNotFoundError):
            self._files.rm(place, recursive=True)
        shutil.rmtree(self.local / folder, ignore_errors=True)

    def move(self, folder: str, to: str) -> None:
        """See `Objects`."""
        for key in self.files(folder):
            self.write(to + key.removeprefix(folder), self.read(key))
        self.remove(folder)

    def staging(self, folder: str) -> Path:
        """See `Objects`."""
        path = self.local / folder
        with told_when_refused(str(self.local)):
            make_private(self.local)
            path.mkdir(parents=True, exist_ok=True)
        return path

    def upload(self, folder: str) -> None:
        """See `Objects`."""
        source = self.local / folder
        for path in sorted(source.rglob("*")):
            if path.is_file():
                with self._asked(f"{folder}/{path.relative_to(source).as_posix()}") as place:
                    self._files.pipe_file(place, path.read_bytes())

    def fetch(self, folder: str, names: Iterable[str], *, again: bool = False) -> Path:
        """See `Objects`."""
        target = self.local / folder
        with told_when_refused(str(self.local)):
            make_private(self.local)
            for name in names:
                path = target / name
                if not is_inside(name):
                    raise UserError(f"{self.root}/{folder}: {name!r} leads out of the folder")
                if again or not path.is_file():
                    with contextlib.suppress(FileNotFoundError):
                        data = self.read(f"{folder}/{name}")
                        path.parent.mkdir(parents=True, exist_ok=True)
                        partial = path.with_name(f".{path.name[:64]}.{uuid.uuid4().hex[:12]}")
                        partial.write_bytes(data)
                        partial.replace(path)
        return target


def _replace(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except IsADirectoryError:  # which nobody of ours made
        target.rmdir()
        temporary.replace(target)


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except OSError as error:
        # On a network disk the answer to a link that was made may be lost; the second try then
        # finds it there.
        if temporary.stat().st_nlink > 1:
            return
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV):
            raise UserError(
                f"the file system of {target.parent} has no hard links ({error.strerror}), which "
                "a store needs; choose another --store"
            ) from error
        raise


def _written(entry: dict[str, Any]) -> float:
    """When an object was written, by whatever name; now, where nothing says so."""
    for name in ("LastModified", "mtime", "updated", "created", "last_modified"):
        when = entry.get(name)
        if hasattr(when, "timestamp"):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return time.time()


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network disks cannot for folders
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def flush_all(paths: Sequence[Path]) -> None:
    """`flush` each of some files and folders, all at once: a disk writes them together."""
    if len(paths) < 2:
        for path in paths:
            flush(path)
        return
    for _ in _flushing().map(flush, paths):
        pass


@functools.cache
def _flushing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(FLUSHED_AT_ONCE, thread_name_prefix="flush")


os.register_at_fork(after_in_child=_flushing.cache_clear)  # threads stay behind


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


_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)


@contextlib.contextmanager
def told_when_refused(place: str) -> Generator[None]:
    """One line for a full disk, or one that may not be written; what is finished is in place."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise UserError(
                f"no space left on the disk of {place}; nothing finished is lost"
            ) from error
        if error.errno in _REFUSED:
            raise UserError(f"cannot write to the store {place}: {error.strerror}") from error
        raise
