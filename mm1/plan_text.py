"""A plan as people read it in a terminal: arms, trials, cost, warnings, claims."""

from __future__ import annotations

from ablations.plan import Plan
from analysis.words import count, duration


def summary(plan: Plan, workers: int, finished: set[str]) -> dict[str, object]:
    """The figures of `mm1 plan --json`. Time assumes one core a worker, all equally fast."""
    stages = plan.stages.values()
    missing = [stage for stage in stages if stage.id not in finished]
    seconds = sum(stage.seconds for stage in missing)
    return {
        "study": plan.study,
        "hash": plan.hash,
        "seeds": list(plan.seeds),
        "primary_metric": ".".join(plan.primary_metric),
        "arms": [
            {
                "name": arm.name,
                "label": arm.label,
                "levels": arm.levels,
                "parameters": arm.parameters,
                "peak_lr": arm.peak_lr,
                "flops_per_trial": arm.flops_per_trial,
                "memory_bytes": arm.memory_bytes,
                "dropped": list(arm.dropped),
                "warnings": list(arm.warnings),
            }
            for arm in plan.arms
        ],
        "trials": len(plan.trials),
        "stages": len(plan.stages),
        "stages_finished": len(plan.stages) - len(missing),
        "flops": sum(stage.flops for stage in stages),
        "core_seconds": seconds,
        "workers": workers,
        "seconds": seconds / workers,
        "claims": plan.claims,
        "warnings": list(plan.warnings),
    }


def show(plan: Plan, workers: int, finished: set[str]) -> None:
    """Print the plan as a table."""
    from rich.console import Console
    from rich.table import Table

    figures = summary(plan, workers, finished)
    console = Console(highlight=False, soft_wrap=True)
    # In a pipe there is no width to keep to, and a cut name says nothing.
    if not console.is_terminal:
        console.width = 200
    console.print(f"[bold]{plan.study}[/bold]  {plan.question}", markup=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm", overflow="fold")
    # N, the language model's weights without embeddings, is what the paper's rate follows from.
    for name in ("parameters", "LM (N)", "image tokens", "peak lr", "FLOPs a trial", "memory"):
        table.add_column(name, justify="right")
    for arm in plan.arms:
        table.add_row(
            arm.label,
            count(sum(arm.parameters.values())),
            count(arm.parameters["language_model"]),
            str(arm.image_tokens),
            f"{arm.peak_lr:.3g}",
            count(arm.flops_per_trial),
            f"{arm.memory_bytes / 2**20:.0f} MiB",
        )
    console.print(table)
    console.print(
        f"{len(plan.arms)} arms × {len(plan.seeds)} seeds = {len(plan.trials)} trials, "
        f"{len(plan.stages)} stages ({figures['stages_finished']} already finished), "
        f"{count(sum(stage.flops for stage in plan.stages.values()))}FLOP in all"
    )
    remaining = sum(s.seconds for s in plan.stages.values() if s.id not in finished)
    console.print(
        f"estimated time for the rest: {duration(remaining / workers)} on {workers} "
        f"{'core' if workers == 1 else 'cores'}"
    )
    if plan.claims:
        console.print("\n[bold]claims[/bold]")
        width = max(map(len, plan.claims))
        for name, text in plan.claims.items():
            console.print(f"  {name:<{width}}  {text}", markup=False)
    notes = [*plan.warnings, *(f"{arm.name}: {note}" for arm in plan.arms for note in arm.warnings)]
    notes += [f"{arm.name}: dropped {field}" for arm in plan.arms for field in arm.dropped]
    if notes:
        console.print("\n[bold]fairness and other warnings[/bold]")
        for note in notes:
            console.print(f"  ! {note}", markup=False)
