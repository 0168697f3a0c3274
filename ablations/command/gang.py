"""A command that several processes run together: one on each host, in folders that they share.

Each is told by the variables that PyTorch, `torchrun` and JAX read where the others are and which
one it is. Process 0 prepares the folders, and what it leaves is the result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from ablations.stage import Gang, StageStopped

MARK = "attempt"  # in the command's folder: for which attempt process 0 has prepared it
POLL_SECONDS = 0.1
MOST_SECONDS = 300.0  # for process 0 to prepare the folders


def variables(gang: Gang) -> dict[str, str]:
    """How a command finds the other processes.

    MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE are PyTorch's, for one process a host; with PET_…
    `torchrun` starts several on each without arguments of its own; JAX_… are for
    `jax.distributed.initialize`.
    """
    host, _, port = gang.coordinator.rpartition(":")
    count, index = str(gang.count), str(gang.index)
    return {
        "MASTER_ADDR": host.strip("[]"),
        "MASTER_PORT": port,
        "WORLD_SIZE": count,
        "RANK": index,
        "LOCAL_WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "PET_NNODES": count,
        "PET_NODE_RANK": index,
        "PET_MASTER_ADDR": host.strip("[]"),
        "PET_MASTER_PORT": port,
        "JAX_COORDINATOR_ADDRESS": gang.coordinator,
        "JAX_NUM_PROCESSES": count,
        "JAX_PROCESS_ID": index,
    }


def begin(work: Path, output: Path) -> None:
    """From process 0: the command's folders are as the attempt with this output needs them."""
    new = work / f".{MARK}"
    new.write_text(str(output), encoding="utf-8")
    new.replace(work / MARK)


def wait_for_first(work: Path, output: Path, stops: Callable[[], bool]) -> None:
    """From another process: wait until process 0 has begun the attempt with this output.

    Raises:
        StageStopped: a stop was asked for meanwhile.
        TimeoutError: it has not begun.
    """
    began = time.monotonic()
    while time.monotonic() - began < MOST_SECONDS:
        with contextlib.suppress(FileNotFoundError):
            if (work / MARK).read_text(encoding="utf-8") == str(output):
                return
        if stops():
            raise StageStopped
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"process 1 has not begun within {MOST_SECONDS:.0f} s")
