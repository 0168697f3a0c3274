"""How far the studies of a store are, for `mm1 status`."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ablations.errors import UserError
from ablations.no_collection import no_collection
from ablations.workload import with_goal
from analysis import forecast_words
from analysis.words import decimals, duration, mean_sd, metric_name
from mm1.terminal import say
from mm1.watch_view import told_state, told_time
from mm1.watching import Run, run_of
from sweeps.live import driver, read_live

if TYPE_CHECKING:
    from analysis.results import StudyResults


@no_collection()
def summaries(study: str | None, store: str) -> list[dict[str, Any]]:
    """One record a study: trials by state, seconds spent, scores of each arm, what is under way.

    A study whose records are damaged is left out with a line on stderr. Raises `UserError` where
    the named study has not run, or is damaged.
    """
    from analysis.results import load_all, load_results
    from mm1.origin import ORIGIN
    from sweeps.store import Store

    opened = Store(store)
    found, lines = (
        ([load_results(study, opened, origin=ORIGIN)], []) if study else load_all(opened, ORIGIN)
    )
    if lines and not found:
        raise UserError(f"no study of the store {opened.root} can be shown: {'; '.join(lines)}")
    for line in (*lines, *(text for one in found for text in one.damage_lines)):
        print(f"mm1: warning: {line}", file=sys.stderr)
    return [_summary(one) for one in found]


def _summary(found: StudyResults) -> dict[str, Any]:
    plan = found.plan
    found.looked("mm1 status")
    counts = Counter(found.states.values())
    objects = found.store.objects
    run = run_of(read_live(objects, plan.study), driver(objects, plan.study))
    return {
        "study": plan.study,
        "run": asdict(run) if run.state != "idle" else None,
        "trials": len(plan.trials),
        **{state: counts[state] for state in ("done", "running", "waiting", "failed")},
        "seconds_spent": round(math.fsum(found.found.stages["seconds"]), 1),
        "primary_metric": ".".join(plan.primary_metric),
        "primary_shots": found.primary[2],
        "primary_goal": plan.metric(*plan.primary_metric).goal,
        "seeds": len(plan.seeds),
        "scores": dict(_scores(found)),
        "under_way": list(_under_way(found)),
        "completeness": found.completeness,
        "estimates": forecast_words.summary(found.forecast),
    }


def _scores(found: StudyResults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arm → mean and standard deviation of its primary metric over the `n` seeds that are in."""
    from analysis.effects import mean_and_spread

    diverged: dict[str, list[int]] = {}
    for name, seed in found.diverged:
        diverged.setdefault(name, []).append(seed)
    for arm in found.plan.arms:
        by_seed = found.score(arm.name, *found.primary)
        if by_seed:
            mean, sd = mean_and_spread(by_seed)
            yield (
                arm.name,
                {
                    "mean": _finite(mean),
                    "sd": _finite(sd),
                    "n": len(by_seed),
                    "diverged": diverged.get(arm.name, []),
                },
            )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _under_way(found: StudyResults) -> Iterator[dict[str, Any]]:
    """Stages that somebody is at now, and for how long one has been silent where that is unusual.

    What stages report lies on the machine that runs them: of a store in a bucket it may be unseen.
    """
    from sweeps import leases
    from sweeps.silence import unusual_silence

    store, now = found.store, time.time()
    busy = [
        trial for trial in found.plan.trials if found.states[trial.arm, trial.seed] == "running"
    ]
    named = (one for trial in busy for one in trial.stages.values())
    missing = dict.fromkeys(one for one in named if one not in found.done)
    for stage_id in missing:
        holder = leases.holder(store.objects, store.lease_folder(stage_id))
        if holder is None:
            continue
        stage, reports = found.plan.stages[stage_id], store.progress(stage_id)
        silence = None
        if reports or "://" not in store.root:
            times = [report["time"] for report in reports]
            silence = unusual_silence(now, holder["acquired_at"], times, stage.seconds)
        yield {
            "stage": stage_id,
            "label": stage.label,
            "host": holder["host"],
            "pid": holder["pid"],
            "seconds": round(now - holder["acquired_at"], 1),
            "step": reports[-1]["step"] if reports else None,
            "silent_seconds": round(silence, 1) if silence else None,
        }


def show(figures: list[dict[str, Any]], store: str) -> None:
    """Print what `summaries` found."""
    say("\n".join(_lines(figures, store)))


def _lines(figures: list[dict[str, Any]], store: str) -> Iterator[str]:
    if not figures:
        yield f"no study has run in store {store}; start with: mm1 run ablations/studies/demo.yaml"
    for one in figures:
        yield (
            f"{one['study']}: {one['done']} of {one['trials']} trials done, "
            f"{one['running']} under way, {one['waiting']} waiting, {one['failed']} failed; "
            f"{duration(one['seconds_spent'])} of work"
        )
        if one["run"] is not None and one["run"]["state"] != "ended":
            run = Run(**one["run"])
            yield f"  {''.join(text for text, _ in told_state(run))} · {told_time(run)}"
        for line in _score_lines(one):
            yield f"  {line}"
        for stage in one["under_way"]:
            step = "" if stage["step"] is None else f", step {stage['step']}"
            yield f"  {stage['label']}: for {duration(stage['seconds'])}{step}"
            if stage["silent_seconds"]:
                yield (
                    f"    no report for {duration(stage['silent_seconds'])}: it may hang or be "
                    f"slow, look at it with: mm1 logs {stage['stage'][:8]}{_at(store)}"
                )
        if one["estimates"]:
            yield f"  {one['estimates']['told']}"
        if one["failed"]:
            yield f"  what failed, with tracebacks: mm1 logs{_at(store)}"


def _at(store: str) -> str:
    from mm1.api import default_store

    return "" if store == default_store() else f" --store {shlex.quote(store)}"


def _score_lines(one: dict[str, Any]) -> Iterator[str]:
    scores = {
        arm: [math.nan if score[name] is None else score[name] for name in ("mean", "sd")]
        for arm, score in one["scores"].items()
    }
    if not scores:
        return
    places = decimals((sd for _, sd in scores.values()), (mean for mean, _ in scores.values()))
    width = max(map(len, scores))
    task, _, metric = one["primary_metric"].partition(".")
    primary = with_goal(metric_name(task, metric, one["primary_shots"]), one["primary_goal"])
    yield f"{primary}, mean ± SD over seeds"
    for arm, (mean, sd) in scores.items():
        n, lost = one["scores"][arm]["n"], len(one["scores"][arm]["diverged"])
        told = f"n = {n} of {one['seeds']}" + (f", {lost} diverged" if lost else "")
        yield f"  {arm:<{width}}  {mean_sd(mean, sd, places)}  ({told})"
