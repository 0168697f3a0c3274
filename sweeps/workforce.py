"""Starts and ends workers while a run goes on, so that each crew has as many as it can use.

`sweeps.staffing` decides; here it is told what there is, and what it says is done.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ablations.errors import UserError
from ablations.machine import Machine
from ablations.placement import shape_of
from ablations.plan import Plan
from ablations.resources import Shape
from sweeps import offer
from sweeps.crews import Crews, crews_of
from sweeps.offer import ROUNDING, Amounts, Node
from sweeps.pool import Pool
from sweeps.scheduler import Scheduler
from sweeps.sharing import Sharing, part
from sweeps.staffing import Changes, Staff, staffed

LOOK_SECONDS = 1.0  # how often is looked whether workers are to be started or ended
NODES_SECONDS = 5.0  # how often a cluster is asked what it has, and what others hold of it
COME_SECONDS = 30.0  # for a worker to be there, before another one is started in its place
QUIET_SECONDS = 10.0  # without any worker, before somebody is told what is waited for


@dataclass(frozen=True)
class Needs:
    """What the stages of a run that are missing need, and what there is."""

    crews: Crews
    nodes: Sequence[Node]


def needs_of(
    plan: Plan,
    done: set[str],
    machine: Machine | None,
    workers: int | None,
    nodes: Sequence[Node],
) -> Needs:
    """What a run needs of the nodes of a cluster.

    Raises:
        UserError: a stage needs more than there is, or there are to be more workers than fit.
    """
    site = offer.site_of(nodes, machine)
    crews = crews_of(plan, done, lambda one: shape_of(one.work.resources, site, one.label))
    offer.refuse_impossible(crews.examples, nodes)
    shapes = list(crews.shapes.values())
    if workers and all(offer.most_workers(one, nodes, workers) < workers for one in shapes):
        _refuse_many(workers, shapes, nodes)
    return Needs(crews, nodes)


def _parts(shapes: Mapping[str, Shape], nodes: Sequence[Node]) -> dict[str, float]:
    return {crew: part(shape, nodes) if nodes else 0.0 for crew, shape in shapes.items()}


def _refuse_many(workers: int, shapes: list[Shape], nodes: Sequence[Node]) -> None:
    most = max(offer.most_workers(shape, nodes) for shape in shapes)
    held = " or ".join(dict.fromkeys(map(str, shapes)))
    raise UserError(
        f"{workers} workers do not fit, {most} do: each holds {held}; the cluster has "
        f"{offer.in_words(nodes)}"
    )


class Workforce:
    """The workers of a run, by crew.

    `most` is how many there may be at once; `joined` is told of those that were started, with the
    cores that each has. `sharing` says what is due to other studies of the cluster.
    """

    def __init__(
        self,
        needs: Needs,
        pool: Pool,
        scheduler: Scheduler,
        most: int | None,
        joined: Callable[[Mapping[str, float]], None],
        sharing: Sharing | None = None,
    ):
        self._joined, self._sharing = joined, sharing
        self._shapes, self._nodes = needs.crews.shapes, needs.nodes
        self._pool, self._scheduler, self._most = pool, scheduler, most
        self._crew: dict[str, str] = {}  # worker → its crew
        self._count = 0
        self._looked = self._asked = self._changed = -float("inf")
        self._foreign: Mapping[str, Amounts] = {}  # node → what others hold of it
        self._alone_since: float | None = None
        self._parts = _parts(self._shapes, self._nodes)  # crew → what of the cluster a worker holds
        self._waits = False  # for room, though something could begin
        self._share = math.inf  # of the cluster, that may be held while others wait

    def adjust(self, now: float) -> str | None:
        """Start and end workers where that is due; to be called often.

        What to tell somebody who waits for room, once.
        """
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        crews = {name: self._staff(name) for name in self._shapes}
        if self._sharing is not None:
            self._share = self._shared(self._sharing, crews, now)
        over = self.holds > self._share
        wanting = any(crew.open > crew.workers for crew in crews.values())
        if not over and not wanting and not self._pool.coming:
            self._waits = False
            return None
        if self._ask(now) and (homeless := self._homeless()):
            self._carry_out(Changes(ends=homeless), now)
            crews = {name: self._staff(name) for name in self._shapes}
        changes = staffed(crews, self._free(), self._most, self._share)
        self._carry_out(changes, now)
        coming = Counter(crew for crew, _ in changes.starts)
        full = self._most is not None and len(self._crew) >= self._most
        self._waits = not full and any(
            crew.ready > len(crew.idle) + coming[name] for name, crew in crews.items()
        )
        return self._waiting(now)

    def keeps(self, worker: str) -> bool:
        """Whether an idle worker may be given a stage; one that another study is due is ended."""
        if self._share == math.inf:  # asked of every stage, and nobody waits for room
            return True
        if self.holds - self._parts[self._crew[worker]] + ROUNDING < self._share:
            return True
        self._carry_out(Changes(ends=[worker]), self._changed)
        return False

    @property
    def holds(self) -> float:
        """The part of the cluster that the workers hold."""
        return sum(self._parts[crew] for crew in self._crew.values())

    def _staff(self, name: str) -> Staff:
        crew = self._scheduler.crews[name]
        able = {one: tuple(self._pool.nodes[one]) for one in crew.workers if self._is_able(one)}
        return Staff(
            shape=self._shapes[name],
            ready=crew.ready,
            open=crew.open,
            planned=crew.planned,
            workers=len(crew.workers),
            idle=able,
            part=self._parts[name],
        )

    def _is_able(self, worker: str) -> bool:
        """Whether a worker may be given a stage now, or soon."""
        if worker in self._pool.idle:
            return True
        since = self._pool.coming.get(worker)
        return since is not None and self._looked - since < COME_SECONDS

    def _homeless(self) -> list[str]:
        """Workers that are not there and have no room where they are to come to, which is taken by
        other workers of this run, or gone with its machine."""
        has = {node.id: node.has for node in self._nodes}
        own, homeless = self._own(), []
        for worker in self._pool.coming:
            nodes = self._pool.nodes[worker]
            if not all(offer.holds(has.get(node, {}), own[node]) for node in nodes):
                homeless.append(worker)
                held = offer.wanted(self._shapes[self._crew[worker]])
                own = offer.taken(own, nodes, held)
        return homeless

    def _shared(self, sharing: Sharing, crews: Mapping[str, Staff], now: float) -> float:
        busy = {name: crew.workers - len(crew.idle) for name, crew in crews.items()}
        usable = sum((busy[name] + crew.ready) * crew.part for name, crew in crews.items())
        if self._most is not None:
            usable = min(usable, self._most * max(crew.part for crew in crews.values()))
        return sharing.limit(self.holds, min(1.0, usable), self._waits, now)

    def _carry_out(self, changes: Changes, now: float) -> None:
        if changes:
            self._changed = now
        for worker in changes.ends:
            self._scheduler.dismiss(worker)
            self._pool.dismiss(worker)
            del self._crew[worker]
        cores: dict[str, float] = {}
        for crew, nodes in changes.starts:
            self._count += 1
            worker = f"worker {self._count}"
            self._crew[worker] = crew
            self._pool.add(worker, self._shapes[crew], nodes)
            self._scheduler.join(worker, crew)
            cores[worker] = self._shapes[crew].cpu * self._shapes[crew].hosts
        if cores:
            self._joined(cores)

    def _ask(self, now: float) -> bool:
        """Look what the cluster has, and what of it others hold; whether that was asked now.

        What Ray says is free lags behind what was just started or ended, so that it is asked only
        when that has settled.
        """
        alone = self._pool.session.embedded
        if alone or now - self._asked < NODES_SECONDS or now - self._changed < NODES_SECONDS:
            return False
        self._asked = now
        self._nodes = offer.offered()
        self._parts = _parts(self._shapes, self._nodes)
        own, free = self._own(), offer.free_now()
        self._foreign = {
            node.id: {
                name: max(0.0, has - free[node.id].get(name, 0.0) - own[node.id].get(name, 0.0))
                for name, has in node.has.items()
            }
            for node in self._nodes
            if node.id in free
        }
        return True

    def _own(self) -> dict[str, dict[str, float]]:
        """Node → what this run holds of it."""
        own: dict[str, dict[str, float]] = {node.id: {} for node in self._nodes}
        for worker, crew in self._crew.items():
            for node in self._pool.nodes[worker]:
                held = own.setdefault(node, {})
                for name, amount in offer.wanted(self._shapes[crew]).items():
                    held[name] = held.get(name, 0.0) + amount
        return own

    def _free(self) -> dict[str, Amounts]:
        own = self._own()
        return {
            node.id: {
                name: has - own[node.id].get(name, 0.0) - self._foreign_at(node.id, name)
                for name, has in node.has.items()
            }
            for node in self._nodes
        }

    def _foreign_at(self, node: str, name: str) -> float:
        return self._foreign.get(node, {}).get(name, 0.0)

    def _waiting(self, now: float) -> str | None:
        if self._crew:
            self._alone_since = None
            return None
        if self._alone_since is None:
            self._alone_since = now
        if self._alone_since == float("inf") or now - self._alone_since < QUIET_SECONDS:
            return None
        self._alone_since = float("inf")
        wanted = " or ".join(self._shapes)
        return f"waiting for room: a worker holds {wanted}; others hold what there is of it"
