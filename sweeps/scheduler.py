"""Which worker does which stage next. No clock, no Ray, no files: the same calls, the same answers.

Order is seed-major, and within a seed longest first. A compile class belongs to the worker that
first took it, its home. What nothing else waits for (evaluations) follows its training on the same
worker; a training that waits for others (pre-trained parts) goes to the home of its own class. A
worker without work of its own helps the one that is furthest behind: it takes the first stage that
would otherwise wait longer than one compilation, and holds its class then as well.

Workers that hold the same (cores, accelerators, hosts) are a crew. Each stage belongs to one, and
all of the above is said of one crew: its workers do its stages and no others.

Nothing here looks at all stages or all workers for one decision. What is ready stands in queues,
one for each compile class and one for what follows at each worker; each worker knows the first
stages of the queues it is home to; and workers of a crew stand in the order of how far they are
behind.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice
from types import MappingProxyType
from typing import Literal, get_args

from ablations.no_collection import no_collection
from ablations.plan import Plan
from ablations.stages import Stage
from sweeps.calibration import Calibration, kind_of

# Tracing and compiling a small model with a warm persistent cache, one core.
COMPILE_SECONDS = 4.0
# Until workers are there: Ray's processes, then Python and JAX in each.
START_SECONDS = 12.0
MAX_ATTEMPTS = 3
MOST_LOSSES = 20  # of a stage's workers, in one run: it may be what ends its machines
# Above, an estimate spreads what is left evenly instead of handing it out stage by stage.
MOST_HANDED_OUT = 5_000
# Of what waits for the worker furthest behind, so many are looked at one by one; and so many of
# those who hold a class are asked when they will be free.
MOST_LOOKED_AT = 32
MOST_HOLDERS = 8
NOTHING: Mapping[str, float] = MappingProxyType({})
NO_CREWS: Mapping[str, str] = MappingProxyType({})

# Withheld: nobody has decided yet that it is run at all. Left out: somebody said that it is not.
State = Literal[
    "withheld",
    "waiting",
    "ready",
    "running",
    "elsewhere",
    "done",
    "failed",
    "blocked",
    "left out",
]
OPEN: tuple[State, ...] = ("waiting", "ready", "running", "elsewhere")
LEFT: tuple[State, ...] = ("waiting", "ready", "elsewhere")  # open, and nobody here is at it
Key = tuple[int, float, str]  # position of the seed, -seconds, identity


@dataclass
class _Queue:
    """Ready stages that the same workers do without compiling or loading anything anew."""

    holders: dict[str, None]  # workers, as they came; the first is its home
    crew: str
    keys: list[Key] = field(default_factory=list)  # a heap; some may be ready no more
    count: int = 0
    planned: float = 0.0  # seconds, of what follows its stages too

    @property
    def home(self) -> str | None:
        return next(iter(self.holders), None)


@dataclass
class _Home:
    """What waits for a worker: queues whose home it is; or for a crew: those that nobody holds."""

    follow: _Queue  # what takes input from something that it has made; of a crew, nothing
    shared: list[_Queue] = field(default_factory=list)  # held too; each cost it a compilation
    heads: list[Key] = field(default_factory=list)  # a heap; none is later than its queue's first
    count: int = 0
    planned: float = 0.0  # seconds; of what others hold as well, its share


@dataclass
class Crew:
    """What is open of the stages of one crew."""

    workers: dict[str, None] = field(default_factory=dict)
    ready: int = 0
    open: int = 0
    planned: float = 0.0  # seconds, of what nobody is at


@dataclass
class _Times:
    """How long stages of a compile class take."""

    one: Stage  # of the class
    measured: int = 0
    total: float = 0.0  # seconds
    running: dict[str, float] = field(default_factory=dict)  # stage → since when, the first first
    at_least: float = 0.0  # seconds that one took which was not measured
    least_slowness: float = 0.0  # the same over what was planned of it
    left: int = 0
    left_planned: float = 0.0


class Scheduler:
    """The stages of a plan and what is known about them.

    `workers` are names. All seconds are planned ones until stages of the same compile class have
    been measured: `measured` gives those of stages that were done on this machine before. Times
    (`now`) are seconds on a clock of the caller's that does not go back. `crews` says to which crew
    a stage belongs, "" where it does not; `workers` are of that one, others `join`. `withheld`
    stages are not offered, awaited or counted in any estimate before they are released.
    """

    @no_collection()
    def __init__(
        self,
        plan: Plan,
        done: Iterable[str],
        workers: Iterable[str],
        compile_seconds: float = COMPILE_SECONDS,
        measured: Mapping[str, float] = NOTHING,
        crews: Mapping[str, str] = NO_CREWS,
        withheld: Collection[str] = (),
    ):
        self.stages = plan.stages
        self.workers: tuple[str, ...] = ()
        self.crews = {name: Crew() for name in dict.fromkeys(["", *crews.values()])}
        self._crews = dict(crews)
        self._crew_of: dict[str, str] = {}  # worker → its crew
        self.compile_seconds = compile_seconds
        self.state: dict[str, State] = dict.fromkeys(plan.stages, "waiting")
        self.running: dict[str, str] = {}  # worker → stage
        self.since: dict[str, float] = {}  # busy worker → when it started
        self.attempts: dict[str, int] = {}  # stage → tries that failed
        self._losses: dict[str, int] = {}  # stage → workers that were taken away from it
        self.done: list[str] = []  # in the order in which that was heard
        self._now = 0.0
        self._in: dict[State, dict[str, None]] = {state: {} for state in get_args(State)}
        self._in["waiting"] = dict.fromkeys(plan.stages)
        self._worker_of: dict[str, str] = {}  # running stage → worker
        self._origin: dict[str, str] = {}  # stage → worker that made its input
        self._dependents: dict[str, list[str]] = {stage_id: [] for stage_id in plan.stages}
        self._lacking: dict[str, int] = {}  # stage → inputs that are not done
        self._queues: dict[tuple[str, str], _Queue] = {}  # crew, compile class → what is ready
        self._times: dict[str, _Times] = {}  # compile class → …
        for stage in plan.stages.values():
            inputs = set(stage.inputs.values())
            self._lacking[stage.id] = len(inputs)
            for source in inputs:
                self._dependents[source].append(stage.id)
            crew = self._crew(stage.id)
            self._queues.setdefault((crew, stage.compile_class), _Queue({}, crew))
            self._count_left(stage.id, 1)
            self._count_open(stage.id, "waiting", 1)
        # What follows a stage on the same worker: its dependents that nothing else waits for.
        self._followers = {
            stage_id: [one for one in dependents if not self._dependents[one]]
            for stage_id, dependents in self._dependents.items()
        }
        self._homes: dict[str, _Home] = {}  # by worker
        self._unheld = {crew: _Home(_Queue({}, crew)) for crew in self.crews}
        self._due: dict[str, float] = {}  # worker that others could help → when it is at the last
        # By crew, heaps of (-due, worker); old ones too.
        self._behind: dict[str, list[tuple[float, str]]] = {crew: [] for crew in self.crews}
        self.calibration = Calibration()
        self._compiling: set[str] = set()  # stages that were the first of their class in a worker
        self._measured_total = self._planned_total = 0.0
        for worker in workers:
            self.join(worker)

        seeds = {seed: position for position, seed in enumerate(plan.seeds)}
        ways: dict[str, float] = {}
        self._keys: dict[str, Key] = {
            stage.id: (seeds.get(stage.seed, -1), -self._planned_way(stage.id, ways), stage.id)
            for stage in plan.stages.values()
        }
        done = set(done)
        for stage_id in filter(done.__contains__, plan.stages):
            self._put(stage_id, "done")
            for dependent in self._dependents[stage_id]:
                self._lacking[dependent] -= 1
        for stage_id in withheld:
            if self.state[stage_id] == "waiting":
                self._put(stage_id, "withheld")
        for stage_id, seconds in measured.items():
            self._measure(stage_id, seconds)
        for stage_id in plan.stages:
            self._make_ready(stage_id)

    # -- decisions ---------------------------------------------------------------------------

    def next(self, worker: str, now: float) -> str | None:
        """The stage an idle worker starts now, or None: better wait for the others."""
        self._now = now
        key = (
            self._head(self._homes[worker].follow)
            or self._at_home(worker)
            or self._take_over(worker)
        )
        if key is None:
            return None
        self.start(worker, key[2], now)
        return key[2]

    def start(self, worker: str, stage_id: str, now: float) -> None:
        """An idle worker starts a stage whose inputs are there."""
        self._now = now
        self._leave(stage_id)
        self._put(stage_id, "running")
        self.running[worker], self.since[worker] = stage_id, now
        self._worker_of[stage_id] = worker
        compile_class = self.stages[stage_id].compile_class
        self._times[compile_class].running[stage_id] = now
        self._compiling.discard(stage_id)
        queue = self._queues[self._crew(stage_id), compile_class]
        if worker not in queue.holders:
            self._compiling.add(stage_id)
        self._hold(worker, queue)
        self._rank(worker)

    def _at_home(self, worker: str) -> Key | None:
        """The first stage of a class that this worker holds, or that nobody does."""
        crew = self._crew_of[worker]
        firsts = [self._first(self._homes[worker], worker), self._first(self._unheld[crew], None)]
        firsts += [self._head(queue) for queue in self._homes[worker].shared if queue.count]
        return min(filter(None, firsts), default=None)

    def _take_over(self, worker: str) -> Key | None:
        """The first stage that waits for the worker furthest behind and will do so for long."""
        crew = self._crew_of[worker]
        home = self._furthest_behind(crew)
        if home is None:
            return None
        sooner, found, others = [], None, 0.0
        while (key := self._first(self._homes[home], home)) is not None:
            queue = self._queue(key[2])
            free = min(map(self._seconds_until_free, islice(queue.holders, MOST_HOLDERS)))
            compiled = worker in self._queues[crew, self.stages[key[2]].compile_class].holders
            cost = 0.0 if compiled else self.compile_seconds
            if len(sooner) == MOST_LOOKED_AT:  # the rest is judged as a whole
                others = self._homes[home].planned * self._slowness()
            if free + others > cost:
                found = key
            if found or len(sooner) == MOST_LOOKED_AT:
                break
            others += self._tail(key[2]) / len(queue.holders)
            sooner.append(heappop(queue.keys))
        for key in sooner:  # they stay
            heappush(self._queue(key[2]).keys, key)
            heappush(self._homes[home].heads, key)
        return found

    def _furthest_behind(self, crew: str) -> str | None:
        """The worker of a crew that would be last at the last of what waits for it."""
        behind = self._behind[crew]
        while behind:
            due, worker = behind[0]
            if self._due.get(worker) == -due and self._crew_of[worker] == crew:
                return worker
            heappop(behind)
        return None

    # -- events ------------------------------------------------------------------------------

    def finished(
        self,
        stage_id: str,
        seconds: float | None = None,
        compile_seconds: float | None = None,
    ) -> None:
        """The stage has a result; seconds only if they were measured here and now.

        `seconds` are of its work alone, `compile_seconds` what its compilation took beside it.
        """
        worker = self._leave(stage_id)
        self._put(stage_id, "done")
        if seconds is not None:
            self._measure(stage_id, seconds)
        if compile_seconds is not None and self.compiles(stage_id):
            self.calibration.measure_compilation(self.stages[stage_id], compile_seconds)
        if worker is not None:
            for follower in self._followers[stage_id]:
                if self._crew(follower) == self._crew_of.get(worker):
                    self._origin[follower] = worker
        for dependent in self._dependents[stage_id]:
            self._lacking[dependent] -= 1
            self._make_ready(dependent)

    def failed(self, stage_id: str, *, again: bool = True) -> bool:
        """The stage raised; True if it is tried again, else what depends on it is blocked."""
        self._leave(stage_id)
        self.attempts[stage_id] = self.attempts.get(stage_id, 0) + 1
        if again and self.attempts[stage_id] < MAX_ATTEMPTS:
            self.put_back(stage_id)
            return True
        self._put(stage_id, "failed")
        blocked = [stage_id]
        while blocked:
            for dependent in self._dependents[blocked.pop()]:
                if self.state[dependent] not in ("done", "blocked", "left out"):
                    self._leave(dependent)
                    self._put(dependent, "blocked")
                    blocked.append(dependent)
        return False

    def release(self, stage_ids: Iterable[str]) -> None:
        """Offer stages that were withheld; others stay what they are."""
        for stage_id in stage_ids:
            if self.state[stage_id] == "withheld":
                self._put(stage_id, "waiting")
                self._make_ready(stage_id)

    def lost(self, stage_id: str) -> bool:
        """Its worker was taken away, which is no failure; True unless that happens for ever."""
        self._losses[stage_id] = self._losses.get(stage_id, 0) + 1
        if self._losses[stage_id] > MOST_LOSSES:
            return self.failed(stage_id, again=False)
        self.put_back(stage_id)
        return True

    def elsewhere(self, stage_id: str) -> None:
        """Another run is doing this stage; it is not offered until it is put back or finished."""
        self._leave(stage_id)
        self._put(stage_id, "elsewhere")

    def put_back(self, stage_id: str) -> None:
        """Offer a stage again."""
        self._leave(stage_id)
        self._put(stage_id, "waiting")
        self._make_ready(stage_id)

    def leave_out(self, stage_id: str) -> None:
        """The stage, which nobody is at, is not to be run."""
        self._leave(stage_id)
        self._put(stage_id, "left out")

    def forget(self, worker: str) -> None:
        """The worker's process is a new one: it has compiled nothing, and may not be there yet."""
        for queue in self._queues.values():
            if worker in queue.holders:
                self._change_holders(queue, {one: None for one in queue.holders if one != worker})
        self._homes[worker].shared.clear()
        for stage_id in [one for one, home in self._origin.items() if home == worker]:
            ready = self.state[stage_id] == "ready"
            if ready:
                self._leave(stage_id)
            del self._origin[stage_id]
            if ready:
                self._put(stage_id, "waiting")
                self._make_ready(stage_id)
        self._homes[worker].follow.keys.clear()

    def join(self, worker: str, crew: str = "") -> None:
        """One more worker."""
        self.workers = (*self.workers, worker)
        self.crews[crew].workers[worker] = None
        self._crew_of[worker] = crew
        self._homes[worker] = _Home(_Queue({worker: None}, crew))

    def dismiss(self, worker: str) -> None:
        """A worker without a stage is ended; what waited for it waits for its crew."""
        self.forget(worker)
        self.workers = tuple(one for one in self.workers if one != worker)
        del self.crews[self._crew_of.pop(worker)].workers[worker]
        del self._homes[worker]
        self._due.pop(worker, None)

    def suits(self, worker: str, stage_id: str) -> bool:
        """Whether a worker holds what a stage needs."""
        return self._crew_of[worker] == self._crew(stage_id)

    # -- figures -----------------------------------------------------------------------------

    def in_state(self, *states: State) -> list[str]:
        """The stages in one of these states, in planned order."""
        return sorted((one for at in states for one in self._in[at]), key=self._keys.__getitem__)

    @property
    def any_ready(self) -> bool:
        """Whether any stage could be started now."""
        return bool(self._in["ready"])

    def compiles(self, stage_id: str) -> bool:
        """Whether a stage was the first of its compile class in the worker that had it last."""
        return stage_id in self._compiling

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return not any(self._in[state] for state in OPEN)

    def measured(self, stage_id: str) -> float | None:
        """Mean seconds of the stages of its compile class that were measured, if any was."""
        times = self._times[self.stages[stage_id].compile_class]
        return times.total / times.measured if times.measured else None

    def seconds(self, stage_id: str) -> float:
        """How long a stage takes, by what was measured so far of its class, else as planned.

        Or as long as one of its class is running already. Decisions rest on it.
        """
        stage = self.stages[stage_id]
        times = self._times[stage.compile_class]
        if times.measured:
            return times.total / times.measured
        first = next(iter(times.running.values()), self._now)
        return max(stage.seconds * self._slowness(), times.at_least, self._now - first)

    def measured_seconds(self, stage_id: str) -> float | None:
        """What finished stages of its class took on average; None where there is none."""
        times = self._times[self.stages[stage_id].compile_class]
        return times.total / times.measured if times.measured else None

    def _least_slowness(self, times: _Times, now: float) -> float:
        """Of a class of which none was measured: what those that run, or ran, say of it."""
        if times.measured:
            return 0.0
        running = next(iter(times.running.items()), None)
        if running is None:
            return times.least_slowness
        return max(times.least_slowness, (now - running[1]) / self._planned_alone(running[0]))

    def _planned_alone(self, stage_id: str) -> float:
        """Planned seconds of a stage in a worker that has not compiled its class."""
        return (self.stages[stage_id].seconds + self.stages[stage_id].compile_seconds) or 1.0

    def remaining_seconds(self, now: float, projected: Mapping[str, float] = NOTHING) -> float:
        """Time until everything is done, estimated; changes nothing.

        The rest is handed out in planned order, each trial's work to a worker that would be
        through with it first: the first free one, or the first free one that holds its class.
        Compilation is counted where a worker has not compiled a class. Where very much is left, it
        is spread evenly. `projected` gives the seconds that running stages take in all, by their
        own reports.
        """
        pace = _Pace(self, projected, now)
        ends = dict.fromkeys(self.workers or ("nobody",), 0.0)  # worker → when it is through
        for worker, stage_id in self.running.items():
            passed = now - self.since[worker]
            takes = projected.get(stage_id)
            if not takes:
                takes = pace.estimated(stage_id)
                if self.compiles(stage_id):
                    takes += pace.compilation(stage_id)
            # What has taken longer than it should is taken to need a tenth of that again.
            ends[worker] = max(takes - passed, 0.1 * passed if takes < passed else 0.0)
        if sum(len(self._in[state]) for state in LEFT) > MOST_HANDED_OUT:
            return max(*ends.values(), self._spread(ends, pace))
        return self._handed_out(ends, pace)

    def _spread(self, ends: Mapping[str, float], pace: _Pace) -> float:
        """When all workers are through that share what is left evenly."""
        total = math.fsum(ends.values())
        for times in self._times.values():
            if times.left:
                total += times.left_planned * pace.slowness(times.one)
        return total / len(ends)

    def _handed_out(self, ends: dict[str, float], pace: _Pace) -> float:
        """When all workers are through to whom what is left is handed out stage by stage."""
        there = {stage_id: ends[worker] for worker, stage_id in self.running.items()}
        left = dict.fromkeys(self.in_state(*LEFT))
        # Crew and compile class → workers, those that will hold it too; the same as heaps, with all
        # of a crew by the class "". Workers of a crew that has none are to come: anybody's place.
        held: dict[tuple[str, str], set[str]] = {}
        free: dict[tuple[str, str], list[tuple[float, str]]] = {}
        for name, crew in self.crews.items():
            free[name, ""] = [(ends[worker], worker) for worker in crew.workers or ends]
            heapify(free[name, ""])

        def first_free(place: tuple[str, str]) -> str | None:
            heap = free.get(place, [])
            while heap and heap[0][0] != ends[heap[0][1]]:
                heapreplace(heap, (ends[heap[0][1]], heap[0][1]))
            return heap[0][1] if heap else None

        def known(place: tuple[str, str]) -> set[str]:
            if place not in held:
                held[place] = set(self._queues[place].holders)
                free[place] = [(ends[one], one) for one in held[place]]
                heapify(free[place])
            return held[place]

        def place_of(stage_id: str) -> tuple[str, str]:
            return self._crew(stage_id), self.stages[stage_id].compile_class

        def take(stage_id: str) -> None:
            if stage_id not in left:
                return
            del left[stage_id]
            for source in self.stages[stage_id].inputs.values():
                take(source)
            crew = self._crew(stage_id)
            followers = (f for f in self._followers[stage_id] if self._crew(f) == crew)
            group = [stage_id, *(one for one in followers if one in left)]
            for one in group[1:]:
                del left[one]
            inputs = self.stages[stage_id].inputs.values()
            ready = max((there.get(source, 0.0) for source in inputs), default=0.0)
            best, end = "", math.inf
            for worker in (first_free(place_of(stage_id)), first_free((crew, ""))):
                if worker is None:
                    continue
                through = max(ends[worker], ready)
                for one in group:
                    through += pace.estimated(one)
                    if worker not in known(place_of(one)):
                        through += pace.compilation(one)
                if through < end:
                    best, end = worker, through
            ends[best] = end
            there.update(dict.fromkeys(group, end))
            for one in group:
                place = place_of(one)
                if best not in known(place):
                    held[place].add(best)
                    heappush(free[place], (end, best))

        for stage_id in list(left):
            take(stage_id)
        return max(ends.values())

    # -- queues ------------------------------------------------------------------------------

    def _crew(self, stage_id: str) -> str:
        return self._crews.get(stage_id, "")

    def _queue(self, stage_id: str) -> _Queue:
        origin = self._origin.get(stage_id)
        if origin is not None:
            return self._homes[origin].follow
        return self._queues[self._crew(stage_id), self.stages[stage_id].compile_class]

    def _home(self, queue: _Queue) -> _Home:
        """Where a queue waits."""
        home = queue.home
        return self._unheld[queue.crew] if home is None else self._homes[home]

    def _head(self, queue: _Queue) -> Key | None:
        """The first ready stage of a queue."""
        while queue.keys and self.state[queue.keys[0][2]] != "ready":
            heappop(queue.keys)
        return queue.keys[0] if queue.keys else None

    def _first(self, home: _Home, worker: str | None) -> Key | None:
        """The first ready stage of all queues whose home a worker is, or of those without one."""
        heads = home.heads
        while heads:
            queue = self._queue(heads[0][2])
            head = self._head(queue)
            if head is None or queue.home != worker:
                heappop(heads)
            elif head != heads[0]:
                heapreplace(heads, head)
            else:
                return head
        return None

    def _hold(self, worker: str, queue: _Queue) -> None:
        """The worker has compiled the queue's class, or is about to."""
        if worker in queue.holders:
            return
        if queue.holders:
            self._homes[worker].shared.append(queue)
        self._change_holders(queue, {**queue.holders, worker: None})

    def _change_holders(self, queue: _Queue, holders: dict[str, None]) -> None:
        count, planned = queue.count, queue.planned
        self._add(queue, -count, -planned)
        queue.holders = holders
        self._add(queue, count, planned)
        head = self._head(queue)
        if head is not None:
            heappush(self._home(queue).heads, head)

    def _add(self, queue: _Queue, count: int, planned: float) -> None:
        """So many more stages, or fewer, are ready in a queue and wait for its home."""
        home = self._home(queue)
        queue.count += count
        queue.planned = queue.planned + planned if queue.count else 0.0
        home.count += count
        home.planned += planned / max(1, len(queue.holders))
        if not home.count:
            home.planned = 0.0
        if queue.home is not None:
            self._rank(queue.home)

    def _rank(self, worker: str) -> None:
        """Note anew when a worker will be at the last of what waits for it."""
        home = self._homes[worker]
        if not home.count:
            self._due.pop(worker, None)
            return
        others = home.planned * (home.count - 1) / home.count * self._slowness()
        self._due[worker] = self._now + self._seconds_until_free(worker) + others
        crew = self._crew_of[worker]
        behind, workers = self._behind[crew], self.crews[crew].workers
        heappush(behind, (-self._due[worker], worker))
        if len(behind) > 4 * len(workers) + 64:  # the old ones go
            behind[:] = [(-self._due[one], one) for one in workers if one in self._due]
            heapify(behind)

    def _put(self, stage_id: str, state: State) -> None:
        before = self.state[stage_id]
        del self._in[before][stage_id]
        self._in[state][stage_id] = None
        self.state[stage_id] = state
        if (before in LEFT) != (state in LEFT):
            self._count_left(stage_id, 1 if state in LEFT else -1)
        self._count_open(stage_id, before, -1)
        self._count_open(stage_id, state, 1)
        if state == "done":
            self.done.append(stage_id)

    def _leave(self, stage_id: str) -> str | None:
        """Take a stage off its worker or out of its queue; the worker, if one ran it."""
        if self.state[stage_id] == "ready":
            self._add(self._queue(stage_id), -1, -self._planned(stage_id))
        worker = self._worker_of.pop(stage_id, None)
        if worker is not None:
            del self.running[worker]
            times = self._times[self.stages[stage_id].compile_class]
            del times.running[stage_id]
            passed = self._now - self.since.pop(worker)
            times.at_least = max(times.at_least, passed)
            slowness = passed / self._planned_alone(stage_id)
            times.least_slowness = max(times.least_slowness, slowness)
            self._rank(worker)
        return worker

    def _make_ready(self, stage_id: str) -> None:
        if self.state[stage_id] != "waiting" or self._lacking[stage_id]:
            return
        queue, key = self._queue(stage_id), self._keys[stage_id]
        head = self._head(queue)
        self._put(stage_id, "ready")
        heappush(queue.keys, key)
        if head is None or key < head:
            heappush(self._home(queue).heads, key)
        self._add(queue, 1, self._planned(stage_id))

    # -- times -------------------------------------------------------------------------------

    def _measure(self, stage_id: str, seconds: float) -> None:
        stage = self.stages[stage_id]
        times = self._times[stage.compile_class]
        self.calibration.measure(stage, seconds)
        times.measured += 1
        times.total += seconds
        self._measured_total += seconds
        self._planned_total += stage.seconds

    def _slowness(self) -> float:
        """How much longer than planned the finished stages took."""
        return self._measured_total / self._planned_total if self._planned_total else 1.0

    def _count_left(self, stage_id: str, count: int) -> None:
        stage = self.stages[stage_id]
        times = self._times.setdefault(stage.compile_class, _Times(stage))
        times.left += count
        times.left_planned = times.left_planned + count * stage.seconds if times.left else 0.0

    def _count_open(self, stage_id: str, state: State, count: int) -> None:
        crew = self.crews[self._crew(stage_id)]
        crew.ready += count if state == "ready" else 0
        crew.open += count if state in OPEN else 0
        if state in LEFT:
            crew.planned += count * self.stages[stage_id].seconds

    def _planned(self, stage_id: str) -> float:
        """Planned seconds of a stage and of what follows it on the same worker."""
        followers = self._followers[stage_id]
        return self.stages[stage_id].seconds + sum(self.stages[one].seconds for one in followers)

    def _planned_way(self, stage_id: str, known: dict[str, float]) -> float:
        """The same, and of the longest way from there; `known` keeps what was worked out."""
        if stage_id not in known:
            waiting = [one for one in self._dependents[stage_id] if self._dependents[one]]
            longest = max((self._planned_way(one, known) for one in waiting), default=0.0)
            known[stage_id] = self._planned(stage_id) + longest
        return known[stage_id]

    def _tail(self, stage_id: str) -> float:
        """Seconds of a stage and of what follows it on the same worker."""
        open_ = [one for one in self._followers[stage_id] if self.state[one] != "done"]
        return self.seconds(stage_id) + sum(map(self.seconds, open_))

    def _seconds_until_free(self, worker: str) -> float:
        """Until a worker is through with what it runs and what follows from that."""
        stage_id = self.running.get(worker)
        if stage_id is None:
            return 0.0
        seconds = self.seconds(stage_id)
        followers = self._tail(stage_id) - seconds
        return max(0.0, seconds - (self._now - self.since[worker])) + followers


