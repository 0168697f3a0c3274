"""Evaluated models on meshes of eight simulated devices, against one device.

Run as a program it does some jobs, a model on a mesh, and prints a line of JSON for each: it is a
process of its own, because the number of devices is fixed when JAX starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from asked_model import CONFIG, WORDS, asked, measured
from conftest import RecordingContext
from flax import nnx
from simulated_devices import simulated_devices

from ablations.errors import UserError
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.evaluation.asking import encoded, packed
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.evaluation.evaluation_mesh import chosen, evaluation_mesh, mesh_of_checkpoint
from mm1_jax.images.sub_images import views_of
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel, load_model
from mm1_jax.training.checkpoints import save_part

MIXED = {"data": 2, "fsdp": 2, "tensor": 2}
EXPERTS = {"kind": "moe", "experts": 4, "every": 1}


Job = dict[str, Any]  # model; mesh: null leaves it to us; texts: held-out texts too


def check(*jobs: Job) -> None:
    child = subprocess.Popen(
        [sys.executable, __file__, *map(json.dumps, jobs)],
        env={**simulated_devices(8), "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    alone = said_of({**jobs[0], "mesh": None})  # while the other process is busy
    out, errors = child.communicate(timeout=900)
    assert child.returncode == 0, errors[-3000:]
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    for job, found in zip(jobs, lines, strict=True):
        mesh = job["mesh"]
        assert (found["devices"], alone["devices"]) == (8, 1)
        assert found["answers"] == alone["answers"], mesh
        assert len(set(found["answers"])) > 3
        for numbers in ("likelihoods", "losses"):
            np.testing.assert_allclose(np.array(found[numbers]), alone[numbers], rtol=1e-4)
        parts = MeshConfig(**mesh) if mesh else MeshConfig(data=8)
        assert found["rows"] == -(-5 // parts.batch_shards) * parts.batch_shards
        # Norms and biases have a copy on every device; what is no expert lies whole along `expert`.
        cut = parts.fsdp * parts.tensor
        assert found["bytes"] < alone["bytes"] * (1 / cut + 0.15 * (cut > 1)) + 1, mesh
        assert found["most_bytes"] == found["bytes"], mesh


def test_a_model_that_is_cut_says_what_one_device_says_and_holds_less_on_each():
    check({"model": "dense", "mesh": MIXED, "texts": False})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "meshes"),
    [
        ("dense", [None, {"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"data": 4, "tensor": 2}]),
        ("scanned", [{"fsdp": 4, "tensor": 2}]),
        ("experts", [{"fsdp": 2, "expert": 4}, {"fsdp": 2, "tensor": 2, "expert": 2}]),
    ],
)
def test_on_every_kind_of_mesh_a_model_says_what_one_device_says(model, meshes):
    check(*({"model": model, "mesh": mesh, "texts": True} for mesh in meshes))


def test_weights_are_copied_where_half_a_device_holds_them_and_else_cut():
    copies, trained = MeshConfig(data=8), MeshConfig(data=2, fsdp=4)
    gigabyte = 10**9
    assert chosen(trained, 40 * gigabyte, 8, 80 * gigabyte) == copies
    assert chosen(trained, 41 * gigabyte, 8, 80 * gigabyte) == trained
    assert chosen(trained, 41 * gigabyte, 16, 80 * gigabyte) == MeshConfig(fsdp=16)
    assert chosen(copies, 41 * gigabyte, 8, 80 * gigabyte) == MeshConfig(fsdp=8)
    assert chosen(trained, 41 * gigabyte, 8, None) == copies  # CPUs do not say
    assert chosen(trained, 41 * gigabyte, 1, 80 * gigabyte) == MeshConfig()


def test_a_stated_mesh_of_other_devices_than_there_are_is_refused():
    message = r"evaluation.mesh fsdp=4,tensor=2 takes 8 devices, there are 1; nearest: fsdp: 1"
    with pytest.raises(UserError, match=message):
        evaluation_mesh(MeshConfig(fsdp=4, tensor=2), MeshConfig(), 1)


def test_a_mesh_that_does_not_go_with_the_checkpoint_is_refused(tmp_path):
    save_part(tmp_path, CONFIG, initialise(MultimodalModel(CONFIG), 0))
    with pytest.raises(UserError, match=r"evaluation.mesh.tensor 4 .* kv heads 2; nearest: 2"):
        mesh_of_checkpoint(tmp_path, MeshConfig(tensor=4))


# -- the program ---------------------------------------------------------------------------------


def config_of(model: str) -> TrainConfig:
    dump = CONFIG.model_dump(mode="json")
    if model == "scanned":
        dump["training"] |= {"layers": "scanned", "attention": "chunked"}
    if model == "experts":
        dump["language_model"] |= EXPERTS
    return TrainConfig.model_validate(dump)


def said_of(job: Job) -> dict[str, Any]:
    """What a model says when it is read from a checkpoint, and where its weights lie."""
    config = config_of(job["model"])
    stated = None if job["mesh"] is None else MeshConfig(**job["mesh"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_part(folder, config, initialise(MultimodalModel(config), 0))
        on = mesh_of_checkpoint(folder, stated)
        module = load_model(folder, on)[1]
        evaluated = EvaluatedModel(
            module, WORDS, view_tokens=config.view_tokens, views=views_of(config), mesh=on
        )
        read, held = bytes_on_devices(module), bytes_on_devices(evaluated.model)
        batch = evaluated.batch(packed(encoded([("what is it?",)] * 5, WORDS), 16, 1), None)
        return {
            "devices": len(jax.devices()),
            "rows": evaluated.batch_rows(5),
            "answers": asked(evaluated, RecordingContext(folder / "answers"), batch_size=8),
            "likelihoods": measured(evaluated, RecordingContext(folder / "likelihoods"), 8),
            "losses": evaluated.token_losses(batch).tolist() if job["texts"] else [],
            "bytes": min(held),
            "most_bytes": max(*held, *read),
        }


def bytes_on_devices(module: nnx.Module) -> list[int]:
    """Of the weights, on each device that has any."""
    sums: dict[Any, int] = {}
    for leaf in jax.tree.leaves(nnx.state(module)):
        for part in leaf.addressable_shards:
            sums[part.device] = sums.get(part.device, 0) + part.data.nbytes
    return list(sums.values()) * 2 if len(sums) == 1 else list(sums.values())


def main() -> None:
    for job in sys.argv[1:]:
        print(json.dumps(said_of(json.loads(job))), flush=True)


if __name__ == "__main__":
    main()
