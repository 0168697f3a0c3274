"""The language model: a decoder over a sequence in which image tokens stand among text tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config.language_model import DecoderConfig, MixtureOfExpertsConfig, RopeScaling
from mm1_jax.model.initialisation import Normal, parameter, stack
from mm1_jax.model.layers import Attention, Form, Linear, RMSNorm, attend, in_chunks, run_layers
from mm1_jax.model.mixture_of_experts import Losses, MixtureOfExperts, no_losses
from mm1_jax.scale.sharding import BATCH, cut_along, on_a_mesh, rows_of_table

Cache = tuple[jax.Array, jax.Array]  # keys and values, each [layers, batch, S, kv_heads, d]
Rotation = tuple[jax.Array, jax.Array]  # cosine and sine, each [batch, S, 1, d / 2]

CHUNK_TOKENS = 512  # of each row, whose scores over the vocabulary are held at once


class Decoder(nnx.Module):
    """RMSNorm, rotary positions, SwiGLU, grouped-query attention; the head tied or its own."""

    def __init__(self, config: DecoderConfig, vocabulary: int):
        self.head_width = config.head
        self.rope_theta, self.rope_scaling = config.rope_theta, config.rope_scaling
        self.scaled_embeddings = config.scaled_embeddings
        start = Normal(config.width**-0.5)
        self.embedding = parameter((vocabulary, config.width), start)
        self.head = None if config.tied_embeddings else parameter((vocabulary, config.width), start)
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.layers = config.layers
        self.every = config.every if isinstance(config, MixtureOfExpertsConfig) else None
        if isinstance(config, MixtureOfExpertsConfig):
            with_experts = range(config.every - 1, config.layers, config.every)
            dense = sorted(set(range(config.layers)) - set(with_experts))
            # Layer i starts with the same attention whichever kind it is.
            self.expert_blocks = stack(
                ExpertBlock(config), with_experts, renamed=("expert_blocks", "blocks")
            )
        else:
            dense, self.expert_blocks = range(config.layers), None
        self.blocks = stack(DenseBlock(config), dense) if dense else None

    @property
    def output_embedding(self) -> nnx.Param:
        """The head's table [vocabulary, width]: a token's score is its row times the state."""
        return self.embedding if self.head is None else self.head

    def embed(self, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Text tokens int32 [...] → embeddings [..., width] of `dtype`.

        Times √width, so that text starts as large as image tokens and as what the blocks add; the
        head takes the table as it is. At a standard deviation of 0.02 without it the mini model
        had learnt nothing of the images after 1,200 steps.
        """
        x = rows_of_table(self.embedding[...].astype(dtype), tokens)
        return x * x.shape[-1] ** 0.5 if self.scaled_embeddings else x

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        form: Form,
        key: jax.Array | None = None,
        *,
        training: bool = False,
    ) -> tuple[jax.Array, Losses]:
        """Embeddings [batch, S, width] → hidden states [batch, S, width] under the final norm.

        positions int32 [batch, S] count within a document, segments int32 [batch, S] number the
        documents: a position sees itself and the earlier positions of its own document. `key` is
        dropout's; without one nothing is dropped. In training an expert has no more places than
        its capacity. The losses of the layers with experts are summed; without any they are {}.
        """
        rotation = self.rotation_of(positions)
        mask, valid = document_mask(segments), segments > 0

        def layer(
            block: DecoderBlock, carry: tuple[jax.Array, Losses], own: jax.Array
        ) -> tuple[tuple[jax.Array, Losses], None]:
            x, losses = carry
            own_key = None if key is None else jax.random.fold_in(key, own)
            x, _, more = block(
                *(x, rotation, mask, valid),
                key=own_key,
                training=training,
                attention=form.attention,
            )
            x = cut_along(x, BATCH)
            return (x, losses | {name: losses[name] + more[name] for name in more}), None

        losses = {} if self.expert_blocks is None else no_losses()
        numbers = jnp.arange(self.layers)
        (x, losses), _ = run_layers(self.kinds, form, layer, (x, losses), numbers)
        return self.norm(x), losses

    @property
    def kinds(self) -> list[tuple[DecoderBlock, int]]:
        """The stacks of blocks, and how many of each follow one another: see `run_layers`."""
        dense = 1 if self.every is None else self.every - 1
        kinds = [(self.blocks, dense), (self.expert_blocks, 1)]
        return [(blocks, count) for blocks, count in kinds if blocks is not None]

    def rotation_of(self, positions: jax.Array) -> Rotation:
        """Cosine and sine [batch, S, 1, d / 2] of the rotary angles at `positions` [batch, S]."""
        return rotation_of(positions, self.head_width, self.rope_theta, self.rope_scaling)

    def prefill(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array, form: Form
    ) -> tuple[jax.Array, Cache]:
        """As calling the decoder, and the keys and values [layers, batch, S, kv_heads, d]."""
        rotation = self.rotation_of(positions)
        mask, valid = document_mask(segments), segments > 0

        def layer(block: DecoderBlock, x: jax.Array, _: None) -> tuple[jax.Array, Cache]:
            x, cache, _losses = block(x, rotation, mask, valid, attention=form.attention)
            return x, cache

        x, cache = run_layers(self.kinds, form, layer, x)
        return self.norm(x), cache

    def extend(
        self, x: jax.Array, at: jax.Array, cache: Cache | list[Cache], form: Form
    ) -> tuple[jax.Array, Cache | list[Cache]]:
        """One more token per row: x [batch, 1, width] stands at position `at` int32 [batch].

        The cache has room for it; its row b is filled below `at[b]`, and what lies above is never
        looked at. Each row is one document that starts at position 0. An unrolled program takes
        and gives a list of the layers' caches too, which saves copying all of them at every token.
        """
        rotation = self.rotation_of(at[:, None])
        mask = cache_mask(at, jax.tree.leaves(cache)[0].shape[-3])
        valid = jnp.ones(x.shape[:2], bool)

        def layer(block: DecoderBlock, x: jax.Array, own: Cache) -> tuple[jax.Array, Cache]:
            x, cache, _losses = block(x, rotation, mask, valid, past=(own, at))
            return x, cache

        x, cache = run_layers(self.kinds, form, layer, x, cache)
        return self.norm(x), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., width] → scores of the next token, float32 [..., vocabulary]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        table = cut_along(self.output_embedding[...].astype(flat.dtype), "tensor", None)
        scores = (flat @ table.T).astype(jnp.float32).reshape(*hidden.shape[:-1], -1)
        return cut_along(scores, BATCH, *(None,) * (scores.ndim - 2), "tensor")

    def cross_entropy(
        self, hidden: jax.Array, tokens: jax.Array, form: Form
    ) -> tuple[jax.Array, jax.Array]:
        """Hidden states [batch, T, width] that predict int32 [batch, T] → losses, normalisers.

        Both float32 [batch, T]: cross-entropy in nats, and the logsumexp of the scores. In scanned
        programs the scores of only some tokens are held at a time.
        """

        def some(given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            hidden, tokens = given
            scores = self.logits(cut_along(hidden, BATCH))
            normaliser = jax.nn.logsumexp(scores, axis=-1)
            if on_a_mesh():  # where picking from the table would gather what lies elsewhere
                is_own = tokens[..., None] == jnp.arange(scores.shape[-1])
                return normaliser - jnp.where(is_own, scores, 0).sum(-1), normaliser
            # logsumexp - score of the label: a third faster on CPU than picking from log-softmax.
            labels = self.output_embedding[...].astype(hidden.dtype)[tokens]
            own = jnp.sum((hidden * labels).astype(jnp.float32), axis=-1)
            return normaliser - own, normaliser

        if form.layers == "unrolled":
            return some((hidden, tokens))
        return in_chunks(jax.checkpoint(some), (hidden, tokens), CHUNK_TOKENS)


class DecoderBlock(nnx.Module):
    """x + attention(norm x), then x + feed_forward(norm x), which the kind of block brings."""

    def __init__(self, config: DecoderConfig):
        width, head = config.width, config.head
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, head
        self.dropout = config.dropout
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.qkv = Linear(width, config.attention_width, bias=config.qkv_bias)
        self.query_norm = RMSNorm(head, config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(head, config.norm_eps) if config.qk_norm else None
        mixed = config.heads * head
        self.attention_out = Linear(mixed, width, bias=False, std=joining(config) * mixed**-0.5)
        self.mlp_norm = RMSNorm(width, config.norm_eps)

    def feed_forward(
        self, x: jax.Array, valid: jax.Array, training: bool
    ) -> tuple[jax.Array, Losses]:
        """Normed x [batch, Q, width] → what is added to the residual, and auxiliary losses.

        valid bool [batch, Q] is False at padding; `training` says whether capacities bind.
        """
        raise NotImplementedError

    def __call__(
        self,
        x: jax.Array,
        rotation: Rotation,
        mask: jax.Array,
        valid: jax.Array,
        *,
        past: tuple[Cache, jax.Array] | None = None,
        key: jax.Array | None = None,
        training: bool = False,
        attention: Attention = "plain",
    ) -> tuple[jax.Array, Cache, Losses]:
        """x [batch, Q, width], mask bool [batch, Q, K] → x, this layer's keys and values, losses.

        With `past` (cache, at) the new keys and values [batch, 1, kv_heads, d] are written into
        the cache at `at` [batch], and the queries look at all of it through the mask. With `key`
        dropout zeroes a share of what attention and feed-forward add.
        """
        batch, count, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).reshape(batch, count, -1, self.head_width)
        queries, keys, values = jnp.split(qkv, [self.heads, self.heads + self.kv_heads], axis=2)
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        queries, keys, values = (
            cut_along(part, BATCH, None, "tensor", None) for part in (queries, keys, values)
        )
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        if past is not None:
            (old_keys, old_values), at = past
            rows = jnp.arange(batch)
            keys = old_keys.at[rows, at].set(keys[:, 0])
            values = old_values.at[rows, at].set(values[:, 0])
        attended = self.attention_out(
            attend(queries, keys, values, mask, attention, causal=past is None)
        )
        x = x + self._dropped(attended, key, 0)
        y, losses = self.feed_forward(self.mlp_norm(x), valid, training)
        return x + self._dropped(y, key, 1), (keys, values), losses

    def _dropped(self, x: jax.Array, key: jax.Array | None, branch: int) -> jax.Array:
        if key is None or not self.dropout:
            return x
        kept = jax.random.bernoulli(jax.random.fold_in(key, branch), 1 - self.dropout, x.shape)
        return jnp.where(kept, x / (1 - self.dropout), 0)


class DenseBlock(DecoderBlock):
    """A decoder block with a SwiGLU (Shazeer, 2020); no biases but attention's, if asked for."""

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        width, hidden = config.width, config.mlp_width
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False, std=joining(config) * hidden**-0.5)

    def feed_forward(
        self, x: jax.Array, valid: jax.Array, training: bool
    ) -> tuple[jax.Array, Losses]:
        """[batch, Q, width] → the same shape; every token alike, always."""
        gate, up = (
            cut_along(part, BATCH, None, "tensor")
            for part in jnp.split(self.gate_up(x), 2, axis=-1)
        )
        return self.down(jax.nn.silu(gate) * up), {}


