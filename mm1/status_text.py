"""How far the studies of a store are, for `mm1 status`."""

from __future__ import annotations

from typing import Any

from mm1.plan_text import duration


def summaries(study: str | None, store: str) -> list[dict[str, Any]]:
    """One record a study: trials by state, seconds spent, the latest score of each arm.

    Raises `UserError` where the named study has not run.
    """
    from analysis.results import load_results
    from sweeps.store import Store

    opened = Store(store)
    return [
        _summary(load_results(name, opened)) for name in ([study] if study else opened.studies())
    ]


def _summary(found: Any) -> dict[str, Any]:
    plan = found.plan
    task, metric = plan.primary_metric
    states = {"done": 0, "failed": 0, "running": 0, "waiting": 0}
    for trial in plan.trials:
        problem = found.problems.get((trial.arm, trial.seed))
        stages = {trial.train, *(one.stage for one in trial.evaluations)} - found.done
        if problem is None:
            states["done"] += 1
        elif "failed" in problem:
            states["failed"] += 1
        elif any(found.store.progress(stage) for stage in stages):
            states["running"] += 1
        else:
            states["waiting"] += 1
    scores = {arm.name: found.score(arm.name, task, metric) for arm in plan.arms}
    return {
        "study": plan.study,
        "trials": len(plan.trials),
        **states,
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
