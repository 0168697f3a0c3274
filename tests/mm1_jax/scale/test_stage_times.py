"""Compilation and imports are measured apart from the work."""

from __future__ import annotations

import numpy as np
import pytest

from mm1_jax import runner
from mm1_jax.scale import stage_times
from mm1_jax.scale.stage_times import Intervals, timed
from mm1_jax.stage_kinds import KINDS


def test_what_nests_and_overlaps_is_counted_once():
    intervals = Intervals()
    for start, end in ((1, 2), (1.5, 1.75), (0.5, 3), (10, 11), (10.5, 12)):
        intervals.add(start, end)
    assert intervals.seconds() == 2.5 + 2


@pytest.mark.parametrize("seed", range(5))
def test_seconds_are_those_of_every_moment_looked_at_apart(seed):
    draws = np.random.default_rng(seed)
    intervals, went_on = Intervals(), np.zeros(200, bool)
    for _ in range(40):
        start = int(draws.integers(0, 190))
        end = start + int(draws.integers(1, 10))
        intervals.add(start, end)
        went_on[start:end] = True
        assert intervals.seconds() == went_on.sum()


def test_a_process_that_compiles_for_long_takes_no_longer_to_note_it():
    """A worker that has run for days must note its next program as quickly as its first."""
    asked = 0

    class Moment(float):
        __hash__ = float.__hash__

    def counted(name):
        def compare(self, other):
            nonlocal asked
            asked += 1
            return getattr(float, name)(self, other)

        return compare

    for name in ("__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"):
        setattr(Moment, name, counted(name))
    intervals = Intervals()
    for number in range(2000):
        intervals.add(Moment(number), Moment(number + 0.5))
    assert 1999 <= asked < 4 * 2000


class Recorder:
    gang = None

    def __init__(self):
        self.facts = {}

    def record(self, facts):
        self.facts |= facts


def test_what_jax_compiles_is_recorded_and_what_is_compiled_already_costs_nothing():
    import jax
    import jax.numpy as jnp

    @jax.jit
    def step(x):
        return jnp.sin(x) @ x

    @timed("ablations.stage")
    def run(config, seed, inputs, context):
        step(jnp.ones((3, 3))).block_until_ready()
        return []

    first, second = Recorder(), Recorder()
    for recorder in (first, second):
        assert run({}, 1, {}, recorder) == []
    assert first.facts["compilation_seconds"] > second.facts["compilation_seconds"] >= 0
    assert set(first.facts) == {
        *("import_seconds", "compilation_seconds"),
        *("device_kind", "device_count", "processor", "pool_threads", "xla_flags", "libraries"),
    }
    assert stage_times._compiling is not None


def test_every_runner_of_ours_tells_what_it_ran_on():
    for kind in KINDS.values():
        run = getattr(runner, kind.run.partition(":")[2])
        assert run.__wrapped__.__module__ == runner.__name__, f"{kind.run} is not timed"