class ExpertBlock(DecoderBlock):
    """A decoder block whose feed-forward is a choice among experts."""

    def __init__(self, config: MixtureOfExpertsConfig):
        super().__init__(config)
        self.experts = MixtureOfExperts(config, joining(config))

    def feed_forward(
        self, x: jax.Array, valid: jax.Array, training: bool
    ) -> tuple[jax.Array, Losses]:
        """[batch, Q, width] → the same shape, and what `routing_losses` names."""
        return self.experts(x, valid, dropless=not training)


def joining(config: DecoderConfig) -> float:
    """How much smaller a branch starts where it joins the residual (Radford et al., 2019)."""
    return (2 * config.layers) ** -0.5


def document_mask(segments: jax.Array) -> jax.Array:
    """Document numbers int32 [batch, S] → bool [batch, S, S], True where a row may look.

    A position looks at itself and at the earlier ones of its own document. Two documents, then
    padding, which counts as one more document, so that every row has something to look at:

        segments   1 1 1 2 2 0 0

                   x . . . . . .
                   x x . . . . .
                   x x x . . . .
                   . . . x . . .
                   . . . x x . .
                   . . . . . x .
                   . . . . . x x
    """
    same = segments[:, :, None] == segments[:, None, :]
    order = jnp.arange(segments.shape[1])
    return same & (order[:, None] >= order[None, :])


