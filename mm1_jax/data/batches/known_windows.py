"""How many sequences the windows of each source came to, kept beside a training's checkpoints.

Where a sequence is follows from all windows before it, and packing those again takes half an hour
at the paper's size. The numbers decide no batch: without them, or with those of other data, they
are found anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ablations.source_code import canonical_source
from mm1_jax.config.data import DataConfig
from mm1_jax.data.batches import windows
from mm1_jax.data.batches.packing import Budget
from mm1_jax.data.own.manifest import data_identity

FILE = "windows.json"
# The modules of `mm1_jax.data` that decide what is in a window and in its sequences.
_CODE = ("draws", "own/own_source", "batches/packed_source", "batches/packing", "batches/windows")


def packing_key(data: DataConfig, budget: Budget, order: int) -> str:
    """Hash of all that decides how many sequences a window has; 32 hexadecimal digits."""
    folder = Path(__file__).parent.parent
    decides = {
        "data": data_identity(data),
        "rich_captions": data.embedded.captions.rich,
        "budget": asdict(budget),
        "order": order,
        "window_documents": windows.WINDOW_DOCUMENTS,
        "code": [
            canonical_source((folder / f"{name}.py").read_text(encoding="utf-8")) for name in _CODE
        ],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def read_known(folder: Path, key: str) -> dict[str, list[int]]:
    """Source → the number of each window's first sequence; nothing if that is not of `key`."""
    file = folder / FILE
    if not file.is_file():
        return {}
    stated = json.loads(file.read_text(encoding="utf-8"))
    return stated["first_sequences"] if stated["key"] == key else {}


def write_known(folder: Path, key: str, first_sequences: Mapping[str, Sequence[int]]) -> None:
    """Write what `read_known` reads; it appears at once or not at all."""
    unfinished = folder / f"{FILE}.unfinished"
    unfinished.write_text(
        json.dumps({"key": key, "first_sequences": first_sequences}), encoding="utf-8"
    )
    unfinished.rename(folder / FILE)
