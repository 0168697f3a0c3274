"""Pre-training of an image encoder, before it meets a language model (MM1 §3.1)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from mm1_jax.config.data import DataConfig, MixtureConfig
from mm1_jax.config.encoder import EncoderConfig, VisionTransformerConfig
from mm1_jax.config.schema import Config
from mm1_jax.config.training import OptimizerConfig, SeedsConfig, TrainingConfig


class ClipObjective(Config):
    """Softmax over the images and over the captions of the whole batch (Radford et al., 2021)."""

    kind: Literal["clip"] = "clip"


class SigLipObjective(Config):
    """A sigmoid for every pair of an image and a caption (Zhai et al., 2023)."""

    kind: Literal["siglip"] = "siglip"


class AimObjective(Config):
    """The next patch's normalised pixels, in raster order (El-Nouby et al., 2024)."""

    kind: Literal["aim"] = "aim"


Objective = Annotated[ClipObjective | SigLipObjective | AimObjective, Field(discriminator="kind")]


class EncoderPretrainingConfig(Config):
    """The objective, the images and captions, and the optimisation."""

    objective: Objective = ClipObjective()
    vocabulary: int = Field(1024, ge=300, description="of the captions' tokenizer")
    text_tokens: PositiveInt = Field(24, description="longest caption, in tokens")
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig(peak_lr=1e-3)


class EncoderStageConfig(EncoderPretrainingConfig):
    """All that decides a pre-trained encoder, but the seed."""

    encoder: EncoderConfig = VisionTransformerConfig()
    seeds: SeedsConfig = SeedsConfig()

    @property
    def data(self) -> DataConfig:
        """The prepared data that is read: drawings and their captions."""
        return DataConfig(
            mixture=MixtureConfig(emoji_captions=1.0),
            text_tokens=self.text_tokens,
            vocabulary=self.vocabulary,
        )
