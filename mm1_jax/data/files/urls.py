"""Files on this machine or behind any fsspec URL: which ones are meant, and reading them.

What exists is meant as it is written, whatever is in its name; patterns come second. What fails for
a while is tried again with growing waits, from the byte that was reached; what fails for good is
one line that names the URL.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import os
import re
import stat
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import quote

import aiohttp
import fsspec
import pyarrow as pa
from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from ablations.errors import MissingFileError, UserError
from ablations.places import (
    LOCAL_PROTOCOLS,
    local_path,
    remote_files,
    without_local_protocol,
)

TRIES = 5
FIRST_WAIT_SECONDS = 0.5  # doubled after every try: 7.5 s in all
_CONNECT_SECONDS, _SILENCE_SECONDS = 30, 60
_CHUNK_BYTES = 1 << 20
_WEB = ("http://", "https://")
COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
# Answers of a server that may differ later: time-out, too many requests. So may all from 500 on.
_PASSING_STATUS = {408, 425, 429}
# What a disk says of a path that no waiting makes better.
_LASTING = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV}

# What a decompressor says of bytes that are damaged or end early.
DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile)

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")
_PATTERN = re.compile(r"[*?\[{]")
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SHOWN_FOLDERS = 3
_SAMPLED = (16, 1 << 14)  # pieces of a file that tell it from others, bytes of each
_MOST_NAMES = 1_000_000  # that braces may stand for
_Result = TypeVar("_Result")


# -- what a name means ---------------------------------------------------------------------------


def is_url(name: str) -> bool:
    """Whether a name is an address, or a chain of them (`zip://a.jsonl::s3://…`), and no path."""
    if _PROTOCOL.match(name):
        return True
    first, chained, _ = name.partition("::")
    if not chained or first not in fsspec.available_protocols():
        return False
    return not os.path.lexists(name.partition("/")[0])


class _Links(NamedTuple):
    """A URL's link that holds the path, and what a chain has around it; a path is one link."""

    before: str
    link: str
    after: str

    def with_link(self, link: str) -> str:
        return f"{self.before}{link}{self.after}"


def _links(url: str) -> _Links:
    if "::" not in url or url.startswith((*_WEB, *LOCAL_PROTOCOLS)) or not is_url(url):
        return _Links("", url, "")
    links = url.split("::")
    place = next((n for n, link in enumerate(links) if "://" in link), len(links) - 1)
    before = "".join(f"{link}::" for link in links[:place])
    return _Links(before, links[place], "".join(f"::{link}" for link in links[place + 1 :]))


def without_query(url: str) -> str:
    """A web address up to its query, which may be a signature of the day; others as they are."""
    return re.split(r"[?#]", url, maxsplit=1)[0] if url.startswith(_WEB) else url


def file_name(url: str) -> str:
    """The last part of a path or URL, without a web address's query."""
    return without_query(_links(url).link).rpartition("/")[2]


def folder_of(url: str) -> str:
    """The folder that a file is in, of the same chain; "" if its path has none."""
    links = _links(url)
    folder, slash, _ = without_query(links.link).rpartition("/")
    if slash and folder.endswith(":/"):  # zip://a.jsonl: the archive's own top
        folder += "/"
    return links.with_link(folder) if folder or links.after else ""


def below(folder: str, path: str) -> str:
    """A relative path below a folder or URL: every sign of it is of a name."""
    if not folder:
        return path
    links = _links(folder)
    if links.link.startswith(_WEB):
        path = quote(path, safe="/~!$&'()*+,;=:@ ")
    top = links.link if links.link.endswith("://") else links.link.rstrip("/")
    return links.with_link(f"{top}{'' if top.endswith('/') else '/'}{path}")


def expand(urls: str | Sequence[str], suffixes: tuple[str, ...], what: str) -> list[str]:
    """The files that are meant, sorted and each once.

    A path that exists is that path, whatever is in its name. Elsewhere a name may hold ranges
    (`shard-{00000..00099}.tar`), lists (`{train,val}.tar`) and globs (`*.tar`). A folder stands for
    its files that end in one of `suffixes`, in any case and at any depth. Files and folders whose
    names begin with a dot are left out where they are not named. `what` they are is for the error.

    Raises:
        UserError: nothing is there, a glob matches folders, or a folder holds no such file; says
            what it holds.
    """
    found: dict[str, str] = {}
    for written in [urls] if isinstance(urls, str) else urls:
        for name in _meant(written, suffixes, what):
            found.setdefault(_place(name), name)
    if not found:
        raise UserError(f"no {what} is named")
    return sorted(found.values())


