"""Training on meshes of eight simulated devices, against one device."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from simulated_devices import simulated_devices

from ablations.errors import UserError
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.scale.sharding import AXES, build_mesh, parameter_spec

PROGRAM = Path(__file__).parents[1] / "on_a_mesh.py"
MIXED = {"data": 2, "fsdp": 2, "tensor": 2}
DENSE = {"model": "dense", "mesh": MIXED}
QUICK = [
    {"model": "places", "mesh": {"fsdp": 2, "expert": 4}},
    {"model": "dropless", "mesh": {"fsdp": 2, "tensor": 2, "expert": 2}},
    {
        "model": "scanned",
        "mesh": {"fsdp": 4, "tensor": 2},
        "training": {"micro_batches": 2},
        "then_mesh": MIXED,
    },
]
ALL = [
    {"model": model, "mesh": mesh}
    for model in ("dense", "convolutions", "text", "clip", "siglip", "adafactor")
    for mesh in ({"data": 8}, {"fsdp": 8}, {"data": 4, "tensor": 2}, MIXED)
] + [
    {"model": model, "mesh": mesh}
    for model in ("places", "dropless")
    for mesh in ({"fsdp": 8}, {"data": 2, "expert": 4}, {"tensor": 2, "expert": 4}, MIXED)
]


def start(jobs: list[dict], devices: int, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(json.dumps, jobs)],
        env={**simulated_devices(devices), "PYTHONPATH": str(PROGRAM.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def results(process: subprocess.Popen) -> list[dict]:
    out, errors = process.communicate(timeout=3600)
    assert process.returncode == 0, errors[-3000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def check(jobs: list[dict]) -> list[dict]:
    """What the jobs come to in one process of eight devices, compared with one device."""
    each = results(start(jobs, 8))
    for job, found in zip(jobs, each, strict=True):
        assert found["devices"] == 8
        np.testing.assert_allclose(
            found["losses"], found["expected_losses"], rtol=2e-5, err_msg=str(job)
        )
        assert found["grad_norm"] == pytest.approx(found["expected_grad_norm"], rel=2e-5), job
        # Sums in another order: float32 has 6e-8; near-zero gradients lose some of it.
        assert found["gradient_error"] < 2e-4, job
    return each


def test_losses_and_gradients_on_mixed_meshes_are_those_of_one_device():
    check(QUICK)


@pytest.mark.slow
def test_losses_and_gradients_on_every_kind_of_mesh_are_those_of_one_device():
    check(ALL)


def test_two_processes_with_real_collectives_give_the_losses_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [start([DENSE], 4, MM1_TEST_PROCESS=f"{number} {address}") for number in (0, 1)]
    (alone,) = check([DENSE])
    for process in both:
        (found,) = results(process)
        assert found["devices"] == 8
        np.testing.assert_allclose(found["losses"], alone["expected_losses"], rtol=2e-5)


def mesh_of(**sizes: int):
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    return jax.sharding.AbstractMesh(shape, AXES)


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("language_model/embedding", (512, 64), PartitionSpec("tensor", "fsdp")),
        ("language_model/blocks/qkv/kernel", (2, 64, 128), PartitionSpec(None, "fsdp", "tensor")),
        ("language_model/blocks/down/kernel", (2, 192, 64), PartitionSpec(None, "tensor", "fsdp")),
        (
            "language_model/expert_blocks/experts/gate_up",
            (1, 4, 64, 2, 192),
            PartitionSpec(None, "expert", "fsdp", None, "tensor"),
        ),
        ("language_model/norm/scale", (64,), PartitionSpec(None)),
        ("encoder/blocks/qkv/bias", (2, 192), PartitionSpec(None, None)),
        ("connector/projection/kernel", (64, 64), PartitionSpec(None, "fsdp")),
    ],
)
def test_the_table_says_where_a_parameter_lies(path, shape, spec):
    assert parameter_spec(path, shape, mesh_of(fsdp=2, tensor=2, expert=2)) == spec


def test_a_rule_that_does_not_apply_is_said(caplog):
    spec = parameter_spec("encoder/blocks/qkv/kernel", (2, 10, 12), mesh_of(fsdp=4, tensor=2))
    assert spec == PartitionSpec(None, None, "tensor")
    assert "4 devices on axis fsdp do not divide 10" in caplog.text


def test_a_mesh_of_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="takes 64 devices, there are 1; nearest: fsdp: 1"):
        build_mesh(MeshConfig(fsdp=64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"training": {"mesh": {"data": 3}}}, "3 does not divide the 8 rows of a batch; nearest"),
        ({"training": {"micro_batches": 3}}, "micro_batches 3 .* batch_size 8; nearest: 2"),
        ({"training": {"mesh": {"tensor": 4}}}, "tensor 4 .* kv heads 2; nearest: 2"),
        ({"training": {"mesh": {"expert": 4}}}, "expert 4 does not divide experts 1; nearest: 1"),
    ],
)
def test_what_does_not_divide_is_named_with_the_nearest_that_does(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.model_validate(fields)
