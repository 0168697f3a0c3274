"""A stage's clock: seconds by kind, all of them, in few stretches."""

from __future__ import annotations

import threading

import pytest

from ablations import timeline
from ablations.errors import UserError
from ablations.timeline import SLOTS, StageClock, did, doing, stage_clock


class Time:
    """A clock that is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def spent(clock):
    total: dict[str, float] = {}
    for stretch in clock.stretches():
        for kind, seconds in stretch.items():
            total[kind] = total.get(kind, 0.0) + seconds
    return {kind: pytest.approx(seconds, abs=1e-4) for kind, seconds in total.items()}


@pytest.fixture
def clock():
    time = Time()
    clock = StageClock("start", time)

    def passes(seconds):
        time.now += seconds

    return clock, passes


def test_what_is_within_something_else_is_its_own(clock):
    clock, passes = clock
    passes(1)
    steps = clock.enter("steps")
    passes(2)
    data = clock.enter("data")
    passes(0.5)
    clock.leave(data)
    passes(3)
    clock.leave(steps)
    passes(0.25)
    assert spent(clock) == {"start": 1.25, "steps": 5, "data": 0.5}
    kinds = [next(iter(one)) for one in clock.stretches()]
    assert kinds == ["start", "steps", "data", "steps", "start"]


def test_what_is_known_afterwards_is_counted_once_however_it_nests(clock):
    clock, passes = clock
    clock.enter("steps")
    passes(1)
    passes(1)
    clock.did("compile", 0.5)  # an inner one
    passes(1)
    clock.did("compile", 0.25)  # another
    passes(0.25)
    clock.did("compile", 2.25)  # around both
    passes(4)
    clock.did("compile", 1)
    passes(0.5)
    assert spent(clock) == {"steps": 1 + 3 + 0.5, "compile": 3.25}
    clock.did("compile", 1_000.0)  # no more than since the last mark
    passes(1)
    assert spent(clock) == {"steps": 5.5, "compile": 3.25}


def test_a_million_steps_are_few_stretches_and_every_second_of_them(clock):
    clock, passes = clock
    steps = clock.enter("steps")
    for _ in range(20_000):
        data = clock.enter("data")
        passes(0.001)
        clock.leave(data)
        passes(0.4)
    clock.leave(steps)
    saving = clock.enter("save")
    passes(900)
    clock.leave(saving)
    assert spent(clock) == {"steps": 8_000, "data": 20, "save": 900}
    kinds = [max(one, key=lambda kind: one[kind]) for one in clock.stretches()]
    assert kinds == ["steps", "save"]
    for number in range(1_000):
        depth = clock.enter("steps" if number % 2 else "data")
        passes(40)
        clock.leave(depth)
    assert len(clock.stretches()) <= SLOTS


def test_blocks_functions_and_iterators_say_what_they_do():
    @doing("evaluation")
    def answers():
        return threading.get_ident()

    @doing("data")
    def batches():
        yield from (1, 2)

    with stage_clock() as clock:
        with doing("steps"):
            assert answers() == threading.get_ident()
            assert list(batches()) == [1, 2]
            with pytest.raises(ZeroDivisionError), doing("save"):
                _ = 1 / 0
            did("compile", 0.0)
        other = threading.Thread(target=answers)  # whose work the stage may not wait for
        other.start()
        other.join()
    kinds = {kind for stretch in clock.stretches() for kind in stretch}
    assert kinds == {"start", "steps", "evaluation", "data", "save"}


def test_outside_of_a_stage_it_does_nothing():
    with doing("data"):
        did("compile", 1.0)
    assert timeline._current.get() is None


def test_a_kind_that_there_is_not_names_the_nearest():
    with pytest.raises(UserError, match=r"'step'.*steps"):
        doing("step")  # ty: ignore[invalid-argument-type]
