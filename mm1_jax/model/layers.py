"""What encoder, connectors and decoder are made of: dense layers, norms, attention, depth."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config.training import TrainingConfig
from mm1_jax.model.initialisation import Constant, Normal, parameter

Attention = Literal["plain", "chunked", "fused"]

CAUSAL_BLOCK = 64  # queries of the plain form, which then do without the keys behind them
CHUNK_QUERIES = 512  # whose scores with all keys are held at once


@dataclass(frozen=True)
class Form:
    """How layers are run. Every form computes the same, up to the order of sums.

    unrolled: one after another, as CPUs like it. scanned: one compiled layer, run over the stack;
    `remat` says what the backward pass recomputes, "dots" all but products with weights.
    attention: see `attend`.
    """

    layers: Literal["unrolled", "scanned"] = "unrolled"
    remat: Literal["none", "dots", "full"] = "full"
    attention: Attention = "plain"


UNROLLED = Form("unrolled")


class Linear(nnx.Module):
    """x·kernel + bias over the last axis: [..., inputs] → [..., outputs].

    The kernel starts Gaussian with standard deviation `std`, by default 1/√inputs.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, std: float | None = None):
        self.kernel = parameter((inputs, outputs), Normal(std or inputs**-0.5))
        self.bias = parameter((outputs,), Constant(0.0)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., inputs] → [..., outputs] in the dtype of x."""
        # Flat, because XLA's CPU matmul takes twice as long on [batch, tokens, width].
        y = x.reshape(-1, x.shape[-1]) @ self.kernel[...].astype(x.dtype)
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y.reshape(*x.shape[:-1], -1)


class LayerNorm(nnx.Module):
    """Mean 0 and variance 1 over the last axis, then scale and bias; float32 inside."""

    def __init__(self, width: int, eps: float = 1e-6):
        self.eps = eps
        self.scale = parameter((width,), Constant(1.0))
        self.bias = parameter((width,), Constant(0.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] → [..., width]."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root mean square 1 over the last axis, then scale (Zhang & Sennrich, 2019)."""

    def __init__(self, width: int, eps: float = 1e-6):
        self.eps = eps
        self.scale = parameter((width,), Constant(1.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] → [..., width]."""
        wide = x.astype(jnp.float32)
        normal = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        return (normal * self.scale[...]).astype(x.dtype)


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
    attention: Attention = "plain",
    *,
    causal: bool = False,
) -> jax.Array:
    """Scaled dot-product attention, with fewer key heads than query heads if the shapes say so.

    queries [batch, Q, heads, d], keys and values [batch, K, kv_heads, d] → [batch, Q, heads * d].
    mask bool [batch, Q, K], True where the query may look. Query head h reads key head
    h * kv_heads // heads. Softmax in float32. `causal` says that the mask lets no query look
    behind its own place.

    plain: all scores at once; of a causal mask, those of a block of queries with the keys up to
    its end. chunked: those of some queries at a time, recomputed in the backward
    pass, so that memory grows with the keys and not with their square. fused: cuDNN's kernel
    (GPUs, bfloat16).
    """
    if attention == "fused":
        mixed = jax.nn.dot_product_attention(
            *(queries, keys, values),
            mask=None if mask is None else mask[:, None],
            implementation="cudnn",
        )
        return mixed.reshape(*queries.shape[:2], -1)
    if attention == "chunked" and queries.shape[1] > 1:
        return _attend_in_chunks(queries, keys, values, mask)
    if causal and mask is not None and queries.shape[1] > CAUSAL_BLOCK:
        starts = range(0, queries.shape[1], CAUSAL_BLOCK)
        ends = [min(start + CAUSAL_BLOCK, queries.shape[1]) for start in starts]
        blocks = [
            attend(queries[:, a:b], keys[:, :b], values[:, :b], mask[:, a:b, :b])
            for a, b in zip(starts, ends, strict=True)
        ]
        return jnp.concatenate(blocks, axis=1)
    batch, count, heads, d = queries.shape
    kv_heads = keys.shape[2]
    shared = heads // kv_heads
    # One matrix per (row, key head), so that each product is one batched GEMM on CPU.
    q = (queries * d**-0.5).reshape(batch, count, kv_heads, shared, d)
    q = q.transpose(0, 2, 3, 1, 4).reshape(batch * kv_heads, shared * count, d)
    k, v = (x.transpose(0, 2, 1, 3).reshape(batch * kv_heads, -1, d) for x in (keys, values))
    scores = jnp.matmul(q, k.transpose(0, 2, 1), preferred_element_type=jnp.float32)
    if mask is not None:
        barred = jnp.where(mask, 0.0, BARRED)[:, None, None]
        scores = scores.reshape(batch, kv_heads, shared, count, -1) + barred
        scores = scores.reshape(batch * kv_heads, shared * count, -1)
    out = _mix(scores, v, "ijk,ikd->ijd").reshape(batch, kv_heads, shared, count, d)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, count, heads * d)


def _attend_in_chunks(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None
) -> jax.Array:
    batch, count, heads, d = queries.shape
    kv_heads = keys.shape[2]

    @jax.checkpoint
    def some(given: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        q, own_mask = given
        scores = jnp.einsum("bqhgd,bkhd->bhgqk", q, keys, preferred_element_type=jnp.float32)
        if own_mask is not None:
            scores = scores + jnp.where(own_mask, 0.0, BARRED)[:, None, None]
        return _mix(scores, values, "bhgqk,bkhd->bhgqd").transpose(0, 3, 1, 2, 4)

    q = (queries * d**-0.5).reshape(batch, count, kv_heads, heads // kv_heads, d)
    return in_chunks(some, (q, mask), CHUNK_QUERIES).reshape(batch, count, heads * d)


def in_chunks(compute: Callable[[Any], Any], given: Any, size: int) -> Any:
    """compute(given), at most `size` of the second axis at a time, one chunk after another.

    Leaves [batch, n, ...] are cut into chunks of equal size, the last filled up with zeros;
    `compute` gives leaves [batch, its part of n, ...].
    """
    batch, count = jax.tree.leaves(given)[0].shape[:2]
    chunks = math.ceil(count / size)
    size = math.ceil(count / chunks)

    def cut(x: jax.Array) -> jax.Array:
        rest = [(0, 0)] * (x.ndim - 2)
        padded = jnp.pad(x, ((0, 0), (0, chunks * size - count), *rest))
        return padded.reshape(batch, chunks, size, *x.shape[2:]).swapaxes(0, 1)

    def joined(x: jax.Array) -> jax.Array:
        whole = x.swapaxes(0, 1)
        return whole.reshape(batch, chunks * size, *whole.shape[3:])[:, :count]

    return jax.tree.map(joined, jax.lax.map(compute, jax.tree.map(cut, given)))


BARRED = -1e30  # added to the score of a key that a query may not see


def _mix(scores: jax.Array, values: jax.Array, product: str) -> jax.Array:
    """Values, added by the softmax of float32 scores [..., keys]; `product` joins the two."""
    shares = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    # Divided after the product: d numbers per query instead of one per key.
    total = shares.sum(-1, keepdims=True)
    out = jnp.einsum(
        product, shares.astype(values.dtype), values, preferred_element_type=jnp.float32
    )
    return (out / total).astype(values.dtype)


def layer_form(training: TrainingConfig) -> Form:
    """The form that a training asks for on this process's devices."""
    told = training.told(on_cpu=jax.default_backend() == "cpu")
    assert told.layers != "auto"
    assert told.attention != "auto"
    return Form(told.layers, told.remat, told.attention)


def run_layers(
    blocks: nnx.Module | Sequence[tuple[nnx.Module, int]],
    form: Form,
    layer: Callable[[Any, Any, Any], tuple[Any, Any]],
    x: Any,
    per_layer: Any = None,
) -> tuple[Any, Any]:
    """Send x through stacked blocks: `layer(block, x, own) -> (x, out)` for each in turn.

    `blocks` has parameters [layers, ...]; `per_layer` leaves [layers, ...] are handed out as
    `own`, and the `out` are stacked likewise; unrolled, a list of the layers' own gives a list.
    Where layers are not all of one kind, `blocks` is
    [(kind, n), (other kind, m), ...]: n layers of the first, m of the second, and so on, as a
    group that is repeated until the stacks are used up. A scanned program compiles one layer of
    each kind in a group; with `remat: full` activations of only one layer are held.
    """
    kinds = [(blocks, 1)] if isinstance(blocks, nnx.Module) else blocks
    graphdefs, stacks = zip(*(nnx.split(kind) for kind, _ in kinds), strict=True)
    counts = [count for _, count in kinds]
    if form.layers == "scanned":
        return _scan_groups(graphdefs, stacks, counts, form.remat, layer, x, per_layer)
    left = [iter(unstack(stack)) for stack in stacks]
    turns = len(jax.tree.leaves(stacks[0])[0]) // counts[0]
    order = [kind for kind, count in enumerate(counts) for _ in range(count)] * turns
    if isinstance(per_layer, list):
        given = per_layer
    else:
        given = unstack(per_layer) if jax.tree.leaves(per_layer) else [per_layer] * len(order)
    outs = []
    for kind, own in zip(order, given, strict=True):
        x, out = layer(nnx.merge(graphdefs[kind], next(left[kind])), x, own)
        outs.append(out)
    if isinstance(per_layer, list):
        return x, outs
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)


