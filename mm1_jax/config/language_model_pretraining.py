"""Pre-training of the language model on text alone, before it sees images (MM1 §3.1)."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from mm1_jax.config.data import DataConfig, MixtureConfig
from mm1_jax.config.language_model import DenseConfig, LanguageModelConfig
from mm1_jax.config.schema import Config
from mm1_jax.config.training import OptimizerConfig, SeedsConfig, TrainingConfig, check_warmup


class LanguageModelOptimizerConfig(OptimizerConfig):
    """As every optimiser, but the rate is written; null takes the paper's law."""

    peak_lr: float | None = Field(2e-3, gt=0)


class LanguageModelPretrainingConfig(Config):
    """How much text, and the optimisation."""

    text_tokens: PositiveInt = Field(256, description="tokens per packed sequence")
    training: TrainingConfig = TrainingConfig()
    optimizer: LanguageModelOptimizerConfig = LanguageModelOptimizerConfig()

    @model_validator(mode="after")
    def _possible(self) -> LanguageModelPretrainingConfig:
        check_warmup(self.optimizer, self.training)
        return self


class LanguageModelStageConfig(LanguageModelPretrainingConfig):
    """All that decides a pre-trained language model, but the seed."""

    language_model: LanguageModelConfig = DenseConfig()
    vocabulary: PositiveInt = Field(1024, description="of the tokenizer")
    seeds: SeedsConfig = SeedsConfig()

    @property
    def data(self) -> DataConfig:
        """The prepared data that is read: the texts alone."""
        return DataConfig(
            mixture=MixtureConfig(text=1.0),
            text_tokens=self.text_tokens,
            images=1,
            vocabulary=self.vocabulary,
        )

    @model_validator(mode="after")
    def _fits(self) -> LanguageModelStageConfig:
        self.language_model.check_mesh(self.training.mesh, self.vocabulary)
        return self
