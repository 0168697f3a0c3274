"""What a run shows while it runs: a live table in a terminal, else a line every ten seconds."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from ablations.metrics import with_goal, worst_value
from ablations.plan import Plan
from ablations.shown_text import in_terminal, visible, without_secrets
from sweeps.display import Running, Screen, Snapshot, clock
from sweeps.plain_signs import use_plain_signs
from sweeps.scheduler import START_SECONDS, Scheduler
from sweeps.silence import Listening
from sweeps.store import Store

LINE_SECONDS = 10.0
LOOK_SECONDS = 1.0  # how often the reports of running stages are read


class Progress:
    """Shows where a run of a plan is; as a context, live. `update` may be called often.

    Everything but the drawing happens in the thread that calls it; what is drawn is a frozen
    `Snapshot` of that moment.
    """

    def __init__(self, plan: Plan, store: Store, *, quiet: bool = False):
        self._plan, self._store = plan, store
        self.scheduler = Scheduler(plan, (), ["nobody"])  # until there is one that decides
        use_plain_signs()
        self._console = Console(quiet=quiet, highlight=False)
        self._started = time.monotonic()
        self._looked = self._printed = -math.inf
        self._first_metric_at: float | None = None
        self._reports: dict[str, dict[str, Any]] = {}  # stage → its latest report
        self._projected: dict[str, float] = {}  # stage → seconds in all, by its own reports
        self._listening: dict[str, Listening] = {}  # running stage → when it was heard of
        self._told_silent: set[str] = set()
        self._scores = _Scores(plan, store)
        self._screen = Screen()
        self._live = Live(self._screen, console=self._console) if self._can_redraw else None

    @property
    def _can_redraw(self) -> bool:
        # Not what Rich is told by FORCE_COLOR: in a file a table that is redrawn is garbage.
        console = self._console
        terminal = console.is_terminal and sys.stdout.isatty()
        return terminal and not console.is_dumb_terminal and not console.quiet

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._screen.snapshot = self.snapshot({})
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Show the end once more, and let it stand."""
        if self._live is not None:
            try:
                self._scores.read(self.scheduler.in_state("done"))
                self._screen.snapshot = self.snapshot({})
            finally:
                self._live.stop()

    def say(self, message: str) -> None:
        """Print one line that stays."""
        self._console.print(in_terminal(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print one line that stays and that quiet does not silence."""
        if self._console.quiet:
            print(visible(without_secrets(message)), file=sys.stderr)
        else:
            self._console.print(in_terminal(message, "yellow"), soft_wrap=True)

    def logs_command(self, stage_id: str) -> str:
        """The command that shows what a stage has said, with its tracebacks."""
        root, usual = self._store.root, os.environ.get("MM1_STORE") or ".mm1"
        same = root == (usual if "://" in usual else str(Path(usual).absolute()))
        return f"mm1 logs {stage_id[:8]}" + ("" if same else f" --store {shlex.quote(root)}")

    def update(self, elapsed: Mapping[str, float]) -> None:
        """Look at what happens and show it; `elapsed` as for the scheduler."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._read_reports(elapsed)
        self._listen(now, elapsed)
        self._scores.read(self.scheduler.in_state("done"))
        shown = self.snapshot(elapsed)
        if self._live is not None:
            self._screen.snapshot = shown
        elif now - self._printed >= LINE_SECONDS:
            self._printed = now
            self._console.print(in_terminal(shown.line()), soft_wrap=True)

    def _read_reports(self, elapsed: Mapping[str, float]) -> None:
        self._reports, self._projected = {}, {}
        for worker, stage_id in self.scheduler.running.items():
            reports = self._store.progress(stage_id)
            if reports:
                self._reports[stage_id] = reports[-1]
                steps, passed = self._plan.stages[stage_id].steps, elapsed.get(worker, 0.0)
                if (seconds := projected(reports, steps, passed)) is not None:
                    self._projected[stage_id] = seconds
        if self._reports and self._first_metric_at is None:
            self._first_metric_at = time.monotonic() - self._started
            stage_id = next(iter(self._reports))
            told = self._running(stage_id, 0.0).told(most=1)
            label = self._plan.stages[stage_id].label
            self.say(f"first metric after {self._first_metric_at:.0f} s: {label}: {told}")

    def _listen(self, now: float, elapsed: Mapping[str, float]) -> None:
        """Note what was heard of each running stage, and say it once where one is silent."""
        running = self.scheduler.running
        self._listening = {
            stage_id: self._listening.get(stage_id, Listening(now - elapsed.get(worker, 0.0)))
            for worker, stage_id in running.items()
        }
        for stage_id, listening in self._listening.items():
            if stage_id in self._reports:
                listening.hear(now, self._reports[stage_id]["step"])
            silence = self._silence(stage_id, now)
            if silence and stage_id not in self._told_silent:
                self._told_silent.add(stage_id)
                self.warn(
                    f"no report for {clock(silence)}: {self._plan.stages[stage_id].label}; it may "
                    f"hang or be slow, look at it with: {self.logs_command(stage_id)}"
                )

    def _silence(self, stage_id: str, now: float) -> float:
        """Seconds without a report, where that is long and would be seen here (else 0)."""
        listening = self._listening.get(stage_id)
        # A bucket's reports lie on the machine that runs the stage.
        if listening is None or (listening.step is None and "://" in self._store.root):
            return 0.0
        return listening.silence(now, self.scheduler.seconds(stage_id))

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

    def snapshot(self, elapsed: Mapping[str, float]) -> Snapshot:
        """Where the run is now; `elapsed` as for the scheduler."""
        now = time.monotonic()
        busy = sorted(self.scheduler.running.items())
        remaining = self.scheduler.remaining_seconds(elapsed, self._projected)
        if self._first_metric_at is None and not self.scheduler.complete:
            remaining += max(0.0, START_SECONDS - (now - self._started))
        return Snapshot(
            study=self._plan.study,
            taken=now,
            elapsed=now - self._started,
            remaining=remaining,
            **self.trials(),
            stages=tuple(self._running(one, elapsed.get(worker, 0.0)) for worker, one in busy),
            metric=with_goal(".".join(self._plan.primary_metric), self._plan.primary_metric[1]),
            scores=tuple(self._scores.told().items()),
        )

    def _running(self, stage_id: str, seconds: float) -> Running:
        label, report = self._plan.stages[stage_id].label, self._reports.get(stage_id)
        silence = self._silence(stage_id, time.monotonic())
        if report is None:
            return Running(label, seconds, silent_seconds=silence)
        metrics = tuple((name, value) for name, value in report.items() if name not in _FIXED)
        return Running(label, seconds, report["step"], metrics, silence)


def projected(reports: Sequence[Mapping[str, Any]], steps: int, passed: float) -> float | None:
    """Seconds that a stage takes in all, by the pace of its reports so far; None if it has none.

    `passed` seconds ago it was started: what it reported before belongs to an earlier attempt.
    """
    last = reports[-1]
    own = [report for report in reports if report["time"] > last["time"] - passed]
    if not own or own[0]["step"] >= last["step"] or last["step"] > steps:
        return None
    pace = (last["time"] - own[0]["time"]) / (last["step"] - own[0]["step"])
    return passed + pace * (steps - last["step"])


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
        task, metric = self._plan.primary_metric
        for stage_id in done:
            trials = self._waiting.pop(stage_id, None)
            if trials is None:
                continue
            rows = self._store.look([stage_id]).scores
            found = rows[(rows["task"] == task) & (rows["metric"] == metric)]
            if not len(found):
                continue
            value, status = float(found["value"].iloc[-1]), found["status"].iloc[-1]
            if status == "diverged":  # as verdicts count it
                worst = worst_value(task, metric)
                value = math.nan if worst is None else worst
            for arm, seed in trials:
                self._values.setdefault(arm, {})[seed] = value

    def told(self) -> dict[str, str]:
        """Label of an arm → mean ± standard deviation over its seeds so far, the latest beside."""
        texts = {}
        for arm in self._plan.arms:
            values = self._values.get(arm.name)
            if values:
                texts[arm.label] = _told(values, len(self._plan.seeds))
        return texts


def _told(values: Mapping[int, float], seeds: int) -> str:
    mean = math.fsum(values.values()) / len(values)
    places = 1 if abs(mean) >= 10 else 3
    text = f"{mean:.{places}f}"
    if len(values) > 1:
        squares = math.fsum((value - mean) ** 2 for value in values.values())
        text += f" ± {math.sqrt(squares / (len(values) - 1)):.{places}f}"
    text += f", {len(values)} of {seeds} seeds"
    if len(values) < seeds:
        seed, latest = list(values.items())[-1]
        text += f", latest {latest:.{places}f} (seed {seed})"
    return text


_FIXED = ("step", "time")
