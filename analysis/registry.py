"""How far a verdict could have been chosen: what else was registered in the store, and when.

A claim is *registered* where nothing about its answer could be known, or picked, when it was
fixed. So every registration of the store counts that has the study's name, or that scores arms
which match the claim's on the claim's tasks:

- results of its own that were there before it was registered: *partly known*, *exploratory*;
- results of other seeds, other code or nearly equal configs that were seen before its own last
  stage was finished, or other claims on its own results: *repeated*. Of k tries one gives a false
  verdict with a chance of up to k times alpha.

A claim has the standing, and the family of Holm's correction, of the last registration that had it
on the same stages before the first of them had a result: claims that are added after results start
a family of their own, and claims that are left out after results still count in theirs. What
another store holds cannot be known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ablations import identity
from ablations.claims import keys_of
from ablations.conditions import Condition
from ablations.contrasts import Contrast, ScoreKey
from ablations.deciding import claim_stages, conditions
from ablations.errors import UserError
from ablations.plan import Arm, Plan
from mm1_jax.config.recipe import Recipe
from sweeps.store import Registration, Store

# How far a claim was fixed before its results were known.
Standing = Literal["registered", "repeated", "partly known", "exploratory"]
Finished = Callable[[str], str | None]  # stage → when it was finished (UTC, ISO 8601), or None

# Numbers of two configs that differ by less, relative to the larger, make the same arm: whoever
# changes an epsilon by a millionth asks the same question again.
TOLERANCE = 0.05
# Parts of a config in which arms may differ and still match: which randomness is fixed, and what
# is asked beside the claim.
NOT_COMPARED = ("seeds", "evaluation")


@dataclass(frozen=True)
class Registered:
    """A study as it was registered once."""

    plan: Plan
    registration: Registration

    @property
    def at(self) -> str:
        """When; UTC, ISO 8601."""
        return self.registration.registered_at


@dataclass(frozen=True)
class Other:
    """Another registration that read, or could have read, the answer to a claim."""

    registered: Registered
    why: Literal["results", "claims"]  # seen before; or other claims on the same results

    @property
    def told(self) -> str:
        """`pooling (2026-11-02 09:14 UTC; seeds 0, 1, 2; claims a, b)`."""
        plan = self.registered.plan
        when = self.registered.at[:16].replace("T", " ")
        claims = f"claims {', '.join(plan.claims)}" if plan.claims else "no claims"
        return f"{plan.study} ({when} UTC; {told_seeds(plan.seeds)}; {claims})"


@dataclass(frozen=True)
class History:
    """Which registration counts for a claim, and what else was tried."""

    counts: Registered
    name: str  # of the claim in that registration
    family: tuple[str, ...]  # the claims there that Holm's correction covers together with it
    standing: Standing
    others: tuple[Other, ...]  # oldest first


def open_registry(store: Store, plan: Plan) -> Registry:
    """What a store knows of a plan's name, or that scores what it scores.

    Raises `UserError` where a registration is damaged, so that nobody knows what it holds.
    """
    found, unknown = store.registrations(plan.study, tasks_of(plan))
    if unknown:
        raise UserError(f"what was tried before cannot be told: {unknown[0]}; see mm1 fsck")
    return Registry((Registered(*one) for one in found), store.finished_at)


def tasks_of(plan: Plan) -> set[str]:
    """All tasks that a plan scores."""
    return {one.task for trial in plan.trials for one in trial.evaluations}


def told_seeds(seeds: Sequence[int]) -> str:
    """`seeds 0 to 4`, or the first few by number."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    named = ", ".join(map(str, seeds[:4]))
    return f"seeds {named}" + (f" and {len(seeds) - 4} more" if len(seeds) > 4 else "")


