"""What a plan comes to on a machine: does each arm fit, how long it takes, what it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ablations.errors import UserError
from ablations.estimates import NOBODY, ROOM, Fit, at_once, devices_of, estimate, fit, gib
from ablations.machine import Machine, known, load_machine
from ablations.plan import Arm, Plan
from ablations.stages import Stage
from analysis.words import MISSING, count, duration
from mm1_jax.stage_kinds import is_ours
from sweeps.calibration import Basis, Calibration
from sweeps.scheduler import START_SECONDS, Scheduler

MEASURED: Mapping[Basis, str] = {
    "class": "finished stages of the same program on this machine",
    "kind": "finished stages of the same kind on this machine",
    "study": "finished stages of other kinds on this machine",
}
_WORST = ("no", "close", "unknown", "yes")  # which of its stages' answers is the arm's


@dataclass(frozen=True)
class ArmOn:
    """One arm on a machine. Seconds and money are of one trial, its shared stages counted whole."""

    name: str
    label: str
    fit: Fit
    seconds: float | None
    cost: float | None


@dataclass(frozen=True)
class PlanOn:
    """A plan on a machine. Seconds, device-hours and money are of what is not finished yet.

    critical_path_seconds   of the longest way through the stages, with workers without end
    seconds                 until all is done by the `workers` that there is room for
    cost                    of all of the machine for that long
    bases                   what the seconds rest on → how many stages
    left_out                arms that do not fit, which the totals leave out
    """

    machine: Machine
    arms: tuple[ArmOn, ...]
    workers: int
    stages: int
    critical_path_seconds: float | None
    seconds: float | None
    device_hours: float | None
    cost: float | None
    bases: Mapping[str, int]
    left_out: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Of `mm1 plan --on … --json`."""
        machine = self.machine
        return {
            "machine": machine.model_dump(mode="json"),
            "devices": machine.devices * machine.slices,
            "arms": [asdict(arm) for arm in self.arms],
            **{
                key: getattr(self, key)
                for key in (
                    *("workers", "stages", "critical_path_seconds", "seconds", "device_hours"),
                    *("cost", "bases", "left_out"),
                )
            },
            "currency": machine.price.currency if machine.price else None,
        }


def on_machine(
    plan: Plan,
    machine: Machine,
    finished: set[str],
    measured: Mapping[str, float],
    workers: int | None = None,
    start_seconds: float = START_SECONDS,
) -> PlanOn:
    """What a plan comes to on a machine.

    `measured` gives seconds of finished stages that ran on such a machine; `workers` is said by
    the user, else as many as there is room for.

    Raises:
        UserError: no arm fits; by how much, and what would help.
    """
    firsts = {trial.arm: trial for trial in plan.trials[: len(plan.arms)]}
    fits = {arm.name: _fit(plan, firsts[arm.name].stages.values(), machine) for arm in plan.arms}
    left_out = [arm for arm in plan.arms if fits[arm.name][0].room == "no"]
    if len(left_out) == len(plan.arms):
        first = left_out[0]
        why = _why(first, *fits[first.name], machine)
        others = f" ({len(left_out)} arms, none fits)" if len(left_out) > 1 else ""
        raise UserError(f"no arm of {plan.study} fits on {machine.name}: {why}{others}")
    estimated = _Estimated(plan, machine, measured)
    out = {arm.name for arm in left_out}
    wanted = {
        stage for trial in plan.trials if trial.arm not in out for stage in trial.stages.values()
    }
    missing = [stage for stage in estimated.stages.values()
               if stage.id in wanted and stage.id not in finished]  # fmt: skip
    room = workers or min((at_once(stage.work, machine) for stage in missing), default=1)
    timed = all(map(estimated.is_known, missing))
    seconds = path = hours = None
    if timed and missing:
        path = start_seconds + _critical_path(missing)
        names = [f"worker {number}" for number in range(min(room, len(missing)))]
        rest = plan.model_copy(update={"stages": {one: estimated.stages[one] for one in wanted}})
        scheduler = Scheduler(rest, finished, names)
        seconds = start_seconds + scheduler.remaining_seconds(0.0)
        hours = sum(one.seconds * devices_of(one.work) for one in missing) / 3600
    elif timed:
        seconds = path = hours = 0.0
    price = machine.price
    bases: dict[str, int] = {}
    for stage in missing:
        basis = estimated.basis(stage)
        bases[basis] = bases.get(basis, 0) + 1
    return PlanOn(
        machine=machine,
        arms=tuple(
            _arm_on(arm, fits[arm.name][0], estimated, firsts[arm.name].stages.values(), machine)
            for arm in plan.arms
        ),
        workers=room,
        stages=len(missing),
        critical_path_seconds=path,
        seconds=seconds,
        device_hours=hours,
        cost=None if price is None or seconds is None
        else seconds / 3600 * price.hourly * machine.slices,
        bases=bases,
        left_out=tuple(_why(arm, *fits[arm.name], machine) for arm in left_out),
    )  # fmt: skip


