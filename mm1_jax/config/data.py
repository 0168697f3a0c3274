"""Which documents are trained on, and how they are packed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from ablations.errors import nearest
from ablations.schema import NOT_IDENTITY, Config, assumed
from mm1_jax.config.bounds import Count, Vocabulary
from mm1_jax.config.embedded_sources import SOURCES, EmbeddedConfig, Kind, SourceWeights, Weight

Channel = Annotated[int, Field(ge=0, le=255)]
Tiles = Annotated[int, Field(gt=0, le=64)]
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Exhausted = Literal["repeat", "stop", "reweight"]


def _normalised(values: Any, what: str) -> Any:
    """Weights that add up to 1, rounded so that equal ratios give equal bits and identities.

    A key of weight 0 means what no key means.
    """
    if not isinstance(values, dict):
        return values
    if not all(isinstance(v, int | float) for v in values.values()):
        return values  # the fields' own checks say which is no number
    total = math.fsum(v for v in values.values() if v > 0)
    if total <= 0:
        raise ValueError(f"the mixture needs at least one {what} with a weight above 0")
    if abs(total - 1) < 1e-9:
        total = 1.0  # normalised before: normalising again must change no bit
    return {k: round(v / total, 12) for k, v in values.items() if v != 0}


class _WeightsConfig(Config):
    """Relative weights, normalised."""

    what: ClassVar[str]  # has a weight

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, values: Any) -> Any:
        return _normalised(values, cls.what)

    @property
    def weights(self) -> dict[str, float]:
        """Name → share, without those of weight 0."""
        return {name: w for name, w in self.model_dump().items() if w > 0}


class MixtureConfig(SourceWeights, _WeightsConfig):
    """Relative sampling weights of the sources; normalised, so 45/45/10 equals 9/9/2.

    Each packed sequence holds documents of one source, drawn with these weights (MM1 §3.3). The
    fields are the sources that every installation has; the keys beside them are `data.sources`.
    """

    what: ClassVar = "source"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Weight]  # ty: ignore[incompatible-mutable-override]


class KindsConfig(_WeightsConfig):
    """Relative weights of the kinds of sources, normalised: 45/45/10 in the paper (MM1 §3.3)."""

    what: ClassVar = "kind"

    captions: Weight = 0.0
    interleaved: Weight = 0.0
    text: Weight = 0.0
    conversations: Weight = 0.0


class SourceConfig(Config):
    """A folder that `mm1 data prepare` has made of a user's own files.

    Where it lies says nothing of what is in it: its manifest enters the identity in its place.
    """

    folder: str = Field(description="path or URL", json_schema_extra=NOT_IDENTITY)
    kind: Kind

    def placed(self) -> SourceConfig:
        """With its folder as another process would find it."""
        if "://" in self.folder:
            return self
        return self.model_copy(update={"folder": str(Path(self.folder).absolute())})


class MixtureChange(Config):
    """Other weights from a step on; null keeps those before."""

    from_step: PositiveInt = Field(description="the first step with these weights, counted from 1")
    mixture: MixtureConfig | None = None
    kinds: KindsConfig | None = None


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
    side: int = Field(2, ge=2, le=64, description="crops per side; MM1: 2")

    @property
    def views(self) -> int:
        """Of one image."""
        return 1 + self.side**2


class AnyResolutionConfig(Config):
    """An overview and the crops of that grid which suits the image's aspect (LLaVA-NeXT)."""

    kind: Literal["anyres"] = "anyres"
    grids: tuple[tuple[Tiles, Tiles], ...] = Field(
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


def check_readable(
    mixture: MixtureConfig,
    sources: Mapping[str, SourceConfig],
    embedded: str,
    kinds: tuple[Kind, ...],
    reader: str,
) -> None:
    """Raise ValueError where a part's pre-training names a source that it cannot read.

    It reads one `embedded` source, and those of one's own that are of these kinds.
    """
    readable = [embedded, *(name for name, own in sources.items() if own.kind in kinds)]
    for name in mixture.weights:
        if name in readable:
            continue
        valid = f"; valid: {', '.join(readable)}"
        if name in sources:
            raise ValueError(
                f"mixture.{name}: a source of kind {sources[name].kind}, and {reader} reads "
                f"{' and '.join(kinds)} alone{valid}"
            )
        if name in SOURCES:
            raise ValueError(f"mixture.{name}: of the embedded sources {reader} reads one{valid}")
        raise ValueError(f"mixture.{name}: no such source{nearest(name, readable)}")


def chosen_sources(
    mixture: MixtureConfig, sources: Mapping[str, SourceConfig]
) -> dict[str, SourceConfig]:
    """Those of one's own sources that a mixture reads."""
    return {name: own for name, own in sorted(sources.items()) if name in mixture.weights}


class DataConfig(Config):
    """Which documents, and how they are packed into sequences.

    `packing: budgets` fills `text_tokens` and `images` per sequence, so that arms with another
    number of tokens per image see the same documents in the same order; the sequence length
    follows. `packing: total` fills `total_tokens` as the paper does; the documents then depend on
    the arm.
    """

    sources: dict[SourceName, SourceConfig] = Field({}, description="of one's own, by name")
    mixture: MixtureConfig = MixtureConfig(easy_vqa=1.0)
    mixture_unit: Literal["sequences", "text_tokens"] = Field(
        "sequences", description="of what the weights are shares"
    )
    kinds: KindsConfig | None = Field(
        None, description="shares of the kinds; the mixture's weights then count within a kind"
    )
    within_kinds: Literal["weights", "text_tokens"] = Field(
        "weights", description="text_tokens: the mixture's sources count by their size"
    )
    mixture_changes: tuple[MixtureChange, ...] = ()
    exhausted: dict[SourceName, Exhausted] = Field(
        {}, description="what follows a source's first epoch; repeat where nothing is said"
    )
    packing: Literal["budgets", "total"] = "budgets"
    text_tokens: Count = Field(128, description="text tokens per sequence")
    images: Count = Field(8, description="images per sequence")
    fit: Literal["squash", "crop", "pad"] = Field(
        "squash", description="how an image becomes square; pad: with the mean colour"
    )
    sub_images: SubImagesConfig = NoSubImagesConfig()
    total_tokens: Count | None = Field(None, description="only with packing: total")
    vocabulary: Vocabulary = Field(1024, description="token ids")
    tokenizer: str | None = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="a tokenizer.json or a SentencePiece model; null: byte-level BPE, learnt on "
        "the training texts",
    )
    special_tokens: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        (), description="further ones of the vocabulary, that a template writes"
    )
    template: Literal["plain", "vicuna", "chatml"] = Field(
        "plain", description="words around the turns of a conversation"
    )
    background: tuple[Channel, Channel, Channel] = Field(
        (255, 255, 255), description="RGB behind transparent pixels"
    )
    embedded: EmbeddedConfig = EmbeddedConfig()
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="processes that read, decode and lay out ahead; 0: threads of this one",
        json_schema_extra=NOT_IDENTITY,
    )

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def kind_of(self) -> dict[str, Kind]:
        """Source → its kind, for all sources."""
        embedded = {name: record.kind for name, record in SOURCES.items()}
        return embedded | {name: own.kind for name, own in self.sources.items()}

    @property
    def own(self) -> dict[str, SourceConfig]:
        """The user's own sources that are read at any step, by name."""
        read = self.read
        return {name: own for name, own in sorted(self.sources.items()) if name in read}

    @property
    def read(self) -> set[str]:
        """The sources that have a weight at any step."""
        mixtures = [self.mixture, *(change.mixture for change in self.mixture_changes)]
        return {name for mixture in mixtures if mixture for name in mixture.weights}

    @property
    def source_names(self) -> tuple[str, ...]:
        """All that may be read, in an order that only the names decide."""
        return (*SOURCES, *self.own)

    def as_read(self) -> DataConfig:
        """Without sources that are not read; folders as another process would find them."""
        placed = {name: source.placed() for name, source in self.own.items()}
        return self.model_copy(update={"sources": placed})

    @model_validator(mode="after")
    def _possible(self) -> DataConfig:
        read = self.read
        for source, record in SOURCES.items():
            if source in read and record.asked_by:
                lacking = self.embedded.lacking(record.asked_by)
                if lacking:
                    raise ValueError(f"mixture.{source} is above 0 and {lacking}")
        if (self.packing == "total") != (self.total_tokens is not None):
            raise ValueError("total_tokens goes with packing: total, and only with it")
        return self

    @model_validator(mode="after")
    def _known_sources(self) -> DataConfig:
        taken = sorted(set(self.sources) & set(SOURCES))
        if taken:
            raise ValueError(f"sources.{taken[0]}: every installation has a source of that name")
        known = {*SOURCES, *self.sources}
        named = [("mixture", self.mixture.weights), ("exhausted", self.exhausted)]
        for number, change in enumerate(self.mixture_changes):
            weights = change.mixture.weights if change.mixture else {}
            named.append((f"mixture_changes.{number}.mixture", weights))
        for key, names in named:
            for name in sorted(set(names) - known):
                raise ValueError(f"{key}.{name}: no such source{nearest(name, known)}")
        steps = [change.from_step for change in self.mixture_changes]
        if steps != sorted(set(steps)):
            raise ValueError(f"mixture_changes: from_step must rise, and is {steps}")
        return self

    @model_validator(mode="after")
    def _every_kind_has_a_source(self) -> DataConfig:
        if self.within_kinds != "weights" and self.kinds is None:
            raise ValueError(f"within_kinds goes with kinds: {self.within_kinds} has none")
        mixture, kinds = self.mixture, self.kinds
        for change in (None, *self.mixture_changes):
            if change is not None:
                mixture, kinds = change.mixture or mixture, change.kinds or kinds
            if kinds is None:
                continue
            there = {self.kind_of[name] for name in mixture.weights}
            for kind in sorted(set(kinds.weights) - there):
                raise ValueError(
                    f"kinds.{kind} has a share and no source of that kind a weight in the mixture"
                )
        return self
