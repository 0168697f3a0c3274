"""What a run shows while it runs: a live table in a terminal, else a line every ten seconds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablations.plan import Plan
from sweeps.scheduler import Scheduler
from sweeps.store import Store

LINE_SECONDS = 10.0
LOOK_SECONDS = 1.0  # how often the reports of running stages are read


class Progress:
    """Shows where a run of a plan is; as a context, live. `update` may be called often."""

    def __init__(self, plan: Plan, store: Store, *, quiet: bool = False):
        self._plan, self._store = plan, store
        self.scheduler = Scheduler(plan, (), ["nobody"])  # until there is one that decides
        self._console = Console(quiet=quiet, highlight=False)
        self._started = time.monotonic()
        self._looked = self._printed = -math.inf
        self._first_metric_at: float | None = None
        self._reports: dict[str, dict[str, Any]] = {}  # stage → its latest report
        self._elapsed: Mapping[str, float] = {}
        self._scores = _Scores(plan, store)
        self._live = (
            Live(console=self._console, get_renderable=self._render, refresh_per_second=4)
            if self._console.is_terminal and not quiet
            else None
        )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, message: str) -> None:
        """Print one line that stays."""
        self._console.print(Text(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print one line that stays and that quiet does not silence."""
        if self._console.quiet:
            print(message, file=sys.stderr)
        else:
            self._console.print(Text(message, style="yellow"), soft_wrap=True)

    def update(self, elapsed: Mapping[str, float]) -> None:
        """Look at what happens and show it; `elapsed` as for the scheduler."""
        self._elapsed = elapsed
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._read_reports()
        self._scores.read(self.scheduler.in_state("done"))
        if self._live is None and now - self._printed >= LINE_SECONDS:
            self._printed = now
            self._console.print(Text(self.line()), soft_wrap=True)

    def _read_reports(self) -> None:
        running = self.scheduler.running.values()
        self._reports = {
            stage_id: reports[-1]
            for stage_id in running
            if (reports := self._store.progress(stage_id))
        }
        if self._reports and self._first_metric_at is None:
            self._first_metric_at = time.monotonic() - self._started
            stage_id, report = next(iter(self._reports.items()))
            label = self._plan.stages[stage_id].label
            self.say(f"first metric after {self._first_metric_at:.0f} s: {label}: {_told(report)}")

    # -- what is shown -----------------------------------------------------------------------

    def trials(self) -> dict[str, int]:
        """How many trials are done, running, waiting and failed."""
        counts = dict.fromkeys(("done", "running", "waiting", "failed"), 0)
        for trial in self._plan.trials:
            states = {self.scheduler.state[one] for one in trial.stages}
            if states == {"done"}:
                counts["done"] += 1
            elif states & {"failed", "blocked"}:
                counts["failed"] += 1
            elif states & {"running", "elsewhere"} or self.scheduler.state[trial.train] == "done":
                counts["running"] += 1
            else:
                counts["waiting"] += 1
        return counts

    def headline(self) -> str:
        """Trials, elapsed and remaining time."""
        counts = self.trials()
        parts = [f"{counts[name]} {name}" for name in ("done", "running", "waiting")]
        if counts["failed"]:
            parts.append(f"{counts['failed']} failed")
        elapsed = time.monotonic() - self._started
        remaining = self.scheduler.remaining_seconds(self._elapsed)
        return (
            f"trials: {', '.join(parts)} · elapsed {_clock(elapsed)} "
            f"· remaining about {_clock(remaining)}"
        )

    def line(self) -> str:
        """All of it on one line, for logs."""
        scores = [f"{arm} {score}" for arm, score in self._scores.told().items()]
        running = [
            f"{self._plan.stages[stage_id].label} {_told(report, most=1)}"
            for stage_id, report in self._reports.items()
        ]
        return " | ".join([self.headline(), *running, *scores])

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text(self.headline(), style="bold"))
        for worker, stage_id in sorted(self.scheduler.running.items()):
            report = self._reports.get(stage_id)
            label = self._plan.stages[stage_id].label
            seconds = _clock(self._elapsed.get(worker, 0))
            grid.add_row(Text(f"  {label}  {seconds}  {_told(report) if report else ''}"))
        task, metric = self._plan.primary_metric
        table = Table("arm", f"{task}.{metric}", box=None, header_style="dim")
        for arm, score in self._scores.told().items():
            table.add_row(arm, score)
        if table.row_count:
            grid.add_row(table)
        return grid


class _Scores:
    """The primary metric of each arm, as its seeds come in."""

    def __init__(self, plan: Plan, store: Store):
        self._plan, self._store = plan, store
        task = plan.primary_metric[0]
        self._waiting: dict[str, list[tuple[str, int]]] = {}  # stage → the trials it scores
        for trial in plan.trials:
            for one in trial.evaluations:
                if one.task == task and one.condition == "intact" and one.shots == 0:
                    self._waiting.setdefault(one.stage, []).append((trial.arm, trial.seed))
        self._values: dict[str, dict[int, float]] = {}

    def read(self, done: list[str]) -> None:
        for stage_id in done:
            trials = self._waiting.pop(stage_id, None)
            if trials is None:
                continue
            rows = self._store.rows([stage_id])
            task, metric = self._plan.primary_metric
            values = rows.loc[(rows["task"] == task) & (rows["metric"] == metric), "value"]
            for arm, seed in trials if len(values) else []:
                self._values.setdefault(arm, {})[seed] = float(values.iloc[-1])

    def told(self) -> dict[str, str]:
        texts = {}
        for arm in self._plan.arms:
            values = self._values.get(arm.name)
            if values:
                mean = math.fsum(values.values()) / len(values)
                seed, latest = list(values.items())[-1]
                count = f"{len(values)} of {len(self._plan.seeds)} seeds"
                texts[arm.label] = f"{latest:.1f} (seed {seed}), mean {mean:.1f} of {count}"
        return texts


def _told(report: Mapping[str, Any], most: int | None = None) -> str:
    """The step and the first `most` metrics of a report."""
    numbers = [f"{name} {value:.4g}" for name, value in report.items() if name not in _FIXED]
    return f"step {report['step']} {' '.join(numbers[:most])}"


_FIXED = ("step", "time")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
