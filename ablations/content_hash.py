"""What files hold, as one hash: never their path, their time or their order on the disk.

A large file is read once on this machine: what it held is kept by path, size and time of change in
the user's cache folder, so that the second plan of a study over many gigabytes takes no minutes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

KEPT_BYTES = 2**22  # from this size on, looking a hash up is faster than reading the file
_SETTLED_SECONDS = 2.0  # a file that changed just now may change again within its time stamp


def content_hash(folder: Path, files: Sequence[Path]) -> str:
    """32 hexadecimal digits of the files' names below `folder` and their contents."""
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _hash(folder, stamps)


@functools.cache
def _hash(folder: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Kept while sizes and times stay."""
    digest = hashlib.sha256()
    for path, size, changed in stamps:
        digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        digest.update(bytes.fromhex(file_hash(path, size, changed)))
    return digest.hexdigest()[:32]


def file_hash(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; `changed` is its time in nanoseconds."""
    if size < KEPT_BYTES:
        return _read(path)
    name, known = str(path.resolve()), None
    with _kept() as table:
        if table is not None:
            known = table.execute(
                "select sha256 from files where path = ? and size = ? and changed = ?",
                (name, size, changed),
            ).fetchone()
    if known is not None:
        return known[0]
    found = _read(path)
    if time.time() - changed / 1e9 > _SETTLED_SECONDS:
        with _kept() as table:
            if table is not None:
                table.execute(
                    "insert or replace into files values (?, ?, ?, ?)", (name, size, changed, found)
                )
    return found


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _kept() -> Generator[sqlite3.Connection | None]:
    """The table of what large files held; None where there can be none, which is only slower."""
    import sqlite3

    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(cache) / "mm1" / "content_hashes.sqlite"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        table = sqlite3.connect(place, timeout=10)
        table.execute(
            "create table if not exists files "
            "(path text primary key, size integer, changed integer, sha256 text)"
        )
    except (OSError, RuntimeError, sqlite3.Error):
        yield None
        return
    try:
        with contextlib.suppress(sqlite3.Error):
            yield table
            table.commit()
    finally:
        table.close()