def cache_mask(at: jax.Array, slots: int) -> jax.Array:
    """Where each row's one new token stands, int32 [batch] → bool [batch, 1, slots].

    It looks at all that its row has in the cache and at itself. Three rows, five slots:

        at   0   x . . . .
        at   2   x x x . .
        at   4   x x x x x
    """
    return (jnp.arange(slots) <= at[:, None])[:, None]


def rotation_of(
    positions: jax.Array, width: int, theta: float, scaling: RopeScaling | None = None
) -> Rotation:
    """Cosine and sine [batch, S, 1, width / 2] of the rotary angles; float32 (Su et al., 2021)."""
    frequencies = theta ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    if scaling is not None:
        frequencies = scaled_frequencies(frequencies, scaling)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def scaled_frequencies(frequencies: jax.Array, scaling: RopeScaling) -> jax.Array:
    """Radians per position [width / 2] → the same, stretched for a longer context.

    linear: all divided by the factor (Chen et al., 2023). llama3: those that turn less than
    `low_freq_factor` times within `original_length` are divided, those that turn more than
    `high_freq_factor` times are kept, and between the two it is a blend (Llama 3.1).
    """
    slow = frequencies / scaling.factor
    if scaling.kind == "linear":
        return slow
    turns = scaling.original_length * frequencies / (2 * jnp.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return (1 - kept) * slow + kept * frequencies


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotate channel pairs (j, j + d/2) of x [batch, S, heads, d], the layout of Llama's files."""
    cos, sin = (part.astype(x.dtype) for part in rotation)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
