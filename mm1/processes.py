"""Several processes that train one model, as `mm1 train --distributed` starts them.

All run the same command on a folder that they share. The first has the store: it holds the lease,
keeps records and finishes stages. The others train along where it tells them to write.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ablations.errors import UserError

MESSAGE_BYTES = 16_384  # of a message: all processes must know its size beforehand


def join() -> None:
    """Join the processes of the other hosts, before JAX does anything else.

    Where JAX cannot tell them by itself, as it can on TPU pods, SLURM and Kubernetes, the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID do. `UserError` if nothing does.
    """
    import jax

    def stated(variable: str) -> int | None:
        return int(os.environ[variable]) if variable in os.environ else None

    try:
        jax.distributed.initialize(
            num_processes=stated("JAX_NUM_PROCESSES"), process_id=stated("JAX_PROCESS_ID")
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: no other processes found ({error}); set JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def is_first() -> bool:
    """Whether this process has the store; JAX is not imported for it."""
    return "jax" not in sys.modules or sys.modules["jax"].process_index() == 0


def are_several() -> bool:
    """Whether there are others; JAX is not imported for it."""
    return "jax" in sys.modules and sys.modules["jax"].process_count() > 1


def tell(message: dict[str, Any]) -> None:
    """From the first process: what the others `hear`. Without others, nothing."""
    if are_several():
        text = json.dumps(message).encode()
        if len(text) > MESSAGE_BYTES:
            raise UserError(f"paths of {len(text):,} characters are too long for several processes")
        _broadcast(text)


def hear() -> dict[str, Any]:
    """What the first process tells; waits for it."""
    return json.loads(_broadcast(b""))


def _broadcast(text: bytes) -> bytes:
    import numpy as np
    from jax.experimental import multihost_utils

    own = np.frombuffer(text.ljust(MESSAGE_BYTES), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(own)).tobytes().rstrip()
