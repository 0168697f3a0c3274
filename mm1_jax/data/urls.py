"""Files on this machine or behind any fsspec URL: which ones are meant, and reading them.

What fails for a while is tried again with growing waits, from the byte that was reached; what
fails for good is one line that names the URL.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

import aiohttp
import fsspec
import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from mm1_jax.errors import MissingFileError, UserError

TRIES = 5
FIRST_WAIT_SECONDS = 0.5  # doubled after every try: 7.5 s in all
_CONNECT_SECONDS, _SILENCE_SECONDS = 30, 60
_CHUNK_BYTES = 1 << 20
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # protocol → extra of this package
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
# Answers of a server that may differ later: time-out, too many requests. So may all from 500 on.
_PASSING_STATUS = {408, 425, 429}

# What a decompressor says of bytes that are damaged or end early.
DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile)

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")
_Result = TypeVar("_Result")


def expand(urls: str | Sequence[str], suffixes: tuple[str, ...], what: str) -> list[str]:
    """The files that are meant, sorted and each once.

    A name may hold ranges (`shard-{00000..00099}.tar`), lists (`{train,val}.tar`) and globs
    (`*.tar`); a folder stands for its files that end in one of `suffixes`, at any depth. `what`
    they are is for the error.

    Raises:
        UserError: nothing is there, or a folder holds no such file; says what it holds.
    """
    found: dict[str, None] = {}
    for written in [urls] if isinstance(urls, str) else urls:
        for name in _without_braces(written):
            found.update(dict.fromkeys(_matches(name, suffixes, what)))
    if not found:
        raise UserError(f"no {what} is named")
    return sorted(found)


def _without_braces(name: str) -> list[str]:
    found = _BRACES.search(name)
    if not found:
        return [name]
    bounds = _RANGE.fullmatch(found[1])
    if bounds:
        first, last = bounds[1], bounds[2]
        step = 1 if int(first) <= int(last) else -1
        width = len(first) if first.startswith("0") or last.startswith("0") else 0
        numbers = range(int(first), int(last) + step, step)
        choices = [f"{number:0{width}d}" for number in numbers]
    else:
        choices = found[1].split(",")
    before, after = name[: found.start()], name[found.end() :]
    return [whole for choice in choices for whole in _without_braces(before + choice + after)]


def _matches(name: str, suffixes: tuple[str, ...], what: str) -> list[str]:
    files, path = file_system(name)
    if any(mark in path for mark in "*?["):
        # A query of a web address is no glob.
        if "?" not in path or not name.startswith(("http://", "https://")):
            matched = retried(name, lambda: files.glob(path))
            if not matched:
                raise UserError(f"{name}: no file matches; expected {what}")
            return [_url_of(found, name) for found in matched]
    elif name.endswith("/") or ("://" not in name and Path(path).is_dir()):
        below = retried(name, lambda: files.find(path))
        chosen = [found for found in below if found.endswith(suffixes)]
        if not chosen:
            endings = Counter("".join(Path(found).suffixes[-2:]) or "no suffix" for found in below)
            held = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
            raise UserError(
                f"{name}: expected {what} ({', '.join('*' + suffix for suffix in suffixes)}), "
                f"found {held or 'nothing'}"
            )
        return [_url_of(found, name) for found in chosen]
    return [name if "://" in name else path]


def _url_of(path: str, like: str) -> str:
    """A path that a file system listed, with the protocol of `like` if it has one."""
    protocol, separator, _ = like.partition("://")
    if not separator or path.startswith(protocol + separator):
        return path
    return protocol + separator + (path if protocol == "file" else path.lstrip("/"))


@cache
def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("http", "https"):
        return {}
    # No limit on the whole: a shard may take longer than any image.
    limit = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
    )
    return {"client_kwargs": {"timeout": limit}}


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """What reads and writes a URL or local path, and the path that it has there.

    Raises:
        UserError: nothing can; names the extra that brings it, if there is one.
    """
    protocol = url.partition("://")[0] if "://" in url else "file"
    try:
        files, path = fsspec.core.url_to_fs(url, **_options(protocol))
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        wanted = f'{protocol}:// needs `pip install "mm1[{extra}]"`' if extra else str(error)
        raise UserError(f"{url}: {wanted}") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    return files, path


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
    # What botocore says of a server that does not answer is no OSError.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    unanswered = not kinds.isdisjoint(("ConnectionError", "HTTPClientError"))
    return unanswered or isinstance(error, OSError | aiohttp.ClientError | EOFError)


def _opened_at(url: str, position: int) -> Any:
    files, path = file_system(url)
    if not url.startswith(("http://", "https://")):
        file = files.open(path, "rb")
        file.seek(position)
        return file
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
    return file


class _Stream(io.RawIOBase):
    """A file that is read from its beginning and opened again where reading failed."""

    def __init__(self, url: str, tries: int | None):
        super().__init__()
        self._url, self._tries = url, tries
        self._file: Any = None
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
                self._file = _opened_at(self._url, self._position)
            return self._file.read(count)
        except Exception:
            self._close_file()
            raise

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(Exception):
                self._file.close()
            self._file = None

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
    if url.endswith(".zip"):
        with local_copy(url, tries) as path, _unzipped(path, url) as member:
            yield cast(BinaryIO, member)
        return
    with io.BufferedReader(_Stream(url, tries), _CHUNK_BYTES) as stream:
        compression = _COMPRESSIONS.get(Path(url).suffix)
        if compression is None:
            yield stream
            return
        with pa.CompressedInputStream(pa.PythonFile(stream, "r"), compression) as decompressed:
            # Lines are asked for one by one; pyarrow's stream has no buffer of its own.
            yield io.BufferedReader(cast(io.RawIOBase, decompressed), _CHUNK_BYTES)


def _unzipped(path: Path, url: str) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(path)
        names = [name for name in archive.namelist() if not name.endswith("/")]
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
    if "file" in ([files.protocol] if isinstance(files.protocol, str) else files.protocol):
        if not Path(path).is_file():
            raise UserError(f"{url}: there is no such file")
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
