"""What is drawn from the data packages stays what it was: results of years rest on it.

Rewrite on purpose with `UPDATE_GOLDEN=1 .venv/bin/pytest …/test_drawn_documents.py`, and say in the
changelog that trainings so far were on other documents.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mm1.studies import load_study
from mm1_jax.data.batches.pipeline import stream_of
from mm1_jax.data.sources.prepared_packages import open_prepared

GOLDEN = Path(__file__).with_name("drawn_documents.json")


def digest(parts: Iterable[object]) -> str:
    known = hashlib.sha256()
    for part in parts:
        known.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return known.hexdigest()[:16]


def check(found: dict[str, str]) -> None:
    stated = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if os.environ.get("UPDATE_GOLDEN"):
        stated |= found
        GOLDEN.write_text(json.dumps(stated, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert found == {name: stated.get(name) for name in found}


def test_the_documents_and_records_of_every_source(in_context_data):
    prepared = open_prepared(*in_context_data)
    found = {}
    for file in sorted((prepared.folder / "documents").iterdir()):
        table = prepared.documents(*file.stem.split("-"))
        arrays = (table.tokens, table.token_starts, table.images, table.image_at, table.given)
        found[f"documents/{file.stem}"] = digest([table.names, *arrays])
    for file in sorted((prepared.folder / "records").iterdir()):
        found[f"records/{file.stem}"] = digest(pq.read_table(file).to_pylist())
    index = pq.read_table(prepared.folder / "images.parquet")
    check({**found, "images": digest([index.to_pydict()])})


def test_the_first_sequences_of_the_demo(data_root):
    recipe = load_study(Path("ablations/studies/demo.yaml")).base
    stream = stream_of(recipe.train_config(), data_root, seed=1)
    packed = [stream[number] for number in range(3 * recipe.training.batch_size)]
    fields = [
        (one.source, one.tokens, one.segments, one.given, one.image_ids, one.image_at)
        for one in packed
    ]
    check({"demo": digest(part for sequence in fields for part in sequence)})
