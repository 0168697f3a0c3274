"""What a run looks like: pure functions from one frozen snapshot to a table or a line of text.

The live table is drawn by a thread of Rich's. It is given a `Snapshot` and nothing else, so it can
neither see a scheduler in the middle of a change nor change one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablations.short_labels import short_labels
from ablations.shown_text import in_terminal

if TYPE_CHECKING:
    from sweeps.live import Fault

MOST_IN_A_LINE = 8  # running stages, and arms, that a line of a log names
STANDING = ("pausing", "paused")  # states in which the time to go stands still
METRICS_SHOWN = 2  # of a running stage: more would push its name off the line
Item = TypeVar("Item")


@dataclass(frozen=True)
class Running:
    """A stage that a worker is at."""

    label: str
    seconds: float  # since it was handed out
    step: int | None = None  # of its latest report; None before the first
    metrics: tuple[tuple[str, float], ...] = ()
    silent_seconds: float = 0.0  # without a report, where that is unusually long
    stage: str = ""  # its identity
    steps: int = 0  # in all; 0 where nobody knows
    steps_per_second: float | None = None
    remaining: float | None = None  # seconds, by its own pace

    def told(self, most: int | None = None) -> str:
        """The step and the first `most` metrics of its latest report, and whether it is silent."""
        numbers = [f"{name} {value:.4g}" for name, value in self.metrics[:most]]
        words = [] if self.step is None else [f"step {self.step}", *numbers]
        if self.silent_seconds:
            words.append(f"no report for {clock(self.silent_seconds)}")
        return " ".join(words)


@dataclass(frozen=True)
class Snapshot:
    """Where a run is at one moment, put together by the thread that drives it."""

    study: str
    taken: float  # time.monotonic()
    elapsed: float
    remaining: float  # estimated
    done: int  # trials
    running: int
    waiting: int
    failed: int
    stages: tuple[Running, ...]
    metric: str  # the primary one
    scores: tuple[tuple[str, str], ...]  # label of an arm → its scores so far, in words
    cancelled: int = 0  # trials
    state: str = "running"  # `sweeps.live.State`
    workers: int = 0
    faults: tuple[Fault, ...] = ()

    @property
    def trials(self) -> int:
        """All planned ones."""
        return self.done + self.running + self.waiting + self.failed + self.cancelled

    @property
    def counts(self) -> str:
        """Trials by state, in words."""
        parts = [f"{self.done} done", f"{self.running} running", f"{self.waiting} waiting"]
        parts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(parts + ([f"{self.cancelled} cancelled"] if self.cancelled else []))

    @property
    def times(self) -> str:
        """Elapsed and remaining time, in words."""
        still = "" if self.state == "running" else f"{self.state} · "
        return f"{still}elapsed {clock(self.elapsed)} · remaining about {clock(self.remaining)}"

    def later(self, now: float) -> Snapshot:
        """The same with clocks that have gone on to `now`."""
        passed = max(0.0, now - self.taken)
        gone = 0.0 if self.state in STANDING else passed
        stages = tuple(replace(one, seconds=one.seconds + passed) for one in self.stages)
        return replace(
            self,
            taken=now,
            elapsed=self.elapsed + passed,
            remaining=max(0.0, self.remaining - gone),
            stages=stages,
        )

    def headline(self) -> str:
        """Trials, elapsed and remaining time."""
        return f"trials: {self.counts} · {self.times}"

    def line(self) -> str:
        """All of it on one line, for logs."""
        shown = self.stages[:MOST_IN_A_LINE]
        stages = [f"{one.label} {one.told(most=1)}".rstrip() for one in shown]
        scores = [f"{arm} {score}" for arm, score in self.scores[:MOST_IN_A_LINE]]
        more = (_more(len(self.stages), "running"), _more(len(self.scores), "arms"))
        return " | ".join([self.headline(), *stages, *more[0], *scores, *more[1]])


def _more(count: int, of: str) -> list[str]:
    return [f"and {count - MOST_IN_A_LINE} more {of}"] if count > MOST_IN_A_LINE else []


class Screen:
    """The live table of the latest snapshot, as wide and as high as the terminal is when drawn."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None  # replaced as a whole, never changed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        shown = self.snapshot
        if shown is not None:
            width = max(1, options.max_width - 1)  # a sign in plain letters may take one more
            parts = Group(*table(shown.later(time.monotonic()), width, console.height))
            yield from console.render(parts, options.update(width=width))


def table(shown: Snapshot, width: int, height: int) -> Iterator[Table | Text]:
    """The rows of the live table that fit into `height` lines, each cut to `width` columns."""
    whole = f"{shown.counts} · {shown.times}"
    told = [whole] if len(whole) <= width else [shown.counts, shown.times]
    # What is left beside the bar, these, the header of the scores and the cursor's line.
    room = max(2, height - 3 - len(told))
    of_stages = min(len(shown.stages), max(1, room // 2))
    of_stages = min(len(shown.stages), max(of_stages, room - len(shown.scores)))
    of_scores = min(len(shown.scores), room - of_stages)

    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True, overflow="ellipsis")
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(
        in_terminal(shown.study, "bold"),
        ProgressBar(total=max(1, shown.trials), completed=shown.done),
        f"{shown.done} of {shown.trials} trials",
    )
    yield bar
    yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in told)

    most = max(12, width // 2)  # of a name
    rows = list(_shown(shown.stages, of_stages))
    names = short_labels((one.label for one, _ in rows if one is not None), most)
    stages = Table.grid(padding=(0, 2))
    stages.add_column(no_wrap=True, overflow="ellipsis", max_width=most + 2)
    stages.add_column(no_wrap=True, justify="right", min_width=4)
    stages.add_column(no_wrap=True, overflow="ellipsis")
    for one, left in rows:
        if one is None:
            stages.add_row(Text(f"  … and {left} more", style="dim"))
        else:
            told = in_terminal(one.told(most=METRICS_SHOWN), "yellow" if one.silent_seconds else "")
            stages.add_row(in_terminal(f"  {names[one.label]}"), clock(one.seconds), told)
    if shown.stages:
        yield stages

    if shown.scores and of_scores:
        arms = list(_shown(shown.scores, of_scores))
        names = short_labels((one[0] for one, _ in arms if one is not None), most)
        scores = Table.grid(padding=(0, 2))
        scores.add_column(no_wrap=True, overflow="ellipsis", max_width=most)
        scores.add_column(no_wrap=True, overflow="ellipsis")
        scores.add_row(Text("arm", style="dim"), Text(f"{shown.metric}, mean ± SD", style="dim"))
        for one, left in arms:
            if one is None:
                scores.add_row(Text(f"… and {left} more arms", style="dim"))
            else:
                scores.add_row(in_terminal(names[one[0]]), Text(one[1]))
        yield scores


def _shown(items: Sequence[Item], most: int) -> Iterator[tuple[Item | None, int]]:
    """At most so many items; the last place says how many are left out, as (None, count)."""
    kept = len(items) if len(items) <= most else max(0, most - 1)
    yield from ((item, 0) for item in items[:kept])
    if kept < len(items):
        yield None, len(items) - kept


def clock(seconds: float) -> str:
    """`0:05`, `12:40`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
