from __future__ import annotations

import pytest
from pydantic import ValidationError

from mm1_jax.config.data import DataConfig
from mm1_jax.config.embedded_sources import (
    BindingDocumentsConfig,
    DrawingsConfig,
    GlossaryDocumentsConfig,
    LanguageDocumentsConfig,
)
from mm1_jax.config.encoder_pretraining import EncoderStageConfig


def test_a_glossary_of_one_language_is_refused():
    with pytest.raises(ValidationError, match=r"one word for each colour; nearest: \[de, en\]"):
        GlossaryDocumentsConfig(languages=("de",))


def test_what_is_named_twice_is_meant_once_and_a_token_is_a_text():
    named = LanguageDocumentsConfig(languages=("de", "en", "de"))
    assert named == LanguageDocumentsConfig(languages=("en", "de"))
    assert BindingDocumentsConfig(ways=(2, 2)).ways == (2,)
    assert DrawingsConfig(styles=("openmoji",)).styles == ("twemoji", "openmoji")
    with pytest.raises(ValidationError, match="at least 1 character"):
        DataConfig(special_tokens=("<a>", ""))


@pytest.mark.parametrize(
    ("source", "setting"),
    [
        ("language_documents", "language_documents.languages"),
        ("single_answers", "language_documents.languages"),
        ("binding_documents", "binding_documents.ways"),
        ("glossary_documents", "glossary_documents.languages"),
    ],
)
def test_a_source_that_nothing_prepares_is_refused(source, setting):
    mixture = {"easy_vqa": 0.5, source: 0.5}
    with pytest.raises(
        ValidationError, match=rf"data\.embedded\.{setting} is empty; nearest possible"
    ):
        DataConfig.model_validate({"mixture": mixture})
    group, field = setting.split(".")
    embedded = {group: {field: [2] if field == "ways" else ["de", "en"]}}
    DataConfig.model_validate({"mixture": mixture, "embedded": embedded})


def test_an_encoder_stage_prepares_the_second_style_only_if_it_reads_it():
    assert EncoderStageConfig().data.embedded.drawings.styles == ("twemoji",)
    second = EncoderStageConfig(styles=("openmoji",)).data
    assert second.embedded.drawings.styles == ("twemoji", "openmoji")
