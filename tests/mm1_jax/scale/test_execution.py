"""What a stage of ours ran on."""

from __future__ import annotations

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
