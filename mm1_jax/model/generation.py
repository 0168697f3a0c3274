"""Generated text: the prompt once through the model, then one token at a time from the cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm1_jax.data.tokenizer import END, PAD
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.layers import Form, unstack
from mm1_jax.model.multimodal import Batch, MultimodalModel
from mm1_jax.scale.sharding import BATCH, cut_along


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from its scores; temperature 0 is greedy.

    top_k keeps the k best tokens, top_p the fewest best ones whose probabilities reach p (nucleus
    sampling, Holtzman et al., 2020), of what top_k has left.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None


GREEDY = Sampling()


def generate(
    model: MultimodalModel,
    batch: Batch,
    lengths: Any,
    max_new_tokens: int,
    ends: tuple[int, ...] | None = None,
) -> jax.Array:
    """The most likely continuations, int32 [B, max_new_tokens], padded after a token of `ends`.

    One prompt per row of `batch` (see `MultimodalModel`), right-padded; `lengths` int32 [B] counts
    the filled positions of S. Compiled once per model shape, batch shape and `max_new_tokens`.
    """
    return generate_with_scores(model, batch, lengths, max_new_tokens, ends=ends)[0]


def generate_with_scores(
    model: MultimodalModel,
    batch: Batch,
    lengths: Any,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    ends: tuple[int, ...] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As `generate`, and each token's log-probability under the model, float32 of that shape.

    `ends` None is `<|end|>` of our own tokenizer.
    """
    graphdef, parameters = nnx.split(model)
    used = {name: batch[name] for name in ("images", "tokens", "gather", "segments", "positions")}
    key = jax.random.key(seed)
    return _multimodal(
        *(graphdef, parameters, used, jnp.asarray(lengths), key, max_new_tokens, sampling),
        (END,) if ends is None else ends,
    )


