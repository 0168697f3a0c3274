"""How far a verdict could have been chosen: what else was registered in the store, and when.

A claim is *registered* where nothing about its answer could be known, or picked, when it was
fixed. So every registration of the store counts that has the study's name, or that scores arms
which match the claim's on the claim's tasks:

- results of its own that were there before it was registered, curves of its own trainings too:
  *partly known*, *exploratory*;
- results of other seeds, other code or nearly equal configs that were seen before its own last
  stage was finished, or other claims on its own results: *repeated*. Of k tries one gives a false
  verdict with a chance of up to k times alpha. Registrations that have only some of the claim's
  arms count where together they have all.

Where the same contrast was seen on a config that differs by more, nobody can say from here whether
the difference does anything, unless both have seeds in common: where their scores then move
together, seed by seed, who has seen one knows the other, and it counts. Else the claim keeps its
standing and the other is told, with what differs (`Elsewhere`).

A claim has the standing, and the family of Holm's correction, of the registration that is shown if
that was made before its first result, else of the last one that had it on the same stages before
then: claims that are added after results start a family of their own, and claims that are left out
after results still count in theirs. What another store holds cannot be known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal

from ablations.claims import keys_of
from ablations.conditions import Condition, mapped
from ablations.contrasts import Contrast, ScoreKey, Scores
from ablations.deciding import claim_stages, conditions
from ablations.errors import UserError
from ablations.few import few
from ablations.plan import Plan
from analysis.likeness import TrainedArms, differing, same_leaf
from analysis.words import minute
from sweeps.records import Look
from sweeps.store import Registration, Store, registration_mark, registration_name

# How far a claim was fixed before its results were known.
Standing = Literal["registered", "repeated", "partly known", "exploratory"]
Finished = Callable[[str], str | None]  # stage → when it was finished (UTC, ISO 8601), or None

# Clocks of the machines of a cluster may differ by so much; what is earlier by more is earlier.
SKEW = timedelta(minutes=1)
# Fields in which a single arm may differ from that of a claim about one and still be told, and be
# looked at for the same luck: a claim about several arms is known again by how these differ.
FEW_FIELDS, SOME_FIELDS = 2, 8
# Correlation over shared seeds above which two configs have the same luck, and from how many
# degrees of freedom on it is looked at: by chance it is that high in less than 1 of 100 cases.
MOVES_ALONG = 0.95
LEAST_FREE = 4


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
    differs: tuple[str, ...] = ()  # fields of a config that moves with this one, seed by seed

    @property
    def told(self) -> str:
        """`pooling (2026-11-02 09:14 UTC; seeds 0, 1, 2; claims a, b)`."""
        plan = self.registered.plan
        when = minute(self.registered.at)
        claims = f"claims {', '.join(plan.claims)}" if plan.claims else "no claims"
        moves = f"; {few(self.differs, 3)}, with the same luck" if self.differs else ""
        return f"{plan.study} ({when} UTC; {told_seeds(plan.seeds)}; {claims}{moves})"


@dataclass(frozen=True)
class Elsewhere:
    """Another registration that saw the same contrast on another config before the claim's end."""

    registered: Registered
    differs: tuple[str, ...]  # `optimizer.eps: 1e-06 instead of 1e-08`, of all its arms
    partners: Mapping[str, str]  # arm of the claim → arm of this one

    @property
    def told(self) -> str:
        """`pooling (2026-11-02 09:14 UTC; seeds 0, 1, 2; optimizer.eps: 1e-06 …)`."""
        plan = self.registered.plan
        when = minute(self.registered.at)
        return f"{plan.study} ({when} UTC; {told_seeds(plan.seeds)}; {few(self.differs, 3)})"


@dataclass(frozen=True)
class History:
    """Which registration counts for a claim, and what else was tried."""

    counts: Registered
    name: str  # of the claim in that registration
    family: tuple[str, ...]  # the claims there that Holm's correction covers together with it
    standing: Standing
    others: tuple[Other, ...]  # oldest first, as the next two
    elsewhere: tuple[Elsewhere, ...] = ()
    since: tuple[Other, ...] = ()  # that asked the same again when the answer was there


