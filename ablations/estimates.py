"""What a stage is estimated to take on a machine, before anything of its kind has run there.

On a CPU what its workload plans of one core. On accelerators its FLOPs over a share of the peak
that is assumed (`Accelerator.utilisation`), and an overhead a step. Where nobody knows, None: a
time that nobody said is not 0. Finished stages replace all of it (`sweeps.calibration`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ablations.machine import Machine
from ablations.workload import Work

ROOM = 0.9  # share of a device's memory that an estimate may fill
OFF = 4 / 3  # estimates of memory are off by up to a third
NOBODY = "nobody says how long it takes"

Room = Literal["yes", "close", "no", "unknown"]


@dataclass(frozen=True)
class Estimate:
    """Seconds of a stage's work and of its compilation; `basis` says what they rest on."""

    seconds: float | None
    compile_seconds: float
    basis: str


@dataclass(frozen=True)
class Fit:
    """Whether a stage fits on a machine.

    room        yes, close (the estimate's error decides), no, or unknown
    reason      of a no, in words
    memory_bytes, of_bytes   of each device: needed, and there; None: not known
    """

    room: Room
    devices: int
    memory_bytes: int | None = None
    of_bytes: int | None = None
    reason: str = ""


def estimate(work: Work, machine: Machine) -> Estimate:
    """What a stage takes on a machine."""
    accelerator = machine.accelerator
    said = "formulas for one core" if work.flops is not None else "what the study says"
    if machine.kind == "cpu" or work.flops is None:
        seconds = work.seconds if work.seconds_said else None
        return Estimate(seconds, work.compile_seconds, said if work.seconds_said else NOBODY)
    peak = machine.peak_flops(work.dtype)
    if peak is None:
        return Estimate(None, work.compile_seconds, f"no peak of {work.dtype} is known")
    shares = accelerator.utilisation
    share = shares.training if work.steps else shares.evaluation
    arithmetic = work.flops / (devices_of(work) * peak * share)
    overhead = work.steps * accelerator.step_overhead + accelerator.stage_overhead
    return Estimate(
        arithmetic + overhead,
        work.compile_seconds,
        f"FLOPs at {100 * shares.training:g} % of the peak ({100 * shares.evaluation:g} % in "
        f"evaluations), {1000 * accelerator.step_overhead:g} ms a step and "
        f"{accelerator.stage_overhead:g} s a stage, all assumed",
    )


def devices_of(work: Work) -> int:
    """How many devices a stage occupies, a part of one counted as one."""
    needs = work.resources
    if needs.tpu is not None:
        return needs.tpu.chips
    return max(needs.devices, needs.hosts * math.ceil(needs.gpu or 0))


def at_once(work: Work, machine: Machine) -> int:
    """How many of a stage run side by side on the machine; 0 where it does not hold one."""
    needs, devices = work.resources, devices_of(work)
    if fit(work, machine).room == "no":
        return 0
    if machine.kind == "cpu":
        cores = (machine.host.cores if machine.host else None) or 1
        return max(1, math.floor(cores * machine.hosts / max(1.0, needs.cpu or 1.0)))
    if needs.gpu and needs.gpu < 1:
        return machine.slices * machine.devices * math.floor(1 / needs.gpu)
    if devices > machine.devices_per_host:
        return machine.slices * (machine.hosts // -(-devices // machine.devices_per_host))
    return machine.slices * machine.hosts * (machine.devices_per_host // devices)


def fit(work: Work, machine: Machine) -> Fit:
    """Whether a stage fits on a machine, by its estimated memory and what it asks for."""
    devices = devices_of(work)
    if (reason := _lacking(work, machine, devices)) is not None:
        return Fit("no", devices, reason=reason)
    needed, has = memory_of(work, machine), machine.accelerator.memory
    if needed is None or has is None:
        return Fit("unknown", devices, needed, has)
    if needed <= ROOM * has:
        return Fit("yes" if needed * OFF <= ROOM * has else "close", devices, needed, has)
    reason = (
        f"needs about {gib(needed)} on each device, where {gib(ROOM * has)} of {gib(has)} may be "
        f"filled: {gib(needed - ROOM * has)} too much"
    )
    return Fit("no", devices, needed, has, reason)


def _lacking(work: Work, machine: Machine, devices: int) -> str | None:
    """What a stage asks for and a machine has not; None where it has all."""
    needs, host = work.resources, machine.host
    if needs.gpu and machine.kind != "gpu":
        return "needs a GPU, and it has none"
    if needs.tpu is not None and machine.accelerator.version != needs.tpu.version:
        return f"needs the TPU slice {needs.tpu}, and it has none"
    if devices > machine.devices:
        has = f"{machine.devices} device" + ("s" if machine.devices > 1 else "")
        return f"needs {devices} devices, and it has {has}"
    if needs.hosts > machine.hosts:
        return f"needs {needs.hosts} hosts, and it has {machine.hosts}"
    if host is not None and host.cores is not None and (needs.cpu or 0) > host.cores:
        return f"needs {needs.cpu:g} cores, and a host has {host.cores}"
    if host is not None and host.memory is not None and needs.memory_bytes > host.memory:
        return f"needs {gib(needs.memory_bytes)} of memory, and a host has {gib(host.memory)}"
    return None


def memory_of(work: Work, machine: Machine) -> int | None:
    """Bytes of a training on each of its devices, roughly; None where nobody knows."""
    if machine.kind != "cpu":
        return work.device_memory_bytes
    devices = work.resources.devices
    return None if work.memory_bytes is None else -(-work.memory_bytes // devices)


def gib(count: float) -> str:
    """Bytes in words: `1,240 GiB`, `14.2 GiB`, `310 MiB`."""
    if count >= 1000 * 2**30:
        return f"{count / 2**30:,.0f} GiB"
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
