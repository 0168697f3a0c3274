"""Compiled programs that are kept on disk, so that the next process loads them."""

from __future__ import annotations

from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"


def cache_variables(folder: Path | str) -> dict[str, str]:
    """Environment variables that make a process keep all it compiles in `folder`.

    In force before JAX is imported, and of no effect after. Many processes may share a folder,
    which may be a URL.
    """
    return {
        FOLDER: str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
