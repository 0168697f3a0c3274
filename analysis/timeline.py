"""Where the core time of a study's runs went: worker by worker, without a gap.

Made of what the store has on record (`sweeps.run_times`). Every second between the beginning of a
run and its end is of one kind on each of its workers, and what nobody recorded is of the kind
`unknown`: never idle, and never work. All times are by the driver's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ablations.plan import Plan
from ablations.timeline import KINDS
from sweeps.run_times import Attempt, RunTimes, WorkerEnd, attempts_at, runs_of
from sweeps.store import Store

IDLE, LOST, UNKNOWN = "idle", "lost", "unknown"
ALL_KINDS = (*KINDS, IDLE, LOST, UNKNOWN)
USEFUL = ("steps", "evaluation")
WHAT = {
    "start": "processes, imports, first weights, and what was trained before",
    "data": "waiting for data",
    "compile": "tracing, compiling, or loading what was compiled",
    "steps": "training steps",
    "evaluation": "batches that a model answers or scores",
    "save": "checkpoints, and records in the store",
    "run": "within a runner that does not say what it does",
    IDLE: "the worker had no stage",
    LOST: "attempts that failed",
    UNKNOWN: "nothing is on record",
}
ODD_CLOCK_SECONDS = 0.25  # by which two records of one worker contradict each other


@dataclass(frozen=True)
class Span:
    """A piece of a worker's time; seconds since the run began."""

    kind: str
    start: float
    end: float
    stage: str = ""  # "" between stages


@dataclass
class Lane:
    """The time of one worker in one run: spans without gaps."""

    worker: str
    host: str = ""
    cores: float = 1.0
    spans: list[Span] = field(default_factory=list)
    contradiction: float = 0.0  # seconds by which its records overlap

    @property
    def end(self) -> float:
        """Seconds since the run began."""
        return self.spans[-1].end if self.spans else 0.0

    def put(self, kind: str, until: float, stage: str = "") -> None:
        """What it did from its last span on; nothing where that is already told."""
        if until < self.end:
            self.contradiction = max(self.contradiction, self.end - until)
        elif until > self.end:
            self.spans.append(Span(kind, self.end, until, stage))

    def core_seconds(self) -> dict[str, float]:
        """Kind → seconds times cores."""
        return _summed((span.kind, self.cores * (span.end - span.start)) for span in self.spans)


@dataclass(frozen=True)
class Run:
    """One run of the study."""

    number: int
    name: str
    began_at: float  # since 1970
    ended: bool  # False: it goes on, or was killed
    lanes: tuple[Lane, ...]
    plan: Plan

    @property
    def seconds(self) -> float:
        """From its beginning to the last that is known."""
        return max((lane.end for lane in self.lanes), default=0.0)

    def core_seconds(self) -> dict[str, float]:
        """Kind → seconds of all cores."""
        return _summed(pair for lane in self.lanes for pair in lane.core_seconds().items())

    def label(self, stage: str) -> str:
        """What people call a stage."""
        return self.plan.stages[stage].label if stage in self.plan.stages else stage[:8]


@dataclass(frozen=True)
class Timeline:
    """The runs of a study, oldest first, and what to know of them."""

    study: str
    runs: tuple[Run, ...]
    notes: tuple[str, ...]

    def core_seconds(self) -> dict[str, float]:
        """Kind → seconds of all cores in all runs."""
        return _summed(pair for run in self.runs for pair in run.core_seconds().items())

    def kinds(self) -> list[str]:
        """Those that there were."""
        found = self.core_seconds()
        return [kind for kind in ALL_KINDS if kind in found]


def load_timeline(store: Store, study: str) -> Timeline:
    """The timeline of all runs of a study's name.

    Raises:
        UserError: no study of that name has run here.
    """
    store.snapshot(study)
    found, notes = runs_of(store, study)
    stages = {stage for _, plan in found for stage in plan.stages}
    attempts, silent = attempts_at(store, stages)
    by_run: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_run.setdefault(attempt.times.run, []).append(attempt)
    runs = tuple(
        _run(number, record, plan, by_run.get(record.run, ()))
        for number, (record, plan) in enumerate(found, start=1)
    )
    known = {run.name for run in runs}
    others = {one.stage for one in attempts if one.times.run not in known and not one.lost}
    return Timeline(study, runs, (*notes, *_notes(runs, len(others), silent)))


def _run(number: int, record: RunTimes, plan: Plan, attempts: Iterable[Attempt]) -> Run:
    stopped = (Attempt(one.stage, one.host, one.times) for one in record.stopped)
    by_worker: dict[str, list[Attempt]] = {}
    for attempt in (*attempts, *stopped):
        by_worker.setdefault(attempt.times.worker, []).append(attempt)
    known = {worker.worker: worker for worker in record.workers}
    # A driver that was killed may not have written down who came later.
    ends = {name: known.get(name) or WorkerEnd(worker=name) for name in (*known, *by_worker)}
    lanes = tuple(_lane(record, end, by_worker.get(name, [])) for name, end in ends.items())
    return Run(number, record.run, record.began_at, record.ended_at is not None, lanes, plan)


