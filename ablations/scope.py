"""What a verdict holds for: what was fixed while the seeds varied.

The seed is the sample, so whatever all seeds share is part of the scope: the benchmarks always,
the draw of questions, demonstrations and shuffles, weights that were read from a folder, and kinds
of randomness that a config fixes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ablations.workload import Asked

if TYPE_CHECKING:
    from ablations.contrasts import ScoreKey
    from ablations.plan import Plan

SCOPE = "on these benchmarks"  # test items are fixed, seeds are the sample
CHECKPOINTS = "these checkpoints"


def scope(plan: Plan, keys: Iterable[ScoreKey]) -> str:
    """What a claim on these scores is limited to: `on these benchmarks, these checkpoints`."""
    keys = list(keys)
    arms = [plan.arm(name) for name in dict.fromkeys(key.arm for key in keys)]
    found = {"these benchmarks": None}
    for key in keys:
        answer = plan.arm(key.arm).answer(Asked(key.task, key.shots, key.condition))
        found |= dict.fromkeys(answer.drawn if answer else ())
    first = {trial.arm: trial for trial in plan.trials[: len(plan.arms)]}
    read = (stage for arm in arms for stage in first[arm.name].stages.values())
    if any(plan.stages[stage].work.pinned for stage in read):
        found[CHECKPOINTS] = None
    found |= dict.fromkeys(what for arm in arms for what in arm.shared)
    return f"on {', '.join(found)}"
