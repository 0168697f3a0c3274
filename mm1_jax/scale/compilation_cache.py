"""Compiled programs that are kept on disk, so that the next process loads them."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"


def cache_variables(folder: Path) -> dict[str, str]:
    """Environment variables that make a process keep all it compiles in `folder`.

    Or in the one that JAX's own variable names already. In force before JAX is imported, and of no
    effect after. Many processes may share a folder.
    """
    return {
        FOLDER: os.environ.get(FOLDER) or str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
