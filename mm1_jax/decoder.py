"""The language model: a decoder over a sequence in which image tokens stand among text tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config import DecoderConfig
from mm1_jax.initialisation import Normal, parameter, stack
from mm1_jax.layers import Form, Linear, RMSNorm, attend, run_layers

Cache = tuple[jax.Array, jax.Array]  # keys and values, each [layers, batch, S, kv_heads, d]


class Decoder(nnx.Module):
    """RMSNorm, rotary positions, SwiGLU, grouped-query attention; embedding tied with the head."""

    def __init__(self, config: DecoderConfig, vocabulary: int):
        self.head_width = config.width // config.heads
        self.rope_theta = config.rope_theta
        self.embedding = parameter((vocabulary, config.width), Normal(config.width**-0.5))
        self.blocks = stack(DecoderBlock(config), config.layers)
        self.norm = RMSNorm(config.width)

    def embed(self, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Text tokens int32 [...] → embeddings [..., width] of `dtype`.

        Times √width, so that text starts as large as image tokens and as what the blocks add; the
        head takes the table as it is. At a standard deviation of 0.02 without it the mini model
        had learnt nothing of the images after 1,200 steps.
        """
        table = self.embedding[...].astype(dtype)
        return table[tokens] * table.shape[-1] ** 0.5

    def __call__(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array, form: Form
    ) -> jax.Array:
        """Embeddings [batch, S, width] → hidden states [batch, S, width] under the final norm.

        positions int32 [batch, S] count within a document, segments int32 [batch, S] number the
        documents: a position sees itself and the earlier positions of its own document.
        """
        rotation = rotation_of(positions, self.head_width, self.rope_theta)
        mask = document_mask(segments)

        def layer(block: DecoderBlock, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return block(x, rotation, mask)[0], None

        x, _ = run_layers(self.blocks, form, layer, x)
        return self.norm(x)

    def prefill(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array, form: Form
    ) -> tuple[jax.Array, Cache]:
        """As calling the decoder, and the keys and values [layers, batch, S, kv_heads, d]."""
        rotation = rotation_of(positions, self.head_width, self.rope_theta)
        mask = document_mask(segments)

        def layer(block: DecoderBlock, x: jax.Array, _: None) -> tuple[jax.Array, Cache]:
            return block(x, rotation, mask)

        x, cache = run_layers(self.blocks, form, layer, x)
        return self.norm(x), cache

    def extend(
        self, x: jax.Array, at: jax.Array, cache: Cache, form: Form
    ) -> tuple[jax.Array, Cache]:
        """One more token per row: x [batch, 1, width] stands at position `at` int32 [batch].

        The cache has room for it; its row b is filled below `at[b]`, and what lies above is never
        looked at. Each row is one document that starts at position 0.
        """
        rotation = rotation_of(at[:, None], self.head_width, self.rope_theta)
        slots = jnp.arange(cache[0].shape[2])
        mask = (slots <= at[:, None])[:, None]

        def layer(block: DecoderBlock, x: jax.Array, own: Cache) -> tuple[jax.Array, Cache]:
            return block(x, rotation, mask, (own, at))

        x, cache = run_layers(self.blocks, form, layer, x, cache)
        return self.norm(x), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., width] → scores of the next token, float32 [..., vocabulary]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        scores = (flat @ self.embedding[...].astype(flat.dtype).T).astype(jnp.float32)
        return scores.reshape(*hidden.shape[:-1], -1)


class DecoderBlock(nnx.Module):
    """x + attention(norm x), then x + SwiGLU(norm x); no biases."""

    def __init__(self, config: DecoderConfig):
        width, hidden = config.width, config.mlp_width
        self.heads, self.kv_heads = config.heads, config.kv_heads
        head = width // config.heads
        # Branches start small where they join the residual stream (Radford et al., 2019).
        joining = (2 * config.layers) ** -0.5
        self.attention_norm = RMSNorm(width)
        self.qkv = Linear(width, (config.heads + 2 * config.kv_heads) * head, bias=False)
        self.attention_out = Linear(width, width, bias=False, std=joining * width**-0.5)
        self.mlp_norm = RMSNorm(width)
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False, std=joining * hidden**-0.5)

    def __call__(
        self,
        x: jax.Array,
        rotation: tuple[jax.Array, jax.Array],
        mask: jax.Array,
        past: tuple[Cache, jax.Array] | None = None,
    ) -> tuple[jax.Array, Cache]:
        """x [batch, Q, width], mask bool [batch, Q, K] → x and this layer's keys and values.

        With `past` (cache, at) the new keys and values [batch, 1, kv_heads, d] are written into
        the cache at `at` [batch], and the queries look at all of it through the mask.
        """
        batch, count, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).reshape(batch, count, -1, width // self.heads)
        queries, keys, values = jnp.split(qkv, [self.heads, self.heads + self.kv_heads], axis=2)
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        if past is not None:
            (old_keys, old_values), at = past
            rows = jnp.arange(batch)
            keys = old_keys.at[rows, at].set(keys[:, 0])
            values = old_values.at[rows, at].set(values[:, 0])
        x = x + self.attention_out(attend(queries, keys, values, mask))
        gate, up = jnp.split(self.gate_up(self.mlp_norm(x)), 2, axis=-1)
        return x + self.down(jax.nn.silu(gate) * up), (keys, values)


def document_mask(segments: jax.Array) -> jax.Array:
    """Document numbers int32 [batch, S] → bool [batch, S, S]: itself and earlier ones of its own.

    Padding (0) counts as one more document, so every row of the mask has something to look at.
    """
    same = segments[:, :, None] == segments[:, None, :]
    order = jnp.arange(segments.shape[1])
    return same & (order[:, None] >= order[None, :])


def rotation_of(positions: jax.Array, width: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine [batch, S, 1, width / 2] of the rotary angles; float32 (Su et al., 2021)."""
    frequencies = theta ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotate channel pairs (j, j + d/2) of x [batch, S, heads, d], the layout of Llama's files."""
    cos, sin = (part.astype(x.dtype) for part in rotation)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
