"""Decisions a second of the scheduler, and how good they are, with simulated workers.

    .venv/bin/python benchmarks/scheduling.py [--workers 1000] [--stages 100000]

No Ray and no waiting: events of a heap instead of processes. A trial is two shared pre-trainings,
a training and two evaluations; a stage takes its planned time, a third more or less, and a
compilation where its worker has not compiled the class. Goals: 5,000 decisions a second, and time
that grows with the stages and not with their square (exponent about 1), nor with the workers.

The peer is a list scheduler, which gives the first ready stage, in the same order, to whoever is
free; below both is the least that any could need: all work without compilation, shared evenly.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from types import SimpleNamespace
from typing import Any

from ablations.stages import Stage
from ablations.workload import Work
from sweeps.scheduler import COMPILE_SECONDS, Scheduler

SEED = 7


def simulated(name: str, seed: int, inputs: dict[str, str], compiled: str, seconds: float) -> Stage:
    """A stage that is never run."""
    work = Work(
        kind=compiled,
        run="",
        config={},
        decides="",
        compile_class=compiled,
        seconds=seconds,
        compile_seconds=COMPILE_SECONDS,
    )
    return Stage(name, work, seed, inputs)


def a_study(stages: int, seeds: int = 10, classes: int = 40, scale: float = 1.0) -> Any:
    """A plan of about so many stages; `scale` lengthens all of them."""
    draw = random.Random(SEED)
    arms = [
        (f"arm {number}", f"M{draw.randrange(classes)}", scale * draw.choice([10.0, 20.0, 60.0]))
        for number in range(math.ceil(stages / (3 * seeds)))
    ]
    made: list[Stage] = []
    for seed in range(seeds):
        for number, (name, compiled, seconds) in enumerate(arms):
            if number % 20 == 0:  # shared by the next twenty arms
                parts = {
                    part: simulated(f"{name} {seed} {part}", seed, {}, part, scale * 15.0)
                    for part in ("encoder", "language model")
                }
                made += parts.values()
            inputs = {part: stage.id for part, stage in parts.items()}
            train = simulated(f"{name} {seed} train", seed, inputs, compiled, seconds)
            made.append(train)
            made += (
                simulated(
                    f"{train.id} {task}",
                    seed,
                    {"model": train.id},
                    f"{compiled} {task}",
                    scale * 4.0,
                )
                for task in ("a", "b")
            )
    return SimpleNamespace(stages={one.id: one for one in made[:stages]}, seeds=range(seeds))


class ListScheduler:
    """The first ready stage for whoever asks."""

    def __init__(self, plan: Any, keys: dict[str, Any]):
        self._stages, self._keys = plan.stages, keys
        self._lacking = {one.id: len(set(one.inputs.values())) for one in plan.stages.values()}
        self._dependents: dict[str, list[str]] = {one: [] for one in plan.stages}
        for stage in plan.stages.values():
            for source in set(stage.inputs.values()):
                self._dependents[source].append(stage.id)
        self._ready: list[Any] = []
        for one, lacking in self._lacking.items():
            if not lacking:
                heappush(self._ready, keys[one])

    def next(self, worker: str, now: float) -> str | None:
        """Any worker is as good as another."""
        return heappop(self._ready)[2] if self._ready else None

    def finished(self, stage_id: str, seconds: float | None = None) -> None:
        """Its dependents may be ready."""
        for one in self._dependents[stage_id]:
            self._lacking[one] -= 1
            if not self._lacking[one]:
                heappush(self._ready, self._keys[one])


def simulate(scheduler: Any, plan: Any, workers: list[str]) -> tuple[float, int]:
    """When everything is done, and how often the scheduler was asked."""
    draw = random.Random(SEED)
    takes = {one.id: one.seconds * draw.uniform(0.67, 1.33) for one in plan.stages.values()}
    compiled: set[tuple[str, str]] = set()
    ends: list[tuple[float, str, str, float]] = []
    idle, now, asked = dict.fromkeys(workers), 0.0, 0
    left = len(plan.stages)
    while left:
        for worker in list(idle):
            stage_id = scheduler.next(worker, now)
            asked += 1
            if stage_id is not None:
                del idle[worker]
                stage = plan.stages[stage_id]
                place = worker, stage.compile_class
                compiling = 0.0 if place in compiled else stage.compile_seconds
                compiled.add(place)
                end = now + compiling + takes[stage_id]
                heappush(ends, (end, worker, stage_id, takes[stage_id]))
        now = ends[0][0]
        while ends and ends[0][0] <= now + 0.05:  # as a driver takes in what has arrived
            _, worker, stage_id, seconds = heappop(ends)
            scheduler.finished(stage_id, seconds)
            idle[worker] = None
            left -= 1
    return now, asked


@dataclass(frozen=True)
class Measured:
    """One study on so many workers."""

    stages: int
    workers: int
    setting_up: float  # seconds of the processor
    deciding: float
    asked: int
    makespan: float
    peer: float
    least: float


def measure(stages: int, workers: int) -> Measured:
    """Both schedulers on the same study."""
    plan = a_study(stages)
    names = [f"worker {number}" for number in range(workers)]
    started = time.process_time()
    scheduler = Scheduler(plan, (), names)
    made = time.process_time()
    makespan, asked = simulate(scheduler, plan, names)
    ended = time.process_time()
    peer, _ = simulate(ListScheduler(plan, scheduler._keys), plan, names)
    least = sum(one.seconds for one in plan.stages.values()) / workers
    return Measured(
        len(plan.stages), workers, made - started, ended - made, asked, makespan, peer, least
    )


def exponent(few: Measured, many: Measured, size: Callable[[Measured], int]) -> float:
    """Of the time of a decision's stage as a power of a size."""
    return math.log(many.deciding / few.deciding) / math.log(size(many) / size(few))


