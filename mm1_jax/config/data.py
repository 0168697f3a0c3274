"""Which documents are trained on, and how they are packed."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from mm1_jax.config.schema import Config

Language = Literal[
    "ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh"
]
Style = Literal["twemoji", "openmoji"]
# Sources that are prepared only where a setting asks for them, and a value to begin with.
NEEDS = {
    "language_documents": "languages",
    "single_answers": "languages",
    "binding_documents": "binding_ways",
}
NEAREST = {"languages": "[de, en, es, fr]", "binding_ways": "[2]"}
Channel = Annotated[int, Field(ge=0, le=255)]


class MixtureConfig(Config):
    """Relative sampling weights of the sources; normalised, so 45/45/10 equals 9/9/2.

    Each packed sequence holds documents of one source, drawn with these weights (MM1 §3.3).
    """

    easy_vqa: float = Field(0.0, ge=0)
    emoji_captions: float = Field(0.0, ge=0)
    interleaved: float = Field(0.0, ge=0)
    text: float = Field(0.0, ge=0)
    captions: float = Field(0.0, ge=0)
    language_documents: float = Field(0.0, ge=0)
    single_answers: float = Field(0.0, ge=0)
    binding_documents: float = Field(0.0, ge=0)

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
    images: PositiveInt = Field(8, description="image slots per sequence")
    total_tokens: PositiveInt | None = Field(None, description="only with packing: total")
    vocabulary: int = Field(1024, ge=300, description="size of the byte-level BPE vocabulary")
    background: tuple[Channel, Channel, Channel] = Field(
        (255, 255, 255), description="RGB behind transparent pixels"
    )
    styles: tuple[Style, ...] = Field(
        ("twemoji",), description="in which the same concepts are drawn; twemoji is always one"
    )
    languages: tuple[Language, ...] = Field(
        (), description="of the names in documents whose examples say what is asked"
    )

    binding_ways: tuple[Annotated[int, Field(ge=2, le=8)], ...] = Field(
        (), description="how many made-up names documents bind to drawings"
    )
    rich_captions: float = Field(
        0.0, ge=0, le=1, description="share of the source captions that is rewritten to sentences"
    )

    @model_validator(mode="after")
    def _possible(self) -> DataConfig:
        for source, setting in NEEDS.items():
            if getattr(self.mixture, source) and not getattr(self, setting):
                raise ValueError(
                    f"mixture.{source} is above 0 and data.{setting} is empty; nearest possible: "
                    f"{setting}: {NEAREST[setting]}"
                )
        if (self.packing == "total") != (self.total_tokens is not None):
            raise ValueError("total_tokens goes with packing: total, and only with it")
        return self
