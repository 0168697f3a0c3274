"""What a run shows while it runs: a live table in a terminal, else a line every ten seconds."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from ablations.plan import Plan
from ablations.shown_text import in_terminal, visible, without_secrets
from ablations.stages import Trial
from ablations.workload import Asked, with_goal
from sweeps.display import Running, Screen, Snapshot, clock
from sweeps.live import MOST_FAULTS, Fault, State
from sweeps.plain_signs import use_plain_signs
from sweeps.reports import Reports
from sweeps.scheduler import MAX_ATTEMPTS, START_SECONDS, Scheduler
from sweeps.silence import Listening
from sweeps.store import Store

LINE_SECONDS = 10.0
LOOK_SECONDS = 1.0  # how often the reports of running stages are read
# Of a very large study less often: a look at 100,000 trials takes a tenth of a second and more.
LOOKING_SHARE, LOOK_SECONDS_AT_MOST = 0.05, 5.0
MOST_READ = 100  # stages whose reports are read at one look


class Progress:
    """Shows where a run of a plan is; as a context, live. `update` may be called often.

    Everything but the drawing happens in the thread that calls it; what is drawn is a frozen
    `Snapshot` of that moment.
    """

    def __init__(self, plan: Plan, store: Store, *, quiet: bool = False):
        self._plan, self._store = plan, store
        use_plain_signs()
        self._console = Console(quiet=quiet, highlight=False)
        self._started = time.monotonic()
        self._look_at = self._printed = -math.inf
        self._first_metric_at: float | None = None
        self._counted: Scheduler | None = None  # whose trials were counted
        self._unsettled: list[Trial] = []  # neither done nor failed then
        self._settled: dict[str, int] = {}
        self._followed: dict[str, Reports] = {}  # running stage, the longest not read first
        self._reports: dict[str, dict[str, Any]] = {}  # stage → its latest report
        self._projected: dict[str, float] = {}  # stage → seconds in all, by its own reports
        self._listening: dict[str, Listening] = {}  # running stage → when it was heard of
        self._paces: dict[str, float] = {}  # stage → seconds a step
        self._told_silent: set[str] = set()
        self.state: State = "running"
        self.shown: Snapshot | None = None  # the latest
        self.faults: deque[Fault] = deque(maxlen=MOST_FAULTS)  # the latest last
        self._scores = _Scores(plan, store)
        self._screen = Screen()
        self._live = Live(self._screen, console=self._console) if self._can_redraw else None

    @cached_property
    def scheduler(self) -> Scheduler:
        """The one that decides, once it is set; before, of a run that has not begun."""
        return Scheduler(self._plan, (), ["nobody"])

    @property
    def _can_redraw(self) -> bool:
        # Not what Rich is told by FORCE_COLOR: in a file a table that is redrawn is garbage.
        console = self._console
        terminal = console.is_terminal and sys.stdout.isatty()
        return terminal and not console.is_dumb_terminal and not console.quiet

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._screen.snapshot = self.snapshot()
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Show the end once more, and let it stand."""
        if self._live is not None:
            try:
                self._scores.read(self.scheduler.done)
                self._screen.snapshot = self.snapshot()
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

    def failed(self, stage_id: str, error: str, *, again: bool, what: str = "") -> None:
        """Tell of an attempt that failed, and whether the stage is tried again; `what` says it."""
        attempt, label = self.scheduler.attempts[stage_id], self._plan.stages[stage_id].label
        fault = Fault(
            stage=stage_id,
            label=label,
            error=visible(without_secrets(error)),
            attempt=attempt,
            again=again,
            at=time.time(),
        )
        self.faults.append(fault)
        what = what or ("is tried again" if again else "given up")
        self.warn(
            f"failed: {label}: {error} (attempt {attempt} of {MAX_ATTEMPTS}, {what}); "
            f"traceback: {self.logs_command(stage_id)}"
        )

    def logs_command(self, stage_id: str) -> str:
        """The command that shows what a stage has said, with its tracebacks."""
        root, usual = self._store.root, os.environ.get("MM1_STORE") or ".mm1"
        same = root == (usual if "://" in usual else str(Path(usual).absolute()))
        return f"mm1 logs {stage_id[:8]}" + ("" if same else f" --store {shlex.quote(root)}")

    def update(self) -> None:
        """Look at what happens and show it."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._read_reports(now)
        self._listen(now)
        self._scores.read(self.scheduler.done)
        self.shown = shown = self.snapshot()
        if self._live is not None:
            self._screen.snapshot = shown
        elif now - self._printed >= LINE_SECONDS:
            self._printed = now
            self._console.print(in_terminal(shown.line()), soft_wrap=True)
        pause = (time.monotonic() - now) / LOOKING_SHARE
        self._look_at = now + max(LOOK_SECONDS, min(LOOK_SECONDS_AT_MOST, pause))

    def _read_reports(self, now: float) -> None:
        """Read on in the reports of running stages, in turn where there are many."""
        workers = {stage_id: worker for worker, stage_id in self.scheduler.running.items()}
        for known in (self._followed, self._reports, self._projected, self._paces):
            for stage_id in known.keys() - workers.keys():
                del known[stage_id]
        for stage_id in workers:
            if stage_id not in self._followed:
                self._followed[stage_id] = Reports(self._store.scratch(stage_id))
        for stage_id in list(islice(self._followed, MOST_READ)):
            followed = self._followed.pop(stage_id)
            self._followed[stage_id] = followed  # it is the last now
            if reports := followed.read():
                self._reports[stage_id] = reports[-1]
                passed = now - self.scheduler.since[workers[stage_id]]
                pace = seconds_per_step(reports, passed)
                if pace is not None:
                    self._paces[stage_id] = pace
                seconds = projected(reports, self._plan.stages[stage_id].steps, passed)
                if seconds is not None:
                    self._projected[stage_id] = seconds
        if self._reports and self._first_metric_at is None:
            self._first_metric_at = time.monotonic() - self._started
            stage_id = next(iter(self._reports))
            told = self._running(stage_id, 0.0).told(most=1)
            label = self._plan.stages[stage_id].label
            self.say(f"first metric after {self._first_metric_at:.0f} s: {label}: {told}")

    def _listen(self, now: float) -> None:
        """Note what was heard of each running stage, and say it once where one is silent."""
        running = self.scheduler.running
        self._listening = {
            stage_id: self._listening.get(stage_id) or Listening(self.scheduler.since[worker])
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

    @property
    def listening(self) -> Mapping[str, Listening]:
        """What was heard of each running stage, by the clock `time.monotonic`."""
        return self._listening

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
        if self.scheduler is not self._counted:
            self._counted, self._unsettled = self.scheduler, list(self._plan.trials)
            self._settled = {"done": 0, "failed": 0, "cancelled": 0}
        counts = {"done": 0, "running": 0, "waiting": 0, "failed": 0, "cancelled": 0}
        open_ = []
        for trial in self._unsettled:
            states = {self.scheduler.state[one] for one in trial.stages.values()}
            if "withheld" in states:
                open_.append(trial)
            elif states == {"done"}:
                counts["done"] += 1
            elif states & {"failed", "blocked"}:
                counts["failed"] += 1
            elif "left out" in states:
                counts["cancelled"] += 1
            else:
                open_.append(trial)
                running = states & {"running", "elsewhere"}
                trained = self.scheduler.state[self._plan.main(trial)] == "done"
                counts["running" if running or trained else "waiting"] += 1
        self._unsettled = open_
        for state in self._settled:
            counts[state] = self._settled[state] = self._settled[state] + counts[state]
        return counts

    def snapshot(self) -> Snapshot:
        """Where the run is now."""
        now = time.monotonic()
        metric = self._plan.metric(*self._plan.primary_metric)
        busy = sorted(self.scheduler.running.items())
        remaining = self.scheduler.remaining_seconds(now, self._projected)
        if self._first_metric_at is None and not self.scheduler.complete:
            remaining += max(0.0, START_SECONDS - (now - self._started))
        since = self.scheduler.since
        return Snapshot(
            study=self._plan.study,
            taken=now,
            elapsed=now - self._started,
            remaining=remaining,
            **self.trials(),
            stages=tuple(self._running(one, now - since[worker]) for worker, one in busy),
            metric=with_goal(".".join(self._plan.primary_metric), metric.goal),
            scores=tuple(self._scores.told().items()),
            state=self.state,
            workers=len(self.scheduler.workers),
            faults=tuple(self.faults),
        )

    def _running(self, stage_id: str, seconds: float) -> Running:
        label, report = self._plan.stages[stage_id].label, self._reports.get(stage_id)
        silence = self._silence(stage_id, time.monotonic())
        steps = self._plan.stages[stage_id].steps
        if report is None:
            return Running(label, seconds, silent_seconds=silence, stage=stage_id, steps=steps)
        pace, whole = self._paces.get(stage_id), self._projected.get(stage_id)
        if whole is None:  # nobody knows its steps, but how long others of its class took
            whole = self.scheduler.measured_seconds(stage_id)
        return Running(
            label,
            seconds,
            report["step"],
            tuple((name, value) for name, value in report.items() if name not in _FIXED),
            silence,
            stage=stage_id,
            steps=steps,
            steps_per_second=1 / pace if pace else None,
            remaining=None if whole is None else max(0.0, whole - seconds),
        )


def seconds_per_step(reports: Sequence[Mapping[str, Any]], passed: float) -> float | None:
    """The pace of a stage's reports since it was started `passed` seconds ago; None if none."""
    last, own = reports[-1], _first_own(reports, passed)
    if own["step"] >= last["step"]:
        return None
    return (last["time"] - own["time"]) / (last["step"] - own["step"])


