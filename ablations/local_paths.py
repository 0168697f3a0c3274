"""What a user's name of a place on this machine means."""

from __future__ import annotations

import os
from pathlib import Path


def local_path(name: str) -> Path:
    """The absolute path of a name: one that exists is that path, also where it begins with `~`."""
    if not os.path.lexists(name):
        name = os.path.expanduser(name)  # noqa: PTH111 - unlike Path's, leaves ~nobody as it is
    return Path(name).absolute()