def open_registry(store: Store, plan: Plan) -> Registry:
    """What a store knows of a plan's name, or that scores what it scores.

    Raises `UserError` where a registration is damaged, so that nobody knows what it holds.
    """
    found, unknown = store.registrations(plan.study, tasks_of(plan))
    if unknown:
        raise UserError(f"what was tried before cannot be told: {unknown[0]}; see mm1 fsck")
    stages = {stage: None for other, _ in found for stage in other.stages}
    times = store.finished_times(list(stages))
    return Registry((Registered(*one) for one in found), times.get, store.last_look)


def tasks_of(plan: Plan) -> set[str]:
    """All tasks that a plan scores."""
    return {one.task for arm in plan.arms for one in arm.answers}


def told_seeds(seeds: Sequence[int]) -> str:
    """`seeds 0 to 4`, or the first few by number."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {few(seeds, 4)}"


class Registry:
    """All registrations of a store, oldest first.

    `last_look` is when most results of a plan were shown first: results that were seen and are not
    on record any more count as seen. `scores` are those of a registration; `come_to` is its plan
    without what it has turned out not to need.
    """

    def __init__(
        self,
        registered: Iterable[Registered],
        finished: Finished,
        last_look: Callable[[Plan], Look | None] = lambda plan: None,
        scores: Callable[[Registered], Scores] = lambda registered: {},
        come_to: Callable[[Registered], Plan] = lambda registered: registered.plan,
    ):
        self._all = sorted(registered, key=lambda one: (one.at, one.registration.hash))
        self.finished = cache(finished)  # many claims ask about the same stages
        self._last_look, self._scores, self._come_to = last_look, scores, come_to
        self._stages: dict[int, dict[str, set[str]]] = {}
        self._trains: dict[int, TrainedArms] = {}  # by plan
        self._meant: dict[int, dict[str, Condition[Contrast]]] = {}
        self._stated: dict[tuple[int, str], object] = {}
        self._asked: dict[int, dict[tuple[str, str, int, str], frozenset[str]]] = {}
        self._gone: dict[int, Replaced | None] = {}

    def histories(self, now: Registered) -> dict[str, History]:
        """Claim of a registration → its history."""
        return {name: self._history(now, name) for name in now.plan.claims}

    def _history(self, now: Registered, claim: str) -> History:
        counts, same = self._counting(now, claim)
        own = self._own(now)[claim]
        name = next((c for c in counts.plan.claims if self._is_same(counts, c, now, claim)), claim)
        family = [c for c in counts.plan.claims if self._counting(counts, c)[0] is counts]
        last = _end([self.finished(stage) for stage in own])
        question = _Question(counts, own, keys_of([self._conditions(now)[claim]]), last)
        others = [
            self._other(one, question, is_same=one in same)
            for one in self._all
            if one is not now and one is not counts
        ]
        found = [other for other in others if other]
        told = {id(other.registered) for other in found}
        rest = [
            one
            for one in self._all
            if one is not now and one is not counts and one not in same and id(one) not in told
        ]
        found += [Other(one, "results") for one in self._together(rest, question)]
        told = {id(other.registered) for other in found}
        rest = [one for one in rest if id(one) not in told]
        since = [one for one in rest if self._asked_since(one, question)]
        elsewhere = [
            here for one in rest if one not in since and (here := self._elsewhere(one, question))
        ]
        moving = [one for one in elsewhere if self._moves_along(one, question)]
        found += [Other(one.registered, "results", one.differs) for one in moving]
        found.sort(key=lambda other: other.registered.at)
        standing = self._standing(counts, own, found)
        return History(
            counts,
            name,
            tuple(family),
            standing,
            tuple(found),
            tuple(
                one
                for one in elsewhere
                if one not in moving and (len(question.arms) > 1 or len(one.differs) <= FEW_FIELDS)
            ),
            tuple(Other(one, "results") for one in since),
        )

    def related(self, plan: Plan) -> list[Registered]:
        """Registrations of a plan's name, or that have all of its arms; oldest first."""
        arms = [arm.name for arm in plan.arms]
        return [
            one
            for one in self._all
            if one.plan.study == plan.study or self._matching(plan, arms, one.plan) is not None
        ]

    def replaced(self, one: Registered) -> Replaced | None:
        """Results of a registration that somebody saw and that are not on record any more."""
        if id(one) not in self._gone:
            self._gone[id(one)] = self._find_replaced(one)
        return self._gone[id(one)]

    def _find_replaced(self, one: Registered) -> Replaced | None:
        look = self._last_look(one.plan)
        if look is None:
            return None
        times = (self.finished(stage) for stage in one.plan.stages)
        there = sum(time is not None and time <= look.newest for time in times)
        return Replaced(look.at, look.done - there, look.by) if there < look.done else None

    def _conditions(self, one: Registered) -> dict[str, Condition[Contrast]]:
        if id(one) not in self._meant:
            self._meant[id(one)] = conditions(one.plan)
        return self._meant[id(one)]

    def _is_same(self, one: Registered, claim: str, other: Registered, its: str) -> bool:
        """Whether two claims say the same of the same results.

        The same words may mean another metric, and the same names other arms.
        """
        texts = [" ".join(r.plan.claims[c].split()) for r, c in ((one, claim), (other, its))]
        least = [r.plan.min_effects.get(c, 0.0) for r, c in ((one, claim), (other, its))]
        return (
            texts[0] == texts[1]
            and least[0] == least[1]
            and self._of_stages(one, claim) == self._of_stages(other, its)
        )

    def _of_stages(self, one: Registered, claim: str) -> object:
        """What a claim states, about stages and metrics in the place of named scores."""
        if (id(one), claim) not in self._stated:
            answers = self._answering(one)

            def of_stages(contrast: Contrast) -> object:
                return frozenset(
                    (answers[key.arm, key.task, key.shots, key.condition], key.metric, weight)
                    for key, weight in contrast.weights.items()
                )

            self._stated[id(one), claim] = mapped(self._conditions(one)[claim], of_stages)
        return self._stated[id(one), claim]

    def _answering(self, one: Registered) -> dict[tuple[str, str, int, str], frozenset[str]]:
        if id(one) not in self._asked:
            found: dict[tuple[str, str, int, str], set[str]] = {}
            for trial in one.plan.trials:
                for asked, stage in one.plan.answers(trial).items():
                    found.setdefault((trial.arm, *asked), set()).add(stage)
            self._asked[id(one)] = {place: frozenset(stages) for place, stages in found.items()}
        return self._asked[id(one)]

    def _own(self, one: Registered) -> dict[str, set[str]]:
        """Claim → the stages that its scores come from."""
        if id(one) not in self._stages:
            self._stages[id(one)] = claim_stages(self._come_to(one))
        return self._stages[id(one)]

    def _counting(self, now: Registered, claim: str) -> tuple[Registered, list[Registered]]:
        """The registration that counts for a claim, and all that have it on the same stages."""
        same = [
            one
            for one in self._all
            if any(self._is_same(one, c, now, claim) for c in one.plan.claims)
        ]
        if not same:  # it is only being planned
            return now, same
        times = [time for stage in self._own(now)[claim] if (time := self.finished(stage))]
        before = [one for one in same if not times or one.at < min(times)]
        if now in before:
            return now, same
        return (before[-1] if before else same[0]), same

    def _known(self, one: Registered, own: Collection[str]) -> set[str]:
        """Stages of which something was known when they were registered.

        Also those that came into the store later, from another one, and were finished before.
        """
        record = one.registration
        known = {*record.known_stages, *record.begun_stages}
        earlier = _moved(one.at, -SKEW)
        return {stage for stage in own if stage in known or _before(self.finished(stage), earlier)}

    def _standing(self, counts: Registered, own: set[str], others: Sequence[Other]) -> Standing:
        known = self._known(counts, own)
        if known == own:
            return "exploratory"
        if known:  # somebody who has seen a part and changes the claim knows what to look for
            name = counts.plan.study
            earlier = (one for one in self._all if one.plan.study == name and one.at < counts.at)
            looked = any(self._had_results(one, counts.at) for one in earlier)
            return "exploratory" if looked else "partly known"
        return "repeated" if others else "registered"

    def _had_results(self, one: Registered, end: str) -> bool:
        gone = self.replaced(one)
        return any(_before(self.finished(stage), end) for stage in one.plan.stages) or (
            gone is not None and gone.at < end
        )

    def _saw(self, one: Registered, question: _Question, arms: Collection[str]) -> set[str]:
        """Stages of some arms, on a claim's tasks, that were seen before its end."""
        end = _end_for(one, question)
        asked = _answers(one.plan, question.tasks, arms)
        return {stage for stage in asked if _before(self.finished(stage), end)}

    def _other(self, one: Registered, question: _Question, is_same: bool) -> Other | None:
        counts, own = question.counts, question.own
        same_name = one.plan.study == counts.plan.study
        partners = self._matching(counts.plan, question.arms, one.plan)
        if partners is None and not same_name:
            return None
        tasks = None if partners is None else question.tasks
        end = _end_for(one, question)
        if not is_same:
            asked = _answers(one.plan, tasks, partners) - own
            gone = self.replaced(one)
            times = [*map(self.finished, asked), gone.at if gone else None]
            if any(_before(time, end) for time in times):
                return Other(one, "results")
        superseded = same_name and one.at < counts.at and not self._had_results(one, counts.at)
        answers = _answers(one.plan, tasks, partners) & own
        about_them = any(
            not stages.isdisjoint(answers)
            and not (is_same and any(self._is_same(counts, m, one, c) for m in counts.plan.claims))
            for c, stages in self._own(one).items()
        )
        if about_them and not superseded and _before(one.at, end):
            return Other(one, "claims")
        return None

    def _asked_since(self, one: Registered, question: _Question) -> bool:
        """Whether a claim on the same arms and tasks got other results after this one's own."""
        if question.last is None:
            return False
        asked = []
        for arm in question.arms:
            partners = self._matching(question.counts.plan, {arm}, one.plan)
            if not partners:
                return False
            asked.append(_answers(one.plan, question.tasks, partners) - question.own)
        return any(
            all(any(self.finished(stage) for stage in stages & those) for those in asked)
            for stages in self._own(one).values()
        )

    def _together(self, some: Sequence[Registered], question: _Question) -> list[Registered]:
        """Registrations none of which has all arms of a claim, where together they saw them all."""
        counts, own = question.counts, question.own
        known = self._known(counts, own)
        open_ = {
            arm
            for arm in question.arms
            if not _answers(counts.plan, question.tasks, {arm}) & own <= known
        }
        found: list[Registered] = []
        for arm in open_:
            saw = [
                one
                for one in some
                if (partners := self._matching(counts.plan, {arm}, one.plan))
                and self._saw(one, question, partners) - own
            ]
            if not saw:
                return []
            found += (one for one in saw if one not in found)
        return found

    def _elsewhere(self, one: Registered, question: _Question) -> Elsewhere | None:
        """Another registration that saw the claim's contrast on another config, and how it differs.

        Its arms differ from each other as those of the claim do, and from the claim's all alike.
        """
        trained = self._trained(question.counts.plan).leaves
        names = [name for name in trained if name in question.arms]
        mine = [trained[name] for name in names]
        varied = {path for leaves in mine[1:] for path in differing(leaves, mine[0])}
        # Arms that differ in nothing else, by what they have in common.
        groups: dict[frozenset[tuple[str, Any]], list[tuple[int, str]]] = {}
        for arm, its in self._trained(one.plan).leaves.items():
            for number, own in enumerate(mine):
                if all(same_leaf(path, its, own) for path in varied):
                    common = frozenset(item for item in its.items() if item[0] not in varied)
                    groups.setdefault(common, []).append((number, arm))
        found: list[Elsewhere] = []
        for arms in groups.values():
            its = self._trained(one.plan).leaves[arms[0][1]]
            differs = [path for path in differing(mine[0], its) if path not in varied]
            if len({number for number, _ in arms}) < len(mine):
                continue
            if not differs or (len(mine) == 1 and len(differs) > SOME_FIELDS):
                continue
            if self._saw(one, question, {arm for _, arm in arms}):
                told = tuple(
                    f"{path}: {its.get(path, 'none')} instead of {mine[0].get(path, 'none')}"
                    for path in differs
                )
                found.append(Elsewhere(one, told, {names[n]: arm for n, arm in arms}))
        return min(found, key=lambda here: len(here.differs), default=None)

    def _moves_along(self, here: Elsewhere, question: _Question) -> bool:
        """Whether scores on another config move with a claim's, over the seeds that both have."""
        if set(question.counts.plan.seeds).isdisjoint(here.registered.plan.seeds):
            return False
        mine, its = self._scores(question.counts), self._scores(here.registered)
        pairs = []  # of deviations from the mean over the shared seeds
        equal, free = [], 0
        for key in question.keys:
            one = mine.get(key, {})
            other = its.get(key._replace(arm=here.partners[key.arm]), {})
            seeds = [seed for seed in one if seed in other]
            if seeds:
                centre = [sum(some[seed] for seed in seeds) / len(seeds) for some in (one, other)]
                pairs += [(one[seed] - centre[0], other[seed] - centre[1]) for seed in seeds]
                equal += [one[seed] == other[seed] for seed in seeds]
                free += len(seeds) - 1
        if len(equal) > 1 and all(equal):
            return True
        squares = [sum(pair[side] ** 2 for pair in pairs) for side in (0, 1)]
        together = sum(a * b for a, b in pairs)
        return free >= LEAST_FREE and together > MOVES_ALONG * math.sqrt(squares[0] * squares[1])

    def _matching(self, plan: Plan, arms: Iterable[str], other: Plan) -> set[str] | None:
        """Arms of another plan that match some of this one; None where one of these has none.

        They match where they train the same but for seeds and for numbers that hardly differ.
        """
        mine, its = self._trained(plan), self._trained(other)
        found: set[str] = set()
        for name in arms:
            partners = its.like(mine.leaves[name])
            if not partners:
                return None
            found |= partners
        return found

    def _trained(self, plan: Plan) -> TrainedArms:
        if id(plan) not in self._trains:
            self._trains[id(plan)] = TrainedArms(plan)
        return self._trains[id(plan)]


