"""Trials that a study leaves out, each with a reason that every output prints.

    exclude:
      base seed 2: its node had memory errors
      encoder.image_size=16 seed 0: trained on a broken shard

A trial that is left out is not run, its numbers are in no table, and its seed is not among those
that the claims about its arm are decided on. All else is as planned. It is part of what a study
means: leaving a trial out later registers the study anew, and results that were known then stay
known (`analysis.registry`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ablations.errors import nearest, shown
from ablations.schema import Config
from ablations.stages import Trial

if TYPE_CHECKING:
    from ablations.study import Study


class Exclusion(Config):
    """A trial that does not count."""

    arm: str
    seed: int
    reason: str
    stages: tuple[str, ...]  # that its result would have come from

    @property
    def trial(self) -> str:
        """Its name, as `exclude` has it."""
        return trial_name(self.arm, self.seed)


def trial_name(arm: str, seed: int) -> str:
    """`base seed 2`."""
    return f"{arm} seed {seed}"


def excluded(study: Study, trials: Sequence[Trial]) -> tuple[Exclusion, ...]:
    """What a study leaves out of its trials, in their order. Raises `UserError`."""
    file, document = study.file, study.document
    if not file.exclude:
        return ()
    by_name = {trial_name(trial.arm, trial.seed): trial for trial in trials}
    for name in file.exclude:
        if name not in by_name:
            document.fail(
                f"exclude: no trial {shown(name)}{nearest(name, by_name)}", ("exclude", name)
            )
    found = tuple(
        Exclusion(
            arm=trial.arm,
            seed=trial.seed,
            reason=" ".join(file.exclude[name].split()),
            stages=tuple(trial.stages.values()),
        )
        for name, trial in by_name.items()
        if name in file.exclude
    )
    left = {trial.arm for name, trial in by_name.items() if name not in file.exclude}
    for one in found:
        if one.arm not in left:
            document.fail(
                f"exclude: nothing is left of {shown(one.arm)}; take the arm out of the design",
                ("exclude", one.trial),
            )
    return found


def counting(
    seeds: Sequence[int], arms: Collection[str], exclusions: Collection[tuple[str, int]]
) -> list[int]:
    """The seeds that something about some arms is decided on: those of which no trial is left
    out. `exclusions` are (arm, seed)."""
    return [seed for seed in seeds if not any((arm, seed) in exclusions for arm in arms)]
