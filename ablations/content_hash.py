"""What files hold, as one hash: never their path, their time or their order on the disk."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path


def content_hash(folder: Path, files: Sequence[Path]) -> str:
    """32 hexadecimal digits of the files' names below `folder` and their contents."""
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _hash(folder, stamps)


@functools.cache
def _hash(folder: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Kept while sizes and times stay."""
    digest = hashlib.sha256()
    for path, size, _ in stamps:
        digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
