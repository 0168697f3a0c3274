"""Random draws by name, so that adding a draw never shifts another."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The generator for what `names` say, such as (seed, source, epoch)."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32).tolist())
