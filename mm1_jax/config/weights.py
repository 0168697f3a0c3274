"""What decides a part that is read from a folder of weights instead of being trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablations.schema import NOT_IDENTITY, Config
from mm1_jax.config.bounds import Vocabulary
from mm1_jax.config.data import DataConfig


class WeightsStageConfig(Config):
    """A part of a model, and the content of the folder that holds it."""

    part: Literal["encoder", "language_model"]
    content: str = Field(description="hash of the folder's files")
    vocabulary: Vocabulary
    folder: str = Field(json_schema_extra=NOT_IDENTITY)

    @property
    def data(self) -> DataConfig:
        """What it is scored on."""
        return DataConfig(vocabulary=self.vocabulary)