def _first_own(reports: Sequence[Mapping[str, Any]], passed: float) -> Mapping[str, Any]:
    """The first report since a start `passed` seconds ago: others are an earlier attempt's."""
    last = reports[-1]
    earlier = bisect_right(reports, last["time"] - passed, key=lambda report: report["time"])
    return reports[earlier] if earlier < len(reports) else last


def projected(reports: Sequence[Mapping[str, Any]], steps: int, passed: float) -> float | None:
    """Seconds that a stage takes in all, by the pace of its reports so far; None if it has none."""
    last, pace = reports[-1], seconds_per_step(reports, passed)
    if pace is None or last["step"] > steps:
        return None
    return passed + pace * (steps - last["step"])


class _Scores:
    """The primary metric of each arm, as its seeds come in."""

    def __init__(self, plan: Plan, store: Store):
        self._plan, self._store = plan, store
        task = plan.primary_metric[0]
        self._waiting: dict[str, list[tuple[str, int]]] = {}  # stage → the trials it scores
        for trial in plan.trials:
            stage = plan.answers(trial).get(Asked(task))
            if stage is not None:
                self._waiting.setdefault(stage, []).append((trial.arm, trial.seed))
        self._values: dict[str, dict[int, float]] = {}
        self._labels = {arm.name: arm.label for arm in plan.arms}
        self._texts: dict[str, str] = {}  # arm → what is told of it
        self._done: list[str] = []
        self._read = 0  # of them

    def read(self, done: list[str]) -> None:
        """Take in the scores of finished stages; `done` may be longer at the next call."""
        if done is not self._done:
            self._done, self._read = done, 0
        new, self._read = done[self._read :], len(done)
        scored = {one: self._waiting.pop(one) for one in new if one in self._waiting}
        if not scored:
            return
        task, metric = self._plan.primary_metric
        rows = self._store.look(list(scored)).scores
        rows = rows[(rows["task"] == task) & (rows["metric"] == metric)]
        columns = (rows["stage"], rows["value"], rows["status"])
        last = {stage_id: told for stage_id, *told in zip(*columns, strict=True)}
        for stage_id, (value, status) in last.items():
            if status == "diverged":  # as verdicts count it
                worst = self._plan.metric(task, metric).worst
                value = math.nan if worst is None else worst
            for arm, seed in scored[stage_id]:
                self._values.setdefault(arm, {})[seed] = float(value)
                self._texts[arm] = _told(self._values[arm], self._plan)

    def told(self) -> dict[str, str]:
        """Label of an arm → mean ± standard deviation over its seeds so far, the latest beside."""
        return {
            label: self._texts[name] for name, label in self._labels.items() if name in self._texts
        }


def _told(values: Mapping[int, float], plan: Plan) -> str:
    seeds = len(plan.seeds)
    mean = math.fsum(values.values()) / len(values)
    places = 1 if abs(mean) >= 10 else 3
    text = f"{mean:.{places}f}"
    if len(values) > 1:
        squares = math.fsum((value - mean) ** 2 for value in values.values())
        text += f" ± {math.sqrt(squares / (len(values) - 1)):.{places}f}"
    at_most = "" if plan.replication is None else "at most "
    text += f", {len(values)} of {at_most}{seeds} seeds"
    if len(values) < seeds:
        seed, latest = list(values.items())[-1]
        text += f", latest {latest:.{places}f} (seed {seed})"
    return text


_FIXED = ("step", "time")
