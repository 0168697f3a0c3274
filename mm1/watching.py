"""What there is to see of a study at one moment, put together from the store alone.

The trials, scores and claims are what its records say; what runs, how fast and for how long is what
the run says itself (`sweeps.live`). `mm1 watch` and `mm1 status` show the same.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ablations.errors import UserError
from mm1.api import study_of
from sweeps.live import Fault, Live, RunningStage, driver, read_live, token_of
from sweeps.store import Store

if TYPE_CHECKING:
    from ablations.plan import Plan
    from analysis.results import StudyResults
    from sweeps.index import Finished

TrialState = Literal[
    "done", "diverged", "running", "waiting", "failed", "cancelled", "withheld", "excluded"
]
BEGUN_SECONDS = 5.0  # how often stages that nobody tells of are looked at one by one
GONE = "gone"  # state of a run that ended without saying so


@dataclass(frozen=True)
class Run:
    """Who runs the study, and where that is."""

    state: str  # of `sweeps.live.State`; "gone": ended without a word; "idle": nobody runs it
    host: str = ""
    pid: int = 0
    code: int | None = None
    elapsed: float = 0.0  # seconds, when `View.taken`
    remaining: float | None = None  # as the scheduler estimates it; None: not known
    workers: int = 0

    @property
    def is_on(self) -> bool:
        """Whether a driver is there."""
        return self.state not in ("idle", "ended", GONE)


@dataclass(frozen=True)
class ArmLine:
    """An arm: how far each seed is, and its primary metric so far."""

    name: str
    label: str
    states: tuple[TrialState, ...]  # by seed, in the plan's order
    score: str = ""  # mean ± SD over the seeds that are in


@dataclass(frozen=True)
class ClaimLine:
    """A claim: its verdict, or, before all registered seeds are in, what there is so far."""

    name: str
    verdict: str  # "" while there is none
    interim: bool  # registered seeds are missing
    n: int  # seeds that are in for it
    seeds: int  # that are registered
    contrast: str
    relation: str  # of the effect to the boundary, as it is claimed
    boundary: float
    effect: float | None
    shown_effect: str
    standing: str
    reason: str
    # Where seeds are added: the sequential p value after so many seeds, look by look.
    path: tuple[tuple[int, float], ...] | None = None


@dataclass(frozen=True)
class View:
    """Everything that is shown, frozen."""

    study: str
    question: str
    taken: float  # time.monotonic()
    run: Run
    counts: Mapping[str, int]  # trials by state
    seeds: tuple[int, ...]
    metric: str  # the primary one
    arms: tuple[ArmLine, ...]
    stages: tuple[RunningStage, ...]
    more_stages: int
    claims: tuple[ClaimLine, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def trials(self) -> int:
        """All that are to be run: without those that are excluded, or not asked for (yet)."""
        return sum(n for state, n in self.counts.items() if state not in ("excluded", "withheld"))

    def later(self, now: float) -> View:
        """The same with clocks that have gone on to `now`."""
        passed = max(0.0, now - self.taken) if self.run.state in ("running", "stopping") else 0.0
        left = self.run.remaining
        run = replace(
            self.run,
            elapsed=self.run.elapsed + passed,
            remaining=None if left is None else max(0.0, left - passed),
        )
        stages = tuple(
            one.model_copy(
                update={
                    "seconds": one.seconds + passed,
                    "remaining": one.remaining and max(0.0, one.remaining - passed),
                }
            )
            for one in self.stages
        )
        return replace(self, taken=now, run=run, stages=stages)


def chosen(store: Store, study: str | None) -> str:
    """The study that is meant: the one that runs, else the one that was registered last.

    Raises `UserError` where several run, or there is none.
    """
    if study is not None:
        return study_of(study)
    names = store.studies()
    if not names:
        raise UserError(f"no study has run in store {store.root}; start with mm1 run")
    running = [name for name in names if driver(store.objects, name) is not None]
    if len(running) > 1:
        raise UserError(f"several studies are being run; say which: {', '.join(running)}")
    return running[0] if running else list(store.snapshots()[0])[-1]


def run_of(live: Live | None, holder: Mapping[str, Any] | None, age: float = 0.0) -> Run:
    """Who runs a study, by the record of its run, seen `age` seconds ago, and its lease's holder.

    What the record says is of the driver that has the lease, or of one before.
    """
    if live is None or (holder is not None and token_of(holder) != live.token):
        if holder is None:
            return Run("idle")
        return Run("starting", str(holder["host"]), int(holder["pid"]))
    state = GONE if holder is None and live.state != "ended" else live.state
    passed = age if state in ("running", "stopping") else 0.0
    return Run(
        state=state,
        host=live.host,
        pid=live.pid,
        code=live.code,
        elapsed=live.elapsed + passed,
        remaining=None if live.remaining is None else max(0.0, live.remaining - passed),
        workers=live.workers,
    )


class Watching:
    """Looks at a study of a store again and again; what has not changed is not worked out anew."""

    def __init__(self, store: Store, study: str):
        self._store, self._study = store, study
        self._found: Finished | None = None
        self._plan: Plan | None = None
        self._results: StudyResults | None = None
        self._scores: dict[str, str] = {}
        self._claims: tuple[ClaimLine, ...] = ()
        self._begun: tuple[float, frozenset[str], frozenset[str]] | None = None
        self._number: tuple[str, int] = ("", -1)  # of the record of the run that was seen last
        self._seen_at = 0.0

    @property
    def results(self) -> StudyResults | None:
        """Of the latest look."""
        return self._results

    def look(self) -> View:
        """What there is to see now. Raises `UserError` where no such study has run."""
        store = self._store
        holder, live = driver(store.objects, self._study), read_live(store.objects, self._study)
        plan, registration = store.snapshot(self._study)
        found = store.look(plan.stages)
        if found is not self._found or plan is not self._plan:
            from analysis.results import read_results

            self._results = read_results(plan, registration, store)
            self._found, self._plan, self._begun = found, plan, None
            self._scores = dict(_scores(self._results))
            self._claims = tuple(_claims(self._results))
        assert self._results is not None
        now = time.monotonic()
        run = self._run(live, holder, now)
        told = live if live is not None and run.is_on else None
        states = self._states(self._results, told, now)
        metric = ".".join(plan.primary_metric)
        return View(
            study=plan.study,
            question=" ".join(plan.question.split()),
            taken=now,
            run=run,
            counts=_counted(states)
            | {"excluded": len(plan.left_out), "withheld": len(plan.trials) - len(states)},
            seeds=plan.seeds,
            metric=metric,
            arms=tuple(
                ArmLine(
                    arm.name,
                    arm.label,
                    tuple(
                        states.get((arm.name, seed))
                        or ("excluded" if (arm.name, seed) in plan.left_out else "withheld")
                        for seed in plan.seeds
                    ),
                    self._scores.get(arm.name, ""),
                )
                for arm in plan.arms
            ),
            stages=tuple(  # its record may be older than what is in the store
                one for one in (told.stages if told else ()) if one.stage not in found.sound
            ),
            more_stages=told.more_stages if told else 0,
            claims=self._claims,
            faults=live.faults if live else (),
            notes=live.notes if live else (),
        )

    def _run(self, live: Live | None, holder: Mapping[str, Any] | None, now: float) -> Run:
        """Who runs it; its record grows old by our clock, for theirs may be another."""
        if live is not None and self._number != (live.token, live.number):
            self._number, self._seen_at = (live.token, live.number), now
        return run_of(live, holder, now - self._seen_at)

    def _states(
        self, results: StudyResults, live: Live | None, now: float
    ) -> dict[tuple[str, int], TrialState]:
        running = {one.stage for one in live.stages} - results.done if live else set()
        held, failed = self._tried(results, running, now)
        running |= held
        damaged = results.damaged.keys()
        cancelled = {
            trial
            for trial, record in self._store.cancelled(results.plan).items()
            if live is None or record.token == live.token
        }
        states: dict[tuple[str, int], TrialState] = {}
        diverged = set(results.diverged)
        for trial in results.plan.trials:
            place, stages = (trial.arm, trial.seed), trial.stages.values()
            if place not in results.problems:
                states[place] = "diverged" if place in diverged else "done"
            elif not running.isdisjoint(stages):
                states[place] = "running"
            elif not failed.isdisjoint(stages) or not damaged.isdisjoint(stages):
                states[place] = "failed"
            elif place in cancelled:
                states[place] = "cancelled"
            elif results.done.issuperset(stages):
                states[place] = "failed"  # there, and not as it should be
            else:
                states[place] = "waiting"
        return states

    def _tried(
        self, results: StudyResults, running: set[str], now: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Stages without a result that somebody is at, and others that failed last."""
        from sweeps import leases

        if self._begun is not None and now - self._begun[0] < BEGUN_SECONDS:
            return self._begun[1], self._begun[2] - running
        store, held, failed = self._store, set(), set()
        for stage in results.found.begun - running:
            if leases.holder(store.objects, store.lease_folder(stage)) is not None:
                held.add(stage)
            elif store.failures(stage):
                failed.add(stage)
        self._begun = now, frozenset(held), frozenset(failed)
        return self._begun[1], self._begun[2]