class _Pace:
    """How long stages are going to take, by what was measured until `now` and still runs."""

    def __init__(self, scheduler: Scheduler, projected: Mapping[str, float], now: float):
        self.now = now
        self._scheduler = scheduler
        self._running: dict[str, tuple[float, float]] = {}  # kind → will have taken, planned
        for stage_id, seconds in projected.items():
            stage = scheduler.stages[stage_id]
            took, planned = self._running.get(kind_of(stage), (0.0, 0.0))
            planned += stage.seconds + stage.compile_seconds
            self._running[kind_of(stage)] = (took + seconds, planned)

    def slowness(self, stage: Stage) -> float:
        """Of a stage: measured over planned seconds of what is nearest to it."""
        scheduler = self._scheduler
        least = scheduler._least_slowness(scheduler._times[stage.compile_class], self.now)
        return max(scheduler.calibration.slowness(stage, self._running), least)

    def estimated(self, stage_id: str) -> float:
        """Seconds of a stage's work."""
        stage = self._scheduler.stages[stage_id]
        return stage.seconds * self.slowness(stage)

    def compilation(self, stage_id: str) -> float:
        """Seconds that a stage compiles in a worker that does not hold its class."""
        stage = self._scheduler.stages[stage_id]
        ratio = self._scheduler.calibration.of_compilation
        return stage.compile_seconds * (self.slowness(stage) if ratio is None else ratio)
