"""Pre-training of an image encoder, before it meets a language model (MM1 §3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ablations.schema import NOT_IDENTITY, Config
from mm1_jax.config.bounds import LARGEST, Count, Vocabulary, check_heads
from mm1_jax.config.data import (
    Channel,
    DataConfig,
    Kind,
    MixtureConfig,
    SourceConfig,
    SourceName,
    check_readable,
)
from mm1_jax.config.embedded_sources import DrawingsConfig, EmbeddedConfig, Style
from mm1_jax.config.encoder import EncoderConfig, FusedEncoderConfig, VisionTransformerConfig
from mm1_jax.config.language_model import DenseConfig
from mm1_jax.config.training import OptimizerConfig, SeedsConfig, TrainingConfig, check_warmup


class ContrastiveConfig(Config):
    """What CLIP and SigLIP share: a text tower, and how an image becomes one vector."""

    reads_captions: ClassVar[bool] = True
    text_tower: DenseConfig = DenseConfig()
    width: Count = Field(64, description="of the space where images and captions meet")
    pooling: Literal["attention", "mean"] = Field(
        "attention", description="of the patches: by one learned query, or their mean"
    )
    pooling_heads: Count = Field(1, description="of attention pooling")


class ClipObjective(ContrastiveConfig):
    """Softmax over the images and over the captions of the whole batch (Radford et al., 2021)."""

    kind: Literal["clip"] = "clip"
    temperature: float = Field(0.07, gt=0, description="first value; learned, never below 0.01")


class SigLipObjective(ContrastiveConfig):
    """A sigmoid for every pair of an image and a caption (Zhai et al., 2023)."""

    kind: Literal["siglip"] = "siglip"
    scale: float = Field(10.0, gt=0, description="first value; learned")
    bias: float = Field(-10.0, description="first value; learned")


class AimObjective(Config):
    """The next patch's normalised pixels, in raster order (El-Nouby et al., 2024)."""

    reads_captions: ClassVar[bool] = False
    kind: Literal["aim"] = "aim"
    head_width: Count = Field(256, description="hidden width of the MLP that gives pixels")


Objective = Annotated[ClipObjective | SigLipObjective | AimObjective, Field(discriminator="kind")]


class EncoderTrainingConfig(TrainingConfig):
    """As every training, but a step reads images and not packed sequences."""

    batch_size: Count = Field(128, description="images per step")


class EncoderOptimizerConfig(OptimizerConfig):
    """As every optimiser; the paper's law is about language models, so the rate is written."""

    peak_lr: float = Field(1e-3, gt=0)


class EncoderPretrainingConfig(Config):
    """The objective, the images and captions, and the optimisation."""

    objective: Objective = ClipObjective()
    mixture: MixtureConfig = Field(
        MixtureConfig(emoji_captions=1.0),
        description="shares of the images: emoji_captions, own sources of captions, and for aim "
        "also interleaved ones",
    )
    vocabulary: Vocabulary = Field(1024, description="of the captions' tokenizer")
    text_tokens: int = Field(
        36, ge=2, le=LARGEST, description="longest caption with its end, in tokens"
    )
    styles: tuple[Style, ...] = Field(
        ("twemoji",), min_length=1, description="of the drawings; as many in each, of the same"
    )
    shift: int = Field(
        0,
        ge=0,
        le=16_384,
        description="pixels by which each image is moved at random, at most; edges repeat",
    )
    training: EncoderTrainingConfig = EncoderTrainingConfig()
    optimizer: EncoderOptimizerConfig = EncoderOptimizerConfig()

    def check_sources(self, sources: Mapping[str, SourceConfig]) -> None:
        """Raise ValueError where the mixture names what the objective does not read.

        `sources` are one's own.
        """
        kinds: tuple[Kind, ...] = ("captions",)
        if not self.objective.reads_captions:
            kinds = ("captions", "interleaved")
        reader = f"objective {self.objective.kind}"
        check_readable(self.mixture, sources, "emoji_captions", kinds, reader)

    def check_encoder(self, encoder: EncoderConfig) -> None:
        """Raise ValueError where the objective cannot train this encoder."""
        objective = self.objective
        if isinstance(objective, ContrastiveConfig):
            if objective.pooling == "attention":
                check_heads("encoder", encoder.width, objective.pooling_heads)
            return
        if isinstance(encoder, FusedEncoderConfig):
            raise ValueError("objective aim trains one tower, not two; nearest: objective clip")
        if encoder.extra_tokens:
            raise ValueError(
                f"objective aim: the encoder has {encoder.extra_tokens} tokens beside its patches, "
                "which would hand later patches to earlier ones; nearest: class_token: false, "
                "registers: 0"
            )
        if encoder.patches < 2:
            raise ValueError("objective aim predicts the next patch and the encoder has only one")

    @model_validator(mode="after")
    def _possible(self) -> EncoderPretrainingConfig:
        check_warmup(self.optimizer, self.training)
        if self.training.micro_batches > 1 and isinstance(self.objective, ContrastiveConfig):
            raise ValueError(
                f"training.micro_batches {self.training.micro_batches}: objective "
                f"{self.objective.kind} compares all pairs of the whole batch; nearest possible: 1"
            )
        return self


class EncoderStageConfig(EncoderPretrainingConfig):
    """All that decides a pre-trained encoder, but the seed."""

    encoder: EncoderConfig = VisionTransformerConfig()
    tokenizer: str | None = Field(None, json_schema_extra=NOT_IDENTITY)
    special_tokens: tuple[str, ...] = ()
    sources: dict[SourceName, SourceConfig] = Field({}, description="own ones that are read")
    fit: Literal["squash", "crop", "pad"] = Field(
        "squash", description="how an image of one's own becomes square"
    )
    background: tuple[Channel, Channel, Channel] = Field(
        (255, 255, 255), description="RGB behind transparent pixels"
    )
    workers: int = Field(0, ge=0, le=1024, json_schema_extra=NOT_IDENTITY)
    seeds: SeedsConfig = SeedsConfig()

    @property
    def data(self) -> DataConfig:
        """The prepared data that is read: images and their captions."""
        return DataConfig(
            sources=self.sources,
            mixture=self.mixture,
            text_tokens=self.text_tokens,
            vocabulary=self.vocabulary,
            tokenizer=self.tokenizer,
            special_tokens=self.special_tokens,
            fit=self.fit,
            background=self.background,
            workers=self.workers,
            embedded=EmbeddedConfig(drawings=DrawingsConfig(styles=self.styles)),
        )

    @model_validator(mode="after")
    def _fits(self) -> EncoderStageConfig:
        self.check_sources(self.sources)
        self.check_encoder(self.encoder)
        self.encoder.check_mesh(self.training.mesh)
        if isinstance(self.objective, ContrastiveConfig):
            self.objective.text_tower.check_mesh(self.training.mesh, self.vocabulary)
        return self
