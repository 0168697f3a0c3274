"""`mm1 table`: what a table was understood as, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ablations.few import few
from ablations.shown_text import each_text, hiding, visible
from analysis.tables.understood import Understood
from analysis.words import metric_name

SHOWN = 12  # arms, levels, seeds
WAYS = {"maximise": "higher is better", "minimise": "lower is better"}


def summary(found: Understood) -> dict[str, Any]:
    """What `mm1 table --json` prints."""
    table = found.table
    made = {
        "source": found.raw.origin,
        "rows": len(found.raw.frame),
        "columns": [
            {"name": one.name, "role": one.role, "why": one.why} for one in found.roles.columns
        ],
        "factors": {factor: list(levels) for factor, levels in table.design.factors.items()},
        "base": {"arm": table.base, "why": found.base_why},
        "arms": {arm: _seeds_of(found, arm) for arm in table.arms},
        "seeds": list(table.seeds),
        "metrics": [
            {
                "task": task,
                "metric": metric,
                "goal": table.record(task, metric).goal,
                "why": how,
                "arms": len({k.arm for k in table.scores if k[1:3] == (task, metric)}),
            }
            for (task, metric), how in found.directions.items()
        ],
        "notes": list(found.notes),
        "problems": [*found.problems, *found.mixed.values(), *found.uneven.values()],
    }
    return each_text(made, hiding())


def told(found: Understood) -> str:
    """The same in lines."""
    made, table = summary(found), found.table
    lines = [f"{made['source']}: {made['rows']:,} rows", "", "columns"]
    used = [one for one in found.roles.columns if one.role != "ignored"]
    ignored = [one for one in found.roles.columns if one.role == "ignored"]
    lines += _columns([(_one_line(c.name), c.role, c.why) for c in used])
    if ignored:
        lines += ["not used"]
        lines += _columns([(_one_line(c.name), c.why, "") for c in ignored])
    factors = table.design.factors
    lines += ["", "factors" if len(factors) > 1 else "arms"]
    for factor, levels in factors.items():
        first = f"{levels[0]} (base)" if len(factors) > 1 else levels[0]
        rest = _some([first, *levels[1:]])
        lines.append(f"  {_one_line(factor)}: {rest}")
    lines.append(f"base: {_one_line(table.base)} ({found.base_why})")
    if len(factors) > 1:
        lines.append(f"arms: {_some(table.arms)}")
    seeds = [_seeds_of(found, arm) for arm in table.arms]
    if not found.has_seeds:
        lines.append("seeds: none; one run of each arm")
    elif all(own == seeds[0] for own in seeds):
        lines.append(f"seeds: {_some(list(map(str, seeds[0])))}, every arm")
    else:
        for arm, own in zip(table.arms[:SHOWN], seeds, strict=False):
            lines.append(f"seeds of {_one_line(arm)}: {_some(list(map(str, own)))}")
    lines += ["", "metrics"]
    rows = []
    for one in made["metrics"]:
        way = WAYS.get(one["goal"], "which way is better is not known")
        why = one["why"] or "say --lower or --higher"
        rows.append((_one_line(metric_name(one["task"], one["metric"])), way, why))
    lines += _columns(rows)
    if len(rows) > 1:
        name = metric_name(*table.primary[:2])
        chosen = (
            "named" if found.is_plain else "the first by name; claims have to say which they mean"
        )
        lines.append(f"shown first: {_one_line(name)} ({chosen})")
    for title, said in (("how it was read", made["notes"]), ("what is odd", made["problems"])):
        if said:
            lines += ["", title, *(f"  {_one_line(one)}" for one in said)]
    return "\n".join(lines)


def _seeds_of(found: Understood, arm: str) -> list[int]:
    table = found.table
    own = {seed for key, values in table.scores.items() if key.arm == arm for seed in values}
    own |= {seed for key, why in table.unscored.items() if key.arm == arm for seed in why}
    return sorted(own)


def _columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [min(40, max((len(row[n]) for row in rows), default=0)) for n in (0, 1)]
    return [f"  {a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows]


def _some(names: Sequence[str]) -> str:
    return few(names, SHOWN, told=_one_line)


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))
