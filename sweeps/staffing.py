"""How many workers of each crew: what the cluster has room for, and what is left to do.

Pure: the same calls, the same answers. A crew with more ready stages than idle workers gets one
first, the crew that has most to do for each of its workers before the others; room that is left
goes to crews whose stages are still waiting for something. Where there is no room for a crew that
could begin, idle workers of crews that could not are ended to make it. Nothing that runs is, nor
for another study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ablations.resources import Shape
from sweeps.offer import ROUNDING, Amounts, place, taken, wanted


@dataclass
class Staff:
    """One crew: its workers, and what there is for them to do."""

    shape: Shape
    ready: int  # stages that could begin
    open: int  # stages that are not done, those that run included
    planned: float  # seconds, of what nobody is at
    workers: int  # those that are coming included
    idle: dict[str, tuple[str, ...]]  # worker that could take a stage, now or soon → its nodes
    part: float = 0.0  # of the whole cluster, that one worker holds


@dataclass
class Changes:
    """What is to be done, in this order."""

    ends: list[str] = field(default_factory=list)  # workers
    starts: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)  # crew, nodes

    def __bool__(self) -> bool:
        return bool(self.ends or self.starts)


def staffed(
    crews: Mapping[str, Staff],
    free: Mapping[str, Amounts],
    most: int | None = None,
    share: float = math.inf,
) -> Changes:
    """Which workers to start and to end now.

    `most` is how many there may be of all crews; none is started where they hold `share` of the
    cluster (`sweeps.sharing`), and idle ones of those that hold more are ended.
    """
    changes = Changes()
    count = {name: crew.workers for name, crew in crews.items()}
    spare = {name: dict(crew.idle) for name, crew in crews.items()}  # not ended yet
    coming = dict.fromkeys(crews, 0)

    def held() -> float:
        return sum(crews[name].part * number for name, number in count.items())

    for name, crew in crews.items():
        for worker in crew.idle:
            if held() - crew.part + ROUNDING >= share:
                del spare[name][worker]
                count[name] -= 1
                changes.ends.append(worker)
                free = taken(free, crew.idle[worker], _given(crew.shape))

    def unmet(name: str) -> bool:
        crew = crews[name]
        return crew.ready > len(spare[name]) + coming[name]

    def to_do(name: str) -> tuple[bool, float, str]:
        return not unmet(name), -crews[name].planned / (count[name] + 1), name

    while True:
        hungry = [name for name in crews if crews[name].open > count[name] or unmet(name)]
        for name in sorted(hungry, key=to_do):
            full = most is not None and sum(count.values()) >= most
            full = full or held() + ROUNDING >= share
            nodes = None if full else place(crews[name].shape, free)
            if nodes is None and unmet(name):
                released = _release(name, crews, spare, free)
                if released is not None:
                    ended, free, nodes = released
                    for worker, owner in ended.items():
                        del spare[owner][worker]
                        count[owner] -= 1
                        changes.ends.append(worker)
            if nodes is not None:
                free = taken(free, nodes, wanted(crews[name].shape))
                changes.starts.append((name, tuple(nodes)))
                count[name] += 1
                coming[name] += 1
                break
        else:
            return changes


def _release(
    name: str,
    crews: Mapping[str, Staff],
    spare: Mapping[str, Mapping[str, tuple[str, ...]]],
    free: Mapping[str, Amounts],
) -> tuple[dict[str, str], Mapping[str, Amounts], list[str]] | None:
    """Idle workers of others, of which there is nothing ready, that make room for one of a crew.

    Those of the crew that has least to do first. With what is then free, and the nodes to take.
    """
    ended: dict[str, str] = {}
    room = free
    others = [one for one in crews if one != name and not crews[one].ready]
    for other in sorted(others, key=lambda one: (crews[one].planned, one)):
        for worker, nodes in spare[other].items():
            room = taken(room, nodes, _given(crews[other].shape))
            ended[worker] = other
            found = place(crews[name].shape, room)
            if found is not None:  # those on other nodes may stay
                there = {
                    one: owner
                    for one, owner in ended.items()
                    if one == worker or not set(found).isdisjoint(spare[owner][one])
                }
                for one, owner in there.items():
                    free = taken(free, spare[owner][one], _given(crews[owner].shape))
                return there, free, found
    return None


def _given(shape: Shape) -> dict[str, float]:
    """What a worker that is ended gives back to each of its nodes."""
    return {name: -amount for name, amount in wanted(shape).items()}
