"""`mm1 try`: a few seconds of a command of the user's, and what is wrong with it in plain words."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.errors import UserError, nearest
from ablations.shown_text import visible

if TYPE_CHECKING:
    from ablations.command.trying import Finding, Tried
    from ablations.plan import Plan
    from ablations.workload import Work

SHOWN_LINES = 10  # of what it printed, where something is wrong


@click.command("try")
@click.argument("study")
@click.option("--arm", default="base", show_default=True, help="Whose config it is given.")
@click.option("--step", "only", default=None, help="Try the steps up to this one. [all]")
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=10.0,
    show_default=True,
    help="How long each run may take; it is then stopped.",
)
def try_study(study: str, arm: str, only: str | None, seconds: float) -> None:
    """Run a study's command for a few seconds and say what is wrong with it. Keeps nothing.

    Each step runs up to four times: with a seed, the same again, another seed, and the config of
    another arm. A step whose inputs did not come to their end is left out.

    \b
    Example: mm1 try studies/augmentation.yaml
    """
    from mm1 import api

    planned = api.plan(study)
    works = _works(planned, arm)
    if only is not None and only not in works:
        raise UserError(f"no step {only!r}{nearest(only, works)}")
    wrong = False
    with tempfile.TemporaryDirectory(prefix="mm1-try-") as place:
        outputs: dict[str, Path] = {}
        for role, work in works.items():
            lacking = [source for source in work.inputs.values() if source not in outputs]
            if lacking:
                _say(f"{role}: left out, {', '.join(lacking)} did not come to its end")
            else:
                wrong |= _try_role(planned, arm, role, outputs, Path(place), seconds)
            if role == only:
                break
    if wrong:
        raise SystemExit(2)


def _works(planned: Plan, arm: str) -> Mapping[str, Work]:
    """Role → work of an arm's first trial."""
    names = [one.name for one in planned.arms]
    if arm not in names:
        raise UserError(f"no arm {arm!r}{nearest(arm, names)}")
    trial = next(one for one in planned.trials if one.arm == arm)
    works = {role: planned.stages[stage].work for role, stage in trial.stages.items()}
    from ablations.command.workload import RUN

    if any(work.run != RUN for work in works.values()):
        raise UserError(
            "mm1 try is for studies whose workload is a command; mm1 plan checks this one"
        )
    return works


def _try_role(
    planned: Plan, arm: str, role: str, outputs: dict[str, Path], place: Path, seconds: float
) -> bool:
    """Try a step and print what was found; whether something is wrong."""
    from ablations.command.trying import differences, findings, stage_of, try_step

    work = _works(planned, arm)[role]
    inputs = {name: outputs[source] for name, source in work.inputs.items()}
    stage = stage_of(work.config)
    seeds = [*planned.seeds[:2], *([planned.seeds[0] + 1] if len(planned.seeds) == 1 else [])]
    _say(f"{role}: {' '.join(stage.command)}")

    def run(name: str, config: Mapping[str, object], seed: int) -> Tried:
        return try_step(stage_of(config), seed, inputs, place / role / name, seconds)

    first = run("first", work.config, seeds[0])
    found = [*findings(first)]
    if not first.wrong and first.numbers.curves:
        other = next(
            (
                (one.name, _works(planned, one.name)[role])
                for one in planned.arms
                if _works(planned, one.name)[role].decides != work.decides
            ),
            None,
        )
        others = (
            None if work.pinned else run("seed", work.config, seeds[1]),
            None if other is None else run("arm", other[1].config, seeds[0]),
            run("again", work.config, seeds[0]),
        )
        found += differences(first, *others, (arm, other[0] if other else ""))
        found += (
            one for tried in others if tried is not None and tried.wrong for one in findings(tried)
        )
    for one in found:
        _tell(one)
    wrong = any(one.wrong for one in found)
    if wrong and first.printed.strip():
        _say("  the last lines it printed:")
        for line in first.printed.rstrip().splitlines()[-SHOWN_LINES:]:
            _say(f"  | {line}")
    if first.ended:
        outputs[role] = first.output
    return wrong


def _tell(finding: Finding) -> None:
    mark = click.style("wrong", fg="red") if finding.wrong else "   ok"
    click.echo(f"  {mark}  {visible(' '.join(finding.text.split()))}")


def _say(text: str) -> None:
    click.echo(visible(text))
