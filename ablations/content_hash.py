"""What files hold, as one hash: never their path, their time or their order on the disk.

A large file is read once on this machine: what it held is kept by path, size and time of change in
the user's cache folder, so that the second plan of a study over many gigabytes takes no minutes.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from ablations import user_cache

_TABLE = ("content_hashes", "path text primary key, size integer, changed integer, sha256 text")
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
    with user_cache.table(*_TABLE) as table:
        if table is not None:
            known = table.execute(
                "select sha256 from content_hashes where path = ? and size = ? and changed = ?",
                (name, size, changed),
            ).fetchone()
    if known is not None:
        return known[0]
    found = _read(path)
    if time.time() - changed / 1e9 > _SETTLED_SECONDS:
        with user_cache.table(*_TABLE) as table:
            if table is not None:
                table.execute(
                    "insert or replace into content_hashes values (?, ?, ?, ?)",
                    (name, size, changed, found),
                )
    return found


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
