"""Instruction tuning of the whole model after pre-training (MM1 §7)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ablations.schema import Config
from mm1_jax.config.bounds import Count, Side
from mm1_jax.config.data import MixtureConfig, NoSubImagesConfig, SubImagesConfig
from mm1_jax.config.training import OptimizerConfig, TrainingConfig, check_warmup


class InstructionTuningOptimizerConfig(OptimizerConfig):
    """As every optimiser; the defaults are MM1's: Adafactor, peak rate 1e-5, cosine."""

    kind: Literal["adamw", "adafactor"] = "adafactor"
    peak_lr: float | None = Field(1e-5, gt=0)


class InstructionTuningConfig(Config):
    """The stage `sft`: which conversations, how images are seen, and the optimisation.

    The loss is on answers only. Nothing is frozen unless `training.freeze` says so.
    """

    mixture: MixtureConfig = MixtureConfig(easy_vqa_chat=1.0)
    template: Literal["plain", "vicuna", "chatml"] = Field(
        "plain", description="words around the turns of a conversation"
    )
    text_tokens: Count = Field(128, description="text tokens per sequence")
    images: Count = Field(8, description="images per sequence")
    image_size: Side | None = Field(
        None, description="pixels per side; null: as before, else positions are interpolated"
    )
    sub_images: SubImagesConfig = NoSubImagesConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: InstructionTuningOptimizerConfig = InstructionTuningOptimizerConfig()

    @model_validator(mode="after")
    def _possible(self) -> InstructionTuningConfig:
        check_warmup(self.optimizer, self.training)
        return self
