"""Tables in the user's cache folder: what took time to find out, and may be found out again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


@contextlib.contextmanager
def table(name: str, columns: str) -> Generator[sqlite3.Connection | None]:
    """A connection with that table; None where there can be none, which is only slower.

    An error of the database ends the block without a word, and what it wrote is lost.
    """
    import sqlite3

    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(cache) / "mm1" / f"{name}.sqlite"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(place, timeout=10)
        connection.execute(f"create table if not exists {name} ({columns})")
    except (OSError, RuntimeError, sqlite3.Error):
        yield None
        return
    try:
        with contextlib.suppress(sqlite3.Error):
            yield connection
            connection.commit()
    finally:
        connection.close()
