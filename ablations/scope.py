"""What a verdict holds for: what was fixed while the seeds varied.

The seed is the sample, so whatever all seeds share is part of the scope: the benchmarks always,
the draw of questions, demonstrations and shuffles, weights that were read from a folder, and kinds
of randomness that the recipe fixes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ablations.contrasts import ScoreKey
    from ablations.plan import Plan
    from ablations.stages import Stage

SCOPE = "on these benchmarks"  # test items are fixed, seeds are the sample
WEIGHTS = "weights"  # kind of stage that reads weights from a folder; all seeds share it
# Key of a recipe's `seeds` → what all seeds have in common where it is a number.
FIXED = {"initialisation": "these first weights", "data_order": "this data order"}


def scope(plan: Plan, keys: Iterable[ScoreKey]) -> str:
    """What a claim on these scores is limited to: `on these benchmarks, these checkpoints`."""
    keys = list(keys)
    arms = {key.arm for key in keys}
    found = ["these benchmarks"]
    asked = [
        (plan.stages[e.stage], key)
        for trial in plan.trials
        if trial.arm in arms and trial.seed == plan.seeds[0]
        for e in trial.evaluations
        for key in keys
        if (key.arm, key.task, key.shots, key.condition)
        == (trial.arm, e.task, e.shots, e.condition)
    ]
    found += dict.fromkeys(what for stage, key in asked for what in _drawn(stage, key))
    if any(
        plan.stages[one].kind == WEIGHTS
        for trial in plan.trials
        if trial.arm in arms
        for one in trial.pretrained.values()
    ):
        found.append("these checkpoints")
    for key, what in FIXED.items():
        if any(a.config["seeds"][key] is not None for a in plan.arms if a.name in arms):
            found.append(what)
    return f"on {', '.join(found)}"


def _drawn(stage: Stage, key: ScoreKey) -> Iterable[str]:
    """What of a question was drawn once, for all arms and seeds."""
    if stage.config.get("items") is not None:
        yield "this draw of the questions"
    if key.shots:
        yield "this draw of the demonstrations"
    if key.condition == "shuffled":
        yield "this shuffle of the images"