def _place(name: str) -> str:
    """The same for a file that is reached by several folders."""
    path = _local_path(name)
    if path is None:
        return name
    folder, _, last = path.rpartition("/")
    return f"{os.path.realpath(folder or '/')}/{last}"


def _meant(written: str, suffixes: tuple[str, ...], what: str) -> Iterator[str]:
    if not written:
        raise UserError(f"an empty name is no {what}")
    links = _links(written)
    if _BRACES.search(links.after) and not _exists(links.after.removeprefix("::")):
        for after in _without_braces(links.after):
            yield from _meant(f"{links.before}{links.link}{after}", suffixes, what)
        return
    literal = _as_written(written, suffixes, what)
    if literal is not None:
        yield from literal
        return
    top, rest = _existing_top(links)
    for chosen in _without_braces(rest):
        name = links.with_link(top + chosen)
        literal = _as_written(name, suffixes, what) if chosen != rest else None
        if literal is not None:
            yield from literal
        elif any(mark in chosen for mark in "*?["):
            yield from _matches(links, top, chosen, suffixes, what)
        else:
            yield absolute(name)


def absolute(name: str) -> str:
    """A path from the top of this machine; an address as it is."""
    return name if is_url(name) else file_system(name)[1]


def _exists(name: str) -> bool:
    files, path = file_system(name)
    return retried(name, lambda: files.exists(path))


def _as_written(name: str, suffixes: tuple[str, ...], what: str) -> list[str] | None:
    """The files of a name that is taken as it is; None if it is a pattern."""
    pattern = _PATTERN.search(_links(name).link + _links(name).after)
    if name.startswith(_WEB):
        if name.endswith("/"):
            return None if pattern else _in_folder(name, suffixes, what)
        if not pattern:
            return [name]
        if "?" in name and "{" not in name:  # a query of a web address is no glob
            return [name]
        return [name] if _exists(name) else None
    files, path = file_system(name)
    if _is_local(files):
        if Path(path).is_dir():
            return _in_folder(name, suffixes, what)
        if os.path.lexists(path) or not pattern:
            return [absolute(name)]
        return None
    # Of a shard that is named in full, nobody is asked whether it is a folder.
    if not pattern and file_name(name).lower().endswith(suffixes):
        return [name]
    if name.endswith("/") or retried(name, lambda: files.isdir(path)):
        return _in_folder(name, suffixes, what)
    return None if pattern and not _exists(name) else [name]


def _existing_top(links: _Links) -> tuple[str, str]:
    """A pattern's beginning that is taken as it is, up to a slash, and the rest."""
    protocol = _PROTOCOL.match(links.link)
    start = protocol.end() if protocol else 0
    pieces = links.link[start:].split("/")
    top = links.link[:start]
    for number, piece in enumerate(pieces[:-1]):
        name = links.with_link(top + piece)
        if _PATTERN.search(piece) and not is_folder(name):
            return top, "/".join(pieces[number:])
        top += f"{piece}/"
    return top, pieces[-1]


def is_folder(name: str) -> bool:
    """Whether there is a folder of that name, whatever is in it."""
    files, path = file_system(name)
    try:
        return retried(name, lambda: files.isdir(path))
    except UserError:
        if name.startswith(_WEB):  # a server need not list anything
            return False
        raise


def _without_braces(name: str) -> list[str]:
    names = [name]
    while _BRACES.search(names[0]):
        before, names = names, []
        for one in before:
            names += _without_first_braces(one)
            if len(names) > _MOST_NAMES:
                raise UserError(f"{name}: the braces stand for more than {_MOST_NAMES:,} names")
    return names


