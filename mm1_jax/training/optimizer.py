"""AdamW, Adafactor, and what weight decay leaves alone (MM1 §3 and appendix).

Their rate is `schedule.learning_rate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import optax

from mm1_jax.config.training import OptimizerConfig, PartRates

# Shorter sides keep a moment per weight. Adafactor's own bound, 128, would leave mini models
# unfactored: another optimiser than the one they stand for.
SHORTEST_FACTORED_SIDE = 16


def build_optimizer(config: OptimizerConfig, names: Sequence[str]) -> optax.GradientTransformation:
    """Clipping, scaling by moments and decoupled decay over a list of arrays with these names.

    Its updates are those at learning rate -1 (with adamw `optax.adamw`'s): the caller multiplies
    them by the rate and subtracts, so that a step multiplies decayed weights by
    1 - weight_decay * rate, and a longer or higher schedule needs no new compilation. Norms and
    biases are not decayed.
    """
    if config.kind == "adafactor":
        scale = scale_by_adafactor(names)
    else:
        scale = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        scale,
        optax.add_decayed_weights(config.weight_decay, mask=[decays(name) for name in names]),
    )


def scale_by_adafactor(names: Sequence[str]) -> optax.GradientTransformation:
    """Gradients over the root of factored second moments (Shazeer & Stern, 2018, algorithm 4).

    A matrix has a moment per row and per column, whose products stand for those of its weights; a
    vector has one per number. They decay by 1 - t^-0.8 at step t. The update of each matrix is
    brought down to a root mean square of at most 1. There is no first moment, and updates are not
    multiplied by the size of the weights: rates mean what they mean for AdamW. Each layer and each
    expert of a stacked array is a matrix of its own.
    """
    matrix = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=SHORTEST_FACTORED_SIDE),
        optax.clip_by_block_rms(1.0),
    )
    own = [_each(matrix, stacked_axes(name)) for name in names]

    # The arguments are named as optax names them.
    def init(params: Any) -> optax.OptState:
        return [one.init(weight) for one, weight in zip(own, params, strict=True)]

    def update(
        updates: Any, state: Any, params: Any = None
    ) -> tuple[optax.Updates, optax.OptState]:
        given = zip(own, updates, state, params, strict=True)
        pairs = [one.update(*arrays) for one, *arrays in given]
        return [new for new, _ in pairs], [moments for _, moments in pairs]

    return optax.GradientTransformation(init, update)


def _each(matrix: optax.GradientTransformation, axes: int) -> optax.GradientTransformation:
    """The transformation for each of the arrays that are stacked along the first `axes` axes."""
    init, update = matrix
    for _ in range(axes):
        init, update = jax.vmap(init), jax.vmap(update)
    return optax.GradientTransformation(init, update)


def stacked_axes(name: str) -> int:
    """How many leading axes of the parameter with this path count layers and experts."""
    path = name.split("/")
    layers = "blocks" in path or "expert_blocks" in path
    return layers + (path[-2:] in (["experts", "gate_up"], ["experts", "down"]))


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter with this path, "encoder/norm/scale"."""
    return name.rsplit("/", 1)[-1] not in ("bias", "scale")


def part_rate(rates: PartRates, name: str) -> float:
    """What the learning rate of the parameter with this path is multiplied with."""
    return getattr(rates, name.split("/", 1)[0], 1.0)
