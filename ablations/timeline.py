"""What a stage spends its time on, as the code that runs says it.

    with doing("data"):          what is done here, until the next one says otherwise
        ...
    @doing("evaluation")         the same of a whole function; of what it gives one after the
    def answers(…): …            other (an iterator), each

A stage's clock keeps seconds by kind in a few stretches, however many steps there are. Outside of a
stage, and in its other threads, saying it does nothing. It decides no result and is no part of a
stage's code (`ablations.source_code`), so that to say more of a training runs nothing anew.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any, Literal, ParamSpec, TypeVar, cast, get_args

from ablations.errors import UserError, nearest

# start       processes, imports, first weights, and what was trained before
# data        waiting for it
# compile     tracing, compiling, or loading what was compiled
# steps       of a training
# evaluation  batches that a model answers or scores
# save        checkpoints, and the record in the store
# run         within a runner that does not say what it does: a command, a function, scoring answers
Kind = Literal["start", "data", "compile", "steps", "evaluation", "save", "run"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SLOTS = 64  # in which a stage's time is kept; they grow twice as long when it outgrows them
FIRST_SLOT_SECONDS = 0.125

Stretch = dict[str, float]  # kind → seconds of it, in a part of a stage's time; their order is lost
Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class StageClock:
    """The seconds of one stage by kind, from when it is made; for the thread that runs it."""

    def __init__(self, kind: Kind, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._kinds = [kind]  # what is being done, within what
        self._began = self._since = clock()
        self._within: list[tuple[Kind, float, float]] = []  # of the time since `_since`, apart
        self._slot_seconds = FIRST_SLOT_SECONDS
        self._slots: list[Stretch] = []

    def enter(self, kind: Kind) -> int:
        """From now on it is `kind`; what `leave` takes."""
        self._pass()
        self._kinds.append(kind)
        return len(self._kinds) - 1

    def leave(self, depth: int) -> None:
        """From now on it is again what it was before `enter` gave this number."""
        self._pass()
        del self._kinds[max(1, depth) :]

    def did(self, kind: Kind, seconds: float) -> None:
        """The last so many seconds were of another kind than was said; they may nest."""
        end = self._clock()
        start = max(self._since, end - seconds)
        while self._within and self._within[-1][2] > start:
            start = min(start, self._within.pop()[1])
        self._within.append((kind, start, end))

    def stretches(self) -> list[Stretch]:
        """What the time until now went into, in order: parts in which one kind is the longest."""
        self._pass()
        merged: list[Stretch] = []
        for slot in self._slots:
            if merged and _longest(merged[-1]) == _longest(slot):
                _put(merged[-1], slot)
            elif slot:
                merged.append(dict(slot))
        return [{kind: round(seconds, 6) for kind, seconds in one.items()} for one in merged]

    def _pass(self) -> None:
        """Write down what the time since the last call went into."""
        now, at = self._clock(), self._since
        for kind, start, end in self._within:
            self._add(self._kinds[-1], at, start)
            self._add(kind, start, end)
            at = end
        self._within.clear()
        self._add(self._kinds[-1], at, now)
        self._since = now

    def _add(self, kind: Kind, start: float, end: float) -> None:
        start, end = start - self._began, end - self._began
        while end > SLOTS * self._slot_seconds:
            self._slot_seconds *= 2
            for place, later in enumerate(self._slots[1::2]):
                _put(self._slots[2 * place], later)
            del self._slots[1::2]
        while start < end:
            slot = int(start / self._slot_seconds)
            until = min(end, (slot + 1) * self._slot_seconds)
            if until <= start:  # what is left is less than a float of this size can tell
                return
            while len(self._slots) <= slot:
                self._slots.append({})
            self._slots[slot][kind] = self._slots[slot].get(kind, 0.0) + until - start
            start = until


def _longest(stretch: Stretch) -> str:
    return max(stretch, key=lambda kind: stretch[kind], default="")


def _put(into: Stretch, more: Stretch) -> None:
    for kind, seconds in more.items():
        into[kind] = into.get(kind, 0.0) + seconds


# Other threads begin without it: what they do is not what the stage waits for.
_current: ContextVar[StageClock | None] = ContextVar("clock of the stage that runs", default=None)


@contextlib.contextmanager
def stage_clock() -> Generator[StageClock]:
    """The clock of a stage that begins now, which `doing` and `did` tell."""
    clock = StageClock("start")
    token = _current.set(clock)
    try:
        yield clock
    finally:
        _current.reset(token)


def did(kind: Kind, seconds: float) -> None:
    """What is known only when it is over: the last so many seconds were of this kind."""
    clock = _current.get()
    if clock is not None:
        clock.did(kind, seconds)


def doing(kind: Kind) -> _Doing:
    """What a block, or all calls of a function, spend their time on. Not around a `yield`.

    Raises:
        UserError: there is no such kind.
    """
    if kind not in KINDS:
        raise UserError(f"nothing is timed as {kind!r}{nearest(kind, KINDS)}")
    return _Doing(kind)


class _Doing:
    def __init__(self, kind: Kind):
        self._kind = kind
        self._clock: StageClock | None = None
        self._depth = 0

    def __enter__(self) -> None:
        self._clock = _current.get()
        if self._clock is not None:
            self._depth = self._clock.enter(self._kind)

    def __exit__(self, *_: object) -> None:
        if self._clock is not None:
            self._clock.leave(self._depth)

    def __call__(self, function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
        kind = self._kind

        @functools.wraps(function)
        def timed(*arguments: Arguments.args, **named: Arguments.kwargs) -> Returned:
            with _Doing(kind):
                returned = function(*arguments, **named)
            if isinstance(returned, Iterator):
                return cast("Returned", _Each(kind, returned))
            return returned

        return timed


class _Each:
    """An iterator, each of whose items is waited for under a kind."""

    def __init__(self, kind: Kind, items: Iterator[Any]):
        self._kind, self._items = kind, items

    def __iter__(self) -> _Each:
        return self

    def __next__(self) -> Any:
        with _Doing(self._kind):
            return next(self._items)
