"""Which worker does which stage next. No clock, no Ray, no files: the same calls, the same answers.

Order is seed-major, and within a seed longest first. A compile class belongs to the worker that
first took it, its home; another one takes it over only if what it would otherwise wait exceeds
one compilation. What nothing else waits for (evaluations) follows its training on the same worker;
a training that waits for others (pre-trained parts) goes to the home of its own class.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from ablations.plan import Plan
from ablations.stages import Stage

# Tracing and compiling a small model with a warm persistent cache, one core.
COMPILE_SECONDS = 4.0
# Until workers are there: Ray's processes, then Python and JAX in each.
START_SECONDS = 12.0
MAX_ATTEMPTS = 3
NOTHING: Mapping[str, float] = MappingProxyType({})

State = Literal["waiting", "ready", "running", "elsewhere", "done", "failed", "blocked"]
Key = tuple[int, float, str]  # position of the seed, -seconds, identity


class Scheduler:
    """The stages of a plan and what is known about them.

    `workers` are names. All seconds are planned ones until stages of the same compile class have
    been measured: `measured` gives those of stages that were done on this machine before.
    """

    def __init__(
        self,
        plan: Plan,
        done: Iterable[str],
        workers: Iterable[str],
        compile_seconds: float = COMPILE_SECONDS,
        measured: Mapping[str, float] = NOTHING,
    ):
        self.stages = plan.stages
        self.workers = tuple(workers)
        self.compile_seconds = compile_seconds
        self.state: dict[str, State] = dict.fromkeys(plan.stages, "waiting")
        self.running: dict[str, str] = {}  # worker → stage
        self.attempts: dict[str, int] = dict.fromkeys(plan.stages, 0)
        self._dependents: dict[str, list[str]] = {stage_id: [] for stage_id in plan.stages}
        for stage in plan.stages.values():
            for source in stage.inputs.values():
                self._dependents[source].append(stage.id)
        # What follows a stage on the same worker: its dependents that nothing else waits for.
        self._followers = {
            stage_id: [one for one in dependents if not self._dependents[one]]
            for stage_id, dependents in self._dependents.items()
        }
        self._held: dict[str, set[str]] = {worker: set() for worker in self.workers}
        self._origin: dict[str, str] = {}  # stage → worker that made its input
        self._measured: dict[str, list[float]] = {}  # compile class → seconds
        self._measured_total = self._planned_total = 0.0
        self._at_least: dict[str, float] = {}  # compile class → seconds one is running already
        for stage_id in done:
            self.state[stage_id] = "done"
        for stage_id, seconds in measured.items():
            self._measure(stage_id, seconds)
        seeds = {seed: position for position, seed in enumerate(plan.seeds)}
        self._keys: dict[str, Key] = {
            stage.id: (seeds.get(stage.seed, -1), -self._planned_tail(stage), stage.id)
            for stage in plan.stages.values()
        }
        self._ready: list[str] = []
        self._make_ready(plan.stages)

    # -- decisions ---------------------------------------------------------------------------

    def next(self, worker: str, elapsed: Mapping[str, float]) -> str | None:
        """The stage an idle worker starts now, or None: better wait for the others.

        `elapsed` gives the seconds since each busy worker started what it runs.
        """
        self._see(elapsed)
        chosen = (
            self._follow_up(worker) or self._at_home(worker) or self._take_over(worker, elapsed)
        )
        if chosen is not None:
            self._ready.remove(chosen)
            self.state[chosen] = "running"
            self.running[worker] = chosen
            self._held[worker].add(self.stages[chosen].compile_class)
        return chosen

    def _follow_up(self, worker: str) -> str | None:
        """What takes input from something this worker has just made."""
        return next((one for one in self._ready if self._origin.get(one) == worker), None)

    def _at_home(self, worker: str) -> str | None:
        """The first stage of a class that this worker holds, or that nobody does."""
        held_by_others = set().union(*self._held.values()) - self._held[worker]
        return next(
            (
                one
                for one in self._ready
                if one not in self._origin and self.stages[one].compile_class not in held_by_others
            ),
            None,
        )

    def _take_over(self, worker: str, elapsed: Mapping[str, float]) -> str | None:
        """The first stage that another worker would reach later than this one could start."""
        backlog = {
            other: self._remaining(other, elapsed) for other in self.workers if other != worker
        }
        for one in self._ready:
            owners = self._owners(one) - {worker}
            compiled = self.stages[one].compile_class in self._held[worker]
            cost = 0.0 if compiled else self.compile_seconds
            if min(backlog[owner] for owner in owners) > cost:
                return one
            for owner in owners:
                backlog[owner] += self._tail(one) / len(owners)
        return None

    def _owners(self, stage_id: str) -> set[str]:
        """The workers that would do a stage without compiling or loading anything anew."""
        if stage_id in self._origin:
            return {self._origin[stage_id]}
        compile_class = self.stages[stage_id].compile_class
        return {worker for worker, held in self._held.items() if compile_class in held}

    # -- events ------------------------------------------------------------------------------

    def finished(self, stage_id: str, seconds: float | None = None) -> None:
        """The stage has a result; `seconds` only if it was measured here and now."""
        worker = self._leave(stage_id)
        self.state[stage_id] = "done"
        if seconds is not None:
            self._measure(stage_id, seconds)
        if worker is not None:
            for follower in self._followers[stage_id]:
                self._origin[follower] = worker
        self._make_ready(self._dependents[stage_id])

    def failed(self, stage_id: str, *, again: bool = True) -> bool:
        """The stage raised; True if it is tried again, else what depends on it is blocked."""
        self._leave(stage_id)
        self.attempts[stage_id] += 1
        if again and self.attempts[stage_id] < MAX_ATTEMPTS:
            self.put_back(stage_id)
            return True
        self.state[stage_id] = "failed"
        self._block(stage_id)
        return False

    def elsewhere(self, stage_id: str) -> None:
        """Another run is doing this stage; it is not offered until it is put back or finished."""
        self._leave(stage_id)
        self.state[stage_id] = "elsewhere"

    def put_back(self, stage_id: str) -> None:
        """Offer a stage again."""
        self._leave(stage_id)
        self.state[stage_id] = "waiting"
        self._make_ready([stage_id])

    def forget(self, worker: str) -> None:
        """The worker's process is a new one that has compiled nothing."""
        self._held[worker].clear()

    # -- figures -----------------------------------------------------------------------------

    def in_state(self, *states: State) -> list[str]:
        """The stages in one of these states, in planned order."""
        return sorted((one for one, at in self.state.items() if at in states), key=self._keys.get)  # ty: ignore

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return all(state in ("done", "failed", "blocked") for state in self.state.values())

    def seconds(self, stage_id: str) -> float:
        """How long a stage takes, by what was measured so far."""
        return self._seconds(stage_id, self._at_least)

    def _seconds(
        self, stage_id: str, at_least: Mapping[str, float], slowness: float | None = None
    ) -> float:
        stage = self.stages[stage_id]
        measured = self._measured.get(stage.compile_class)
        if measured:
            return sum(measured) / len(measured)
        slowness = self._slowness() if slowness is None else slowness
        return max(stage.seconds * slowness, at_least.get(stage.compile_class, 0.0))

    def remaining_seconds(
        self, elapsed: Mapping[str, float], projected: Mapping[str, float] = NOTHING
    ) -> float:
        """Time until everything is done, estimated; changes nothing.

        The rest is handed out in planned order, each trial's work to the worker that would be
        through with it first, compilation counted where a worker has not compiled its class.
        `projected` gives the seconds that running stages take in all, by their own reports.
        """
        seen, slowness = self._seen(elapsed), self._slowness(projected)
        ends = dict.fromkeys(self.workers, 0.0)  # worker → when it is through
        for worker, stage_id in self.running.items():
            passed = elapsed.get(worker, 0.0)
            stage = self.stages[stage_id]
            compiling = 0.0 if stage.compile_class in self._measured else stage.compile_seconds
            takes = projected.get(stage_id) or (
                self._seconds(stage_id, {}, slowness) + compiling * slowness
            )
            # What has taken longer than it should is taken to need a tenth of that again.
            ends[worker] = max(takes - passed, 0.1 * passed if takes < passed else 0.0)
        held = {worker: set(classes) for worker, classes in self._held.items()}
        there = {one: end for worker, end in ends.items() if (one := self.running.get(worker))}
        open_ = self.in_state("waiting", "ready", "elsewhere")
        left = set(open_)
        place = {one: number for number, one in enumerate(open_)}

        def take(stage_id: str) -> None:
            if stage_id not in left:
                return
            left.remove(stage_id)
            for source in self.stages[stage_id].inputs.values():
                take(source)
            group = [stage_id, *(f for f in self._followers[stage_id] if f in left)]
            left.difference_update(group)
            ready = max(
                (there.get(s, 0.0) for s in self.stages[stage_id].inputs.values()), default=0
            )
            best, end = self.workers[0], math.inf
            for worker in self.workers:
                through = max(ends[worker], ready)
                for one in group:
                    stage = self.stages[one]
                    through += self._seconds(one, seen, slowness)
                    if stage.compile_class not in held[worker]:
                        through += stage.compile_seconds * slowness
                if through < end:
                    best, end = worker, through
            ends[best] = there[stage_id] = end
            there.update(dict.fromkeys(group, end))
            held[best].update(self.stages[one].compile_class for one in group)

        for stage_id in sorted(left, key=place.__getitem__):
            take(stage_id)
        return max(ends.values())

    # -- details -----------------------------------------------------------------------------

    def _leave(self, stage_id: str) -> str | None:
        """Take a stage off its worker or the list of ready ones; the worker, if one ran it."""
        if stage_id in self._ready:
            self._ready.remove(stage_id)
        worker = next((w for w, running in self.running.items() if running == stage_id), None)
        if worker is not None:
            del self.running[worker]
        return worker

    def _measure(self, stage_id: str, seconds: float) -> None:
        stage = self.stages[stage_id]
        self._measured.setdefault(stage.compile_class, []).append(seconds)
        self._measured_total += seconds
        self._planned_total += stage.seconds

    def _slowness(self, projected: Mapping[str, float] = NOTHING) -> float:
        """How much longer than planned the finished stages took, and the running ones will."""
        took = self._measured_total + math.fsum(projected.values())
        planned = self._planned_total + math.fsum(
            self.stages[one].seconds + self.stages[one].compile_seconds for one in projected
        )
        return took / planned if planned else 1.0

    def _see(self, elapsed: Mapping[str, float]) -> None:
        """Correct a plan that was too hopeful before the first stage of a class is through."""
        self._at_least = self._seen(elapsed)

    def _seen(self, elapsed: Mapping[str, float]) -> dict[str, float]:
        """Compile class → seconds that one of its stages has taken at the least."""
        seen = dict(self._at_least)
        for worker, stage_id in self.running.items():
            compile_class = self.stages[stage_id].compile_class
            seen[compile_class] = max(seen.get(compile_class, 0.0), elapsed.get(worker, 0.0))
        return seen

    def _make_ready(self, stage_ids: Iterable[str]) -> None:
        for one in stage_ids:
            inputs = self.stages[one].inputs.values()
            if self.state[one] == "waiting" and all(self.state[i] == "done" for i in inputs):
                self.state[one] = "ready"
                insort(self._ready, one, key=self._keys.__getitem__)

    def _block(self, stage_id: str) -> None:
        for dependent in self._dependents[stage_id]:
            if self.state[dependent] != "done":
                self.state[dependent] = "blocked"
                self._block(dependent)

    def _planned_tail(self, stage: Stage) -> float:
        """Planned seconds of a stage, of its followers, and of the longest way from there."""
        followers = self._followers[stage.id]
        waiting = [one for one in self._dependents[stage.id] if self._dependents[one]]
        return (
            stage.seconds
            + sum(self.stages[one].seconds for one in followers)
            + max((self._planned_tail(self.stages[one]) for one in waiting), default=0.0)
        )

    def _tail(self, stage_id: str) -> float:
        """Seconds of a stage and of what follows it on the same worker."""
        open_ = [one for one in self._followers[stage_id] if self.state[one] != "done"]
        return self.seconds(stage_id) + sum(map(self.seconds, open_))

    def _running_seconds(self, worker: str, elapsed: Mapping[str, float]) -> float:
        stage_id = self.running.get(worker)
        return (
            0.0 if stage_id is None else max(0.0, self.seconds(stage_id) - elapsed.get(worker, 0.0))
        )

    def _remaining(self, worker: str, elapsed: Mapping[str, float]) -> float:
        """Seconds until a worker is through with what it runs and what follows from that."""
        stage_id = self.running.get(worker)
        if stage_id is None:
            return 0.0
        followers = self._tail(stage_id) - self.seconds(stage_id)
        return self._running_seconds(worker, elapsed) + followers
