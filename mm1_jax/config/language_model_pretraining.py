"""Pre-training of the language model on text alone, before it sees images (MM1 §3.1)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from ablations.schema import NOT_IDENTITY, Config
from mm1_jax.config.bounds import Count
from mm1_jax.config.data import (
    DataConfig,
    MixtureConfig,
    SourceConfig,
    SourceName,
    check_readable,
)
from mm1_jax.config.language_model import DenseConfig, LanguageModelConfig
from mm1_jax.config.training import OptimizerConfig, SeedsConfig, TrainingConfig, check_warmup


class LanguageModelOptimizerConfig(OptimizerConfig):
    """As every optimiser, but the rate is written; null takes the paper's law."""

    peak_lr: float | None = Field(2e-3, gt=0)


class LanguageModelPretrainingConfig(Config):
    """Which texts, how much of them, and the optimisation."""

    mixture: MixtureConfig = Field(
        MixtureConfig(text=1.0),
        description="shares of the packed sequences: text, and own sources of kind text",
    )
    text_tokens: Count = Field(256, description="tokens per packed sequence")
    training: TrainingConfig = TrainingConfig()
    optimizer: LanguageModelOptimizerConfig = LanguageModelOptimizerConfig()

    def check_sources(self, sources: Mapping[str, SourceConfig]) -> None:
        """Raise ValueError where the mixture names what is no text; `sources` are one's own."""
        check_readable(self.mixture, sources, "text", ("text",), "the language model")

    @model_validator(mode="after")
    def _possible(self) -> LanguageModelPretrainingConfig:
        check_warmup(self.optimizer, self.training)
        return self


class LanguageModelStageConfig(LanguageModelPretrainingConfig):
    """All that decides a pre-trained language model, but the seed."""

    language_model: LanguageModelConfig = DenseConfig()
    vocabulary: Count = Field(1024, description="of the tokenizer")
    tokenizer: str | None = Field(None, json_schema_extra=NOT_IDENTITY)
    special_tokens: tuple[str, ...] = ()
    sources: dict[SourceName, SourceConfig] = Field({}, description="own ones that are read")
    workers: int = Field(0, ge=0, le=1024, json_schema_extra=NOT_IDENTITY)
    seeds: SeedsConfig = SeedsConfig()

    @property
    def data(self) -> DataConfig:
        """The prepared data that is read: the texts alone."""
        return DataConfig(
            sources=self.sources,
            mixture=self.mixture,
            text_tokens=self.text_tokens,
            images=1,
            vocabulary=self.vocabulary,
            tokenizer=self.tokenizer,
            special_tokens=self.special_tokens,
            workers=self.workers,
        )

    @model_validator(mode="after")
    def _fits(self) -> LanguageModelStageConfig:
        self.check_sources(self.sources)
        self.language_model.check_mesh(self.training.mesh, self.vocabulary)
        return self
