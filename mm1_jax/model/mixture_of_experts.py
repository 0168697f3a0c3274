"""Mixture of experts: a router sends each token to a few of many MLPs (GShard, ST-MoE; MM1 §3.4).

Two ways to bring tokens to experts, the same where no expert is over-full:

- dropless: (token, choice) pairs are laid out expert by expert and multiplied block by block.
  Exact, and as many products as chosen experts. On a mesh the devices along `expert` gather their
  tokens, each multiplies what goes to its own experts, and the results are added; there is room
  for all tokens going to one device, so on many devices training takes a capacity.
- capacity: in groups of tokens an expert has a fixed number of places (GShard). Shapes are small
  and static and tokens cross the `expert` axis by one all-to-all; who finds no place passes by on
  the residual.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from mm1_jax.config.language_model import MixtureOfExpertsConfig
from mm1_jax.model.initialisation import Normal, parameter
from mm1_jax.scale.sharding import BATCH, cut_along, on_a_mesh

Losses = dict[str, jax.Array]  # scalars, float32

BLOCK_ROWS = 64  # rows of one expert that are multiplied together, where there are enough


class MixtureOfExperts(nnx.Module):
    """Router, and SwiGLU experts without biases: what a decoder block has in place of its MLP."""

    def __init__(self, config: MixtureOfExpertsConfig, joining: float):
        width, hidden, experts = config.width, config.mlp_width, config.experts
        self.config = config
        # A tenth of the usual deviation: nearly even gates at the start (Switch, §2.4).
        self.router = parameter((width, experts), Normal(0.1 * width**-0.5))
        self.gate_up = parameter((experts, width, 2, hidden), Normal(width**-0.5))
        self.down = parameter((experts, hidden, width), Normal(joining * hidden**-0.5))

    def __call__(
        self, x: jax.Array, valid: jax.Array, *, dropless: bool = False
    ) -> tuple[jax.Array, Losses]:
        """x [batch, S, width], valid bool [batch, S] → what is added to the residual, and losses.

        Padding goes to no expert and counts nowhere. `dropless` ignores the capacity, so that a
        token's output does not depend on the other tokens: evaluation and generation need that.
        """
        tokens, mask = x.reshape(-1, x.shape[-1]), valid.reshape(-1)
        logits = router_logits(tokens, self.router[...])
        choices, gates = route(logits, self.config.top_k)
        choices = jnp.where(mask[:, None], choices, self.config.experts)
        gate_up, down = self.gate_up[...].astype(x.dtype), self.down[...].astype(x.dtype)
        if dropless or self.config.capacity_factor is None:
            kept = choices < self.config.experts
            y = through_experts_of_all(tokens, choices, gates, gate_up, down)
        else:
            group = min(self.config.group_tokens, len(tokens))
            places = self.config.places(group)
            y, kept = through_places(tokens, choices, gates, gate_up, down, group, places)
        return y.reshape(x.shape), routing_losses(logits, choices, kept, mask)


def router_logits(tokens: jax.Array, router: jax.Array) -> jax.Array:
    """Tokens [N, width] → scores [N, experts] in full float32 precision, also on accelerators."""
    return jnp.dot(tokens.astype(jnp.float32), router, precision=jax.lax.Precision.HIGHEST)


def route(logits: jax.Array, top_k: int) -> tuple[jax.Array, jax.Array]:
    """Scores [N, experts] → chosen experts int32 [N, top_k], best first, and gates float32.

    Gates are the softmax's values, renormalised over the chosen (GShard). With one choice the
    gate is the probability itself (Switch): renormalised it would always be 1, and the router
    would learn nothing from it.
    """
    gates, choices = jax.lax.top_k(jax.nn.softmax(logits), top_k)
    if top_k > 1:
        gates = gates / gates.sum(-1, keepdims=True)
    return choices, gates


def routing_losses(
    logits: jax.Array, choices: jax.Array, kept: jax.Array, valid: jax.Array
) -> Losses:
    """The two auxiliary losses and what is worth watching, over the valid tokens.

    logits [N, experts]; choices int32 and kept bool [N, top_k]; valid bool [N].

    balance_loss      experts · Σ (share of tokens whose first choice it is · mean probability),
                      before dropping; 1 at balance (Switch, eq. 4; ST-MoE)
    router_z_loss     mean of (logsumexp of the scores)² (ST-MoE, eq. 5)
    dropped_share     of the choices, for want of a place
    expert_share_min  the least and the most chosen expert's share of all choices,
    expert_share_max  before dropping; 1 / experts where all are chosen alike
    """
    experts = logits.shape[1]
    weights = valid / jnp.maximum(valid.sum(), 1)
    chosen = jax.nn.one_hot(choices, experts).transpose(1, 0, 2) * weights[:, None]
    first, shares = chosen[0].sum(0), chosen.mean(0).sum(0)
    probabilities = (jax.nn.softmax(logits) * weights[:, None]).sum(0)
    return {
        "balance_loss": experts * jnp.sum(first * probabilities),
        "router_z_loss": jnp.sum(jnp.square(jax.nn.logsumexp(logits, axis=-1)) * weights),
        "dropped_share": 1.0 - jnp.sum(kept.mean(-1) * weights),
        "expert_share_min": shares.min(),
        "expert_share_max": shares.max(),
    }


def no_losses() -> Losses:
    """Zeros to which layers add their `routing_losses`."""
    names = ("balance_loss", "router_z_loss", "dropped_share", "expert_share_min")
    return {name: jnp.float32(0.0) for name in (*names, "expert_share_max")}


def auxiliary_loss(config: MixtureOfExpertsConfig, sums: Losses) -> tuple[jax.Array, Losses]:
    """What is added to the model's loss, and what is logged, from sums over layers with experts.

    Every such layer's losses count by the config's weights (they are added, as in ST-MoE); logged
    are the means over those layers, so that a balance loss of 1 is even at any depth.
    """
    loss = config.balance_loss * sums["balance_loss"] + config.router_z_loss * sums["router_z_loss"]
    return loss, {name: total / config.expert_layers for name, total in sums.items()}


def from_dense(
    config: MixtureOfExpertsConfig, dense: Mapping[str, Any], fresh: Mapping[str, Any]
) -> dict[str, Any]:
    """A language model's weights with every expert a copy of the dense model's MLP there.

    `dense` is the weight tree below `language_model` of `config.dense()`, `fresh` that of the
    mixture with its first values, whose routers are kept. Layers keep their numbers. With two or
    more choices the gates add up to 1, and the mixture then gives what the dense model gives; with
    one the MLP is weighted by its probability (see `route`).
    """
    numbers = np.arange(config.layers)
    with_experts = numbers % config.every == config.every - 1

    def rows(tree: Any, chosen: np.ndarray) -> Any:
        return jax.tree.map(lambda leaf: leaf[np.flatnonzero(chosen)], tree)

    blocks = dict(rows(dense["blocks"], with_experts))
    gate_up, down = blocks.pop("gate_up")["kernel"], blocks.pop("down")["kernel"]
    layers, width, both = gate_up.shape
    every_expert = (layers, config.experts)
    blocks["experts"] = {
        "router": fresh["expert_blocks"]["experts"]["router"],
        "gate_up": jnp.broadcast_to(
            gate_up.reshape(layers, 1, width, 2, both // 2), (*every_expert, width, 2, both // 2)
        ),
        "down": jnp.broadcast_to(down[:, None], (*every_expert, both // 2, width)),
    }
    out = {**dense, "expert_blocks": blocks}
    if config.every > 1:
        return {**out, "blocks": rows(dense["blocks"], ~with_experts)}
    return {name: part for name, part in out.items() if name != "blocks"}


def through_experts(
    tokens: jax.Array, choices: jax.Array, gates: jax.Array, gate_up: jax.Array, down: jax.Array
) -> jax.Array:
    """Each token's chosen experts, added by gate; no token is dropped.

    tokens [N, width]; choices, gates [N, top_k]; gate_up [experts, width, 2, hidden], down
    [experts, hidden, width] → [N, width]. A choice outside 0 … experts - 1 adds nothing.
    """
    (count, width), top_k, experts = tokens.shape, choices.shape[1], gate_up.shape[0]
    pairs = count * top_k
    per_expert = max(1, pairs // experts)
    block = min(BLOCK_ROWS, 1 << (per_expert - 1).bit_length())
    blocks = pairs // block + min(experts, pairs)
    row_of_pair, sizes = lay_out(choices.reshape(-1), experts, block)
    rows = blocks * block
    row_of_pair = jnp.minimum(row_of_pair, rows)
    pair_of_row = jnp.full(rows, pairs).at[row_of_pair].set(jnp.arange(pairs), mode="drop")
    inputs = permute(jnp.repeat(tokens, top_k, axis=0), pair_of_row, row_of_pair)
    both = grouped_matmul(inputs, gate_up.reshape(experts, width, -1), sizes, block)
    gate, up = jnp.split(both, 2, axis=-1)
    outputs = grouped_matmul(jax.nn.silu(gate) * up, down, sizes, block)
    outputs = permute(outputs, row_of_pair, pair_of_row).reshape(count, top_k, width)
    return jnp.einsum("nkm,nk->nm", outputs, gates.astype(outputs.dtype))


def through_experts_of_all(
    tokens: jax.Array, choices: jax.Array, gates: jax.Array, gate_up: jax.Array, down: jax.Array
) -> jax.Array:
    """As `through_experts`, with tokens cut like the batch and experts along `expert` of a mesh."""
    if not on_a_mesh():
        return through_experts(tokens, choices, gates, gate_up, down)

    def on_a_device(
        tokens: jax.Array, choices: jax.Array, gates: jax.Array, gate_up: jax.Array, down: jax.Array
    ) -> jax.Array:
        tokens, choices, gates = (
            jax.lax.all_gather(x, "expert", tiled=True) for x in (tokens, choices, gates)
        )
        own = choices - jax.lax.axis_index("expert") * gate_up.shape[0]
        sums = through_experts(tokens, own, gates, gate_up, down)
        return jax.lax.psum_scatter(jax.lax.psum(sums, "tensor"), "expert", tiled=True)

    rows = PartitionSpec(BATCH)
    up, back = PartitionSpec("expert", None, None, "tensor"), PartitionSpec("expert", "tensor")
    mapped = jax.shard_map(
        on_a_device, in_specs=(rows, rows, rows, up, back), out_specs=rows, check_vma=False
    )
    return mapped(tokens, choices, gates, gate_up, down)


def lay_out(choices: jax.Array, experts: int, block: int) -> tuple[jax.Array, jax.Array]:
    """Where each choice int32 [P] stands when all are ordered by expert, and rows per expert.

    Every expert's rows begin at a multiple of `block`. Returns rows int32 [P] (2³¹ - 1 for a
    choice outside 0 … experts - 1) and sizes int32 [experts], multiples of `block`.
    """
    hot = jax.nn.one_hot(choices, experts, dtype=jnp.int32)
    rank = jnp.sum(jnp.cumsum(hot, axis=0) * hot, axis=1) - 1
    sizes = -(-hot.sum(0) // block) * block
    starts = jnp.cumsum(sizes) - sizes
    inside = (choices >= 0) & (choices < experts)
    rows = starts[jnp.clip(choices, 0, experts - 1)] + rank
    return jnp.where(inside, rows, jnp.iinfo(jnp.int32).max), sizes


@jax.custom_vjp
def permute(x: jax.Array, index: jax.Array, inverse: jax.Array) -> jax.Array:
    """x[index], zeros where `index` points past the end: [n, width] → [len(index), width].

    `inverse` undoes it: inverse[index[i]] = i, past the end for rows that nothing takes. With it
    the gradient is a gather too; that of plain indexing would be a scatter of wide rows.
    """
    return x.at[index].get(mode="fill", fill_value=0)


def _permute_forward(
    x: jax.Array, index: jax.Array, inverse: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return permute(x, index, inverse), (index, inverse)


def _permute_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, None, None]:
    index, inverse = saved
    return permute(gradient, inverse, index), None, None


permute.defvjp(_permute_forward, _permute_backward)


def grouped_matmul(rows: jax.Array, kernels: jax.Array, sizes: jax.Array, block: int) -> jax.Array:
    """The first sizes[0] rows times kernels[0], the next sizes[1] times kernels[1], …

    rows [R, inputs], kernels [groups, inputs, outputs], sizes int32 [groups], multiples of `block`
    → [R, outputs]. What stands in rows beyond the last group is not to be used.
    """
    # XLA's CPU form of ragged_dot multiplies every row with every kernel.
    return jax.lax.platform_dependent(
        rows,
        kernels,
        sizes,
        cpu=functools.partial(_by_blocks, block=block),
        default=jax.lax.ragged_dot,
    )


def _by_blocks(rows: jax.Array, kernels: jax.Array, sizes: jax.Array, block: int) -> jax.Array:
    starts = jnp.arange(rows.shape[0] // block) * block
    group = jnp.searchsorted(jnp.cumsum(sizes), starts, side="right")
    own = kernels[jnp.minimum(group, kernels.shape[0] - 1)]
    return jnp.matmul(rows.reshape(-1, block, rows.shape[1]), own).reshape(rows.shape[0], -1)


def through_places(
    tokens: jax.Array,
    choices: jax.Array,
    gates: jax.Array,
    gate_up: jax.Array,
    down: jax.Array,
    group: int,
    places: int,
) -> tuple[jax.Array, jax.Array]:
    """As `through_experts`, with so many places per expert among `group` tokens at a time.

    Also returns which choices found a place, bool [N, top_k]. All first choices of a group come
    before its second choices; within a choice, tokens stand in line by position (GShard, §2.2).
    Gates are not renormalised after dropping.
    """
    (count, width), top_k, experts = tokens.shape, choices.shape[1], gate_up.shape[0]
    groups = math.ceil(count / group)
    missing = groups * group - count

    def grouped(x: jax.Array, fill: int) -> jax.Array:
        padded = jnp.pad(x, ((0, missing), (0, 0)), constant_values=fill)
        return padded.reshape(groups, group, -1)

    in_line = stand_in_line(grouped(choices, experts), experts)
    # [groups, group, top_k, experts] and [..., places]: rows of zeros for what is not kept.
    to_expert = jax.nn.one_hot(grouped(choices, experts), experts, dtype=tokens.dtype)
    to_place = jax.nn.one_hot(in_line, places, dtype=tokens.dtype)
    weighted = to_expert * grouped(gates, 0)[..., None].astype(tokens.dtype)
    dispatch = jnp.einsum("gske,gskc->gsec", to_expert, to_place)
    combine = jnp.einsum("gske,gskc->gsec", weighted, to_place)
    # Groups lie along all axes of the batch, experts along their own: from one to the other and
    # back tokens cross over, an all-to-all along `expert`.
    at_home, at_experts = (BATCH, None, None), ("expert", ("data", "fsdp"), None, None)
    inputs = jnp.einsum("gsec,gsm->egcm", dispatch, cut_along(grouped(tokens, 0), *at_home))
    inputs = cut_along(inputs, *at_experts)
    both = jnp.einsum("egcm,emuf->egcuf", inputs, gate_up)
    outputs = jnp.einsum("egcf,efm->egcm", jax.nn.silu(both[..., 0, :]) * both[..., 1, :], down)
    outputs = cut_along(outputs, *at_experts)
    y = cut_along(jnp.einsum("gsec,egcm->gsm", combine, outputs), *at_home)
    return y.reshape(-1, width)[:count], (in_line < places).reshape(-1, top_k)[:count]


def stand_in_line(choices: jax.Array, experts: int) -> jax.Array:
    """Choices int32 [groups, tokens, top_k] → how many stand before each at its expert.

    A choice outside 0 … experts - 1 stands nowhere: 2³¹ - 1.
    """
    groups, tokens, top_k = choices.shape
    in_order = choices.transpose(0, 2, 1).reshape(groups, -1)
    hot = jax.nn.one_hot(in_order, experts, dtype=jnp.int32)
    before = jnp.sum((jnp.cumsum(hot, axis=1) - hot) * hot, axis=-1)
    before = jnp.where(hot.any(-1), before, jnp.iinfo(jnp.int32).max)
    return before.reshape(groups, top_k, tokens).transpose(0, 2, 1)
