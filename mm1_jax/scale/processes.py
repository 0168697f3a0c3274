"""Several processes that run one program, on the devices of all of them."""

from __future__ import annotations

from ablations.errors import UserError
from ablations.stage import Context, Gang

_joined: Gang | None = None  # of this process, for as long as it lives


def join(gang: Gang) -> None:
    """Join the other processes of a gang, before JAX does anything else; waits for them.

    A gang runs stage after stage, and is joined for its first.
    """
    global _joined
    if _joined is not None:
        return
    import jax

    # How CPUs of several processes add up; other devices have their own way.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(gang.coordinator, num_processes=gang.count, process_id=gang.index)
    _joined = gang


def alone(context: Context) -> None:
    """Raise `UserError` where several processes run what only one can."""
    if context.gang is not None:
        raise UserError(
            f"{context.gang.count} processes run this stage together, and only trainings can be "
            "run so: give it one host"
        )
