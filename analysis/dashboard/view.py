"""What the store holds of each study: read once for all who look, beside those who wait.

A `View` is one version of a study. It never changes, and a look that finds something new makes
another one, so what was drawn of a version can be kept with it.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablations.plan import Plan
from analysis.compare import Comparison, comparison
from analysis.dashboard.summaries import UNREADABLE, Summaries
from analysis.registry import Elsewhere, History, Other
from analysis.results import Origin, State, StudyResults, read_results
from sweeps.store import Store

PAUSE_SECONDS = 0.25  # between two looks at the store, however many want one
WAIT_SECONDS = 0.6  # for a look; after that what was there before is shown, or that it is read
KEPT = 16  # pages of a version that are kept

Curves = dict[str, dict[int, list[dict[str, Any]]]]


class Failed(str):
    """Why a study cannot be shown."""


@dataclass(frozen=True)
class Reading:
    """A study that is being read for the first time."""


@dataclass
class View:
    """One version of a study."""

    version: str
    results: StudyResults
    states: dict[tuple[str, int], State]  # (arm, seed) → how far the trial is
    live: Curves  # arm → seed → reports of what is under way
    around: tuple[Plan, ...] = ()  # others whose results were counted for it
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _made: dict[str, Any] = field(default_factory=dict)
    _locks: dict[str, threading.RLock] = field(default_factory=dict)
    _kept: OrderedDict[Any, Any] = field(default_factory=OrderedDict)
    _making: dict[Any, threading.Event] = field(default_factory=dict)

    @property
    def comparison(self) -> Comparison:
        """Verdicts, effects, arms: worked out when a page asks first."""
        return self.once("comparison", lambda: comparison(self.results))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What is the same for all pages of this version, made once; who wants other things of it
        does not wait for that."""
        with self._lock:
            if name in self._made:
                return self._made[name]
            making = self._locks.setdefault(name, threading.RLock())
        with making:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made of this version for one address, as long as few others are looked at."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made

    def soon(self, key: Any, make: Callable[[], Any], wait: float) -> Any:
        """`kept`, or None where it is not made within some seconds: it is made on beside who asks.

        However many ask, it is made once.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            done = self._making.get(key)
            if done is None:
                done = self._making[key] = threading.Event()
                work = threading.Thread(target=self._make, args=(key, make, done), daemon=True)
                work.start()
        done.wait(wait)
        with self._lock:
            return self._kept.get(key)

    def _make(self, key: Any, make: Callable[[], Any], done: threading.Event) -> None:
        try:
            self.kept(key, make)
        finally:
            with self._lock:
                del self._making[key]
            done.set()

    @property
    def told_of(self) -> tuple[Plan, ...]:
        """Other plans of which something is shown beside the verdicts, where some page shows them.

        Those that are new are counted at the next look, before which nothing was shown of them.
        """
        with self._lock:
            if "comparison" not in self._made:
                return self.around
        histories = self.results.histories.values()
        told = [one.registered.plan for h in histories for one in _told(h)]
        return tuple({id(plan): plan for plan in told}.values())


def _told(history: History) -> list[Other | Elsewhere]:
    return [*history.others, *history.elsewhere, *history.since]


@dataclass
class _Watched:
    lock: threading.Condition = field(default_factory=threading.Condition)
    looking: bool = False
    seen: float = -math.inf  # when the look began that the view is of
    ended: float = -math.inf
    took: float = 0.0
    view: View | Failed | None = None
    state: Any = None


class Views:
    """The view of each study of a store."""

    def __init__(self, store: Store, origin: Origin | None = None):
        self.store, self._origin = store, origin
        self.summaries = Summaries(store, origin)
        self._lock = threading.Lock()
        self._studies: dict[str, _Watched] = {}

    def of(self, study: str, *, anew: bool = True, wait: float = WAIT_SECONDS) -> Any:
        """The view, `Failed` or `Reading`; `anew`: as the store is now, if that does not take long.

        A look that began a moment ago is of now: whoever comes while many look waits for none.
        Without `anew` what was seen last is good enough, as for somebody who turns a page.
        """
        came = time.monotonic()
        if study not in self.store.studies():
            return Failed(f"no study {study[:100]!r} in this store")
        with self._lock:
            watched = self._studies.setdefault(study, _Watched())
        until = came + wait
        with watched.lock:
            while watched.seen < came - max(PAUSE_SECONDS, watched.took):
                if isinstance(watched.view, View) and not anew:
                    break
                if not watched.looking:
                    self._start(study, watched)
                left = until - time.monotonic()
                if left <= 0 or not watched.lock.wait(left):
                    break
            if watched.view is None:
                return Reading()
            return watched.view

    def _start(self, study: str, watched: _Watched) -> None:
        watched.looking = True
        # A look that takes long, of a large study that runs, is not taken all the time.
        pause = max(PAUSE_SECONDS, watched.took)
        rest = 0.0 if watched.view is None else max(0.0, watched.ended + pause - time.monotonic())

        def work() -> None:
            time.sleep(rest)
            began = time.monotonic()
            view, state = watched.view, watched.state
            try:
                view, state = self.look(study, watched.view, watched.state)
            except UNREADABLE as error:
                view, state = Failed(error), None
            except BaseException as error:  # told on the page, where somebody sees it
                view, state = Failed(f"{type(error).__name__}: {error}"), None
                raise
            finally:
                with watched.lock:
                    watched.view, watched.state = view, state
                    watched.seen, watched.ended = began, time.monotonic()
                    watched.took = watched.ended - began
                    watched.looking = False
                    watched.lock.notify_all()

        threading.Thread(target=work, daemon=True, name=f"look at {study[:40]}").start()

    def look(
        self, study: str, before: View | Failed | None, state: Any
    ) -> tuple[View | Failed, Any]:
        """The view as the store is now, and what tells it from others; the same if none is new."""
        plan, registration = self.store.snapshot(study)
        found = self.store.look(plan.stages)
        former = before if isinstance(before, View) else None
        results = None if former is None else former.results
        is_new = results is None or results.whole is not plan or results.found is not found
        if results is None or is_new:
            file = Path(plan.path)
            results = read_results(plan, registration, self.store, file=file, origin=self._origin)
        live = live_reports(results)
        # Where nobody is at anything they follow from what was found.
        known = None if is_new or found.begun or former is None else former.states
        states = known or results.states_now()
        own = [registration.hash, len(results.done), _reported(live), states]
        others = () if former is None else former.told_of
        now = [own, self._around(others)]
        if former is not None and now == state:
            return former, state
        results = results if is_new else replace(results)  # what was tried is worked out anew
        results.looked("mm1 dashboard")
        return View(secrets.token_hex(8), results, states, live, others), now

    def _around(self, others: Iterable[Plan]) -> Any:
        """What is told of a study beside its own results: other registrations, and how far."""
        marks = self.store.registration_marks()
        return marks, {plan.hash: len(self.store.look(plan.stages).sound) for plan in others}


def live_reports(results: StudyResults) -> Curves:
    """Arm → seed → reports of what is under way: `step`, `time` and metrics."""
    found: Curves = {}
    if not results.found.begun:
        return found
    for trial in results.plan.trials:
        stage = results.curve_stage(trial)
        if stage not in results.done and stage in results.found.begun:
            reports = results.store.progress(stage)
            if reports:
                found.setdefault(trial.arm, {})[trial.seed] = list(reports)
    return found


def _reported(live: Curves) -> int:
    return sum(len(reports) for seeds in live.values() for reports in seeds.values())
