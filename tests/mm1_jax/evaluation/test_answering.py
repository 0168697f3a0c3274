from __future__ import annotations

import numpy as np
import pytest
from public_folders import make_folder

from ablations.errors import UserError
from mm1_jax.evaluation.answering import answer
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.generation import Sampling, generate_text, ids_as_rows
from mm1_jax.model.layers import UNROLLED
from mm1_jax.weights.part_weights import filled, language_model_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("weights") / "qwen2", "qwen2")


def test_ids_are_continued_as_the_model_alone_continues_them(folder, tmp_path):
    said = answer(folder, [3, 17, 39], most_tokens=4, data=tmp_path)
    found = language_model_weights(folder)
    model = filled(Decoder(found.config, found.vocabulary), found.tree)
    tokens, logprobs = generate_text(model, *ids_as_rows([[3, 17, 39]]), 4, form=UNROLLED)
    assert 0 < len(said.tokens) <= 4
    assert said.tokens == np.asarray(tokens)[0][: len(said.tokens)].tolist()
    np.testing.assert_allclose(said.logprobs, np.asarray(logprobs)[0][: len(said.logprobs)])
    assert said.text == ""  # no tokenizer beside the weights


def test_the_seed_draws_and_without_one_nothing_is_drawn(folder, tmp_path):
    drawn = {
        tuple(answer(folder, [3], sampling=Sampling(2.0), seed=seed, data=tmp_path).tokens)
        for seed in (0, 1, 1)
    }
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("prompt", "more", "message"),
    [
        ([40], {}, "token id 40: the vocabulary has tokens 0 to 39"),
        ([], {}, "the prompt is empty"),
        ("hello", {}, r"has no tokenizer\.json; give the prompt as token ids"),
        ([1], {"stops": ("\n",)}, "a stop string needs a tokenizer"),
        ([1], {"images": ("x.png",)}, "holds a language model, which sees no images"),
    ],
)
def test_what_cannot_be_answered_is_told(folder, tmp_path, prompt, more, message):
    with pytest.raises(UserError, match=message):
        answer(folder, prompt, data=tmp_path, **more)
