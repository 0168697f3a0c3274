"""Which trial is run next where seeds are added until there is a verdict.

    seeds: {initial: 3, max: 12, until: verdict}

All arms are run with the first 3 seeds. From then on one trial after the other is added, each to
the claims that are open: with every number of seeds that a claim could still get goes a chance of a
verdict and a cost, and the trial is taken next that brings most chance for its cost, over all
claims that wait for it. A claim is left alone where it has a verdict, where it is futile (a verdict
by the last seed is less likely than 10 %; that is looked at again when more is known) and where it
has all its seeds. The end has come when every claim is left alone, or when the budget is spent.

The rule reads results and planned costs and nothing else: no clock, no worker, no order of arrival.
The trial at place k of the list (from 1) is chosen on the results of the first k - lookahead trials
of it, so up to `lookahead` trials can run at once; results that come early wait. A claim is looked
at whenever one seed more is there for all its arms, in the order of the list. So a study that is
resumed, or that runs on other machines, takes the same decisions. Because the seeds of an arm are
taken in their order and the boundary holds for all looks together, no choice made here can make a
wrong verdict more likely (`ablations.sequential`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from ablations.sequential import FUTILE, FUTILE_FROM
from ablations.verdicts import Outcome

Result = Literal["there", "lost", ""]  # of a trial; lost: it failed and is not tried again


class Pair(NamedTuple):
    """A trial by its place: an arm, and the how-manieth of the study's seeds (from 0)."""

    arm: str
    index: int


class Budget(NamedTuple):
    """What a study may cost; None: as much as it takes."""

    trials: int | None = None
    seconds: float | None = None  # planned, of one core or all of a machine


NO_BUDGET = Budget()


@dataclass(frozen=True)
class Rule:
    """What was registered of how seeds are added."""

    initial: int  # seeds of every arm
    most: int
    alpha: float
    lookahead: int = 1
    budget: Budget = NO_BUDGET


class Evidence(Protocol):
    """What is known of the claims, by number of seeds. Asked only of seeds whose results are in."""

    def problem(self, claim: str, n: int) -> str:
        """Why the n-th seed cannot be counted, or nothing."""
        ...

    def p(self, claim: str, n: int) -> tuple[float, float]:
        """Sequential p values after n seeds: for the claim and against it."""
        ...

    def chances(self, claim: str, n: int, level: float) -> Sequence[float]:
        """Chance of a verdict, either way, at n + 1, n + 2, … seeds."""
        ...


@dataclass
class Course:
    """How far one claim has come."""

    name: str
    arms: tuple[str, ...]
    n: int = 0  # seeds whose results are in
    p: tuple[float, float] = (1.0, 1.0)
    verdict: Outcome = "undecided"
    level: float = 0.0  # of its test: the last one, or that of the verdict
    decided_n: int = 0  # seeds of its verdict
    decided_after: int = 0  # trials whose results were in then
    problem: str = ""  # why it gets no further
    futile: bool = False
    looks: list[tuple[int, float]] = field(default_factory=list)  # seeds and level of each


