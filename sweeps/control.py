"""What people ask of a run from elsewhere, through the store: to pause, to go on, to end, to leave
trials out, to take up what was added to its study.

    runs/<study>/asked/<token>/<number>.json   asked of the driver whose lease has this token
    studies/<study>/<registration>/cancelled/  trials that a run was told to leave out

Each driver has another token, so what was asked of one is never done by a later one.
"""

from __future__ import annotations

import contextlib
import getpass
import socket
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.schema import Config
from sweeps.live import Publisher, State, driver, folder, read_live, token_of
from sweeps.objects import Objects
from sweeps.records import SCHEMA_VERSION, Cancelled, UnreadableError, read_record, sealed
from sweeps.scheduler import LEFT, Scheduler
from sweeps.store import Store, utc_now

LOOK_SECONDS = 1.0  # how often the driver looks for what is asked
CHANGED_SECONDS = 5.0  # and whether the study's file is another
ANSWER_SECONDS = 30.0  # how long who asks waits for an answer

Action = Literal["pause", "resume", "cancel", "leave out", "take up"]


class Asked(Config):
    """Something that somebody asked of a run."""

    schema_version: int = SCHEMA_VERSION
    action: Action
    trials: tuple[tuple[str, int], ...] = ()  # (arm, seed) that are to be left out
    by: str  # user@host
    at: str  # UTC, ISO 8601