class Registry:
    """All registrations of a store, oldest first."""

    def __init__(self, registered: Iterable[Registered], finished: Finished):
        self._all = sorted(registered, key=lambda one: (one.at, one.registration.hash))
        self.finished = cache(finished)  # many claims ask about the same stages
        self._stages: dict[int, dict[str, set[str]]] = {}
        self._trained: dict[int, dict[str, Any]] = {}  # by arm
        self._meant: dict[int, dict[str, Condition[Contrast]]] = {}

    def histories(self, now: Registered) -> dict[str, History]:
        """Claim of a registration → its history."""
        return {name: self._history(now, name) for name in now.plan.claims}

    def _history(self, now: Registered, claim: str) -> History:
        counts, same = self._counting(now, claim)
        own = self._own(now)[claim]
        name = next(
            (
                c
                for c in counts.plan.claims
                if self._is_same(counts, c, self._said(now, claim), own)
            ),
            claim,
        )
        family = [c for c in counts.plan.claims if self._counting(counts, c)[0] is counts]
        last = _end([self.finished(stage) for stage in own])
        keys = keys_of([self._conditions(now)[claim]])
        others = [
            self._other(one, counts, own, keys, last)
            for one in self._all
            if one is not now and one not in same
        ]
        found = tuple(other for other in others if other)
        standing = self._standing(counts, own, found)
        return History(counts, name, tuple(family), standing, found)

    def _is_same(self, one: Registered, claim: str, said: object, own: set[str]) -> bool:
        return self._said(one, claim) == said and self._own(one)[claim] == own

    def related(self, plan: Plan) -> list[Registered]:
        """Registrations of a plan's name, or that have all of its arms; oldest first."""
        arms = [arm.name for arm in plan.arms]
        return [
            one
            for one in self._all
            if one.plan.study == plan.study or self._matching(plan, arms, one.plan) is not None
        ]

    def _conditions(self, one: Registered) -> dict[str, Condition[Contrast]]:
        if id(one) not in self._meant:
            self._meant[id(one)] = conditions(one.plan)
        return self._meant[id(one)]

    def _said(self, one: Registered, claim: str) -> tuple[str, float, frozenset[ScoreKey]]:
        """What a claim says, and of which scores: the same words may mean another metric."""
        text = " ".join(one.plan.claims[claim].split())
        keys = frozenset(keys_of([self._conditions(one)[claim]]))
        return text, one.plan.min_effects.get(claim, 0.0), keys

    def _own(self, one: Registered) -> dict[str, set[str]]:
        """Claim → the stages that its scores come from."""
        if id(one) not in self._stages:
            self._stages[id(one)] = claim_stages(one.plan)
        return self._stages[id(one)]

    def _counting(self, now: Registered, claim: str) -> tuple[Registered, list[Registered]]:
        """The registration that counts for a claim, and all that have it on the same stages."""
        said, own = self._said(now, claim), self._own(now)[claim]
        same = [
            one
            for one in self._all
            if any(self._is_same(one, c, said, own) for c in one.plan.claims)
        ]
        if not same:  # it is only being planned
            return now, same
        times = [time for stage in own if (time := self.finished(stage))]
        before = [one for one in same if not times or one.at < min(times)]
        return (before[-1] if before else same[0]), same

    def _standing(self, counts: Registered, own: set[str], others: Sequence[Other]) -> Standing:
        known = own & set(counts.registration.known_stages)
        if known == own:
            return "exploratory"
        if known:  # somebody who has seen a part and changes the claim knows what to look for
            name = counts.plan.study
            earlier = (one for one in self._all if one.plan.study == name and one.at < counts.at)
            looked = any(self._had_results(one, counts.at) for one in earlier)
            return "exploratory" if looked else "partly known"
        return "repeated" if others else "registered"

    def _had_results(self, one: Registered, end: str) -> bool:
        return any(_before(self.finished(stage), end) for stage in one.plan.stages)

    def _other(
        self,
        one: Registered,
        counts: Registered,
        own: set[str],
        keys: Sequence[ScoreKey],
        last: str | None,
    ) -> Other | None:
        same_name = one.plan.study == counts.plan.study
        partners = self._matching(counts.plan, {key.arm for key in keys}, one.plan)
        if partners is None and not same_name:
            return None
        asked = {(key.task, key.shots, key.condition) for key in keys}
        read = {
            e.stage
            for trial in one.plan.trials
            if partners is None or trial.arm in partners
            for e in trial.evaluations
            if partners is None or (e.task, e.shots, e.condition) in asked
        }
        if any(_before(self.finished(stage), last) for stage in read - own):
            return Other(one, "results")
        replaced = same_name and one.at < counts.at and not self._had_results(one, counts.at)
        answers = read & own
        about_them = any(not stages.isdisjoint(answers) for stages in self._own(one).values())
        if about_them and not replaced and _before(one.at, last):
            return Other(one, "claims")
        return None

    def _matching(self, plan: Plan, arms: Iterable[str], other: Plan) -> set[str] | None:
        """Arms of another plan that match some of this one; None where one of these has none.

        They match where they train the same but for seeds and numbers within `TOLERANCE`.
        """
        by_name = {arm.name: arm for arm in plan.arms}
        found: set[str] = set()
        for name in arms:
            partners = {arm.name for arm in other.arms if self._alike(by_name[name], arm)}
            if not partners:
                return None
            found |= partners
        return found

    def _alike(self, one: Arm, other: Arm) -> bool:
        mine, its = self._leaves(one), self._leaves(other)
        return mine.keys() == its.keys() and all(_near(mine[key], its[key]) for key in mine)

    def _leaves(self, arm: Arm) -> dict[str, Any]:
        if id(arm) not in self._trained:
            self._trained[id(arm)] = _leaves(arm)
        return self._trained[id(arm)]


def _end(times: Sequence[str | None]) -> str | None:
    """When the last of some things happened; None while one has not."""
    return None if None in times else max((time for time in times if time), default=None)


def _before(time: str | None, end: str | None) -> bool:
    """Whether something had happened when `end` came; an `end` that has not come is now."""
    return time is not None and (end is None or time < end)


def _near(one: Any, other: Any) -> bool:
    numbers = (int, float)
    plain = isinstance(one, numbers) and isinstance(other, numbers)
    if not plain or isinstance(one, bool) or isinstance(other, bool):
        return one == other
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other))


def _leaves(arm: Arm) -> dict[str, Any]:
    """Path → plain value of everything that decides what is trained."""
    config = identity.affecting(Recipe.model_validate(arm.config))
    found: dict[str, Any] = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping):
            for key, part in value.items():
                visit(part, (*path, str(key)))
        elif isinstance(value, list | tuple):
            for index, part in enumerate(value):
                visit(part, (*path, str(index)))
        else:
            found[".".join(path)] = value

    visit({key: part for key, part in config.items() if key not in NOT_COMPARED}, ())
    return found