def generate_text(
    decoder: Decoder,
    tokens: Any,
    lengths: Any,
    max_new_tokens: int,
    *,
    form: Form,
    dtype: str = "float32",
    ends: tuple[int, ...] = (END,),
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Continuations of prompts of text alone and their log-probabilities: each [B, max_new_tokens].

    tokens int32 [B, S], right-padded; lengths int32 [B]. A row ends with any token of `ends`.
    """
    graphdef, parameters = nnx.split(decoder)
    return _text(
        graphdef,
        parameters,
        jnp.asarray(tokens, jnp.int32),
        jnp.asarray(lengths, jnp.int32),
        jax.random.key(seed),
        max_new_tokens,
        sampling,
        ends,
        form,
        dtype,
    )


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _multimodal(
    graphdef: nnx.GraphDef,
    parameters: Any,
    batch: Batch,
    lengths: jax.Array,
    key: jax.Array,
    count: int,
    sampling: Sampling,
    ends: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(graphdef, parameters)
    decoder = model.language_model
    prompt = (model.embed(batch), batch["positions"], batch["segments"])
    return _continue(decoder, prompt, lengths, key, count, sampling, ends, model.form)


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7, 8, 9))
def _text(
    graphdef: nnx.GraphDef,
    parameters: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    key: jax.Array,
    count: int,
    sampling: Sampling,
    ends: tuple[int, ...],
    form: Form,
    dtype: str,
) -> tuple[jax.Array, jax.Array]:
    decoder = nnx.merge(graphdef, parameters)
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    segments = (places < lengths[:, None]).astype(jnp.int32)
    prompt = (decoder.embed(tokens, jnp.dtype(dtype)), places, segments)
    return _continue(decoder, prompt, lengths, key, count, sampling, ends, form)


def _continue(
    decoder: Decoder,
    prompt: tuple[jax.Array, jax.Array, jax.Array],
    lengths: jax.Array,
    key: jax.Array,
    count: int,
    sampling: Sampling,
    ends: tuple[int, ...],
    form: Form,
) -> tuple[jax.Array, jax.Array]:
    """From embedded prompts (x, positions, segments) to tokens and log-probabilities."""
    x, positions, segments = prompt
    states, cache = decoder.prefill(x, positions, segments, form)
    room = ((0, 0), (0, 0), (0, count), (0, 0), (0, 0))
    cache = jax.tree.map(
        lambda leaf: cut_along(jnp.pad(leaf, room), None, BATCH, None, "tensor", None), cache
    )
    if form.layers == "unrolled":
        cache = unstack(cache)
    rows = jnp.arange(lengths.shape[0])

    def is_end(token: jax.Array) -> jax.Array:
        return jnp.isin(token, jnp.array(ends, jnp.int32)) if ends else jnp.zeros_like(token, bool)

    def choose(states: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
        scores = decoder.logits(states)
        token = next_token_of(scores, sampling, jax.random.fold_in(key, step))
        return token, jax.nn.log_softmax(scores)[rows, token]

    def unfinished(carry: tuple) -> jax.Array:
        step, _, ended, _, _, _ = carry
        return (step < count) & ~jnp.all(ended)

    def one_more(carry: tuple) -> tuple:
        step, token, ended, tokens, logprobs, cache = carry
        states, cache = decoder.extend(
            decoder.embed(token[:, None], x.dtype), lengths + step - 1, cache, form
        )
        token, logprob = choose(states[:, 0], step)
        token = jnp.where(ended, PAD, token)
        tokens = tokens.at[:, step].set(token)
        logprobs = logprobs.at[:, step].set(jnp.where(ended, 0.0, logprob))
        return step + 1, token, ended | is_end(token), tokens, logprobs, cache

    first, logprob = choose(states[rows, lengths - 1], 0)
    tokens = jnp.full((lengths.shape[0], count), PAD, jnp.int32).at[:, 0].set(first)
    logprobs = jnp.zeros(tokens.shape, jnp.float32).at[:, 0].set(logprob)
    start = (jnp.int32(1), first, is_end(first), tokens, logprobs, cache)
    _, _, _, tokens, logprobs, _ = jax.lax.while_loop(unfinished, one_more, start)
    return tokens, logprobs


def next_token_of(scores: jax.Array, sampling: Sampling, key: jax.Array) -> jax.Array:
    """Scores float32 [B, vocabulary] → tokens int32 [B]; each row draws for itself."""
    if sampling.temperature == 0:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    scores = scores / sampling.temperature
    if sampling.top_k is not None:
        least = jax.lax.top_k(scores, min(sampling.top_k, scores.shape[-1]))[0][:, -1:]
        scores = jnp.where(scores >= least, scores, -jnp.inf)
    if sampling.top_p is not None:
        best_first = -jnp.sort(-scores, axis=-1)
        shares = jax.nn.softmax(best_first, axis=-1)
        # A token stays if those before it have not reached p yet: the best one always does.
        stays = jnp.cumsum(shares, axis=-1) - shares < sampling.top_p
        least = jnp.min(jnp.where(stays, best_first, jnp.inf), axis=-1, keepdims=True)
        scores = jnp.where(scores >= least, scores, -jnp.inf)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(scores)))
    return jax.vmap(jax.random.categorical)(keys, scores).astype(jnp.int32)


def cut(
    tokens: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    *,
    ends: Sequence[int],
    stops: Sequence[str],
) -> tuple[int, str]:
    """How many of a row's tokens count, and their text.

    A row goes up to its first end token, which counts and has no text, or up to the token that
    completes the first stop string, which the text does not have.
    """
    end = next((i for i, token in enumerate(tokens) if token in ends), None)
    count = len(tokens) if end is None else end + 1
    text = decode([token for token in tokens[:count] if token not in ends])
    found = [text.index(stop) for stop in stops if stop in text]
    if not found:
        return count, text
    for shorter in range(1, count + 1):
        if any(stop in decode(tokens[:shorter]) for stop in stops):
            return shorter, text[: min(found)]
    return count, text[: min(found)]


def ids_as_rows(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of different lengths → tokens int32 [B, longest], right-padded, and lengths [B]."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens = np.full((len(prompts), lengths.max()), PAD, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, lengths