class _Says(Protocol):
    def say(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


class _Workers(Protocol):
    def interrupt(self, workers: Iterable[str]) -> None: ...


@dataclass
class Steering:
    """What was asked of a run and still holds when it goes on with a study that was added to."""

    paused: bool = False
    cancelled: set[tuple[str, int]] = field(default_factory=set)  # (arm, seed)


class Control:
    """What a driver was asked, and what it does about it; `attend` may be called often."""

    def __init__(
        self, plan: Plan, store: Store, publisher: Publisher, told: _Says, steering: Steering
    ):
        self._plan, self._store, self._told = plan, store, told
        # Not what is patient: where a store does not answer, a run does not wait to be asked.
        self._objects = store.objects
        self._publisher = publisher
        self._folder = f"{folder(plan.study)}/asked"
        self._looked = self._compared = -CHANGED_SECONDS
        self._heard: set[str] = set()
        self._planned = {(trial.arm, trial.seed): trial for trial in plan.trials}
        self._steering = steering
        if self.cancelled:
            self._record(self.cancelled, who(), utc_now())
        self._out = self._needed_by_none()
        self.cancelled_by = ""  # who ended the run
        self.taken_up_by = ""  # who added to the study, so that it is to be planned anew

    @property
    def cancelled(self) -> set[tuple[str, int]]:
        """(arm, seed) of trials that are left out."""
        return self._steering.cancelled

    @property
    def paused(self) -> bool:
        """Whether nothing is to be started."""
        return self._steering.paused

    @property
    def ends(self) -> bool:
        """Whether the run should save what runs and end."""
        return bool(self.cancelled_by or self.taken_up_by)

    def state(self, scheduler: Scheduler, *, stopping: bool) -> State:
        """What the run is at, in a word."""
        if stopping:
            return "stopping"
        if self.paused:
            return "pausing" if scheduler.running else "paused"
        return "running"

    def attend(self, scheduler: Scheduler, workers: _Workers) -> None:
        """Look for what was asked, and do it."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for asked in self._new():
                self._do(asked[0], asked[1], scheduler, workers)
        if now - self._compared >= CHANGED_SECONDS:
            self._compared = now
            self._compare_file()
        for stage_id in self._out:  # one that ran comes back when it has saved itself
            if scheduler.state[stage_id] in LEFT:
                scheduler.leave_out(stage_id)

    def _new(self) -> list[tuple[str, Asked]]:
        """What was asked since the last look, in the order in which it was asked."""
        place = f"{self._folder}/{self._publisher.token}"
        found = []
        try:
            for name in self._objects.children(place):
                if name in self._heard:
                    continue
                self._heard.add(name)
                try:
                    found.append((name, read_record(self._objects, f"{place}/{name}", Asked)))
                except (FileNotFoundError, UnreadableError) as error:
                    self._told.warn(f"something that was asked of this run is unreadable: {error}")
        except OSError:  # the storage does not answer: at the next look
            return found
        return found

    def _do(self, name: str, asked: Asked, scheduler: Scheduler, workers: _Workers) -> None:
        running = len(scheduler.running)
        saving = f"; {running} running {_stages(running)} {_saves(running)}" if running else ""
        answer = ""
        match asked.action:
            case "pause":
                if self.paused:
                    answer = "it is paused already"
                else:
                    self._steering.paused = True
                    workers.interrupt(scheduler.running)
                    answer = f"paused{saving}; mm1 resume {self._plan.study} goes on"
            case "resume":
                answer = "it goes on" if self.paused else "it is not paused"
                self._steering.paused = False
            case "cancel":
                self.cancelled_by = asked.by
                answer = f"cancelled{saving}; what was finished is kept, mm1 run goes on with it"
            case "take up":
                self.taken_up_by = asked.by
                answer = f"what was added is taken up{saving}"
            case "leave out":
                answer = self._leave_out(asked, scheduler, workers)
        self._told.say(f"{asked.by} asks to {asked.action}: {answer}")
        self._publisher.answers[name] = answer
        self._publisher.again(self.state(scheduler, stopping=self.ends))

    def _leave_out(self, asked: Asked, scheduler: Scheduler, workers: _Workers) -> str:
        """Cancel trials; the stages that only they need are not run (further)."""
        planned = self._planned
        done = {
            place
            for place, trial in planned.items()
            if all(scheduler.state[one] == "done" for one in trial.stages.values())
        }
        new = [one for one in asked.trials if one in planned]
        new = [one for one in new if one not in done and one not in self.cancelled]
        if not new:
            return "nothing of that is left to run"
        self.cancelled.update(new)
        self._out = self._needed_by_none()
        workers.interrupt(
            worker for worker, stage in scheduler.running.items() if stage in self._out
        )
        self._record(new, asked.by, asked.at)
        return f"{told_trials(new)} {'is' if len(new) == 1 else 'are'} not run further"

    def _needed_by_none(self) -> set[str]:
        """Stages that only cancelled trials have."""
        if not self.cancelled:
            return set()
        stages = {True: set[str](), False: set[str]()}
        for place, trial in self._planned.items():
            stages[place in self.cancelled].update(trial.stages.values())
        return stages[True] - stages[False]

    def _record(self, trials: Iterable[tuple[str, int]], by: str, at: str) -> None:
        record = Cancelled(trials=tuple(trials), by=by, at=at, token=self._publisher.token)
        self._store.record_cancelled(self._plan, record)

    def _compare_file(self) -> None:
        """Say it once where the study's file is not what runs."""
        try:
            changed = Path(self._plan.path).read_text(encoding="utf-8") != self._plan.source
        except (OSError, ValueError):  # of another machine, or gone
            return
        if changed:
            line = (
                f"{self._plan.path} has changed since this run began; what runs is the study as it "
                f"was registered (mm1 add {self._plan.path} takes up what was added)"
            )
            if line not in self._publisher.notes:
                self._publisher.notes[line] = None
                self._told.warn(line)

    def end(self) -> None:
        """Forget what was asked of this run, and of any before it."""
        with contextlib.suppress(OSError, UserError):
            self._objects.remove(self._folder)


def _stages(count: int) -> str:
    return "stage" if count == 1 else "stages"


def _saves(count: int) -> str:
    return "saves itself" if count == 1 else "save themselves"


def told_trials(trials: Collection[tuple[str, int]]) -> str:
    """`base seed 1, base seed 2 and 3 more`."""
    named = [f"{arm} seed {seed}" for arm, seed in list(trials)[:5]]
    return ", ".join(named) + (f" and {len(trials) - 5} more" if len(trials) > 5 else "")


def who() -> str:
    """Who asks: user@host."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a number without a name
        return f"somebody@{socket.gethostname()}"


def ask(
    objects: Objects,
    study: str,
    action: Action,
    trials: Iterable[tuple[str, int]] = (),
    *,
    seconds: float = ANSWER_SECONDS,
) -> str:
    """Ask something of the driver that runs a study, and wait for its answer, in words.

    Raises:
        UserError: nobody runs it, or nobody answers within some seconds.
    """
    holder = driver(objects, study)
    if holder is None:
        raise UserError(f"study {study!r} is not being run by anybody; see mm1 status")
    token = token_of(holder)
    asked = Asked(action=action, trials=tuple(trials), by=who(), at=utc_now())
    # In the order of the asker's clock; two askers at once come in either order.
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
    objects.create(f"{folder(study)}/asked/{token}/{name}", sealed(asked))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        live = read_live(objects, study)
        if live is not None and live.token == token and name in live.answers:
            return live.answers[name]
        if token_of(driver(objects, study)) != token:
            raise UserError(f"the run of study {study!r} ended before it heard that")
        time.sleep(0.25)
    raise UserError(
        f"process {holder['pid']} on {holder['host']}, which runs {study!r}, has not answered for "
        f"{seconds:.0f} s; it may still do what was asked (mm1 watch {study})"
    )
