"""What a study whose seeds are added may cost, beside what its trials are planned to cost.

    budget: {core_hours: 20}                     planned seconds of one core
    budget: {money: 300, on: a100-8}             … of the machine's share that a trial takes up
    budget: {wall_hours: 8, on: cluster.yaml}

Costs are planned ones, and those of the first registration: a clock, or what was measured, would
make another machine take other decisions. Stages that trials share are counted with each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.adaptive_seeds import AdaptiveSeeds, Budget, Replication
from ablations.errors import UserError
from ablations.estimates import at_once, estimate, fit
from ablations.machine import Machine, load_machine
from ablations.stages import Stage, Trial
from ablations.workload import Work

if TYPE_CHECKING:
    from ablations.study import Study


def replication(
    study: Study,
    adaptive: AdaptiveSeeds,
    arms: int,
    trials: Sequence[Trial],
    stages: Mapping[str, Stage],
) -> Replication:
    """How seeds of a study are added, with the planned cost of a trial of each arm.

    `trials` begins with one of each of the `arms`. Raises `UserError` for a budget that is not
    enough to begin with, or that cannot be counted.
    """
    budget, initial = adaptive.budget, adaptive.initial
    works = {
        trial.arm: [stages[one].work for one in trial.stages.values()] for trial in trials[:arms]
    }
    machine = _budgeted(study, budget)
    seconds = {arm: _planned_seconds(study, arm, own, machine) for arm, own in works.items()}
    least, planned = arms * initial, sum(seconds.values()) * initial
    begin = f"to begin with ({arms} arms × {initial} seeds)"
    if budget.trials is not None and budget.trials < least:
        study.document.fail(
            f"seeds: budget.trials: {budget.trials} are fewer than the {least} {begin}", ("seeds",)
        )
    caps = _caps(study, budget, machine)
    for key, (much, second) in caps.items():
        if much < planned * second:
            study.document.fail(
                f"seeds: budget.{key}: {much:g} are fewer than the {planned * second:.3g} that are "
                f"planned {begin}",
                ("seeds",),
            )
    most = min((much / second for much, second in caps.values()), default=None)
    return Replication(**adaptive.model_dump(), seconds=seconds, most_seconds=most)


def _budgeted(study: Study, budget: Budget) -> Machine | None:
    """The machine that a budget is of; its own file lies beside the study."""
    if not budget.on:
        return None
    try:
        return load_machine(budget.on, beside=Path(study.document.path))
    except UserError as error:
        study.document.fail(f"seeds: budget.on: {error}", ("seeds",))


def _planned_seconds(
    study: Study, arm: str, works: Sequence[Work], machine: Machine | None
) -> float:
    """Of a trial, shared stages counted whole: on one core, or on all of a machine."""
    seconds = 0.0
    for work in works:
        if machine is None:
            seconds += work.seconds
            continue
        said, side = estimate(work, machine), at_once(work, machine)
        if said.seconds is None or not side:
            why = fit(work, machine).reason if not side else said.basis
            study.document.fail(f"seeds: budget.on: {arm} on {machine.name}: {why}", ("seeds",))
        seconds += said.seconds / side
    return float(f"{seconds:.3g}")


def _caps(study: Study, budget: Budget, machine: Machine | None) -> dict[str, tuple[float, float]]:
    """Budgets of time and money: how much, and how much of it a planned second takes."""
    a_second = {"core_hours": 1 / 3600}
    if machine is not None:
        price = machine.price
        if budget.money is not None and (price is None or not price.hourly):
            study.document.fail(
                f"seeds: budget.money: no price of {machine.name} is known; say it in a file of "
                "your own",
                ("seeds",),
            )
        hourly = price.hourly * machine.slices if price else 0.0
        devices = machine.devices * machine.slices
        a_second |= {
            "wall_hours": 1 / 3600,
            "device_hours": devices / 3600,
            "money": hourly / 3600,
        }
    said = {key: getattr(budget, key) for key in a_second}
    return {key: (much, a_second[key]) for key, much in said.items() if much is not None}
