"""When a loss is not finite or a spike: what that means, and what a training then does.

On the devices a step decides whether it was healthy, and changes nothing if not (`remember`); on
the host the policy decides what follows (`Divergence`).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mm1_jax.config.training import DivergencePolicy

RECENT = 50  # losses whose mean a spike is measured by

Verdict = Literal["go on", "roll back", "stop"]


def remember(
    recent: jax.Array, loss: jax.Array, grad_norm: jax.Array, spike: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether a step was healthy, bool [], and the losses of the last healthy ones, [RECENT].

    Loss and gradient are finite, and the loss is at most `spike` times the mean of `recent`, unless
    `spike` is infinite. As long as fewer than RECENT steps were healthy the mean is not a number,
    and nothing is a spike.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    healthy = finite & ~(jnp.isfinite(spike) & (loss > spike * recent.mean()))
    return healthy, jnp.where(healthy, jnp.append(recent[1:], loss), recent)


class Divergence:
    """A policy, and how often it had to act."""

    def __init__(self, policy: DivergencePolicy):
        self._policy = policy
        self.counts = {"skipped_steps": 0, "rolled_back_steps": 0}

    @property
    def rolls_back(self) -> bool:
        """Whether a checkpoint must be there from the start."""
        return self._policy.policy == "roll_back"

    def judge(self, *, healthy: bool) -> Verdict:
        """What follows from a step."""
        if healthy:
            return "go on"
        if self._policy.policy == "stop" or sum(self.counts.values()) >= self._policy.most:
            return "stop"
        if self._policy.policy == "skip":
            self.counts["skipped_steps"] += 1
            return "go on"
        self.counts["rolled_back_steps"] += 1
        return "roll back"

    def numbers(self) -> dict[str, float]:
        """The counts that the policy can raise, for the results."""
        counted = {"stop": (), "skip": ("skipped_steps",), "roll_back": ("rolled_back_steps",)}
        return {name: float(self.counts[name]) for name in counted[self._policy.policy]}
