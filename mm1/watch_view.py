"""How a study under way looks in a terminal: from one frozen `View` to lines that fit it.

Pure: the same view, size and page give the same lines. What does not fit is left out, and a line
says so. Every text of somebody else's goes through `in_terminal`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from ablations.short_labels import short_labels
from ablations.shown_text import in_terminal
from mm1.watching import GONE, STATES, ArmLine, ClaimLine, Run, TrialState, View
from sweeps.display import clock
from sweeps.live import Fault, RunningStage

# One sign a trial, one column wide; letters where the terminal has no others (`plain_signs`).
SIGNS: dict[TrialState, tuple[str, str]] = {
    "done": ("✓", "green"),
    "diverged": ("!", "yellow"),
    "running": (">", "bold cyan"),
    "waiting": (".", "dim"),
    "failed": ("✗", "bold red"),
    "cancelled": ("o", "magenta"),
    "withheld": ("_", "dim"),
    "excluded": ("–", "dim"),
}
LEAST_WIDTH, LEAST_HEIGHT = 20, 6
MOST_LOOKS = 6  # the last ones, of a claim's p path
KEYS = "q leaves, the run goes on"


@dataclass(frozen=True)
class Screen:
    """The lines of a screen, and which part of the grid they show."""

    lines: tuple[Text, ...]
    page: int
    pages: int


def screen(view: View, width: int, height: int, page: int = 0) -> Screen:
    """At most `height` lines of at most `width` columns; `page` of the grid, from 0."""
    width, height = max(LEAST_WIDTH, width), max(LEAST_HEIGHT, height)
    head = _head(view, width)
    room = height - len(head) - 1  # the last line says which keys there are
    legend = _legend(view, width)
    parts = {
        "faults": _faults(view, width),
        "claims": _claims(view, width),
        "stages": _stages(view, width),
    }
    wanted = {name: len(lines) for name, lines in parts.items() if lines}
    # An empty line goes before each part.
    grid = len(view.arms) + len(legend)
    given = _shared(room, {"grid": grid} | {name: n + 1 for name, n in wanted.items()})
    rows = max(1, given["grid"] - len(legend))
    body, page, pages = _grid(view, width, rows, page)
    lines = [*head, *(legend if given["grid"] > len(legend) else ()), *body]
    for name in ("stages", "claims", "faults"):
        if name in wanted and given[name] > 1:
            lines += [Text(""), *_cut(parts[name], given[name] - 1, name)]
    lines = lines[: height - 1]
    lines += [Text("")] * (height - 1 - len(lines))
    keys = KEYS + (f" · n, p: page {page + 1} of {pages} of the arms" if pages > 1 else "")
    lines.append(Text(keys, style="dim"))
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Screen(tuple(lines), page, pages)


def _shared(room: int, wanted: dict[str, int]) -> dict[str, int]:
    """Lines for each part: a few for all at first, then in turn to those that want more."""
    given = {name: min(want, 4 if name == "grid" else 3) for name, want in wanted.items()}
    while sum(given.values()) > room and max(given.values()) > 1:
        given[max(given, key=lambda name: given[name])] -= 1
    left = room - sum(given.values())
    while left > 0 and (open_ := [name for name in given if given[name] < wanted[name]]):
        for name in open_[:left]:
            given[name] += 1
        left = room - sum(given.values())
    return given


def _head(view: View, width: int) -> list[Text]:
    done = view.counts["done"] + view.counts["diverged"]
    first = Text.assemble(
        in_terminal(view.study, "bold"), "  ", *told_state(view.run), no_wrap=True
    )
    second = Text(f"{done} of {view.trials} trials · {told_time(view.run)}")
    lines = [first, second]
    if cell_len(first.plain) + cell_len(second.plain) + 3 <= width:
        lines = [Text.assemble(first, " · ", second)]
    if width >= 80 and view.question:
        lines.append(in_terminal(view.question, "dim"))
    return [*lines, *(in_terminal(note, "yellow") for note in view.notes)]


def told_state(run: Run) -> list[tuple[str, str]]:
    """Who runs a study, in words with their styles."""
    where = f" (process {run.pid} on {run.host})" if run.host else ""
    match run.state:
        case "idle":
            return [("nobody runs it", "yellow")]
        case "ended":
            return [(f"the run has ended{_code(run.code)}", "yellow" if run.code else "green")]
        case "gone":
            return [(f"the run ended without a word{where}; mm1 run goes on", "red")]
        case "paused" | "pausing":
            return [(f"{run.state}", "bold yellow"), (where, "dim")]
        case _:
            return [(f"{run.state}", "bold green"), (where, "dim")]


def _code(code: int | None) -> str:
    told = {0: ", all of it is there", 1: ", some trials are missing", 130: ", it was stopped"}
    return "" if code is None else told.get(code, f" with code {code}")


def told_time(run: Run) -> str:
    """Elapsed time and time to go, in words."""
    if run.state in ("idle", "ended", GONE):
        return f"it ran for {clock(run.elapsed)}" if run.elapsed else "not started"
    to_go = "…" if run.remaining is None or run.state == "starting" else clock(run.remaining)
    return f"elapsed {clock(run.elapsed)} · to go about {to_go}"


def _legend(view: View, width: int) -> list[Text]:
    """What the signs mean, with how many trials there are of each."""
    shown = [state for state in STATES if view.counts[state]] or ["waiting"]
    parts = [(f"{SIGNS[s][0]} {view.counts[s]} {s}", SIGNS[s][1]) for s in shown]
    lines, line = [], Text()
    for text, style in parts:
        if line and cell_len(line.plain) + cell_len(text) + 3 > width:
            lines.append(line)
            line = Text()
        line.append("   " if line else "").append(text, style)
    return [Text(""), *lines, line]


def _grid(view: View, width: int, rows: int, page: int) -> tuple[list[Text], int, int]:
    """A line an arm with a sign a seed; where they are too many, one page of them."""
    arms = view.arms
    if len(arms) > rows:
        rows = max(1, rows - 1)
    pages = max(1, math.ceil(len(arms) / rows))
    page = min(max(0, page), pages - 1)
    here = arms[page * rows : (page + 1) * rows]
    labels = short_labels((arm.label for arm in here), max(12, width // 2))
    column = min(max((cell_len(text) for text in labels.values()), default=0), max(12, width // 2))
    scores = max((cell_len(arm.score) for arm in here), default=0)
    most = max(8, width - column - 2 - (scores + 2 if scores else 0))
    grid = min(most, len(view.seeds))
    lines = []
    for arm in here:
        line = in_terminal(labels[arm.label])
        line.truncate(column, overflow="ellipsis", pad=True)
        line.append("  ")
        line.append_text(_signs(arm, most))
        if arm.score:
            line.append(" " * (2 + grid - (cell_len(line.plain) - column - 2)))
            line.append(arm.score)
        lines.append(line)
    if pages > 1:
        others = [arm for arm in arms if arm not in here]
        counts = Counter(state for arm in others for state in arm.states)
        told = ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s])
        first, last = page * rows + 1, page * rows + len(here)
        lines.append(
            Text(f"arms {first} to {last} of {len(arms):,}; trials of the others: {told}", "dim")
        )
    return lines, page, pages


def _signs(arm: ArmLine, most: int) -> Text:
    """A sign a seed; where they do not fit, the first ones and how many are left out."""
    states = arm.states
    more = f" +{len(states)}"
    shown = states if len(states) <= most else states[: max(1, most - len(more))]
    line = Text()
    for state in shown:
        line.append(*SIGNS[state])
    if len(shown) < len(states):
        line.append(f" +{len(states) - len(shown)}".ljust(most - len(shown)), "dim")
    return line


def _stages(view: View, width: int) -> list[Text]:
    labels = short_labels((one.label for one in view.stages), max(12, width * 2 // 5))
    column = max((cell_len(text) for text in labels.values()), default=0)
    lines = []
    for one in view.stages:
        line = in_terminal(labels[one.label])
        line.truncate(column, overflow="ellipsis", pad=True)
        line.append(f"  {clock(one.seconds):>5}  " if width >= 80 else "  ", "dim")
        line.append(told_stage(one), "yellow" if one.silent_seconds else "")
        lines.append(line)
    if view.more_stages:
        lines.append(Text(f"and {view.more_stages} more running stages", "dim"))
    return lines


def told_stage(one: RunningStage) -> str:
    """Step, loss (else the first curve), time to go, speed and MFU of a running stage."""
    if one.step is None:
        return f"no report for {clock(one.silent_seconds)}" if one.silent_seconds else "starting"
    parts = [f"step {one.step:,}" + (f" of {one.steps:,}" if one.steps else "")]
    parts += [f"{name} {told}" for name, told in _first_metric(one)]
    if one.silent_seconds:
        parts.append(f"no report for {clock(one.silent_seconds)}")
    elif one.remaining is not None:
        parts.append(f"{clock(one.remaining)} to go")
    tokens, mfu = one.metrics.get("tokens_per_second"), one.metrics.get("mfu")
    if tokens is not None:
        parts.append(f"{_short(tokens)} tokens/s")
    elif one.steps_per_second is not None:
        parts.append(f"{one.steps_per_second:.3g} steps/s")
    if mfu is not None:
        parts.append(f"MFU {mfu:.0%}")
    return " · ".join(parts)


def _first_metric(one: RunningStage) -> list[tuple[str, str]]:
    names = [name for name in ("loss", *one.metrics) if name in one.metrics]
    if not names:
        return []
    value = one.metrics[names[0]]
    return [(names[0], "not finite" if value is None else f"{value:.4g}")]


def _short(number: float) -> str:
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _claims(view: View, width: int) -> list[Text]:
    if not view.claims:
        return []
    labels = short_labels((one.name for one in view.claims), max(12, width // 3))
    column = max(cell_len(text) for text in labels.values())
    head = "claims"
    if any(one.path is not None for one in view.claims):
        head += " (seeds are added until there is a verdict; sequential p, look by look)"
    elif any(one.interim for one in view.claims):
        head += f" (no verdict before all {len(view.seeds)} registered seeds are in)"
    lines = [Text(head, "bold")]
    for one in view.claims:
        line = in_terminal(labels[one.name])
        line.truncate(column, overflow="ellipsis", pad=True)
        line.append("  ")
        line.append(*told_claim(one))
        lines.append(line)
    return lines


_VERDICTS = {"supported": ("✓", "green"), "refuted": ("✗", "red"), "undecided": ("?", "yellow")}


def told_claim(one: ClaimLine) -> tuple[str, str]:
    """A claim's verdict, or what there is so far, with its style."""
    boundary = f"{one.relation} {one.boundary:g}"
    looks = " → ".join(f"{p:.2g}" for _, p in (one.path or ())[-MOST_LOOKS:])
    path = f" · p {looks}" if looks else ""
    if one.interim:
        told = f"{one.n} of {'at most ' if one.path is not None else ''}{one.seeds} seeds"
        if one.n:
            told += f" · interim {one.shown_effect}, claimed {boundary}"
        return told + path, "dim"
    sign, style = _VERDICTS[one.verdict]
    told = f"{sign} {one.verdict} · {one.shown_effect}, claimed {boundary} · {one.standing}{path}"
    return told + (f" · {one.reason}" if one.verdict == "undecided" and one.reason else ""), style


def _faults(view: View, width: int) -> list[Text]:
    lines = [
        in_terminal(
            f"silent for {clock(one.silent_seconds)}: {one.label}, mm1 logs {one.stage[:8]}"
        )
        for one in view.stages
        if one.silent_seconds
    ]
    lines += [in_terminal(told_fault(one)) for one in reversed(view.faults)]
    return [Text("faults, the latest first", "bold red"), *lines] if lines else []


def told_fault(one: Fault) -> str:
    """An attempt that failed, in a line."""
    what = "is tried again" if one.again else "given up"
    error = " ".join(one.error.split())
    return f"{one.label} ({what}, mm1 logs {one.stage[:8]}): {error}"


def _cut(lines: Sequence[Text], most: int, what: str) -> list[Text]:
    if len(lines) <= most:
        return list(lines)
    kept = list(lines[: max(0, most - 1)])
    left = len(lines) - len(kept)
    name = {"stages": "running stages", "claims": "claims", "faults": "faults"}[what]
    return [*kept, Text(f"… and {left} more {name}", "dim")]
