"""Several studies on one cluster: each gets its share, by priority, of what it can use.

A driver writes on a board what its study holds and could use, and reads what the others wrote; the
board is an actor of the cluster that only keeps it. What follows each driver works out for itself,
by the same pure function: shares are of the resource that a study takes most of (dominant
resource fairness: Ghodsi et al., NSDI 2011), weighted by priority, and what one cannot use goes to
the others. As long as nobody waits, everybody takes what is free. When one waits, those that hold
more than their share give workers back as these become idle: nothing that runs is stopped for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ablations.resources import Shape
from sweeps.offer import ROUNDING, Node, wanted

if TYPE_CHECKING:
    from ablations.plan import Plan
    from sweeps.ray_session import RaySession
    from sweeps.store import Store

BOARD = "mm1-studies"
NAMESPACE = "mm1"
TELL_SECONDS = 2.0
SILENT_SECONDS = 60.0  # of a driver, after which it is taken for gone


@dataclass(frozen=True)
class Standing:
    """What one study says of itself; parts are of the whole cluster, from 0 to 1."""

    priority: float
    holds: float
    usable: float  # what it would hold if there were room for all that could begin
    waits: bool  # for room, for something that could begin


def shares(standings: Mapping[str, Standing]) -> dict[str, float]:
    """Each study's share of the cluster, by weighted max-min fairness."""
    left, open_, found = 1.0, dict(standings), {}
    while open_:
        unit = left / sum(one.priority for one in open_.values())
        modest = {n: one for n, one in open_.items() if one.usable <= unit * one.priority}
        if not modest:
            return found | {name: unit * one.priority for name, one in open_.items()}
        for name, one in modest.items():
            found[name] = one.usable
            left -= one.usable
            del open_[name]
    return found


def limit(own: str, standings: Mapping[str, Standing]) -> float:
    """What a study may hold, given what all say; no limit while no other waits below its share."""
    due = shares(standings)
    waiting = any(
        one.waits and one.holds + ROUNDING < due[name]
        for name, one in standings.items()
        if name != own
    )
    return due[own] if waiting else float("inf")


def part(shape: Shape, nodes: Sequence[Node]) -> float:
    """What a worker holds of a cluster: its part of the resource that it takes most of."""
    total = {name: sum(node.has.get(name, 0.0) for node in nodes) for name in wanted(shape)}
    return max(
        min(1.0, shape.hosts * amount / total[name]) if total[name] else 1.0  # its node is gone
        for name, amount in wanted(shape).items()
    )


class Board:
    """An actor: what each driver said last, by name; of those that are heard of."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}

    def tell(self, name: str, standing: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
        """Note what one says, None when it leaves; what all say. Plain values, so that drivers of
        other versions read them too."""
        now = time.monotonic()
        self._said.pop(name, None)
        if standing is not None:
            self._said[name] = now, standing
        self._said = {n: one for n, one in self._said.items() if now - one[0] < SILENT_SECONDS}
        return {one: said for one, (_, said) in self._said.items()}

    def close(self) -> None:
        """End where nobody is left."""
        if not self._said:
            from ray.actor import exit_actor

            exit_actor()


class Sharing:
    """One study's place on the board of a cluster.

    The board is asked without waiting for it: where it does not answer, as when it has just been
    lost with its node, nobody else is known of until it is there again.
    """

    def __init__(self, name: str, priority: float):
        self._name, self._priority = name, priority
        self._told = -float("inf")
        self._board: Any = None
        self._answer: Any = None
        self._others: dict[str, Standing] = {}

    def limit(self, holds: float, usable: float, waits: bool, now: float) -> float:
        """What the study may hold of the cluster; to be called often."""
        own = Standing(self._priority, holds, usable, waits)
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._listen()
            self._tell(asdict(own))
        return limit(self._name, {**self._others, self._name: own})

    def leave(self) -> None:
        """Take the study from the board."""
        if self._board is not None:
            self._tell(None)
        if self._board is not None:
            self._board.close.remote()

    def _tell(self, standing: dict[str, Any] | None) -> None:
        import ray

        try:
            if self._board is None:
                made: Any = ray.remote(num_cpus=0, max_restarts=-1)(Board).options(
                    name=BOARD, namespace=NAMESPACE, get_if_exists=True, lifetime="detached"
                )
                self._board = made.remote()
            self._answer = self._board.tell.remote(self._name, standing)
        except Exception:  # it is gone, or Ray is, which the session's own check tells
            self._board = self._answer = None

    def _listen(self) -> None:
        """Take in what the board answered, if it did."""
        import ray
        from ray.exceptions import RayError

        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return
        try:
            said = ray.get(self._answer)
        except RayError:
            self._board, said = None, {}
        self._others = {
            name: Standing(**{key: one[key] for key in _KEYS})
            for name, one in said.items()
            if name != self._name and one.keys() >= _KEYS
        }


@contextlib.contextmanager
def shared(
    session: RaySession, store: Store, plan: Plan, priority: float
) -> Generator[Sharing | None]:
    """A study's place on the board while it runs; None on a Ray that is its own alone."""
    if session.embedded:
        yield None
        return
    sharing = Sharing(f"{store.root} {plan.study}", priority)
    try:
        yield sharing
    finally:
        sharing.leave()


_KEYS = Standing.__dataclass_fields__.keys()
