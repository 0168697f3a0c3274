"""What a training run is: encoder → connector → language model, the data, and the optimisation.

Plain frozen pydantic models that import no JAX, so that planning is instant. What follows from
other values (patch grid, sequence length) is a property and is never written down twice.
Impossible combinations fail here, with the nearest possible value in the message.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator
from pydantic.config import JsonDict

# A field that may change how fast or how observably a stage runs, but never its results,
# carries this mark and stays outside the stage's identity.
NOT_IDENTITY: JsonDict = {"identity": False}


class Config(BaseModel):
    """Frozen; an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderConfig(Config):
    """Vision transformer from pixels to one vector per patch (Dosovitskiy et al., 2021)."""

    kind: Literal["vit"] = "vit"
    image_size: PositiveInt = Field(32, description="pixels per side of the square input")
    patch_size: PositiveInt = Field(8, description="pixels per side of a patch")
    width: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    mlp_ratio: float = Field(4.0, gt=0)

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches per image."""
        return self.grid**2

    @property
    def mlp_width(self) -> int:
        """Hidden width of each block's MLP."""
        return round(self.width * self.mlp_ratio)

    def parameters(self) -> int:
        """Weights: patch embedding, learned positions, blocks, final norm."""
        width, hidden = self.width, self.mlp_width
        attention = 4 * (width * width + width)
        mlp = 2 * width * hidden + hidden + width
        block = attention + mlp + 4 * width
        patch_embedding = 3 * self.patch_size**2 * width + width
        return patch_embedding + self.patches * width + self.layers * block + 2 * width

    @model_validator(mode="after")
    def _possible(self) -> EncoderConfig:
        if self.image_size % self.patch_size:
            nearest = max(1, round(self.image_size / self.patch_size)) * self.patch_size
            raise ValueError(
                f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}; "
                f"nearest possible image_size: {nearest}"
            )
        _check_heads("encoder", self.width, self.heads)
        return self


def _check_heads(part: str, width: int, heads: int) -> None:
    if width % heads:
        divisors = [h for h in range(1, width + 1) if width % h == 0]
        best = min(divisors, key=lambda h: (abs(h - heads), h))
        raise ValueError(
            f"{part} width {width} is not divisible by {heads} heads; nearest: {best} heads"
        )


def _squares_up_to(patches: int) -> list[int]:
    return [side * side for side in range(1, math.isqrt(patches) + 1)]


