"""Greedy answers: the prompt once through the model, then one token at a time from the cache."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.data.tokenizer import END, PAD
from mm1_jax.model import Batch, MultimodalModel


def generate(model: MultimodalModel, batch: Batch, lengths: Any, max_new_tokens: int) -> jax.Array:
    """The most likely continuations, int32 [B, max_new_tokens], padded after `<|end|>`.

    One prompt per row of `batch` (see `MultimodalModel`), right-padded; `lengths` int32 [B] counts
    the filled positions of S. Compiled once per model shape, batch shape and `max_new_tokens`.
    """
    graphdef, parameters = nnx.split(model)
    used = {name: batch[name] for name in ("images", "tokens", "gather", "segments", "positions")}
    return _generate(graphdef, parameters, used, jnp.asarray(lengths), max_new_tokens)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _generate(
    graphdef: nnx.GraphDef, parameters: Any, batch: Batch, lengths: jax.Array, count: int
) -> jax.Array:
    model = nnx.merge(graphdef, parameters)
    decoder = model.language_model
    states, cache = decoder.prefill(
        model.embed(batch), batch["positions"], batch["segments"], model.form
    )
    room = ((0, 0), (0, 0), (0, count), (0, 0), (0, 0))
    cache = jax.tree.map(lambda x: jnp.pad(x, room), cache)
    rows = jnp.arange(lengths.shape[0])

    def most_likely(states: jax.Array) -> jax.Array:
        return jnp.argmax(decoder.logits(states), axis=-1).astype(jnp.int32)

    def unfinished(carry: tuple) -> jax.Array:
        step, _, ended, _, _ = carry
        return (step < count) & ~jnp.all(ended)

    def next_token(carry: tuple) -> tuple:
        step, token, ended, tokens, cache = carry
        x = decoder.embed(token[:, None], model.dtype)
        states, cache = decoder.extend(x, lengths + step - 1, cache, model.form)
        token = jnp.where(ended, PAD, most_likely(states[:, 0]))
        return step + 1, token, ended | (token == END), tokens.at[:, step].set(token), cache

    first = most_likely(states[rows, lengths - 1])
    tokens = jnp.full((lengths.shape[0], count), PAD, jnp.int32).at[:, 0].set(first)
    start = (jnp.int32(1), first, first == END, tokens, cache)
    return jax.lax.while_loop(unfinished, next_token, start)[3]
