from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.data.tokenizer import END, PAD
from mm1_jax.model import generation
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.generation import (
    Sampling,
    cut,
    generate,
    generate_text,
    generate_with_scores,
    ids_as_rows,
    next_token_of,
)
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.layers import UNROLLED
from mm1_jax.model.multimodal import MultimodalModel

LENGTHS = np.array([6, 9, 5], np.int32)
NEW = 5


def prompts(config) -> dict[str, np.ndarray]:
    """One image of 4 tokens, then 2, 5 or 1 text tokens; right-padded."""
    length, text = config.sequence_length, config.data.text_tokens
    places = np.arange(length)
    filled = places < LENGTHS[:, None]
    order = np.concatenate([text + np.arange(4), np.arange(length - 4)])
    size = config.encoder.image_size
    draws = np.random.default_rng(0)
    return {
        "images": draws.integers(0, 256, (3, 2, size, size, 3)).astype(np.uint8),
        "tokens": draws.integers(2, 300, (3, text)).astype(np.int32),
        "gather": np.where(filled, order, 0).astype(np.int32),
        "segments": filled.astype(np.int32),
        "positions": np.where(filled, places, 0).astype(np.int32),
    }


def build(config) -> MultimodalModel:
    """Untrained; random signs under the head, or it would repeat its last token for ever."""
    model = initialise(MultimodalModel(config), 0)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], config.language_model.width)
    model.language_model.norm.scale.set_value(jnp.asarray(signs, jnp.float32))
    return model


@nnx.jit
def uncached(model, batch):
    decoder = model.language_model
    states, _ = decoder(model.embed(batch), batch["positions"], batch["segments"], model.form)
    return decoder.logits(states)


@pytest.mark.parametrize("form", ["unrolled", "scanned"])
def test_cached_generation_equals_the_uncached_forward_token_for_token(tiny, form):
    config = tiny(training={"layers": form})
    model, batch = build(config), prompts(config)
    found = np.asarray(generate(model, batch, LENGTHS, NEW))
    lengths, rows = LENGTHS.copy(), np.arange(3)
    for step in range(NEW):
        token = np.asarray(uncached(model, batch))[rows, lengths - 1].argmax(-1)
        np.testing.assert_array_equal(found[:, step], token)
        batch["tokens"][rows, lengths - 4] = token
        batch["gather"][rows, lengths] = lengths - 4
        batch["segments"][rows, lengths] = 1
        batch["positions"][rows, lengths] = lengths
        lengths = lengths + 1
    assert len(np.unique(found)) > 3


def test_what_pads_a_prompt_does_not_change_its_answer(tiny):
    model, batch = build(tiny()), prompts(tiny())
    before = np.asarray(generate(model, batch, LENGTHS, NEW))
    for row, length in enumerate(LENGTHS):
        batch["tokens"][row, length - 4 :] = 7
    np.testing.assert_array_equal(generate(model, batch, LENGTHS, NEW), before)


def test_after_the_end_token_there_is_only_padding(tiny, monkeypatch):
    model, batch = build(tiny()), prompts(tiny())
    free = np.asarray(generate(model, batch, LENGTHS, NEW))
    end = int(free[1, 1])  # what the second row says as its second token shall end an answer
    monkeypatch.setattr(generation, "END", end)
    generation._multimodal.clear_cache()
    stopped = np.asarray(generate(model, batch, LENGTHS, NEW))
    generation._multimodal.clear_cache()
    for row in range(3):
        ends = np.flatnonzero(free[row] == end)
        kept = ends[0] + 1 if len(ends) else NEW
        np.testing.assert_array_equal(stopped[row, :kept], free[row, :kept])
        assert (stopped[row, kept:] == PAD).all()
    assert (PAD, END) == (0, 1)
    assert jnp.asarray(stopped).dtype == jnp.int32


def test_log_probabilities_are_those_of_the_uncached_forward(tiny):
    model, batch = build(tiny()), prompts(tiny())
    tokens, logprobs = (np.asarray(x) for x in generate_with_scores(model, batch, LENGTHS, NEW))
    scores = np.asarray(jax.nn.log_softmax(uncached(model, batch)))[np.arange(3), LENGTHS - 1]
    np.testing.assert_allclose(logprobs[:, 0], scores[np.arange(3), tokens[:, 0]], atol=1e-5)


def test_a_prompt_of_text_gets_the_same_answer_alone_and_beside_longer_ones(tiny):
    decoder = initialise(Decoder(tiny().language_model, 300), 0)
    asked = [[5, 9, 30], [7, 7, 8, 200, 12, 4], [299]]
    together, _ = generate_text(decoder, *ids_as_rows(asked), NEW, form=UNROLLED, ends=())
    for row, prompt in zip(np.asarray(together), asked, strict=True):
        alone, _ = generate_text(decoder, *ids_as_rows([prompt]), NEW, form=UNROLLED, ends=())
        np.testing.assert_array_equal(np.asarray(alone)[0], row)


def test_sampling_follows_the_probabilities_and_the_seed():
    scores = jnp.log(jnp.tile(jnp.array([0.1, 0.2, 0.7]), (4000, 1)))
    drawn = np.asarray(next_token_of(scores, Sampling(temperature=1.0), jax.random.key(0)))
    shares = np.bincount(drawn, minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.7], atol=0.03)  # about 4 standard errors
    again = np.asarray(next_token_of(scores, Sampling(temperature=1.0), jax.random.key(0)))
    other = np.asarray(next_token_of(scores, Sampling(temperature=1.0), jax.random.key(1)))
    assert (drawn == again).all()
    assert (drawn != other).any()


def test_top_k_and_top_p_leave_the_best_tokens_only():
    scores = jnp.log(jnp.tile(jnp.array([0.1, 0.15, 0.3, 0.45]), (2000, 1)))

    def seen(**options):
        drawn = next_token_of(scores, Sampling(temperature=1.0, **options), jax.random.key(0))
        return set(np.asarray(drawn).tolist())

    assert seen(top_k=2) == {2, 3}
    assert seen(top_p=0.4) == {3}
    assert seen(top_p=0.5) == {2, 3}
    assert seen(top_p=1.0) == {0, 1, 2, 3}
    assert seen(top_k=1, top_p=0.9) == {3}


def test_an_answer_is_cut_at_its_end_token_or_at_a_stop_string():
    def spell(tokens):
        return "".join(map(chr, tokens))

    answer = [*map(ord, "one. two"), 1, 1]
    assert cut(answer, spell, ends=(1,), stops=()) == (9, "one. two")
    assert cut(answer, spell, ends=(1,), stops=("w", ". ")) == (5, "one")
    assert cut(answer, spell, ends=(), stops=("none",))[0] == 10