class AveragePoolingConfig(Config):
    """Adaptive average pooling to a √tokens × √tokens grid, then a linear projection (MM1 §3.2)."""

    kind: Literal["average_pooling"] = "average_pooling"
    tokens: PositiveInt = Field(4, description="image tokens given to the language model")

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return _squares_up_to(patches)

    def parameters(self, encoder: EncoderConfig, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        return encoder.width * outputs + outputs

    def flops(self, encoder: EncoderConfig, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; pooling is one matrix product."""
        pooling = 2.0 * self.tokens * encoder.patches * encoder.width
        return pooling + 2.0 * self.tokens * encoder.width * outputs


class AttentionPoolingConfig(Config):
    """`tokens` learned queries attend to the patches, then a linear projection (MM1 §3.2)."""

    kind: Literal["attention_pooling"] = "attention_pooling"
    tokens: PositiveInt = Field(4, description="image tokens given to the language model")
    heads: PositiveInt = 4

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return None

    def parameters(self, encoder: EncoderConfig, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        width = encoder.width
        attention = 4 * (width * width + width)
        return self.tokens * width + 4 * width + attention + width * outputs + outputs

    def flops(self, encoder: EncoderConfig, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; the queries are projected once per batch."""
        width, patches = encoder.width, encoder.patches
        projections = 4.0 * patches * width**2 + 2.0 * self.tokens * width**2
        return (
            projections + 4.0 * self.tokens * patches * width + 2.0 * self.tokens * width * outputs
        )


class CAbstractorConfig(Config):
    """ResNet blocks, adaptive average pooling, ResNet blocks, MLP (Honeybee, Cha et al., 2024)."""

    kind: Literal["c_abstractor"] = "c_abstractor"
    tokens: PositiveInt = Field(4, description="image tokens given to the language model")
    width: PositiveInt = 64
    depth: PositiveInt = Field(1, description="blocks before and after the pooling")

    def reachable_tokens(self, patches: int) -> list[int] | None:
        """Token counts this type can produce from `patches` patches; None means any."""
        return _squares_up_to(patches)

    def _blocks(self, encoder: EncoderConfig) -> list[tuple[int, int]]:
        """(input width, positions) of every block."""
        before = [(encoder.width, encoder.patches)]
        before += [(self.width, encoder.patches)] * (self.depth - 1)
        return before + [(self.width, self.tokens)] * self.depth

    def parameters(self, encoder: EncoderConfig, outputs: int) -> int:
        """Weights of the module; `outputs` is the language model's width."""
        total = encoder.patches * encoder.width  # positions
        for inputs, _ in self._blocks(encoder):
            squeezed = max(1, inputs // 4)
            total += inputs * self.width + 9 * self.width + self.width**2 + 6 * self.width
            total += 2 * self.width * squeezed + self.width + squeezed
            if inputs != self.width:
                total += inputs * self.width + 2 * self.width
        return total + self.width * outputs + outputs + outputs**2 + outputs

    def flops(self, encoder: EncoderConfig, outputs: int) -> float:
        """Forward FLOPs per image, multiply-add = 2; activations and norms are left out."""
        total = 2.0 * self.tokens * encoder.patches * self.width  # pooling
        for inputs, positions in self._blocks(encoder):
            shortcut = inputs * self.width if inputs != self.width else 0
            per_position = inputs * self.width + 9 * self.width + self.width**2 + shortcut
            total += 2.0 * positions * per_position
            total += 4.0 * self.width * max(1, inputs // 4)
        return total + 2.0 * self.tokens * (self.width * outputs + outputs**2)


ConnectorConfig = Annotated[
    AveragePoolingConfig | AttentionPoolingConfig | CAbstractorConfig,
    Field(discriminator="kind"),
]


class LanguageModelConfig(Config):
    """Decoder-only transformer: RMSNorm, RoPE, SwiGLU, grouped-query attention."""

    kind: Literal["dense"] = "dense"
    width: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    kv_heads: PositiveInt = 2
    mlp_width: PositiveInt = 192
    rope_theta: float = Field(10_000.0, gt=0)

    @property
    def attention_width(self) -> int:
        """Columns of queries, keys and values together."""
        return self.width // self.heads * (self.heads + 2 * self.kv_heads)

    def parameters(self) -> int:
        """Weights without the embedding: the N of the learning-rate law."""
        attention = self.width * self.attention_width + self.width**2
        block = attention + 3 * self.width * self.mlp_width + 2 * self.width
        return self.layers * block + self.width

    @model_validator(mode="after")
    def _possible(self) -> LanguageModelConfig:
        _check_heads("language model", self.width, self.heads)
        if self.width // self.heads % 2:
            raise ValueError(
                f"head width {self.width // self.heads} is odd; rotary positions need an even one"
            )
        if self.heads % self.kv_heads:
            divisors = [h for h in range(1, self.heads + 1) if self.heads % h == 0]
            best = min(divisors, key=lambda h: (abs(h - self.kv_heads), h))
            raise ValueError(
                f"{self.heads} heads cannot share {self.kv_heads} kv_heads; nearest: {best}"
            )
        return self


Channel = Annotated[int, Field(ge=0, le=255)]


class MixtureConfig(Config):
    """Relative sampling weights of the sources; normalised, so 45/45/10 equals 9/9/2.

    Each packed sequence holds documents of one source, drawn with these weights (MM1 §3.3).
    """

    easy_vqa: float = Field(0.0, ge=0)
    emoji_captions: float = Field(0.0, ge=0)
    interleaved: float = Field(0.0, ge=0)
    text: float = Field(0.0, ge=0)

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

    @model_validator(mode="after")
    def _possible(self) -> DataConfig:
        if (self.packing == "total") != (self.total_tokens is not None):
            raise ValueError("total_tokens goes with packing: total, and only with it")
        return self


class OptimizerConfig(Config):
    """AdamW with linear warm-up, cosine decay and clipping (MM1 §3, appendix).

    `peak_lr: null` takes the paper's law, exp(-0.4214 ln N - 0.5535), with N the language model's
    non-embedding parameters. `weight_decay` λ: each step multiplies decayed weights by 1 - λ·lr.
    """

    peak_lr: float | None = Field(None, gt=0)
    warmup_steps: int = Field(50, ge=0)
    final_lr_share: float = Field(0.1, ge=0, le=1, description="last rate as a share of the peak")
    weight_decay: float = Field(0.1, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)


Part = Literal["encoder", "connector", "language_model"]


class TrainingConfig(Config):
    """How long, how much at once, and on what form of the program."""

    steps: int = Field(500, gt=0, le=10**9)
    batch_size: PositiveInt = Field(8, description="packed sequences per step")
    freeze: tuple[Part, ...] = Field((), description="parts that keep their first weights")
    loss_mean: Literal["tokens", "sequences"] = Field(
        "tokens",
        description="tokens: every text token counts alike; sequences: every packed sequence does, "
        "so that a source's share of the loss is its share of the mixture",
    )
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    log_every: PositiveInt = Field(25, json_schema_extra=NOT_IDENTITY)
    checkpoint_every: PositiveInt = Field(250, json_schema_extra=NOT_IDENTITY)
    layers: Literal["auto", "unrolled", "scanned"] = Field(
        "auto",
        json_schema_extra=NOT_IDENTITY,
        description="auto: unrolled on CPU, scanned with rematerialisation on accelerators",
    )

    @field_validator("freeze")
    @classmethod
    def _sorted(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(sorted(set(parts)))


class SeedsConfig(Config):
    """Where each kind of randomness comes from; null is the trial's seed.

    `initialisation_salt` gives null (A/A) arms other first weights on the same data order.
    """

    initialisation: int | None = None
    data_order: int | None = None
    initialisation_salt: int = 0


class TrainConfig(Config):
    """Everything that decides a trained checkpoint, but the seed."""

    encoder: EncoderConfig = EncoderConfig()
    connector: ConnectorConfig = AveragePoolingConfig()
    language_model: LanguageModelConfig = LanguageModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    seeds: SeedsConfig = SeedsConfig()

    @property
    def sequence_length(self) -> int:
        """Text tokens plus image tokens of one packed sequence."""
        if self.data.total_tokens is not None:
            return self.data.total_tokens
        return self.data.text_tokens + self.data.images * self.connector.tokens

    @model_validator(mode="after")
    def _possible(self) -> TrainConfig:
        reachable = self.connector.reachable_tokens(self.encoder.patches)
        if reachable is not None and self.connector.tokens not in reachable:
            best = min(reachable, key=lambda n: (abs(n - self.connector.tokens), n))
            raise ValueError(
                f"connector {self.connector.kind} cannot give {self.connector.tokens} tokens "
                f"from {self.encoder.patches} patches ({self.encoder.image_size} px, patch "
                f"{self.encoder.patch_size}); nearest reachable: {best}"
            )
        heads = getattr(self.connector, "heads", None)
        if heads is not None:
            _check_heads("connector", self.encoder.width, heads)
        if self.optimizer.warmup_steps > self.training.steps:
            raise ValueError(
                f"warmup_steps {self.optimizer.warmup_steps} exceed the {self.training.steps} "
                f"training steps; nearest possible: {self.training.steps}"
            )
        return self