def lines(found: Measured) -> Iterator[str]:
    """What was measured."""
    yield (
        f"{found.stages:7,} stages, {found.workers:5,} workers: set up {found.setting_up:5.2f} s, "
        f"{found.stages / found.deciding:7,.0f} stages/s ({found.asked / found.deciding:8,.0f} "
        f"questions/s), makespan {found.makespan:8,.0f} s; list scheduler {found.peer:8,.0f} s; "
        f"at least {found.least:8,.0f} s"
    )


def estimate_seconds(stages: int, workers: int) -> float:
    """Of one estimate of the remaining time in the middle of a study."""
    plan = a_study(stages)
    names = [f"worker {number}" for number in range(workers)]
    scheduler = Scheduler(plan, (), names)
    for number in range(min(stages, 3 * workers)):
        worker = names[number % workers]
        stage_id = scheduler.next(worker, float(number))
        if stage_id is not None:
            scheduler.finished(stage_id, 1.0)
    started = time.process_time()
    scheduler.remaining_seconds(float(stages))
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--stages", type=int, default=100_000)
    given = parser.parse_args()
    sizes = [
        (given.stages, given.workers),
        (given.stages // 10, given.workers),
        (given.stages, given.workers // 10),
        (given.stages, 2),
    ]
    found = [measure(stages, workers) for stages, workers in sizes]
    for one in found:
        print(*lines(one), sep="\n")
    whole, fewer_stages, fewer_workers, _ = found
    print(f"time by stages: exponent {exponent(fewer_stages, whole, lambda m: m.stages):.2f}")
    print(f"time by workers: exponent {exponent(fewer_workers, whole, lambda m: m.workers):.2f}")
    for stages in (given.stages, 5_000):
        seconds = estimate_seconds(stages, given.workers)
        print(f"one estimate of the remaining time, {stages:,} stages: {1000 * seconds:.1f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"processor {time.process_time():.1f} s in all, peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