def _lane(run: RunTimes, worker: WorkerEnd, attempts: Sequence[Attempt]) -> Lane:
    behind = worker.clock_behind_seconds or 0.0
    lane = Lane(worker.worker, cores=worker.cores)

    def since(when: float, offset: float = behind) -> float:
        return when + offset - run.began_at

    def offset(attempt: Attempt) -> float:
        return 0.0 if attempt.times.by == "driver" else behind

    before = ""  # stage of the attempt before
    for attempt in sorted(attempts, key=lambda one: one.times.began_at + offset(one)):
        times = attempt.times
        lane.host = attempt.host or lane.host
        began = since(times.began_at, offset(attempt))
        if times.by == "driver":  # nobody knows more of it than when it was handed out
            lane.put(IDLE if before else "start", began)
        else:
            free = min(began, since(times.free_since))
            known = "start" if not times.after else "save" if times.after == before else UNKNOWN
            lane.put(known, free)
            lane.put(IDLE, began)
        began = max(began, lane.end)
        for stretch in times.stretches:
            for kind, seconds in sorted(stretch.items(), key=lambda pair: -pair[1]):
                shown = LOST if attempt.lost else kind if kind in KINDS else UNKNOWN
                lane.put(shown, began + max(0.0, seconds), attempt.stage)
                began = lane.end
        before = attempt.stage
    if run.ended_at is not None:
        if worker.free_since is not None:
            lane.put("save" if worker.after == before else UNKNOWN, since(worker.free_since))
        lane.put(IDLE, run.ended_at - run.began_at)
    return lane


def _notes(runs: Sequence[Run], others: int, silent: int) -> Iterator[str]:
    if not runs:
        yield "no run of it is on record: nothing was missing, or an earlier version of mm1 ran it"
    for run in runs:
        if not run.ended:
            yield (
                f"run {run.number} goes on or was killed: each worker is shown up to its last "
                "attempt that is on record, and what came after is not counted"
            )
    if others:
        yield f"{others} stages were done by other runs (another study, mm1 train): not shown"
    if silent:
        yield f"{silent} results tell no times: an earlier version of mm1 wrote them"
    hosts = {lane.host for run in runs for lane in run.lanes if lane.host}
    if len(hosts) > 1:
        yield (
            f"{len(hosts)} hosts: each one's clock is set by the driver's, as if its fastest "
            "answer in the run had taken no time"
        )
    odd = max((lane.contradiction for run in runs for lane in run.lanes), default=0.0)
    if odd > ODD_CLOCK_SECONDS:
        yield (
            f"records of one worker overlap by up to {odd:.1f} s: a clock was set while it ran, so "
            "times are off by as much"
        )


def _summed(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for kind, seconds in pairs:
        total[kind] = total.get(kind, 0.0) + seconds
    return total


def useful_share(core_seconds: dict[str, float]) -> float:
    """Of core time, that of training steps and evaluation batches; 0 where there is none."""
    total = sum(core_seconds.values())
    return sum(core_seconds.get(kind, 0.0) for kind in USEFUL) / total if total else 0.0


def when(seconds: float) -> str:
    """A time since 1970 as people here read it."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


# -- for programs --------------------------------------------------------------------------------


def as_json(timeline: Timeline) -> dict[str, Any]:
    """All of it as plain values; seconds."""
    return {
        "study": timeline.study,
        "core_seconds": timeline.core_seconds(),
        "useful_share": useful_share(timeline.core_seconds()),
        "runs": [
            {
                "run": run.name,
                "began_at": run.began_at,
                "ended": run.ended,
                "seconds": run.seconds,
                "core_seconds": run.core_seconds(),
                "workers": [
                    {
                        "worker": lane.worker,
                        "host": lane.host,
                        "cores": lane.cores,
                        "core_seconds": lane.core_seconds(),
                        "spans": [
                            {"kind": one.kind, "start": one.start, "end": one.end}
                            | ({"stage": one.stage} if one.stage else {})
                            for one in lane.spans
                        ],
                    }
                    for lane in run.lanes
                ],
            }
            for run in timeline.runs
        ],
        "notes": list(timeline.notes),
    }


def as_chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """In the format that chrome://tracing and ui.perfetto.dev open: a process for each run, a
    thread for each worker; a slice for each attempt, with its kinds below it."""
    events: list[dict[str, Any]] = []
    first = min((run.began_at for run in timeline.runs), default=0.0)
    for run in timeline.runs:
        origin = run.began_at - first
        name = f"{timeline.study}, run {run.number}"
        events.append(_named("process_name", name, run.number))
        for number, lane in enumerate(run.lanes, start=1):
            host = f" on {lane.host}" if lane.host else ""
            events.append(_named("thread_name", f"{lane.worker}{host}", run.number, number))
            place = {"pid": run.number, "tid": number, "ph": "X"}
            for stage, spans in attempts_of(lane):
                if stage:
                    times = _times(origin, spans[0].start, spans[-1].end)
                    told = {"name": run.label(stage), "cat": "stage", "args": {"stage": stage}}
                    events.append({**told, **place, **times})
                for span in spans:
                    times = _times(origin, span.start, span.end)
                    events.append({"name": span.kind, "cat": span.kind, **place, **times})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def attempts_of(lane: Lane) -> Iterator[tuple[str, list[Span]]]:
    """A lane's spans by what they belong to: a stage, or "" between stages."""
    waiting: list[Span] = []
    for span in lane.spans:
        if waiting and span.stage != waiting[-1].stage:
            yield waiting[-1].stage, waiting
            waiting = []
        waiting.append(span)
    if waiting:
        yield waiting[-1].stage, waiting


def _named(what: str, name: str, process: int, thread: int = 0) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _times(origin: float, start: float, end: float) -> dict[str, float]:
    return {"ts": round(1e6 * (origin + start), 1), "dur": round(1e6 * (end - start), 1)}
