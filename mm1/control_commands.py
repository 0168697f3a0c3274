"""`mm1 pause`, `resume`, `cancel` and `add`: asking something of a run, through its store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.errors import UserError, nearest
from mm1 import api
from mm1.options import store_option
from mm1.terminal import say

if TYPE_CHECKING:
    from sweeps.control import Action
    from sweeps.store import Store


@click.command()
@click.argument("study")
@store_option
def pause(study: str, store: str) -> None:
    """Let a run save what it is at and stand still. From any machine that has the store.

    \b
    Example: mm1 pause demo
    """
    _ask(study, store, "pause")


@click.command()
@click.argument("study")
@store_option
def resume(study: str, store: str) -> None:
    """Let a paused run go on.

    \b
    Example: mm1 resume demo
    """
    _ask(study, store, "resume")


@click.command()
@click.argument("study")
@store_option
@click.option("--arm", "arms", multiple=True, help="Leave this arm out, and go on with the rest.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Only this seed (of the arms).")
def cancel(study: str, store: str, arms: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    """End a run: what it is at is saved, what was finished is kept, `mm1 run` goes on with it.

    The run's exit code is 130, as after Ctrl-C. With --arm or --seed, only those trials are not run
    (further); that they were cancelled stands beside every verdict until they are there.

    \b
    Example: mm1 cancel demo --arm connector.tokens=9
    """
    if not arms and not seeds:
        _ask(study, store, "cancel")
        return
    opened, name = _opened(study, store)
    plan = opened.snapshot(name)[0]
    for arm in arms:
        known = [one.name for one in plan.arms]
        if arm not in known:
            raise UserError(f"no arm {arm!r}{nearest(arm, known)}")
    for seed in seeds:
        if seed not in plan.seeds:
            raise UserError(f"no seed {seed}; it has {', '.join(map(str, plan.seeds))}")
    trials = [
        (trial.arm, trial.seed)
        for trial in plan.trials
        if (not arms or trial.arm in arms) and (not seeds or trial.seed in seeds)
    ]
    _ask(study, store, "leave out", trials)


@click.command()
@click.argument("study")
@store_option
@click.option("--seeds", type=click.IntRange(1), help="So many more seeds, the next numbers.")
@click.option(
    "--arm", "arms", multiple=True, metavar="FACTOR=LEVEL", help="One more level of a factor."
)
@click.option("--yes", is_flag=True, help="Allow more than 10,000 trials.")
def add(study: str, store: str, seeds: int | None, arms: tuple[str, ...], yes: bool) -> None:
    """Add seeds, arms or claims to a study, also while it runs: the run takes them up.

    The study's file is amended (or was by you: without options it is taken as it is) and registered
    anew. Nothing that was registered may change or go. What is added after results were there has
    that standing beside its verdicts (docs/trust.md).

    \b
    Example: mm1 add my-study.yaml --seeds 2
    """
    from ablations.additions import only_adds
    from ablations.study import is_file

    opened, name = _opened(study, store)
    old = opened.snapshot(name)[0]
    path = Path(study) if is_file(study) else Path(old.path)
    if not path.is_file():
        raise UserError(f"the file of study {name!r} is not here ({path}); give its path")
    before = path.read_text(encoding="utf-8")
    try:
        _amend(path, seeds, arms)
        new = api.plan(path, store=store, many=yes)
        added = only_adds(old, new)
    except BaseException:
        if path.read_text(encoding="utf-8") != before:
            _write(path, before)
        raise
    opened.register(new)
    say(f"{new.study} is registered anew as {new.hash}: {added}")
    for line in _standings(name, store):
        say(f"  {line}")
    from sweeps.live import driver

    if driver(opened.objects, name) is None:
        say(f"nobody runs it now; mm1 run {path} does what is missing")
    else:
        _ask(name, store, "take up")


def _amend(path: Path, seeds: int | None, arms: tuple[str, ...]) -> None:
    """Write what is to be added into the study's file."""
    from ablations.additions import with_level, with_more_seeds
    from ablations.yaml_files import load_yaml

    if seeds:
        _write(path, with_more_seeds(load_yaml(path), seeds))
    for arm in arms:
        _write(path, with_level(load_yaml(path), arm))


def _write(path: Path, text: str) -> None:
    """Replace a file at once: nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(path.stat().st_mode)
    temporary.replace(path)


def _standings(name: str, store: str) -> list[str]:
    from analysis.results import load_results

    found = load_results(name, store)
    return [f"claim {claim}: {found.standing(claim)}" for claim in found.plan.claims]


def _opened(study: str, store: str) -> tuple[Store, str]:
    from sweeps.store import Store

    return Store(store), api.study_of(study)


def _ask(
    study: str, store: str, action: Action, trials: list[tuple[str, int]] | None = None
) -> None:
    from sweeps.control import ask

    opened, name = _opened(study, store)
    say(f"{name}: {ask(opened.objects, name, action, trials or ())}")
