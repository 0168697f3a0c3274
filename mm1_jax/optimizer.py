"""AdamW and what it leaves alone (MM1 §3 and appendix); its rate is `schedule.learning_rate`."""

from __future__ import annotations

from collections.abc import Sequence

import optax

from mm1_jax.config import OptimizerConfig, PartRates


def build_optimizer(config: OptimizerConfig, names: Sequence[str]) -> optax.GradientTransformation:
    """Clipping, Adam and decoupled decay over a list of arrays with these names.

    Its updates are those of `optax.adamw` at learning rate -1: the caller multiplies them by the
    rate and subtracts, so that a step multiplies decayed weights by 1 - weight_decay * rate, and a
    longer or higher schedule needs no new compilation. Norms and biases are not decayed.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=[decays(name) for name in names]),
    )


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter with this path, "encoder/norm/scale"."""
    return name.rsplit("/", 1)[-1] not in ("bias", "scale")


def part_rate(rates: PartRates, name: str) -> float:
    """What the learning rate of the parameter with this path is multiplied with."""
    return getattr(rates, name.split("/", 1)[0], 1.0)
