"""The scheduler's policy said plainly: every decision looks at all stages and all workers.

`sweeps.scheduler` must decide the same. Here another worker takes over the first stage, in planned
order, that all who hold its class would come to more than one compilation later; there it helps
the worker that is furthest behind, which is no worse (`test_scheduler`).
"""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.scheduler import MAX_ATTEMPTS


class PlainScheduler:
    """What is ready, who holds which class, and how long things take."""

    def __init__(self, plan, done, workers, compile_seconds, crews=None):
        self.stages, self.workers = plan.stages, list(workers)
        self.crews, self.crew_of = crews or {}, dict.fromkeys(workers, "")
        self.compile_seconds = compile_seconds
        self.state = {one: "done" if one in done else "waiting" for one in plan.stages}
        self.running: dict[str, str] = {}  # worker → stage
        self.since: dict[str, float] = {}
        self.now = 0.0
        self.attempts = dict.fromkeys(plan.stages, 0)
        self.held = {worker: set() for worker in self.workers}
        self.origin: dict[str, str] = {}
        self.measured: dict[str, list[float]] = {}
        self.at_least: dict[str, float] = {}
        self.took = self.planned = 0.0
        position = {seed: number for number, seed in enumerate(plan.seeds)}
        self.keys = {
            one: (position.get(stage.seed, -1), -self._way(one), one)
            for one, stage in plan.stages.items()
        }

    # -- the graph ---------------------------------------------------------------------------

    def dependents(self, stage_id):
        return [s.id for s in self.stages.values() if stage_id in s.inputs.values()]

    def followers(self, stage_id):
        return [one for one in self.dependents(stage_id) if not self.dependents(one)]

    def _way(self, stage_id):
        followers = sum(self.stages[one].seconds for one in self.followers(stage_id))
        waiting = [one for one in self.dependents(stage_id) if self.dependents(one)]
        longest = max(map(self._way, waiting), default=0.0)
        return self.stages[stage_id].seconds + followers + longest

    def ready(self) -> list[str]:
        """In planned order."""
        found = [
            one
            for one, state in self.state.items()
            if state == "waiting"
            and all(self.state[source] == "done" for source in self.stages[one].inputs.values())
        ]
        return sorted(found, key=self.keys.__getitem__)

    # -- decisions ---------------------------------------------------------------------------

    def crew(self, stage_id):
        return self.crews.get(stage_id, "")

    def ready_for(self, worker) -> list[str]:
        return [one for one in self.ready() if self.crew(one) == self.crew_of[worker]]

    def mates(self, worker):
        return [one for one in self.workers if self.crew_of[one] == self.crew_of[worker]]

    def own(self, worker) -> str | None:
        """What follows what the worker made, else the first of a class it holds, or nobody."""
        by_others = set().union(*(self.held[one] for one in self.mates(worker) if one != worker))
        by_others -= self.held[worker]
        follow = [one for one in self.ready_for(worker) if self.origin.get(one) == worker]
        at_home = [
            one
            for one in self.ready_for(worker)
            if one not in self.origin and self.stages[one].compile_class not in by_others
        ]
        return next(iter([*follow, *at_home]), None)

    def take_over(self, worker) -> str | None:
        backlog = {other: self.until_free(other) for other in self.mates(worker)}
        for one in self.ready_for(worker):
            owners = self.holders(one)
            compiled = self.stages[one].compile_class in self.held[worker]
            cost = 0.0 if compiled else self.compile_seconds
            if min(backlog[owner] for owner in owners) > cost:
                return one
            for owner in owners:
                backlog[owner] += self.tail(one) / len(owners)
        return None

    def next(self, worker, now) -> str | None:
        self.look(now)
        chosen = self.own(worker) or self.take_over(worker)
        if chosen is not None:
            self.start(worker, chosen)
        return chosen

    def look(self, now):
        self.now = now
        for worker, stage_id in self.running.items():
            name = self.stages[stage_id].compile_class
            self.at_least[name] = max(self.at_least.get(name, 0.0), now - self.since[worker])

    def start(self, worker, stage_id):
        self.state[stage_id] = "running"
        self.running[worker], self.since[worker] = stage_id, self.now
        self.held[worker].add(self.stages[stage_id].compile_class)

    def holders(self, stage_id) -> set[str]:
        if stage_id in self.origin:
            return {self.origin[stage_id]}
        name = self.stages[stage_id].compile_class
        crew = self.crew(stage_id)
        return {w for w, held in self.held.items() if name in held and self.crew_of[w] == crew}

    # -- times -------------------------------------------------------------------------------

    def seconds(self, stage_id):
        stage = self.stages[stage_id]
        measured = self.measured.get(stage.compile_class)
        if measured:
            return sum(measured) / len(measured)
        slowness = self.took / self.planned if self.planned else 1.0
        return max(stage.seconds * slowness, self.at_least.get(stage.compile_class, 0.0))

    def tail(self, stage_id):
        open_ = [one for one in self.followers(stage_id) if self.state[one] != "done"]
        return self.seconds(stage_id) + sum(map(self.seconds, open_))

    def until_free(self, worker):
        stage_id = self.running.get(worker)
        if stage_id is None:
            return 0.0
        followers = self.tail(stage_id) - self.seconds(stage_id)
        return max(0.0, self.seconds(stage_id) - (self.now - self.since[worker])) + followers

    # -- events ------------------------------------------------------------------------------

    def _leave(self, stage_id) -> str | None:
        for worker, running in list(self.running.items()):
            if running == stage_id:
                del self.running[worker]
                return worker
        return None

    def finished(self, stage_id, seconds=None):
        worker = self._leave(stage_id)
        self.state[stage_id] = "done"
        if seconds is not None:
            self.measured.setdefault(self.stages[stage_id].compile_class, []).append(seconds)
            self.took += seconds
            self.planned += self.stages[stage_id].seconds
        if worker is not None:
            for one in self.followers(stage_id):
                if self.crew(one) == self.crew_of[worker]:
                    self.origin[one] = worker

    def failed(self, stage_id, *, again=True):
        self._leave(stage_id)
        self.attempts[stage_id] += 1
        again = again and self.attempts[stage_id] < MAX_ATTEMPTS
        self.state[stage_id] = "waiting" if again else "failed"
        if not again:
            for one in self._all_dependents(stage_id):
                if self.state[one] != "done":
                    self.state[one] = "blocked"
        return again

    def _all_dependents(self, stage_id) -> Iterator[str]:
        for one in self.dependents(stage_id):
            yield one
            yield from self._all_dependents(one)

    def elsewhere(self, stage_id):
        self._leave(stage_id)
        self.state[stage_id] = "elsewhere"

    def put_back(self, stage_id):
        self._leave(stage_id)
        self.state[stage_id] = "waiting"

    def forget(self, worker):
        self.held[worker].clear()
        self.origin = {one: whose for one, whose in self.origin.items() if whose != worker}

    def join(self, worker, crew):
        self.workers.append(worker)
        self.crew_of[worker], self.held[worker] = crew, set()

    def dismiss(self, worker):
        self.forget(worker)
        self.workers.remove(worker)
        del self.crew_of[worker], self.held[worker]

    @property
    def complete(self):
        return all(state in ("done", "failed", "blocked") for state in self.state.values())
