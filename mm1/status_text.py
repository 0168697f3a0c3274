"""How far the studies of a store are, for `mm1 status`."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from analysis.words import duration
from mm1_jax.errors import UserError

if TYPE_CHECKING:
    from analysis.results import StudyResults


def summaries(study: str | None, store: str) -> list[dict[str, Any]]:
    """One record a study: trials by state, seconds spent, the latest score of each arm.

    A study whose records are damaged is left out with a line on stderr. Raises `UserError` where
    the named study has not run, or is damaged.
    """
    from analysis.results import load_all, load_results
    from sweeps.store import Store

    opened = Store(store)
    found, lines = ([load_results(study, opened)], []) if study else load_all(opened)
    for line in (*lines, *(text for one in found for text in one.damage_lines)):
        print(f"mm1: warning: {line}", file=sys.stderr)
    if lines and not found:
        raise UserError(f"no study of the store {opened.root} can be shown")
    return [_summary(one) for one in found]


def _summary(found: StudyResults) -> dict[str, Any]:
    plan = found.plan
    task, metric = plan.primary_metric
    counts = Counter(found.states.values())
    scores = {arm.name: found.score(arm.name, task, metric) for arm in plan.arms}
    return {
        "study": plan.study,
        "trials": len(plan.trials),
        **{state: counts[state] for state in ("done", "running", "waiting", "failed")},
        "seconds_spent": round(sum(float(e["seconds"]) for e in found.executions.values()), 1),
        "primary_metric": f"{task}.{metric}",
        "latest": {arm: list(by_seed.values())[-1] for arm, by_seed in scores.items() if by_seed},
        "completeness": found.completeness,
    }


def show(figures: list[dict[str, Any]], store: str) -> None:
    """Print what `summaries` found."""
    if not figures:
        print(f"no study has run in store {store}; start with: mm1 run ablations/studies/demo.yaml")
        return
    for one in figures:
        print(
            f"{one['study']}: {one['done']} of {one['trials']} trials done, "
            f"{one['running']} under way, {one['waiting']} waiting, {one['failed']} failed; "
            f"{duration(one['seconds_spent'])} of work"
        )
        for arm, score in one["latest"].items():
            print(f"  {arm:<40} {one['primary_metric']} {score:.2f}")
