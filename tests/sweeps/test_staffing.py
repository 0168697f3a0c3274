"""Which workers there are, without Ray."""

from __future__ import annotations

import pytest
from noop_stage import a_plan, a_stage

from ablations.errors import UserError
from ablations.resources import Shape
from sweeps import offer
from sweeps.crews import crews_of
from sweeps.offer import Node
from sweeps.staffing import Staff, staffed

GPU = Shape(gpu=1, cpu=2)
ALL = Shape(gpu=8, cpu=8)
CORE = Shape()
NODE = {"CPU": 16.0, "GPU": 8.0}


def staff(shape, ready, open_=None, planned=None, workers=0, idle=None):
    total = ready if open_ is None else open_
    return Staff(
        shape, ready, total, 10.0 * total if planned is None else planned, workers, idle or {}
    )


def started(changes):
    return [crew for crew, _ in changes.starts]


def test_as_many_as_there_is_room_and_work_for():
    free = {"a": NODE, "b": {"CPU": 4.0}}
    assert started(staffed({"gpu": staff(GPU, 3)}, free)) == ["gpu"] * 3
    assert started(staffed({"gpu": staff(GPU, 30)}, free)) == ["gpu"] * 8
    assert started(staffed({"gpu": staff(GPU, 30)}, free, most=5)) == ["gpu"] * 5
    waiting = {"gpu": staff(GPU, 1, open_=30)}  # what the first is to make, say
    assert started(staffed(waiting, free)) == ["gpu"] * 8


def test_what_needs_no_accelerator_leaves_their_nodes_alone():
    free = {"a": NODE, "b": {"CPU": 2.0}}
    nodes = [place for _, (place,) in staffed({"core": staff(CORE, 2)}, free).starts]
    assert nodes == ["b", "b"]


def test_what_could_begin_comes_before_what_waits():
    crews = {"core": staff(CORE, 2), "gpu": staff(GPU, 0, open_=10, planned=1e6)}
    changes = staffed(crews, {"a": {"CPU": 4.0, "GPU": 8.0}})
    assert started(changes) == ["core", "core", "gpu"]


def test_a_node_full_of_idle_workers_makes_room_for_one_that_takes_it_whole():
    idle = {f"w{n}": ("a",) for n in range(7)}
    crews = {
        "gpu": staff(GPU, 0, open_=1, workers=8, idle=idle),  # one is at work
        "all": staff(ALL, 1),
    }
    full = {"a": {"CPU": 0.0, "GPU": 0.0}, "b": {"CPU": 16.0, "GPU": 4.0}}
    assert not staffed(crews, full)  # nothing that runs is ended
    crews["gpu"] = staff(GPU, 0, open_=1, workers=9, idle={**idle, "w7": ("a",), "v": ("b",)})
    changes = staffed(crews, full)
    assert sorted(changes.ends) == sorted(f"w{n}" for n in range(8))  # not the one on b
    assert changes.starts == [("all", ("a",))]


def test_a_worker_that_is_one_too_many_goes_for_one_that_could_begin():
    crews = {"gpu": staff(GPU, 0, open_=5, workers=1, idle={"w": ("a",)}), "core": staff(CORE, 1)}
    changes = staffed(crews, {"a": NODE}, most=1)
    assert (changes.ends, started(changes)) == (["w"], ["core"])


def test_idle_workers_with_something_ready_stay():
    crews = {"gpu": staff(GPU, 3, workers=8, idle={"w": ("a",)}), "all": staff(ALL, 1)}
    assert not staffed(crews, {"a": {"CPU": 0.0, "GPU": 0.0}})


def test_processes_of_a_gang_are_on_different_nodes():
    gang = Shape(gpu=8, cpu=1, hosts=2)
    assert not staffed({"gang": staff(gang, 1)}, {"a": {"CPU": 64.0, "GPU": 16.0}})
    changes = staffed({"gang": staff(gang, 1)}, {"a": NODE, "b": NODE, "c": {"CPU": 9.0}})
    assert changes.starts == [("gang", ("a", "b"))]


def node(name, **has):
    return Node(name, f"10.0.0.{name}", {key: float(amount) for key, amount in has.items()}, {})


def test_what_a_cluster_offers():
    nodes = [node("1", CPU=96, GPU=8), node("2", CPU=96, GPU=8), node("3", CPU=4)]
    assert offer.in_words(nodes) == "2 nodes with 8 GPUs, 96 cores; 1 node with 4 cores"
    assert offer.most_workers(ALL, nodes) == 2
    assert offer.most_workers(Shape(gpu=0.25, cpu=1), nodes) == 64
    assert offer.most_workers(Shape(gpu=8, hosts=2), nodes) == 1
    assert offer.most_workers(Shape(gpu=1, hosts=3), nodes) == 0
    site = offer.site_of(nodes, None)
    assert (site.kind, site.devices_per_host, site.cores_per_device) == ("gpu", 8, 11)
    with pytest.raises(UserError, match="base: train needs 16 GPUs, 1 core; the cluster has"):
        offer.refuse_impossible({"base: train": Shape(gpu=16)}, nodes)


def test_evaluations_are_of_the_crew_that_trains_where_that_holds_enough():
    plan = a_plan("p", {"base": {}}, seeds=(1,))
    train, test = (plan.trials[0].stages[role] for role in ("multimodal", "easy_vqa"))
    shapes = {train: Shape(simulated_devices=8), test: Shape()}
    crews = crews_of(plan, (), lambda stage: shapes[stage.id])
    assert crews.of[train] == crews.of[test] == str(shapes[train])
    # Its training is there: it takes no more than it needs.
    assert crews_of(plan, {train}, lambda stage: shapes[stage.id]).of == {test: "1 core"}
    shapes[train] = Shape(gpu=1)  # which it would keep from others
    assert crews_of(plan, (), lambda stage: shapes[stage.id]).of[test] == "1 core"


def test_what_others_wait_for_holds_what_it_needs_itself():
    part = a_stage("train", {"part": 1}, 1)
    whole = a_stage("train", {"arm": 1}, 1, {"part": part.id})
    test = a_stage("evaluate", {}, 1, {"model": whole.id})
    plan = a_plan("p", {}).model_copy(update={"stages": {s.id: s for s in (test, whole, part)}})
    shapes = {part.id: Shape(simulated_devices=2), whole.id: Shape(), test.id: Shape()}
    crews = crews_of(plan, (), lambda stage: shapes[stage.id])
    assert crews.of[whole.id] == crews.of[test.id] == "1 core"
    assert crews.of[part.id] == "2 simulated devices, 1 core"
