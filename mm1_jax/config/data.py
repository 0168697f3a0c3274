"""Which documents are trained on, and how they are packed."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from mm1_jax.config.schema import NOT_IDENTITY, Config, assumed

Channel = Annotated[int, Field(ge=0, le=255)]


class MixtureConfig(Config):
    """Relative sampling weights of the sources; normalised, so 45/45/10 equals 9/9/2.

    Each packed sequence holds documents of one source, drawn with these weights (MM1 §3.3).
    """

    easy_vqa: float = Field(0.0, ge=0)
    emoji_captions: float = Field(0.0, ge=0)
    interleaved: float = Field(0.0, ge=0)
    text: float = Field(0.0, ge=0)
    easy_vqa_chat: float = Field(0.0, ge=0)
    emoji_chat: float = Field(0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if not all(isinstance(v, int | float) for v in values.values()):
            return values  # the fields' own checks say which is no number
        total = math.fsum(v for v in values.values() if v > 0)
        if total <= 0:
            raise ValueError("the mixture needs at least one source with a weight above 0")
        if abs(total - 1) < 1e-9:
            total = 1.0  # normalised before: normalising again must change no bit
        # Rounded so that equal ratios give equal bits, hence equal identities.
        return {k: round(v / total, 12) for k, v in values.items()}

    @property
    def weights(self) -> dict[str, float]:
        """Source → share, without the sources of weight 0."""
        return {name: w for name, w in self.model_dump().items() if w > 0}


class NoSubImagesConfig(Config):
    """Each image is seen once, whole."""

    kind: Literal["none"] = "none"

    @property
    def views(self) -> int:
        """Of one image."""
        return 1


class GridConfig(Config):
    """An overview and `side` × `side` crops, each at the encoder's size (SPHINX; MM1 §7)."""

    kind: Literal["grid"] = "grid"
    side: int = Field(2, ge=2, description="crops per side; MM1: 2")

    @property
    def views(self) -> int:
        """Of one image."""
        return 1 + self.side**2


class AnyResolutionConfig(Config):
    """An overview and the crops of that grid which suits the image's aspect (LLaVA-NeXT)."""

    kind: Literal["anyres"] = "anyres"
    grids: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)), min_length=1, description="[rows, columns]"
    )

    @property
    def views(self) -> int:
        """Of the image that has most."""
        return 1 + max(rows * columns for rows, columns in self.grids)


SubImagesConfig = Annotated[
    NoSubImagesConfig | GridConfig | AnyResolutionConfig,
    Field(discriminator="kind"),
    assumed("none"),
]


class DataConfig(Config):
    """Which documents, and how they are packed into sequences.

    `packing: budgets` fills `text_tokens` and `images` per sequence, so that arms with another
    number of tokens per image see the same documents in the same order; the sequence length
    follows. `packing: total` fills `total_tokens` as the paper does; the documents then depend on
    the arm.
    """

    mixture: MixtureConfig = MixtureConfig(easy_vqa=1.0)
    packing: Literal["budgets", "total"] = "budgets"
    text_tokens: PositiveInt = Field(128, description="text tokens per sequence")
    images: PositiveInt = Field(8, description="images per sequence")
    fit: Literal["squash", "crop", "pad"] = Field(
        "squash", description="how an image becomes square; pad: with the mean colour"
    )
    sub_images: SubImagesConfig = NoSubImagesConfig()
    total_tokens: PositiveInt | None = Field(None, description="only with packing: total")
    vocabulary: int = Field(1024, ge=300, description="token ids")
    tokenizer: str | None = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="a tokenizer.json or a SentencePiece model; null: byte-level BPE, learnt on "
        "the training texts",
    )
    special_tokens: tuple[str, ...] = Field(
        (), description="further ones of the vocabulary, that a template writes"
    )
    template: Literal["plain", "vicuna", "chatml"] = Field(
        "plain", description="words around the turns of a conversation"
    )
    background: tuple[Channel, Channel, Channel] = Field(
        (255, 255, 255), description="RGB behind transparent pixels"
    )

    @model_validator(mode="after")
    def _possible(self) -> DataConfig:
        if (self.packing == "total") != (self.total_tokens is not None):
            raise ValueError("total_tokens goes with packing: total, and only with it")
        return self