def _without_first_braces(name: str) -> list[str]:
    found = _BRACES.search(name)
    if not found:
        return [name]
    bounds = _RANGE.fullmatch(found[1])
    if bounds:
        first, last = bounds[1], bounds[2]
        if abs(int(first[:20]) - int(last[:20])) > _MOST_NAMES:
            raise UserError(f"{name}: the braces stand for more than {_MOST_NAMES:,} names")
        step = 1 if int(first) <= int(last) else -1
        width = len(first) if first.startswith("0") or last.startswith("0") else 0
        numbers = range(int(first), int(last) + step, step)
        choices = [f"{number:0{width}d}" for number in numbers]
    else:
        choices = found[1].split(",")
    return [name[: found.start()] + choice + name[found.end() :] for choice in choices]


def _matches(links: _Links, top: str, rest: str, suffixes: tuple[str, ...], what: str) -> list[str]:
    """The files below `top` that a glob means, by the names they have there."""
    name = links.with_link(top + rest)
    if name.startswith(_WEB):
        files, path = file_system(name)
        matched = dict.fromkeys(retried(name, lambda: files.glob(path)), False)
        top = ""
    else:
        # A bracket that is a sign of a name comes before one that is a choice of signs.
        matched = _found(links, top, rest.replace("[", "[[]")) or _found(links, top, rest)
    folders = sorted(found for found, is_folder in matched.items() if is_folder)
    if folders and not rest.endswith("**"):
        shown = ", ".join(folders[:_SHOWN_FOLDERS]) + (", …" if folders[_SHOWN_FOLDERS:] else "")
        raise UserError(
            f"{name}: matches {len(folders)} {'folder' if len(folders) == 1 else 'folders'} "
            f"({shown}), and a glob names files; nearest: "
            f"{links.with_link(top + rest.rstrip('/'))}/**/*{suffixes[0]}"
        )
    kept = [found for found, is_folder in matched.items() if not is_folder]
    if not kept:
        raise UserError(f"{name}: no file matches; expected {what}")
    return [absolute(links.with_link(top + found)) for found in kept]


def _found(links: _Links, top: str, pattern: str) -> dict[str, bool]:
    """Path below `top` → whether it is a folder."""
    name = links.with_link(top)
    files, path = file_system(name or ".")
    if _is_local(files):
        # Unlike Path's, it goes behind links and leaves hidden names out.
        names = glob.glob(pattern, root_dir=path, recursive="**" in pattern)  # noqa: PTH207
        return {n.rstrip("/"): (Path(path) / n).is_dir() for n in names if n}
    depth = None if "**" in pattern else pattern.count("/") + 1
    listed = retried(
        name, lambda: files.find(path, maxdepth=depth, withdirs=True, detail=True)
    ).items()
    matching = re.compile(glob_translate(pattern))
    found = {}
    for place, about in cast(Any, listed):
        under = place.removeprefix(path).strip("/")
        if matching.match(under) and ("/." in f"/{pattern}" or not _is_hidden(under)):
            found[under] = about["type"] == "directory"
    return found


def _is_hidden(path: str) -> bool:
    return "/." in f"/{path}"


def _in_folder(name: str, suffixes: tuple[str, ...], what: str) -> list[str]:
    files, path = file_system(name)
    if _is_local(files):
        paths = list(_walked(path))
    else:
        prefix = path.rstrip("/")
        paths = [
            p.removeprefix(prefix).lstrip("/") for p in retried(name, lambda: files.find(path))
        ]
    shown = [found for found in paths if not _is_hidden(found)]
    chosen = [found for found in shown if found.lower().endswith(suffixes)]
    if not chosen:
        endings = Counter("".join(PurePosixPath(p).suffixes[-2:]) or "no suffix" for p in shown)
        held = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
        hidden = len(paths) - len(shown)
        if hidden:
            held = f"{held or 'nothing'} and {hidden} whose names begin with a dot"
        raise UserError(
            f"{name}: expected {what} ({', '.join('*' + suffix for suffix in suffixes)}), "
            f"found {held or 'nothing'}"
        )
    if name.startswith(_WEB):  # what is listed are addresses, quoted already
        return [f"{name.rstrip('/')}/{found}" for found in chosen]
    return [below(absolute(name), found) for found in chosen]


def _walked(top: str) -> Iterator[str]:
    """Files at any depth, also behind links to folders, by their paths below `top`."""
    above = {Path(top): (Path(top).resolve(),)}  # folder → where it and those around it really are
    for walked, folders, names in os.walk(top, followlinks=True):
        folder = Path(walked)
        around = above.pop(folder)
        for inner in list(folders):
            real = (folder / inner).resolve()
            if real in around:  # a link back up
                folders.remove(inner)
            else:
                above[folder / inner] = (*around, real)
        yield from (str((folder / name).relative_to(top)) for name in names)


