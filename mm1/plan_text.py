"""A plan as people read it in a terminal: arms, trials, cost, warnings, claims."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ablations.errors import UserError, nearest
from ablations.plan import Arm, Plan
from ablations.shown_text import in_terminal
from ablations.stages import Trial
from ablations.workload import total, with_goal
from ablations.yaml_files import dump_yaml
from analysis.words import MISSING, count, duration, figure
from mm1_jax.stage_kinds import KINDS, is_ours
from sweeps.scheduler import NOTHING, START_SECONDS, Scheduler

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.new_stages import New
    from mm1.plan_on import PlanOn


def summary(
    plan: Plan,
    workers: int,
    finished: set[str],
    measured: Mapping[str, float] = NOTHING,
    new: Sequence[New] = (),
    start_seconds: float = START_SECONDS,
) -> dict[str, object]:
    """The figures of `mm1 plan --json`. Times are estimates for one core a worker, all alike.

    `measured` gives seconds of finished stages that ran on this machine (`sweeps.measured`), `new`
    why stages are new whose place in the store others have (`analysis.new_stages`).
    """
    stages = plan.stages.values()
    missing = [stage for stage in stages if stage.id not in finished]
    seconds = sum(stage.seconds for stage in missing)
    return {
        "study": plan.study,
        "hash": plan.hash,
        "seeds": list(plan.seeds),
        "primary_metric": ".".join(plan.primary_metric),
        "primary_goal": plan.metric(*plan.primary_metric).goal,
        "arms": [
            {
                "name": arm.name,
                "label": arm.label,
                "levels": arm.levels,
                "mixtures": mixtures(plan, arm.config),
                "sets": changes(arm, plan.arms[0]),
                "parameters": arm.parameters,
                **arm.figures,
                "flops_per_trial": arm.flops_per_trial,
                "memory_bytes": arm.memory_bytes,
                "dropped": list(arm.dropped),
                "warnings": list(arm.warnings),
            }
            for arm in plan.arms
        ],
        "trials": len(plan.trials),
        "excluded": {one.trial: one.reason for one in plan.excluded},
        **_adaptive(plan, workers, finished, measured),
        "stages": len(plan.stages),
        "stages_finished": len(plan.stages) - len(missing),
        "new": [{**asdict(one), "reason": str(one.because)} for one in new],
        "before": {part: asdict(one) for part, one in before(plan).items()},
        "flops": total(stage.flops for stage in stages),
        "core_seconds": seconds,
        "workers": workers,
        "seconds": estimated_seconds(plan, workers, finished, measured, start_seconds),
        "claims": plan.claims,
        "warnings": list(plan.warnings),
    }


def _adaptive(
    plan: Plan, workers: int, finished: set[str], measured: Mapping[str, float]
) -> dict[str, object]:
    """Where seeds are added until there is a verdict: by which rule, and what comes first."""
    if plan.replication is None:
        return {}
    first = plan.beginning
    left = [stage for stage in first.stages.values() if stage.id not in finished]
    return {
        "replication": plan.replication.means,
        "trials_first": len(first.trials),
        "core_seconds_first": sum(stage.seconds for stage in left),
        "seconds_first": estimated_seconds(first, workers, finished, measured),
    }


def resolved(plan: Plan, arm: str) -> str:
    """The complete config of an arm, by its name or label, as YAML.

    Raises `UserError` for an arm that is not there.
    """
    found = next((one for one in plan.arms if arm in (one.name, one.label)), None)
    if found is None:
        raise UserError(f"no arm {arm!r}{nearest(arm, [one.name for one in plan.arms])}")
    return f"# arm {found.name} of study {plan.study}\n{dump_yaml(found.config)}"


def mixtures(plan: Plan, config: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Path of each mixture that a config has → source → share."""
    found = {}
    for path in plan.mixtures:
        group: Any = config
        for part in path.split("."):
            group = (group or {}).get(part)
        if group:
            found[path] = {source: share for source, share in group.items() if share}
    return found


def changes(arm: Arm, base: Arm) -> dict[str, Any]:
    """Path → the arm's value where the base has another, or none; a group the arm leaves out: None.

    Fields that a change of kind dropped are not among them (`Arm.dropped`).
    """
    return dict(_differences(arm.config, base.config))


