"""Which workers there are, and where: what is told of the cluster and of them decides."""

from __future__ import annotations

import math
from types import SimpleNamespace

from noop_stage import a_plan

from ablations.resources import Shape
from sweeps.crews import crews_of
from sweeps.offer import Node
from sweeps.scheduler import Scheduler
from sweeps.workforce import COME_SECONDS, NODES_SECONDS, Needs, Workforce


class NobodysPool:
    """What a workforce asks of its workers, which come when they are told to."""

    def __init__(self, *, embedded=True):
        self.idle, self.coming, self.nodes, self.now = {}, {}, {}, 0.0
        self.session = SimpleNamespace(embedded=embedded)

    def add(self, worker, shape, nodes):
        self.coming[worker], self.nodes[worker] = self.now, nodes

    def come(self, worker, *nodes):
        del self.coming[worker]
        self.idle[worker] = None
        if nodes:
            self.nodes[worker] = nodes

    def dismiss(self, worker):
        self.idle.pop(worker, None)
        self.coming.pop(worker, None)
        del self.nodes[worker]


def test_a_worker_above_the_share_gets_no_further_stage_and_is_ended():
    plan = a_plan("shared", {"base": {}}, seeds=range(8))
    nodes = [Node("n", "", {"CPU": 4.0}, {})]
    crews = crews_of(plan, (), lambda stage: Shape())
    scheduler, pool, due = Scheduler(plan, (), (), crews=crews.of), NobodysPool(), [math.inf]
    sharing = SimpleNamespace(limit=lambda *said: due[0])
    workforce = Workforce(Needs(crews, nodes), pool, scheduler, None, lambda cores: None, sharing)
    workforce.adjust(0.0)
    assert (len(pool.coming), workforce.holds) == (4, 1.0)
    for worker in list(pool.coming):
        pool.come(worker)
    for worker in list(pool.idle):
        assert workforce.keeps(worker)  # nobody waits
        scheduler.next(worker, 0.0)
        del pool.idle[worker]  # it is at work
    due[0] = 0.5
    workforce.adjust(2.0)
    assert workforce.holds == 1.0  # what runs goes on
    pool.idle.update(dict.fromkeys(["worker 1", "worker 2", "worker 3"]))
    assert [workforce.keeps(worker) for worker in list(pool.idle)] == [False, False, True]
    assert (list(pool.idle), workforce.holds) == (["worker 3"], 0.5)


def workforce_on(nodes, monkeypatch, hosts=1):
    """A workforce of one trial, its pool, and what it is told of the cluster, which a test changes.

    Its training is on so many hosts.
    """
    plan = a_plan("coming", {"base": {}}, seeds=(1,))
    trained = plan.trials[0].stages["multimodal"]
    crews = crews_of(plan, (), lambda one: Shape(hosts=hosts if one.id == trained else 1))
    pool, scheduler = NobodysPool(embedded=False), Scheduler(plan, (), (), crews=crews.of)
    told = {"nodes": list(nodes), "free": {node.id: node.has for node in nodes}}
    monkeypatch.setattr("sweeps.offer.offered", lambda: told["nodes"])
    monkeypatch.setattr("sweeps.offer.free_now", lambda: told["free"])
    workforce = Workforce(Needs(crews, nodes), pool, scheduler, None, lambda cores: None)

    def adjust(now):
        pool.now = now
        workforce.adjust(now)

    return adjust, pool, told


def test_a_worker_whose_machine_goes_before_it_is_there_is_started_elsewhere(monkeypatch):
    here, there = (Node(name, "", {"CPU": 1.0}, {}) for name in "ht")
    adjust, pool, told = workforce_on([here], monkeypatch)
    adjust(0.0)
    assert pool.nodes == {"worker 1": ("h",)}  # there is no room for the second stage's yet
    told.update(nodes=[there], free={"t": {"CPU": 1.0}})
    adjust(NODES_SECONDS + 1)
    assert pool.nodes == {"worker 2": ("t",)}


def test_a_worker_whose_room_another_of_the_run_has_is_not_waited_for(monkeypatch):
    a, b, c = (Node(name, "", {"CPU": 1.0}, {}) for name in "abc")
    adjust, pool, told = workforce_on([a, b, c], monkeypatch, hosts=2)
    adjust(0.0)
    assert pool.nodes == {"worker 1": ("a", "b"), "worker 2": ("c",)}
    pool.come("worker 1", "b", "c")  # where Ray has placed the gang
    told["free"] = {"a": {"CPU": 1.0}, "b": {"CPU": 0.0}, "c": {"CPU": 0.0}}
    adjust(NODES_SECONDS + 1)
    assert pool.nodes == {"worker 1": ("b", "c"), "worker 3": ("a",)}


def test_one_that_does_not_come_is_counted_on_for_a_while_only(monkeypatch):
    nodes = [Node(name, "", {"CPU": 1.0}, {}) for name in "abc"]
    adjust, pool, _ = workforce_on(nodes, monkeypatch)
    adjust(0.0)
    adjust(COME_SECONDS - 1)
    assert list(pool.coming) == ["worker 1", "worker 2"]  # the second for what the first makes
    adjust(COME_SECONDS + 1)
    assert list(pool.coming) == ["worker 1", "worker 2", "worker 3"]
