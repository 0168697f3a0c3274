"""Read access to a prepared folder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ablations.errors import UserError
from ablations.timeline import doing
from mm1_jax.config.data import DataConfig
from mm1_jax.data import documents, tokenizer
from mm1_jax.data.batches.images import ImageTable, image_table
from mm1_jax.data.documents import DocumentTable
from mm1_jax.data.sources.fingerprint import data_fingerprint
from mm1_jax.data.tokenizer import Tokenizer


class PreparedData:
    """What `prepare` wrote, opened part by part when asked for."""

    def __init__(self, folder: Path):
        if not (folder / "manifest.json").is_file():
            raise UserError(f"no prepared data at {folder}; `mm1 data prepare` makes it")
        self.folder = folder

    @cached_property
    @doing("data")
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that wrote the documents' token ids."""
        return tokenizer.load(self.folder)

    @property
    @doing("data")
    def images(self) -> ImageTable:
        """The image table, shared within the process."""
        return image_table(self.folder)

    @doing("data")
    def documents(self, source: str, split: str) -> DocumentTable:
        """Tokenised documents of a source of the mixture."""
        return documents.read(self.folder / "documents" / f"{source}-{split}.parquet")

    def has_records(self, name: str, split: str) -> bool:
        """Whether the config asked preparation for these."""
        return (self.folder / "records" / f"{name}-{split}.parquet").is_file()

    @doing("data")
    def records(self, name: str, split: str) -> list[dict[str, Any]]:
        """Facts for evaluation, one dict per record."""
        return pq.read_table(self.folder / "records" / f"{name}-{split}.parquet").to_pylist()


def open_prepared(config: DataConfig, data_root: Path) -> PreparedData:
    """The prepared data that `config` reads. UserError if it has not been prepared."""
    return PreparedData(data_root / data_fingerprint(config))