# -- file systems --------------------------------------------------------------------------------


@cache
def _web_options() -> dict[str, Any]:
    # No limit on the whole: a shard may take longer than any image.
    limit = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
    )
    return {"client_kwargs": {"timeout": limit}}


def _is_local(files: AbstractFileSystem) -> bool:
    return "file" in ([files.protocol] if isinstance(files.protocol, str) else files.protocol)


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """What reads and writes a URL or local path, and the path that it has there.

    Raises:
        UserError: nothing can; names the extra that brings it, if there is one.
    """
    local = _local_path(url)
    if local is not None:
        return fsspec.filesystem("file"), local
    protocol = url.partition("://")[0]
    if url.startswith(_WEB):  # never a chain: an address may hold two colons
        return fsspec.filesystem(protocol, **_web_options()), url
    links = [link.partition("://")[0] for link in url.split("::")]
    options = {link: _web_options() for link in links if f"{link}://" in _WEB}
    # A chain opens the archive that it names, which may have to be tried again.
    return retried(url, lambda: remote_files(url, **options))


def _local_path(url: str) -> str | None:
    """The absolute path that a name is of; None if it is an address."""
    path = without_local_protocol(url)
    return None if path == url and is_url(url) else str(local_path(path))


# What file systems call a content's name or time; the first that is there tells files apart.
_MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "crc32c",
    "Content-MD5",
    "Digest",
    "CRC",
    "mtime",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "updated",
    "modified",
    "created",
    "date_time",
)


def identity(url: str) -> tuple[int | None, str]:
    """Bytes of a file, and what changes with its content: time and sample, or a server's checksum.

    The time alone says little: copies and archives keep it, and links lead to files of one time.

    Raises:
        UserError: it is not there or cannot be asked for; names the URL.
    """
    files, path = file_system(url)
    if _is_local(files):

        def asked() -> tuple[int | None, str]:
            found = Path(path).stat()
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("it is no file")
            sample = _sample(Path(path), found.st_size)
            return found.st_size, f"mtime {found.st_mtime_ns} sample {sample}"

        return retried(url, asked)
    files.invalidate_cache()
    about = retried(url, lambda: files.info(path))
    mark = next((f"{name} {about[name]}" for name in _MARKS if about.get(name)), "")
    return about.get("size"), mark


def _sample(path: Path, size_bytes: int) -> str:
    """Checksum of pieces that are spread over a file; of a small one, of all of it."""
    pieces, longest = _SAMPLED
    step = max((size_bytes - longest) // (pieces - 1), longest)
    found = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(pieces):
            file.seek(number * step)
            found.update(file.read(longest))
    return found.hexdigest()[:16]


def retried(url: str, attempt: Callable[[], _Result], tries: int | None = None) -> _Result:
    """What `attempt` returns; after a failure that may pass, waits and tries again.

    Raises:
        MissingFileError: there is no such file.
        UserError: it failed for good, or `tries` (default `TRIES`) times; names `url`.
    """
    tries = tries or TRIES
    for number in range(1, tries + 1):
        try:
            return attempt()
        except UserError:
            raise
        except Exception as error:  # every protocol has its own
            told = str(error) or type(error).__name__
            if "bucket does not exist" in told:
                raise UserError(f"{url}: there is no such bucket") from None
            if isinstance(error, FileNotFoundError) or _status(error) == 404:
                raise MissingFileError(f"{url}: there is no such file") from None
            if not _may_pass(error):
                raise UserError(f"{url} cannot be read: {told}") from None
            if number == tries:
                raise UserError(f"{url} cannot be read after {tries} tries: {told}") from None
        time.sleep(FIRST_WAIT_SECONDS * 2 ** (number - 1))
    raise AssertionError("unreachable")


def _status(error: Exception) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _PASSING_STATUS
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError | ValueError):
        return False
    if isinstance(error, OSError) and error.errno in _LASTING:
        return False
    # What botocore says of a server that does not answer is no OSError.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    unanswered = not kinds.isdisjoint(("ConnectionError", "HTTPClientError"))
    return unanswered or isinstance(error, OSError | aiohttp.ClientError | EOFError)