def _differences(
    config: Mapping[str, Any], base: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            yield from _differences(value, old, f"{above}{key}.")
        elif key not in base or value != old:
            yield above + key, value


def _set_lines(plan: Plan) -> Iterator[str]:
    """What each arm trains on, and what it sets where its name does not say so."""
    base = plan.arms[0]
    known = mixtures(plan, base.config)
    for path, shares in known.items():
        yield f"{base.label}: {path}: {_percent(shares)}"
    for arm in plan.arms[1:]:
        own = mixtures(plan, arm.config)
        for path, shares in own.items():
            if shares != known.get(path):
                yield f"{arm.label}: {path}: {_percent(shares)}"
        said = {f"{f}={level}" for f, level in arm.levels.items()}
        found = [
            f"{path}: {_value(new)}"
            for path, new in changes(arm, base).items()
            if path.rpartition(".")[0] not in plan.mixtures and f"{path}={_value(new)}" not in said
        ]
        if found:
            yield f"{arm.label}: {', '.join(found)}"


def _shape(plan: Plan) -> str:
    """How many trials, and where seeds are added by which rule."""
    its, trials = plan.replication, len(plan.trials)
    if its is None:
        left_out = f" - {len(plan.excluded)} excluded" if plan.excluded else ""
        return f"{len(plan.arms)} arms × {len(plan.seeds)} seeds{left_out} = {trials} trials"
    first = len(plan.beginning.trials)
    budget = f", or {' or '.join(its.budget.told)}" if its.budget.told else ""
    return (
        f"{first} trials first ({len(plan.arms)} arms × {its.initial} seeds), then seeds where the "
        f"verdict is open: at most {trials} trials ({its.most} seeds){budget}"
    )


def _percent(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{source} {100 * share:.3g} %" for source, share in shares.items())


def _value(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{…}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def estimated_seconds(
    plan: Plan,
    workers: int,
    finished: set[str],
    measured: Mapping[str, float] = NOTHING,
    start_seconds: float = START_SECONDS,
) -> float:
    """Until everything is done: starting the workers, compiling, training, evaluating."""
    finished = finished & plan.stages.keys()
    missing = len(plan.stages) - len(finished)
    if not missing:
        return 0.0
    measured = {stage: seconds for stage, seconds in measured.items() if stage in plan.stages}
    names = [f"worker {number}" for number in range(min(workers, missing))]
    return start_seconds + Scheduler(plan, finished, names, measured=measured).remaining_seconds(
        0.0
    )


@dataclass(frozen=True)
class Before:
    """What gives one part its first weights, and how far trials share it."""

    different: int  # unlike stages of one seed
    pinned: int  # those of them that all seeds share
    arms: int  # that read one of them
    stages: int
    seconds: float
    flops: float | None  # None: nobody knows
    epochs: dict[str, float]  # own source → the most that one of them goes through it, about


def before(plan: Plan) -> dict[str, Before]:
    """The parts that some arm trains or reads before the main stage."""
    found = {}
    having: dict[str, list[tuple[Trial, str]]] = {}  # role → trials and their stages
    for trial in plan.trials:
        main = plan.main(trial)
        for role, stage in plan.trainings(trial).items():
            if stage != main:
                having.setdefault(role, []).append((trial, stage))
    for part, those in having.items():
        stages = [plan.stages[one] for one in dict.fromkeys(stage for _, stage in those)]
        of_one_seed = {stage for trial, stage in those if trial.seed == those[0][0].seed}
        found[part] = Before(
            different=len(of_one_seed),
            pinned=sum(plan.stages[one].work.pinned for one in of_one_seed),
            arms=len({trial.arm for trial, _ in those}),
            stages=len(stages),
            seconds=sum(stage.seconds for stage in stages),
            flops=total(stage.flops for stage in stages),
            epochs={
                source: max(stage.work.epochs.get(source, 0.0) for stage in stages)
                for source in sorted({source for stage in stages for source in stage.work.epochs})
            },
        )
    return found


def _before_lines(plan: Plan) -> Iterator[str]:
    for part, one in before(plan).items():
        kinds = []
        if one.different > one.pinned:
            seeds = "seed" if len(plan.seeds) == 1 else "seeds"
            kinds.append(f"{one.different - one.pinned} different × {len(plan.seeds)} {seeds}")
        if one.pinned:
            kinds.append(f"{one.pinned} shared by all seeds")
        read = [f"{epochs:.3g} epochs of {source}" for source, epochs in one.epochs.items()]
        yield "; ".join(
            [
                f"{part.replace('_', ' ')}: {', '.join(kinds)}, for {one.arms} of "
                f"{len(plan.arms)} arms",
                duration(one.seconds) + ("" if one.flops is None else f", {count(one.flops)}FLOP"),
                *read,
            ]
        )


def _time_lines(
    plan: Plan,
    workers: int,
    finished: set[str],
    measured: Mapping[str, float],
    start_seconds: float,
) -> Iterator[str]:
    remaining = estimated_seconds(plan, workers, finished, measured, start_seconds)
    said = {stage.kind: duration(stage.seconds) for stage in plan.stages.values()}
    planned = "formulas for an otherwise idle machine"
    if plan.is_own:  # nobody's formula: what is said of each step, or the 60 s of none
        planned = ", ".join(f"{kind} {seconds}" for kind, seconds in said.items())
    source = "finished stages on this machine" if measured else planned
    cores = f"{workers} {'core' if workers == 1 else 'cores'}"
    time = f"{duration(remaining)} on {cores}"
    if plan.replication is not None:
        first = estimated_seconds(plan.beginning, workers, finished, measured)
        time = (
            f"{duration(first)} for the first trials, and at most {duration(remaining)} for all, "
            f"on {cores} (at most {plan.replication.lookahead} of the added ones run at once)"
        )
    yield f"estimated time for the rest, from {source}: {time}, start and compilation included"
    ours = [stage for stage in plan.stages.values() if stage.kind in KINDS]
    own = sorted({stage.kind for stage in ours if not is_ours(stage.kind, stage.run)})
    if own and not measured:
        yield f"  (runners of your own, counted as if they were ours: {', '.join(own)})"
    guessed = {stage.kind for stage in plan.stages.values() if not stage.work.seconds_said}
    if guessed and not measured:
        yield (
            f"  (nobody says how long {', '.join(sorted(guessed))} takes: say `seconds`, or take "
            "the time above for nothing)"
        )


def _show_on(console: Console, on: PlanOn) -> None:
    from rich.table import Table

    from mm1 import plan_on

    console.print()
    console.print(in_terminal(plan_on.headline(on), "bold"))
    header, rows = plan_on.rows(on)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(header[0], overflow="fold")
    for name in header[1:]:
        table.add_column(name, justify="right")
    for label, *cells in rows:
        table.add_row(in_terminal(label), *cells)
    console.print(table)
    for line in plan_on.lines(on):
        console.print(in_terminal(f"  {line}"))


def show(
    plan: Plan,
    workers: int,
    finished: set[str],
    measured: Mapping[str, float] = NOTHING,
    new: Sequence[New] = (),
    store: str = "",
    on: PlanOn | None = None,
    start_seconds: float = START_SECONDS,
) -> None:
    """Print the plan as a table, and what it comes to on a machine, if one is named."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    # In a pipe there is no width to keep to, and a cut name says nothing.
    if not console.is_terminal:
        console.width = 200

    def say(text: str, style: str = "") -> None:
        console.print(in_terminal(text, style))

    console.print(in_terminal(f"{plan.study}  ", "bold") + in_terminal(plan.question, "not bold"))
    goal = plan.metric(*plan.primary_metric).goal
    say(f"primary metric: {with_goal('.'.join(plan.primary_metric), goal)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm", overflow="fold")
    told = list(dict.fromkeys(name for arm in plan.arms for name in arm.figures))
    shown = [name.replace("_", " ") for name in told]
    costs = ("parameters", *shown, "FLOPs a trial", "memory")
    lines = [
        [
            count(sum(arm.parameters.values())) if arm.parameters else MISSING,
            *(figure(arm.figures.get(name)) for name in told),
            count(arm.flops_per_trial),
            MISSING if arm.memory_bytes is None else f"{arm.memory_bytes / 2**20:.0f} MiB",
        ]
        for arm in plan.arms
    ]
    known = [i for i in range(len(costs)) if any(line[i] != MISSING for line in lines)]
    for i in known:
        table.add_column(costs[i], justify="right")
    for arm, line in zip(plan.arms, lines, strict=True):
        table.add_row(in_terminal(arm.label), *(line[i] for i in known))
    console.print(table)
    if set_lines := list(_set_lines(plan)):
        console.print("\n[bold]what the arms set[/bold] (all else is the base's)")
        for line in set_lines:
            say(f"  {line}")
    console.print()
    where = f" in the store {store}" if store else ""
    flops = total(stage.flops for stage in plan.stages.values())
    console.print(
        f"{_shape(plan)}, {len(plan.stages)} stages "
        f"({len(finished & plan.stages.keys())} already finished{where})"
        f"{f', {count(flops)}FLOP in all' if flops is not None else ''}",
        markup=False,
    )
    for one in plan.excluded:
        say(f"  excluded: {one.trial}: {one.reason}")
    for one in new:
        say(f"  new: {one}")
    for line in _before_lines(plan):
        say(f"  before: {line}")
    if on is None:
        for line in _time_lines(plan, workers, finished, measured, start_seconds):
            say(line)
    else:
        _show_on(console, on)
    if plan.claims:
        console.print("\n[bold]claims[/bold]")
        width = max(map(len, plan.claims))
        for name, text in plan.claims.items():
            say(f"  {name:<{width}}  {text}")
    notes = [*plan.warnings, *(f"{arm.name}: {note}" for arm in plan.arms for note in arm.warnings)]
    notes += [f"{arm.name}: dropped {field}" for arm in plan.arms for field in arm.dropped]
    if notes:
        console.print("\n[bold]fairness and other warnings[/bold]")
        for note in notes:
            say(f"  ! {note}")
