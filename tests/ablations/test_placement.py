from __future__ import annotations

import pytest

from ablations.errors import UserError
from ablations.machine import load_machine
from ablations.placement import Site, shape_of
from ablations.resources import Resources, Shape, Slice

LAPTOP = Site("this machine")
EIGHT = Site("a100", "gpu", devices_per_host=8, cores_per_device=11.0)


def on(name, need, cores_per_device=1.0):
    return shape_of(need, Site.of(load_machine(name), cores_per_device), "base seed 1: train")


@pytest.mark.parametrize(
    ("need", "site", "shape"),
    [
        (Resources(), LAPTOP, Shape()),
        (Resources(devices=8), LAPTOP, Shape(simulated_devices=8)),
        (Resources(devices=8, hosts=2), LAPTOP, Shape(simulated_devices=4, hosts=2)),
        (Resources(cpu=3, memory_bytes=5), LAPTOP, Shape(cpu=3, memory_bytes=5)),
        (Resources(), EIGHT, Shape(gpu=1, cpu=11)),
        (Resources(devices=8), EIGHT, Shape(gpu=8, cpu=88)),
        (Resources(devices=16), EIGHT, Shape(gpu=8, cpu=88, hosts=2)),
        (Resources(gpu=0), EIGHT, Shape()),
        (Resources(gpu=0.25, cpu=2), EIGHT, Shape(gpu=0.25, cpu=2)),
        (Resources(gpu=2, hosts=2), EIGHT, Shape(gpu=2, cpu=22, hosts=2)),
        (Resources(tpu=Slice.of("v5e-16")), LAPTOP, Shape(tpu=Slice.of("v5e-16"), hosts=4, cpu=4)),
    ],
)
def test_what_a_worker_holds(need, site, shape):
    assert shape_of(need, site, "base") == shape


def test_on_machines():
    assert on("laptop-core", Resources()) == Shape()
    assert on("simulated-8", Resources(devices=4)) == Shape(simulated_devices=4)
    assert on("a100-8", Resources(), 12) == Shape(gpu=1, cpu=12)
    slice_ = on("v5e-16", Resources(devices=16), 28)
    assert slice_ == Shape(cpu=112, hosts=4, tpu=Slice(version="v5e", topology="4x4"))
    assert on("v5e-16", Resources()).tpu == Slice(version="v5e", topology="1x1")
    assert on("v5p-16", Resources(devices=4)).tpu == Slice(version="v5p", topology="2x2x1")


def test_several_trials_share_a_gpu():
    machine = load_machine("a100-1").model_copy(update={"per_gpu": 4})
    shape = shape_of(Resources(), Site.of(machine, 12.0), "base")
    assert shape == Shape(gpu=0.25, cpu=3)
    assert shape_of(Resources(gpu=1), Site.of(machine, 12.0), "base").gpu == 1


@pytest.mark.parametrize(
    ("name", "devices", "said"),
    [
        ("laptop-core", 8, "base seed 1: train spans 8 devices in a process, laptop-core has 1"),
        ("simulated-8", 16, "spans 16 devices in a process, simulated-8 has 8"),
        ("a100-8", 16, "spans 16 devices, a100-8 has 8"),
        ("a100-8", 12, "spans 12 devices, a100-8 has 8"),
        ("v5e-16", 3, "spans 3 devices, v5e slices have 1, 4, 8"),
    ],
)
def test_what_a_machine_has_not_is_refused(name, devices, said):
    with pytest.raises(UserError, match=said):
        on(name, Resources(devices=devices))


def test_who_may_run_what():
    eight, one = Shape(simulated_devices=8), Shape()
    assert eight.covers(one)
    assert not one.covers(eight)
    assert not eight.covers(Shape(simulated_devices=4))  # a mesh takes all there are
    assert not Shape(gpu=1).covers(Shape())  # cores alone, so it is not to keep the GPU
    assert Shape(gpu=8, cpu=8).covers(Shape(gpu=1))
    assert not Shape(gpu=1, hosts=2).covers(Shape(gpu=1))
    assert not Shape(memory_bytes=1).covers(Shape(memory_bytes=2))


def test_in_words():
    assert str(Shape()) == "1 core"
    assert str(Shape(gpu=8, cpu=12, hosts=2)) == "2 hosts with 8 GPUs, 12 cores each"
    assert str(Shape(gpu=0.25, cpu=2, memory_bytes=16 * 10**9)) == "0.25 GPU, 2 cores, 16 GB"
    slice_ = Shape(tpu=Slice.of("v5e-16"), hosts=4, cpu=8)
    assert str(slice_) == "TPU slice v5e:4x4 (4 hosts with 8 cores each)"