def _opened_at(url: str, position: int) -> tuple[AbstractFileSystem, Any]:
    files, path = file_system(url)
    if not url.startswith(_WEB):
        # A pipe would be waited for, a device has no end.
        if _is_local(files) and not stat.S_ISREG(mode := Path(path).stat().st_mode):
            raise IsADirectoryError("a folder") if stat.S_ISDIR(mode) else ValueError("no file")
        file = files.open(path, "rb")
        file.seek(position)
        return files, file
    # One request for the whole, where fsspec would ask for the size and then block by block.
    headers = {"Accept-Encoding": "identity"}
    if position:
        headers["Range"] = f"bytes={position}-"
    file = files.open(path, "rb", block_size=0, size=1, headers=headers)
    left = position if position and cast(Any, file).r.status == 200 else 0
    while left:  # a server that knows no ranges begins anew
        skipped = file.read(min(left, _CHUNK_BYTES))
        if not skipped:
            raise EOFError(f"ends before byte {position}, which was reached before")
        left -= len(skipped)
    return files, file


class _Stream(io.RawIOBase):
    """A file that is read from its beginning and opened again where reading failed."""

    def __init__(self, url: str, tries: int | None):
        super().__init__()
        self._url, self._tries = url, tries
        self._file: Any = None
        self._files: Any = None  # an archive is closed with the file system that opened it
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = retried(self._url, lambda: self._read(len(buffer)), self._tries)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._files, self._file = _opened_at(self._url, self._position)
            return self._file.read(count)
        except Exception:
            self._close_file()
            raise

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(Exception):
                self._file.close()
            self._file = self._files = None

    def close(self) -> None:
        self._close_file()
        super().close()


@contextlib.contextmanager
def opened(url: str, tries: int | None = None) -> Generator[BinaryIO]:
    """A file to read from its beginning, decompressed if it ends in .gz, .bz2, .zst or .zip.

    Raises:
        UserError: it cannot be read, also later, while it is being read; names the URL.
        DAMAGED: later, if what is decompressed is damaged.
    """
    suffix = PurePosixPath(file_name(url)).suffix.lower()
    if suffix == ".zip":
        with local_copy(url, tries) as path, _unzipped(path, url) as member:
            yield cast(BinaryIO, member)
        return
    with io.BufferedReader(_Stream(url, tries), _CHUNK_BYTES) as stream:
        compression = COMPRESSIONS.get(suffix)
        if compression is None:
            yield stream
            return
        with pa.CompressedInputStream(pa.PythonFile(stream, "r"), compression) as decompressed:
            # Lines are asked for one by one; pyarrow's stream has no buffer of its own.
            yield io.BufferedReader(cast(io.RawIOBase, decompressed), _CHUNK_BYTES)


def _unzipped(path: Path, url: str) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(path)
        # What macOS adds for itself is none of the files.
        names = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX/") and not _is_hidden(name)
        ]
        if len(names) == 1:
            return archive.open(names[0])
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{url}: expected a zip archive, found none: {error}") from None
    raise UserError(f"{url}: expected one file in the archive, found {len(names)}")


@contextlib.contextmanager
def local_copy(url: str, tries: int | None = None) -> Generator[Path]:
    """A local file with the content of `url`, for formats that jump about; gone afterwards.

    A local file is itself.

    Raises:
        UserError: it cannot be read; names the URL.
    """
    files, path = file_system(url)
    if _is_local(files):
        if not Path(path).is_file():
            raise MissingFileError(f"{url}: there is no such file")
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="mm1-shard-") as folder:
        copy = Path(folder) / "shard"
        with _Stream(url, tries) as stream, copy.open("wb") as file:
            while chunk := stream.read(_CHUNK_BYTES):
                file.write(chunk)
        yield copy


def read_bytes(url: str, limit_bytes: int, tries: int | None = None) -> bytes:
    """A whole small file, such as an image: at most `limit_bytes` + 1 bytes of it.

    Raises:
        UserError: it cannot be read; names the URL.
    """
    with _Stream(url, tries) as stream:
        content = bytearray()
        while len(content) <= limit_bytes and (
            chunk := stream.read(min(_CHUNK_BYTES, limit_bytes + 1 - len(content)))
        ):
            content += chunk
    return bytes(content)
