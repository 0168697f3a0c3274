"""`seeds: {initial: 3, max: 12, until: verdict}`: how seeds are added where the verdict is open.

Everything here but the planned costs is part of what is registered, so that neither looks nor
boundary nor budget can be chosen after results (`ablations.replication` has the rule,
`ablations.sequential` the boundary).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from ablations.errors import nearest, shown
from ablations.schema import Config

FIRST_LOOK = 3  # seeds; the boundary was calibrated from there
MOST_SEEDS = 12  # and up to there
LOOKAHEAD = 4  # by default: trials that may run at once, each chosen without the others' results
# Part of what is registered: an old study must not be judged by a new method.
METHOD = "Wang-Tsiatis 0.25 for t, table 1; futile below 0.10 from 4 seeds"
KEYS = ("initial", "max", "until", "lookahead", "budget", "from")
# Budgets of a machine → in words.
OF_MACHINE = {
    "device_hours": "{:g} device-hours",
    "wall_hours": "{:g} hours",
    "money": "a price of {:g}",
}


class Budget(Config):
    """What a study may cost in all, by what was planned; None: as much as it takes.

    on            the machine that the last three are of, all of its devices taken as busy
    device_hours  hours times all devices of it
    money         in the currency of its price
    """

    trials: PositiveInt | None = None
    core_hours: PositiveFloat | None = None
    on: str = ""
    device_hours: PositiveFloat | None = None
    wall_hours: PositiveFloat | None = None
    money: PositiveFloat | None = None

    @property
    def of_machine(self) -> dict[str, float]:
        """What is said of the machine: key → how much."""
        said = {key: getattr(self, key) for key in OF_MACHINE}
        return {key: value for key, value in said.items() if value is not None}

    @property
    def told(self) -> list[str]:
        """Each cap in words."""
        caps = [f"{self.trials} trials"] if self.trials else []
        caps += [f"{self.core_hours:g} core-hours"] if self.core_hours else []
        told = [OF_MACHINE[key].format(much) for key, much in self.of_machine.items()]
        return caps + [f"{one} on {self.on}" for one in told]


class AdaptiveSeeds(Config):
    """Every arm's first seeds, and up to how many a claim may get until it has a verdict."""

    initial: PositiveInt = FIRST_LOOK
    most: PositiveInt
    lookahead: PositiveInt = LOOKAHEAD
    budget: Budget = Budget()
    is_fresh: bool = False  # seeds that no other study has

    @property
    def means(self) -> dict[str, Any]:
        """What of it is registered."""
        return {
            "method": METHOD,
            "initial": self.initial,
            "most": self.most,
            "lookahead": self.lookahead,
            "budget": self.budget.model_dump(mode="json", exclude_defaults=True),
        }


class Replication(AdaptiveSeeds):
    """The same of a study that was planned, with what its decisions need beside results."""

    # Arm → planned seconds of a trial, on one core or on all of the budget's machine. The first
    # registration's stand: decisions of a study that goes on must not change with the formulas.
    seconds: dict[str, float] = Field({})
    most_seconds: PositiveFloat | None = None  # of all trials together: what the budget comes to


def read_adaptive(value: dict[str, Any]) -> AdaptiveSeeds:
    """The value of `seeds` that has the key `until`. Raises `ValueError` for what is wrong."""
    for key in value:
        if key not in KEYS:
            raise ValueError(f"unknown key {shown(str(key))}{nearest(str(key), KEYS)}")
    if value["until"] != "verdict":
        raise ValueError(f"until: {shown(value['until'])} is not valid: expected verdict")
    if "max" not in value:
        raise ValueError("max is missing: the most seeds that a claim may get, such as 12")
    if value.get("from", "fresh") != "fresh":
        raise ValueError(f"from: {shown(value['from'])} is not valid: expected fresh")
    initial = _whole("initial", value.get("initial", FIRST_LOOK), FIRST_LOOK, MOST_SEEDS - 1)
    most = _whole("max", value["max"], initial + 1, MOST_SEEDS)
    return AdaptiveSeeds(
        initial=initial,
        most=most,
        lookahead=_whole("lookahead", value.get("lookahead", LOOKAHEAD), 1, 10_000),
        budget=_budget(value.get("budget", {})),
        is_fresh="from" in value,
    )


def _budget(value: Any) -> Budget:
    if not isinstance(value, dict):
        raise ValueError(f"budget: {shown(value)} is not valid: expected {{trials: 54}}")
    names = list(Budget.model_fields)
    for key, number in value.items():
        if key not in names:
            raise ValueError(f"budget: unknown key {shown(str(key))}{nearest(str(key), names)}")
        if key == "on":
            if not isinstance(number, str) or not number:
                raise ValueError(f"budget.on: {shown(number)} is not the name of a machine")
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            raise ValueError(f"budget.{key}: {shown(number)} is not a number above 0")
        if key == "trials":
            _whole("budget.trials", number, 1, 10**9)
    budget = Budget(**value)
    of_machine = [*budget.of_machine]
    if of_machine and not budget.on:
        raise ValueError(f"budget.{of_machine[0]}: on which machine is missing, such as on: a100-8")
    if budget.on and not of_machine:
        raise ValueError(f"budget.on: a machine needs one of {', '.join(OF_MACHINE)} beside it")
    if budget.on and budget.core_hours:
        raise ValueError("budget: core_hours and on: trials have one cost; take one of both")
    return budget


def _whole(key: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{key}: {shown(value)} is not a number from {least} to {most}")
    return value