# What the backward pass of a scanned layer finds instead of computing it again.
KEPT: dict[str, Callable[..., bool] | None] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


def _scan_groups(
    graphdefs: Sequence[Any],
    stacks: Sequence[Any],
    counts: Sequence[int],
    remat: str,
    layer: Callable[[Any, Any, Any], tuple[Any, Any]],
    x: Any,
    per_layer: Any,
) -> tuple[Any, Any]:
    def grouped(tree: Any, count: int) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, count, *leaf.shape[1:]), tree)

    def take(tree: Any, place: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[place], tree)

    def one(kind: int, place: int, x: Any, stack: Any, own: Any) -> tuple[Any, Any]:
        # The layer is taken out of its group in here, under the checkpoint, so that the backward
        # pass reads the weights where they lie and not from a copy per layer.
        return layer(nnx.merge(graphdefs[kind], take(stack, place)), x, own)

    def group(x: Any, given: Any) -> tuple[Any, Any]:
        stacks, owned = given
        outs = []
        for kind, count in enumerate(counts):
            for place in range(count):
                step = functools.partial(one, kind, place)
                if remat != "none":
                    step = jax.checkpoint(step, policy=KEPT[remat])
                x, out = step(x, stacks[kind], take(owned, len(outs)))
                outs.append(out)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)

    cut = [grouped(stack, count) for stack, count in zip(stacks, counts, strict=True)]
    x, outs = jax.lax.scan(group, x, (cut, grouped(per_layer, sum(counts))))
    return x, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outs)


def unstack(tree: Any) -> list[Any]:
    """Leaves [layers, ...] → one tree per layer."""
    leaves, structure = jax.tree.flatten(tree)
    # lax.split, because its gradient is one concatenation and not a padded sum.
    columns = [
        [part[0] for part in jax.lax.split(leaf, [1] * leaf.shape[0], axis=0)] for leaf in leaves
    ]
    return [jax.tree.unflatten(structure, row) for row in zip(*columns, strict=True)]
