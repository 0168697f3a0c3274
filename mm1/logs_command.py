"""`mm1 logs`: what became of a trial's stages, with tracebacks and what they printed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ablations.errors import UserError, nearest
from analysis.words import duration
from mm1.options import store_option

if TYPE_CHECKING:
    from ablations.plan import Plan
    from ablations.stages import Stage
    from sweeps.store import Store


@click.command()
@click.argument("trial", nargs=-1)
@store_option
@click.option("--study", default=None, help="Where several studies have an arm of that name.")
@click.option(
    "--lines",
    type=click.IntRange(0),
    default=40,
    show_default=True,
    help="How many of the last lines that a stage printed.",
)
def logs(trial: tuple[str, ...], store: str, study: str | None, lines: int) -> None:
    """Show what became of a trial: tracebacks of its latest attempts, and what it printed.

    TRIAL is an arm, an arm and a seed, or the beginning of a stage's identity, as messages name
    it. Without it, everything that failed or is under way.

    \b
    Example: mm1 logs base seed 1
    Example: mm1 logs 3f2a91bc
    """
    from sweeps.store import Store

    opened = Store(store)
    if study:
        plans = [opened.snapshot(study)[0]]
    else:
        found, lines_of_damage = opened.snapshots()
        plans = [plan for plan, _ in found.values()]
        for line in lines_of_damage:
            click.echo(f"mm1: warning: {line}", err=True)
    text = " ".join(trial)
    stages = {one.id: one for one in (_named(text, plans) if text else _all(plans))}
    shown = 0
    for stage in stages.values():
        state, told = _told(stage, opened, lines)
        if text or state in ("failed", "running"):
            shown += 1
            click.echo("\n".join(told) + "\n")
    if not shown:
        click.echo("nothing has failed and nothing is under way; of one trial: mm1 logs ARM SEED")


def _all(plans: Sequence[Plan]) -> Iterator[Stage]:
    for plan in plans:
        yield from plan.stages.values()


def _named(text: str, plans: Sequence[Plan]) -> list[Stage]:
    """The stages that a text names. Raises `UserError` where it names none, or several studies'."""
    if re.fullmatch("[0-9a-f]{4,64}", text):
        found = [stage for stage in _all(plans) if stage.id.startswith(text)]
        if found:
            return found
    labelled = [stage for stage in _all(plans) if text == stage.label]
    if labelled:
        return labelled
    ending = re.fullmatch(r"(.+?)[\s,:]+(?:seed\s+)?(\d+)", text)
    asked = [(text, None)] + ([(ending[1], int(ending[2]))] if ending else [])
    for name, seed in asked:
        owners = {
            plan.study: [
                plan.stages[one]
                for arm in plan.arms
                if name in (arm.name, arm.label)
                for trial in plan.trials
                if trial.arm == arm.name and seed in (None, trial.seed)
                for one in trial.stages.values()
            ]
            for plan in plans
        }
        owners = {study: stages for study, stages in owners.items() if stages}
        if len({tuple(stage.id for stage in stages) for stages in owners.values()}) > 1:
            raise UserError(
                f"{text!r} is in several studies, say which: --study {', '.join(owners)}"
            )
        if owners:
            return next(iter(owners.values()))
    known = [trial for plan in plans for trial in plan.trials]
    for name, seed in asked[1:]:
        seeds = sorted({trial.seed for trial in known if trial.arm == name})
        if seeds:
            raise UserError(f"arm {name!r} has no seed {seed}; it has {', '.join(map(str, seeds))}")
    name = asked[-1][0]
    raise UserError(
        f"no arm or stage {text!r}{nearest(name, list(dict.fromkeys(t.arm for t in known)))}"
    )


def _told(stage: Stage, store: Store, most: int) -> tuple[str, list[str]]:
    """The state of a stage, and all that is known about it, in lines."""
    from sweeps import leases, worker_output

    scratch = store.scratch(stage.id)
    printed = worker_output.printed(scratch)
    failures = sorted(store.failures(stage.id), key=_when)
    holder = leases.holder(store.objects, store.lease_folder(stage.id))
    lines: list[str] = []
    if store.is_done(stage.id):
        execution = store.execution(stage.id)
        state, failures, printed = "done", [], store.printed(stage.id)
        how = f"done in {duration(execution['seconds'])} on {execution.get('host', 'a host')}"
    elif holder is not None:
        state, since = "running", duration(time.time() - holder["acquired_at"])
        how = f"running for {since} as process {holder['pid']} on {holder['host']}"
        lines += _running(store.progress(stage.id), worker_output.stack(scratch))
    elif failures:
        state = how = "failed"
        printed = failures[-1].get("printed") or printed
    else:
        state, how = "waiting", "not started, or stopped before its end"
    lines = [f"{stage.label}  [{stage.id[:8]}]  {how}", *lines]
    if failures:
        lines += _failure(failures[-1], len(failures))
    kept = printed.rstrip().split("\n")
    if printed.strip() and most:
        cut = f", the last {most} of {len(kept)} lines (--lines N)" if len(kept) > most else ""
        lines += [f"--- what it printed{cut}:", *kept[-most:]]
    return state, lines


def _running(reports: Sequence[dict[str, Any]], stack: str) -> Iterator[str]:
    if reports:
        last = reports[-1]
        numbers = [f"{k} {v:.4g}" for k, v in last.items() if k not in ("step", "time")]
        ago = duration(time.time() - last["time"])
        yield f"last report {ago} ago: step {last['step']} {' '.join(numbers)}"
    else:
        yield "no report yet"
    if stack:
        yield "it has not reported for long; after two minutes of silence it was here:"
        yield stack.rstrip()


def _failure(failure: dict[str, Any], attempts: int) -> Iterator[str]:
    when = datetime.fromtimestamp(_when(failure)).strftime("%Y-%m-%d %H:%M:%S")
    which = "its attempt" if attempts == 1 else f"the latest of its {attempts} attempts"
    host = f" on {failure['host']}" if failure.get("host") else ""
    yield f"{which} failed at {when}{host}: {failure.get('error', 'unknown')}"
    if failure.get("traceback"):
        yield str(failure["traceback"]).rstrip()


def _when(failure: dict[str, Any]) -> float:
    """When an attempt failed; records say it in seconds or as ISO 8601."""
    at = failure.get("failed_at", 0.0)  # none in a damaged record
    return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else float(at)