STATES: tuple[TrialState, ...] = get_args(TrialState)


def _counted(states: Mapping[tuple[str, int], TrialState]) -> dict[str, int]:
    counts = Counter(states.values())
    return {state: counts[state] for state in STATES}


def _scores(results: StudyResults) -> Iterator[tuple[str, str]]:
    """Arm → mean ± SD of its primary metric over the seeds that are in."""
    from analysis.effects import summarize
    from analysis.words import decimals, mean_sd

    summaries = {}
    for arm in results.plan.arms:
        by_seed = results.score(arm.name, *results.primary)
        if by_seed:
            summaries[arm.name] = summarize(by_seed)
    places = decimals((s.sd for s in summaries.values()), (s.mean for s in summaries.values()))
    for arm, summary in summaries.items():
        yield arm, mean_sd(summary.mean, summary.sd, places)


def _claims(results: StudyResults) -> Iterator[ClaimLine]:
    from analysis.claim_words import numbers

    for verdict in results.verdicts:
        interim = results.is_interim(verdict)
        effect = verdict.effect
        yield ClaimLine(
            name=verdict.name,
            verdict="" if interim else verdict.verdict,
            interim=interim,
            n=verdict.n,
            seeds=len(results.whole.seeds),
            contrast=verdict.contrast,
            relation="<" if verdict.below else ">",
            boundary=verdict.boundary + 0.0,
            effect=effect if effect is not None and math.isfinite(effect) else None,
            shown_effect=numbers(verdict).effect if verdict.n else "",
            standing=results.standing(verdict.name),
            reason="" if interim else verdict.reason,
            path=None
            if results.replicated is None
            else tuple((look.n, look.p_value) for look in verdict.path),
        )
