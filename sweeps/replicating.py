"""Seeds that are added during a run: which trials were decided on, from what the store holds.

The driver asks `Adding` after each result; whoever shows a study asks `replicated`. Both decide by
the same rule on the same numbers (`ablations.replicated`). A trial that failed, or was cancelled,
counts as lost for the driver that gave it up, and for others once nobody runs the study: until then
it may be tried again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple

from ablations.contrasts import Place, ScoreKey
from ablations.plan import Plan
from ablations.replicated import Replicated
from ablations.replication import Result
from ablations.stages import Trial
from sweeps import leases
from sweeps.index import Finished
from sweeps.scheduler import Scheduler
from sweeps.store import Store, registration_name


class Numbers:
    """What the evaluations of a plan's trials measured, as far as it was taken in."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._asked: dict[str, list[Trial]] = {}  # evaluation → trials
        for trial in plan.trials:
            for stage in dict.fromkeys(plan.answers(trial).values()):
                self._asked.setdefault(stage, []).append(trial)
        self.scores: dict[ScoreKey, dict[int, float]] = {}
        self.diverged: set[Place] = set()

    def take(self, found: Finished) -> None:
        """Take in stages; each only once."""
        rows = found.scores
        columns = ("stage", "task", "metric", "shots", "condition", "value")
        seen: set[tuple[str, ScoreKey]] = set()
        for stage, task, metric, shots, condition, value in zip(
            *(rows[name] for name in columns), strict=True
        ):
            if self._plan.is_own and not self._plan.is_declared(task, metric):
                continue
            for trial in self._asked.get(stage, ()):
                key = ScoreKey(trial.arm, task, metric, int(shots), condition)
                several = (stage, key) in seen  # nobody has said which of them is meant
                seen.add((stage, key))
                own = math.nan if several else float(value)
                self.scores.setdefault(key, {})[trial.seed] = own
        stages = found.stages
        fallen = set(stages.index[stages["diverged"]])
        for stage in stages.index:
            inputs = set(self._plan.stages[stage].inputs.values())
            if fallen.isdisjoint({stage, *inputs}):
                continue
            for trial in self._asked.get(stage, ()):
                for asked, answers in self._plan.answers(trial).items():
                    if answers == stage:
                        self.diverged.add(Place(trial.arm, *asked, trial.seed))


def replicated(plan: Plan, store: Store, found: Finished) -> Replicated:
    """The decisions of a study as they follow from what a store held when it was looked at."""
    numbers = Numbers(plan)
    numbers.take(found)
    trials = {(trial.arm, trial.seed): trial for trial in plan.trials}
    cancelled = store.cancelled(plan)
    is_run = leases.holder(store.objects, leases.study_lease(plan.study)) is not None

    def result(arm: str, seed: int) -> Result:
        stages = trials[arm, seed].stages.values()
        if found.sound.issuperset(stages):
            return "there"
        if any(one in found.damaged for one in stages):
            return "lost"
        missing = [one for one in stages if one in found.begun]
        if is_run or any(_is_held(store, one) for one in missing):
            return ""
        if (arm, seed) in cancelled:
            return "lost"
        return "lost" if any(store.failures(one) for one in missing) else ""

    return Replicated(plan, numbers.scores, numbers.diverged, result)


def _is_held(store: Store, stage: str) -> bool:
    return leases.holder(store.objects, store.lease_folder(stage)) is not None


class Decided(NamedTuple):
    """The plan of the trials that were decided on by now, and whether none will be added."""

    plan: Plan
    ended: bool


def decided(plan: Plan, store: Store) -> Decided:
    """What of a plan is run, as far as that follows from the store; of fixed seeds, all of it."""
    if plan.replication is None:
        return Decided(plan, True)
    made = replicated(plan, store, store.look(plan.stages))
    return Decided(plan.only(made.trials), made.ended)


def as_registered(plan: Plan, store: Store) -> Plan:
    """The plan with the planned costs of its first registration: decisions go on with those."""
    if plan.replication is None:
        return plan
    for other, _ in store.registrations(plan.study, set())[0]:
        if registration_name(other) == registration_name(plan) and other.replication is not None:
            return plan.model_copy(update={"replication": other.replication})
    return plan


class Adding:
    """The trials of a run whose seeds are added."""

    def __init__(self, plan: Plan, store: Store, done: Iterable[str]):
        self._plan, self._store = plan, store
        self._trials = {(trial.arm, trial.seed): trial for trial in plan.trials}
        self._numbers = Numbers(plan)
        self._done: set[str] = set()
        self._lost: Collection[str] = ()
        self._sound: set[str] = set()
        self._take(done)
        self._made = Replicated(plan, self._numbers.scores, self._numbers.diverged, self._result)

    @property
    def trials(self) -> list[Trial]:
        """All that were decided on, in order."""
        return [self._trials[key] for key in self._made.trials]

    @property
    def withheld(self) -> set[str]:
        """The stages of the others."""
        decided = {one for trial in self.trials for one in trial.stages.values()}
        return set(self._plan.stages) - decided

    def release(self, scheduler: Scheduler) -> None:
        """Hand the scheduler what its results lead to."""
        new = scheduler.done[len(self._done) :]
        lost = scheduler.in_state("failed", "blocked", "left out")
        if not new and len(lost) == len(self._lost):
            return
        self._take(new)
        self._lost = frozenset(lost)
        for trial in self._made.advance():
            scheduler.release(self._trials[trial].stages.values())

    def _take(self, stages: Iterable[str]) -> None:
        new = [one for one in stages if one not in self._done]
        self._done.update(new)
        found = self._store.look(new)
        self._sound |= found.sound
        self._numbers.take(found)

    def _result(self, arm: str, seed: int) -> Result:
        stages = self._trials[arm, seed].stages.values()
        if self._sound.issuperset(stages):
            return "there"
        broken = any(one in self._done and one not in self._sound for one in stages)
        return "lost" if broken or any(one in self._lost for one in stages) else ""