@dataclass(frozen=True)
class Replaced:
    """Results that somebody saw, and that were removed or made anew since."""

    at: str  # when they were seen
    count: int
    by: str  # what showed them

    @property
    def told(self) -> str:
        """`18 results that mm1 compare showed on … UTC were removed or made anew since`."""
        results = "1 result" if self.count == 1 else f"{self.count} results"
        when = minute(self.at)
        return f"{results} that {self.by} showed on {when} UTC were removed or made anew since"


@dataclass(frozen=True)
class _Question:
    """A claim, as others could have known its answer."""

    counts: Registered
    own: set[str]  # stages that its scores come from
    keys: Sequence[ScoreKey]
    last: str | None  # when the last of its stages was finished

    @property
    def arms(self) -> set[str]:
        return {key.arm for key in self.keys}

    @property
    def tasks(self) -> set[str]:
        """Whatever is asked of a task tells of the others: shots, conditions, metrics."""
        return {key.task for key in self.keys}


def _end_for(one: Registered, question: _Question) -> str | None:
    """Until when another registration could tell something of a claim.

    None is now: it was there before the claim's registration, whose clock says that it was not.
    """
    return None if turned_back(one, question.counts) else question.last


def turned_back(one: Registered, other: Registered) -> bool:
    """Whether a registration is on record as earlier than another that has an earlier time."""
    mark = registration_mark(one.plan.study, registration_name(one.plan))
    return mark in other.registration.before and one.at > _moved(other.at, SKEW)


def _answers(plan: Plan, tasks: Collection[str] | None, arms: Collection[str] | None) -> set[str]:
    """Evaluations of some arms on some tasks, of all where that is None."""
    return {
        stage
        for trial in plan.trials
        if arms is None or trial.arm in arms
        for asked, stage in plan.answers(trial).items()
        if tasks is None or asked.task in tasks
    }


def _moved(time: str, by: timedelta) -> str:
    try:
        return (datetime.fromisoformat(time) + by).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):  # not a time of ours
        return time


def _end(times: Sequence[str | None]) -> str | None:
    """When the last of some things happened; None while one has not."""
    return None if None in times else max((time for time in times if time), default=None)


def _before(time: str | None, end: str | None) -> bool:
    """Whether something had happened when `end` came; an `end` that has not come is now."""
    return time is not None and (end is None or time < end)
