"""A line for each study of a store: how far it is, what it cost, what came of its claims.

Worked out beside those who look, one study after the other, and kept as long as nothing changed: a
store may have hundreds of studies, and the page of all of them is there at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from analysis.results import Origin, StudyResults, read_results
from sweeps.live import driver, read_live, token_of
from sweeps.notes import notes_of, tags_of
from sweeps.store import Store

EVERY_SECONDS = 2.0
WAIT_SECONDS = 0.4  # for those that are not known yet: a small store is shown whole at once
UNREADABLE = (UserError, ValueError, KeyError, TypeError, OSError)


@dataclass(frozen=True)
class Summary:
    """A study in a line; what is not known yet is None."""

    study: str
    damage: str = ""  # what of it cannot be read; all of it, where nothing else is known
    question: str = ""
    registered_at: str = ""
    arms: int = 0
    seeds: int = 0
    states: dict[str, int] | None = None  # done, running, waiting, failed → trials
    trials: int = 0
    run: str = ""  # what a run of it is at; "" where nobody runs it
    remaining: float | None = None  # seconds, by the run's own estimate
    seconds: float | None = None  # of work
    verdicts: dict[str, int] | None = None  # verdict → claims
    tags: tuple[str, ...] = ()
    key: Any = field(default=None, repr=False)  # of what the store held when it was worked out


class Summaries:
    """Of all studies of a store."""

    def __init__(self, store: Store, origin: Origin | None = None):
        self._store, self._origin = store, origin
        self._lock = threading.Condition()
        self._known: dict[str, Summary] = {}
        self._working = False
        self._ended = -math.inf

    def now(self) -> list[Summary]:
        """As far as they are known, newest first; what is behind is worked out for the next look.

        Those that nobody has looked at yet come with what is known of them, their names at least.
        """
        with self._lock:
            due = time.monotonic() - self._ended >= EVERY_SECONDS
            if due and not self._working:
                self._working = True
                threading.Thread(target=self._work, daemon=True, name="summaries").start()
            self._lock.wait_for(lambda: not self._working, WAIT_SECONDS)
            known = dict(self._known)
        found = [known.get(name) or Summary(name) for name in self._store.studies()]
        return sorted(found, key=lambda one: (one.registered_at, one.study), reverse=True)

    def _work(self) -> None:
        try:
            marks = self._store.registration_marks()
            for study in self._store.studies():
                try:
                    for made in self._made(study, self._known.get(study), marks):
                        self._keep(made)
                except UNREADABLE as error:
                    self._keep(Summary(study, damage=str(error)))
        finally:
            with self._lock:
                self._working, self._ended = False, time.monotonic()
                self._lock.notify_all()

    def _keep(self, made: Summary) -> None:
        with self._lock:
            self._known[made.study] = made

    def _made(self, study: str, former: Summary | None, marks: set[str]) -> Iterator[Summary]:
        """What is known of a study, more with each step; nothing where nothing has changed."""
        plan, registration = self._store.snapshot(study)
        found = self._store.look(plan.stages)
        run, remaining = self._run(study)
        held = len(found.sound), len(found.damaged), len(found.begun)
        tags = tuple(tags_of(notes_of(self._store.objects, study)[0]))
        key = registration.hash, registration.registered_at, held, hash(frozenset(marks)), tags
        if former is not None and former.key == key and not run and not former.run:
            return
        made = Summary(
            study=study,
            question=plan.question,
            registered_at=registration.registered_at,
            arms=len(plan.arms),
            seeds=len(plan.seeds),
            trials=len(plan.trials),
            tags=tags,
        )
        if former is None:
            yield made
        results = read_results(
            plan, registration, self._store, file=Path(plan.path), origin=self._origin
        )
        same = former is not None and former.key == key
        made = replace(
            made,
            damage="; ".join(results.damage_lines),
            states=dict(Counter(results.states_now().values())),
            trials=len(results.plan.trials),
            run=run,
            remaining=remaining,
            seconds=math.fsum(found.stages["seconds"]),
            verdicts=None if former is None else former.verdicts,
            key=key,
        )
        yield made
        if not same:
            yield replace(made, verdicts=_verdicts(results))

    def _run(self, study: str) -> tuple[str, float | None]:
        """What a run of it is at, and the seconds that it still takes."""
        holder = driver(self._store.objects, study)
        if holder is None:
            return "", None
        live = read_live(self._store.objects, study)
        if live is None or live.token != token_of(holder):
            return "starting", None
        return live.state, live.remaining


def _verdicts(results: StudyResults) -> dict[str, int]:
    """Verdict, or `interim`, → claims; that they are shown goes on record."""
    results.looked("mm1 dashboard")
    return dict(
        Counter("interim" if results.is_interim(one) else one.verdict for one in results.verdicts)
    )
