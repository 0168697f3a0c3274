from __future__ import annotations

import pytest
from pydantic import ValidationError

from mm1_jax.config.data import DataConfig
from mm1_jax.config.encoder_pretraining import EncoderStageConfig


def test_a_glossary_of_one_language_is_refused():
    with pytest.raises(ValidationError, match=r"one word for each colour; nearest: \[de, en\]"):
        DataConfig(glossary_languages=("de",))


def test_what_is_named_twice_is_meant_once_and_a_token_is_a_text():
    assert DataConfig(languages=("de", "en", "de")) == DataConfig(languages=("de", "en"))
    assert DataConfig(binding_ways=(2, 2)).binding_ways == (2,)
    with pytest.raises(ValidationError, match="at least 1 character"):
        DataConfig(special_tokens=("<a>", ""))


@pytest.mark.parametrize(
    ("source", "setting"),
    [
        ("language_documents", "languages"),
        ("single_answers", "languages"),
        ("binding_documents", "binding_ways"),
        ("glossary_documents", "glossary_languages"),
    ],
)
def test_a_source_that_nothing_prepares_is_refused(source, setting):
    mixture = {"easy_vqa": 0.5, source: 0.5}
    with pytest.raises(ValidationError, match=f"data.{setting} is empty; nearest possible"):
        DataConfig.model_validate({"mixture": mixture})
    given = {"languages": ["de"], "binding_ways": [2], "glossary_languages": ["de", "en"]}[setting]
    DataConfig.model_validate({"mixture": mixture, setting: given})


def test_an_encoder_stage_prepares_the_second_style_only_if_it_reads_it():
    assert EncoderStageConfig().data.styles == ("twemoji",)
    assert EncoderStageConfig(styles=("openmoji",)).data.styles == ("twemoji", "openmoji")