class _Estimated:
    """The stages of a plan with the seconds that they take on a machine."""

    def __init__(self, plan: Plan, machine: Machine, measured: Mapping[str, float]):
        works = {id(stage.work): stage.work for stage in plan.stages.values()}
        self._said = {key: estimate(work, machine) for key, work in works.items()}
        self._key = {stage.id: id(stage.work) for stage in plan.stages.values()}
        planned = {
            key: work.model_copy(
                update={
                    # Where nobody says, the plan's placeholder: a measured ratio makes it right.
                    "seconds": self._said[key].seconds or work.seconds,
                    "compile_seconds": self._said[key].compile_seconds,
                }
            )
            for key, work in works.items()
        }
        self._calibration = Calibration()
        one_of: dict[int, Stage] = {}
        for stage in plan.stages.values():
            one_of.setdefault(id(stage.work), stage)
        for stage_id, seconds in measured.items():
            stage = plan.stages[stage_id]
            own = dataclasses.replace(stage, work=planned[id(stage.work)])
            self._calibration.measure(own, seconds)
        corrected = {
            key: work.model_copy(
                update={
                    "seconds": self._calibration.seconds(
                        dataclasses.replace(one_of[key], work=work)
                    )
                }
            )
            for key, work in planned.items()
        }
        self.stages = {
            stage.id: dataclasses.replace(stage, work=corrected[id(stage.work)])
            for stage in plan.stages.values()
        }

    def is_known(self, stage: Stage) -> bool:
        """Whether anybody says how long a stage takes, or one like it was measured."""
        said = self._said[self._key[stage.id]]
        return said.seconds is not None or self._calibration.basis(stage) == "class"

    def basis(self, stage: Stage) -> str:
        """What its seconds rest on, in words."""
        said, of = self._said[self._key[stage.id]], self._calibration.basis(stage)
        return said.basis if of == "plan" or not self.is_known(stage) else MEASURED[of]


def _critical_path(missing: list[Stage]) -> float:
    """Seconds of the longest way through stages, each compiled anew."""
    ends: dict[str, float] = {}
    stages = {stage.id: stage for stage in missing}

    def end(stage_id: str) -> float:
        if stage_id not in stages:
            return 0.0
        if stage_id not in ends:
            stage = stages[stage_id]
            before = max(map(end, stage.inputs.values()), default=0.0)
            ends[stage_id] = before + stage.seconds + stage.compile_seconds
        return ends[stage_id]

    return max(map(end, stages))


def _fit(plan: Plan, stages: Any, machine: Machine) -> tuple[Fit, Stage]:
    """The worst answer of an arm's stages, and the stage that gave it."""
    every = [(fit(plan.stages[one].work, machine), plan.stages[one]) for one in stages]
    told = [one for one in every if one[0].room != "unknown" or one[0].reason] or every
    return min(told, key=lambda one: (_WORST.index(one[0].room), -(one[0].memory_bytes or 0)))


def _why(arm: Arm, of: Fit, stage: Stage, machine: Machine) -> str:
    """Why an arm does not fit, and what would help, on one line."""
    told = f"{arm.label}: {stage.work.what or stage.kind} {of.reason}"
    help_ = list(_helps(of, stage, machine))
    return f"{told}; what would help: {' or '.join(help_)}" if help_ else told


def _helps(of: Fit, stage: Stage, machine: Machine) -> Iterator[str]:
    if of.memory_bytes is None or of.of_bytes is None or not is_ours(stage.kind, stage.run):
        return
    if machine.kind == "cpu" or "connector" not in stage.config:
        return
    from mm1_jax.config.train_config import TrainConfig
    from mm1_jax.scale.remedies import remedies

    config = TrainConfig.model_validate(stage.config)
    room = ROOM * of.of_bytes
    for name, devices in [(machine.name, machine.devices), *_larger(machine)]:
        found = remedies(config, room, devices, smaller_batch=name == machine.name)
        for words, needed in found:
            where = "" if name == machine.name else f"on {name} "
            yield f"{where}{words} (about {gib(needed)})"
        if found:
            return


