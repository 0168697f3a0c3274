"""The part of a study that failed: what `mm1 run --rerun failed` runs, and nothing else.

A run tries again what failed in an earlier one anyway, beside all that is missing. This is for who
has mended a cause and wants to see whether that was it.
"""

from __future__ import annotations

from ablations.errors import UserError
from ablations.plan import Plan
from sweeps.store import Store


def failed_part(plan: Plan, store: Store) -> Plan:
    """The trials of a plan that have no result and of which an attempt failed.

    Raises:
        UserError: there are none.
    """
    missing = set(plan.stages) - store.done(plan.stages)
    failed = {stage for stage in missing if store.failures(stage)}
    trials = tuple(one for one in plan.trials if not failed.isdisjoint(one.stages.values()))
    if not trials:
        rest = f"; {len(missing)} of its stages have not been tried" if missing else ""
        raise UserError(f"nothing of {plan.study!r} has failed{rest}")
    stages = {stage for one in trials for stage in one.stages.values()}
    return plan.model_copy(
        update={
            "trials": trials,
            "replication": None,  # no seeds are added
            "stages": {id_: stage for id_, stage in plan.stages.items() if id_ in stages},
        }
    )
