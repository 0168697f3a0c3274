"""What a verdict holds for: what was fixed while the seeds varied.

The seed is the sample, so whatever all seeds share is part of the scope: the benchmarks always,
and what the workload says beside: a draw of questions, weights that were read from a folder, a step
that takes no seed, randomness that a config fixes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ablations.workload import Asked

if TYPE_CHECKING:
    from ablations.contrasts import ScoreKey
    from ablations.plan import Plan

SCOPE = "on these benchmarks"  # test items are fixed, seeds are the sample


def scope(plan: Plan, keys: Iterable[ScoreKey]) -> str:
    """What a claim on these scores is limited to: `on these benchmarks, these checkpoints`."""
    keys = list(keys)
    arms = [plan.arm(name) for name in dict.fromkeys(key.arm for key in keys)]
    found = {"these benchmarks": None}
    for key in keys:
        answer = plan.arm(key.arm).answer(Asked(key.task, key.shots, key.condition))
        found |= dict.fromkeys(answer.drawn if answer else ())
    found |= dict.fromkeys(what for arm in arms for what in arm.shared)
    return f"on {', '.join(found)}"