class Allocation:
    """The trials that were decided on so far, in order; `advance` goes on.

    `arms` in their order, `claims` gives each claim's arms, `seconds` each arm's planned cost,
    `told` a trial in words.
    """

    def __init__(
        self,
        rule: Rule,
        arms: Sequence[str],
        claims: Mapping[str, Collection[str]],
        seconds: Mapping[str, float],
        evidence: Evidence,
        told: Callable[[Pair], str] = str,
    ):
        self.rule, self._evidence, self._told = rule, evidence, told
        self._place = {arm: place for place, arm in enumerate(arms)}
        self._cost = {arm: seconds.get(arm) or 1.0 for arm in arms}
        self.trials = [Pair(arm, index) for index in range(rule.initial) for arm in arms]
        self.courses = {
            name: Course(name, tuple(sorted(its, key=self._place.__getitem__)))
            for name, its in claims.items()
        }
        self.seconds = sum(self._cost[trial.arm] for trial in self.trials)
        self.ended = False
        self._taken = 0  # results, of the first trials
        self._next = dict.fromkeys(arms, rule.initial)  # index of the next seed to decide on
        self._there = dict.fromkeys(arms, 0)  # seeds whose results were taken in, without a gap
        self._lost: dict[str, int] = {}  # arm → index of the first seed that failed
        self._of: dict[str, list[str]] = {arm: [] for arm in arms}  # arm → claims
        for name, course in self.courses.items():
            course.level = rule.alpha / len(claims)
            for arm in course.arms:
                self._of[arm].append(name)
        self._gains: dict[str, float] = {}  # of claims that nothing has changed for

    @property
    def taken(self) -> int:
        """How many of the trials have had their results taken in."""
        return self._taken

    def advance(self, result: Callable[[Pair], Result]) -> list[Pair]:
        """Decide on as many further trials as the results allow; those.

        `result` tells of a trial that was decided on. What it has told of one must not change,
        other than from nothing to something.
        """
        before = len(self.trials)
        while not self.ended:
            due = len(self.trials) + 1 - self.rule.lookahead
            while self._taken < due:
                if not self._take(result):
                    return self.trials[before:]
            chosen = self._choose()
            if chosen is not None:
                self._add(chosen)
            elif self._taken < len(self.trials):  # what is running may tell
                if not self._take(result):
                    break
            else:
                self.ended = True
        return self.trials[before:]

    def follow(self, trials: Sequence[Pair], result: Callable[[Pair], Result]) -> None:
        """Take in the results of trials that others decided on, as far as they are there."""
        self.trials = list(trials)
        while self._taken < len(self.trials) and self._take(result):
            pass
        self.ended = self._taken == len(self.trials)

    # -- results -----------------------------------------------------------------------------

    def _take(self, result: Callable[[Pair], Result]) -> bool:
        """Take in the next result in the order of the list; False if it is not there."""
        trial = self.trials[self._taken]
        told = result(trial)
        if not told:
            return False
        self._taken += 1
        if told == "lost":
            self._lost.setdefault(trial.arm, trial.index)
        elif trial.arm not in self._lost:
            self._there[trial.arm] = trial.index + 1
        looked = False
        for name in self._of[trial.arm]:
            looked = self._look(name) or looked
        if looked:
            self._judge()
        return True

    def _look(self, name: str) -> bool:
        """Look at a claim if all its arms have one seed more."""
        course = self.courses[name]
        lost = [arm for arm in course.arms if arm in self._lost]
        if lost and not course.problem:
            arm = min(lost, key=lambda one: (self._lost[one], self._place[one]))
            course.problem = f"{self._told(Pair(arm, self._lost[arm]))} failed"
        if course.verdict != "undecided":
            return False
        looked = False
        while course.n < min(self._there[arm] for arm in course.arms):
            if problem := self._evidence.problem(name, course.n + 1):
                course.problem = problem
                break
            course.n += 1
            if course.n >= self.rule.initial:
                course.p = self._evidence.p(name, course.n)
                course.looks.append((course.n, course.level))
                looked = True
        self._gains.pop(name, None)
        return looked

    def _judge(self) -> None:
        """Holm's correction over all claims: the smallest p value at alpha/m, the next at
        alpha/(m - 1), …; those that have a verdict keep the p value that it was reached with.
        """
        while open_ := [one for one in self.courses.values() if one.verdict == "undecided"]:
            level = self.rule.alpha / len(open_)
            if level != open_[0].level:
                self._gains.clear()
                for course in open_:
                    course.level = level
            nearest = min(open_, key=lambda one: min(one.p))
            if min(nearest.p) > level:
                break
            self._reach(nearest)

    def _reach(self, course: Course) -> None:
        """A claim has its verdict, by the first look that is enough at its level; it stands."""
        for n, _ in course.looks:
            p_sup, p_ref = self._evidence.p(course.name, n)
            if min(p_sup, p_ref) <= course.level:
                course.p = p_sup, p_ref
                course.verdict = "supported" if p_sup <= p_ref else "refuted"
                course.decided_n, course.decided_after = n, self._taken
                course.problem, course.futile = "", False
                self._gains.pop(course.name, None)
                return
        raise AssertionError(f"{course.name}: no look has the p value {min(course.p)}")

    # -- decisions ---------------------------------------------------------------------------

    def _choose(self) -> Pair | None:
        """The trial that brings most for its cost; None where there is none to be had now."""
        worth: dict[Pair, float] = {}
        for name, course in self.courses.items():
            gain = self._gain(name, course)
            if gain > 0:
                row = min(self._next[arm] for arm in course.arms)
                for arm in course.arms:
                    if self._next[arm] == row:
                        trial = Pair(arm, row)
                        worth[trial] = worth.get(trial, 0.0) + gain
        if not worth:
            return None
        best = max(worth, key=lambda one: (worth[one], -one.index, -self._place[one.arm]))
        budget, seconds = self.rule.budget, self.seconds + self._cost[best.arm]
        if (budget.trials is not None and len(self.trials) >= budget.trials) or (
            budget.seconds is not None and seconds > budget.seconds
        ):
            return None
        return best

    def reason(self, name: str) -> str:
        """Why a claim has no verdict; nothing where it has one."""
        course = self.courses[name]
        if course.verdict != "undecided":
            return ""
        if course.problem:
            return course.problem
        if course.n >= self.rule.most:
            return f"no verdict by the last of its {self.rule.most} seeds"
        if not self.ended:
            return f"open: {course.n} of at most {self.rule.most} seeds"
        if self._gain(name, course) > 0:
            return f"the budget was spent at {course.n} seeds"
        return (
            f"futile at {course.n} seeds: a verdict by seed {self.rule.most} was less likely than "
            f"{FUTILE:.0%}".replace("%", " %")
        )

    def _gain(self, name: str, course: Course) -> float:
        """The most chance of a verdict for the cost, over all numbers of seeds it could get."""
        if name not in self._gains:
            self._gains[name] = self._find_gain(name, course)
        return self._gains[name]

    def _find_gain(self, name: str, course: Course) -> float:
        n, most = course.n, self.rule.most
        if course.verdict != "undecided" or course.problem or n < self.rule.initial or n >= most:
            return 0.0
        chance = self._evidence.chances(name, n, course.level)
        course.futile = n >= FUTILE_FROM and chance[-1] < FUTILE
        if course.futile:
            return 0.0
        decided = min(self._next[arm] for arm in course.arms)  # seeds that it will have anyway
        anyway = chance[decided - n - 1] if decided > n else 0.0
        best = 0.0
        for later in range(decided + 1, most + 1):
            cost = sum(self._cost[arm] * max(0, later - self._next[arm]) for arm in course.arms)
            best = max(best, (chance[later - n - 1] - anyway) / cost)
        return float(best)

    def _add(self, trial: Pair) -> None:
        self.trials.append(trial)
        self._next[trial.arm] = trial.index + 1
        self.seconds += self._cost[trial.arm]
        for name in self._of[trial.arm]:
            self._gains.pop(name, None)
