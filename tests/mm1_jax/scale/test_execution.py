"""What a stage of ours ran on."""

from __future__ import annotations

import os

from mm1_jax.scale.execution import execution


def test_the_mesh_is_the_one_that_a_training_or_an_evaluation_states():
    assert execution({"training": {"mesh": {"fsdp": 2}}})["mesh"] == {"fsdp": 2}
    assert execution({"mesh": {"fsdp": 4}})["mesh"] == {"fsdp": 4}
    assert "mesh" not in execution({"steps": 1, "mesh": None})


def test_devices_libraries_and_the_order_of_sums_are_told():
    found = execution({"training": {"remat": "full", "steps": 3}})
    assert found["form"] == {"remat": "full"}
    assert found["device_count"] >= 1
    assert {"jax", "flax", "optax"} <= set(found["libraries"])


def test_what_decides_the_bits_on_a_processor_is_told(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--b=1 --xla_force_host_platform_device_count=8 --a=2")
    monkeypatch.setenv("NPROC", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which is not XLA's
    found = execution({})
    assert (found["xla_flags"], found["pool_threads"]) == ("--a=2 --b=1", 3)
    assert found["processor"]
    for said in ("", "0", "many"):  # which XLA does not take for a number of threads
        monkeypatch.setenv("NPROC", said)
        assert execution({})["pool_threads"] == len(os.sched_getaffinity(0))
    monkeypatch.delenv("XLA_FLAGS")
    assert execution({})["xla_flags"] == "none"  # said, for others have some