def _larger(machine: Machine) -> list[tuple[str, int]]:
    """Machines of more such devices, the smallest first."""
    others = [load_machine(name) for name in known()]
    larger = [
        (one.devices, one.name)
        for one in others
        if one.devices > machine.devices
        and (one.kind, one.accelerator.version) == (machine.kind, machine.accelerator.version)
    ]
    return [(name, devices) for devices, name in sorted(larger)]


def _arm_on(arm: Arm, of: Fit, estimated: _Estimated, stages: Any, machine: Machine) -> ArmOn:
    own = [estimated.stages[one] for one in stages]
    timed = of.room != "no" and all(map(estimated.is_known, own))
    seconds = sum(stage.seconds for stage in own) if timed else None
    cost = None
    if timed and machine.price is not None:
        shares = [stage.seconds * machine.slices / at_once(stage.work, machine) for stage in own]
        cost = sum(shares) / 3600 * machine.price.hourly
    return ArmOn(arm.name, arm.label, of, seconds, cost)


# -- in words ------------------------------------------------------------------------------------


def headline(on: PlanOn) -> str:
    """The machine, in a line."""
    machine = on.machine
    hosts = "" if machine.hosts == 1 else f" on {count(machine.hosts)} hosts"
    slices = "" if machine.slices == 1 else f", {machine.slices} of them"
    devices = "1 device" if machine.devices == 1 else f"{machine.devices} devices"
    has = machine.accelerator.memory
    memory = "" if has is None else f" of {gib(has)}"
    return f"on {machine.name}: {machine.what or machine.kind}; {devices}{memory}{hosts}{slices}"


def rows(on: PlanOn) -> tuple[list[str], list[list[str]]]:
    """Header and one row an arm."""
    priced = on.machine.price is not None
    header = ["arm", "fits", "devices", "memory a device", "time a trial"]
    lines = [
        [
            arm.label,
            arm.fit.room,
            str(arm.fit.devices),
            MISSING if arm.fit.memory_bytes is None else f"about {gib(arm.fit.memory_bytes)}",
            MISSING if arm.seconds is None else duration(arm.seconds),
            *([MISSING if arm.cost is None else money(on.machine, arm.cost)] if priced else []),
        ]
        for arm in on.arms
    ]
    return header + (["cost a trial"] if priced else []), lines


def lines(on: PlanOn) -> Iterator[str]:
    """What there is to say of the study as a whole, and what the estimates rest on."""
    machine = on.machine
    for why in on.left_out:
        yield f"does not fit, and is left out of the totals: {why}"
    if not on.stages:
        yield "nothing is left to run"
        return
    side = "1 stage" if on.workers == 1 else f"{on.workers} stages"
    if on.seconds is None or on.critical_path_seconds is None or on.device_hours is None:
        yield f"time and cost in all are not known: {NOBODY} (say `seconds` of a step, or run one)"
    else:
        yield (
            f"estimated for the rest, start and compilation included: {duration(on.seconds)}, "
            f"{side} at a time; no less than {duration(on.critical_path_seconds)} whatever is "
            f"there (critical path); {_rounded(on.device_hours)} device-hours of work"
        )
    price = machine.price
    if price is None:
        yield f"no price of {machine.name} is known: say --price, or in a file of your own"
    else:
        said = ", ".join(filter(None, (price.what, price.read and f"read {price.read}")))
        where = f" ({said})" if said else ""
        cost = (
            ""
            if on.cost is None
            else f"cost of all of it for that long: {money(machine, on.cost)}, "
        )
        yield f"{cost}at {money(machine, price.hourly)} an hour{where}"
        if price.source:
            yield f"price: {price.source}"
    for basis, number in on.bases.items():
        yield f"{'1 stage' if number == 1 else f'{number} stages'} by {basis}"
    if any(arm.fit.room == "unknown" for arm in on.arms):
        yield "fits unknown: nobody says how much of a device's memory those stages need"
    if any(arm.fit.room == "close" for arm in on.arms):
        yield "close: the formula of memory is off by up to a third; mm1 aot asks the compiler"


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def money(machine: Machine, amount: float) -> str:
    """`12.30 USD`."""
    currency = machine.price.currency if machine.price else ""
    if 0 < amount < 0.01:
        return f"< 0.01 {currency}"
    return f"{amount:,.0f} {currency}" if amount >= 100 else f"{amount:.2f} {currency}"
