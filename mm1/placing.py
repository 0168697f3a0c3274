"""What `--on MACHINE` fills in of a plan, before it is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ablations.errors import UserError
from ablations.machine import Machine
from ablations.plan import Plan
from ablations.resources import in_bytes
from ablations.workload import Work


def placed(plan: Plan, machine: Machine, tell: Callable[[str], None]) -> Plan:
    """The plan as it is run on a machine; identities are the same.

    Where a machine simulates devices, which serves to try a mesh, a training of ours that states
    none is cut along its batch, and that is told: no result is decided by it. On accelerators it
    stays on one device, so that as many trials run at once.

    Raises:
        UserError: trials that share a GPU need more than their share of its memory.
    """
    refuse_crowded(plan, machine)
    if not machine.simulated:
        return plan
    made: dict[int, Work] = {}  # by work, which stages of all seeds share
    sizes: dict[int, None] = {}

    def on_devices(work: Work) -> Work:
        if id(work) not in made:
            size = _batch_mesh(work, machine.devices)
            made[id(work)] = work if size == 1 else _with_mesh(work, size)
            if size > 1:
                sizes[size] = None
        return made[id(work)]

    stages = {
        one.id: dataclasses.replace(one, work=on_devices(one.work)) for one in plan.stages.values()
    }
    if sizes:
        named = " or ".join(f"{{data: {size}}}" for size in sizes)
        tell(
            f"{machine.name}: trainings without a mesh are cut along their batch, as with "
            f"training.mesh {named}"
        )
    return plan.model_copy(update={"stages": stages})


def _batch_mesh(work: Work, most: int) -> int:
    """Devices along the batch of a training of ours that states no mesh; 1 of what is none."""
    from mm1_jax.stage_kinds import is_ours

    training: Any = work.config.get("training")
    if not is_ours(work.kind, work.run) or not isinstance(training, dict):
        return 1
    if "mesh" not in training or work.resources.devices > 1:
        return 1
    rows = training["batch_size"] // training["micro_batches"]
    return max(size for size in range(1, most + 1) if rows % size == 0)


def _with_mesh(work: Work, size: int) -> Work:
    training = dict(work.config["training"])
    training["mesh"] = {**training["mesh"], "data": size}
    resources = work.resources.model_copy(update={"devices": size})
    return work.model_copy(
        update={"config": {**work.config, "training": training}, "resources": resources}
    )


def refuse_crowded(plan: Plan, machine: Machine) -> None:
    """Look whether the arms whose trials share a GPU fit into their share of its memory.

    Raises:
        UserError: one does not.
    """
    memory = machine.accelerator.memory
    if machine.kind != "gpu" or memory is None:
        return
    for stage in plan.stages.values():
        need, holds = stage.work.resources, stage.work.device_memory_bytes
        share = need.gpu if need.gpu is not None else 1 / machine.per_gpu
        if holds is None or need.devices > 1 or need.hosts > 1 or not 0 < share < 1:
            continue
        if holds > share * memory:
            most = int(memory // holds)
            fits = f"at most {most} fit on one" if most else "not even one fits"
            raise UserError(
                f"{stage.label} needs {in_bytes(holds)}; of {round(1 / share)} that share a GPU of "
                f"{machine.name} each has {in_bytes(share * memory)}: {fits}"
            )
