"""Run as a program with simulated devices: trains some steps on a mesh, prints numbers as JSON.

    python on_a_mesh.py '{"model": "dense", "mesh": {"data": 8}}' …

One line for each job: its losses, the norm of the first gradient, and the largest distance of a
parameter's first moment from that on one device, relative to its norm (`gradient_error`). With
MM1_TEST_PROCESS = "number of address" it is one of two processes that share the mesh.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from conftest import TINY as TWO_LAYERS
from conftest import build_batch

from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.language_model import LanguageModel
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import Progress
from mm1_jax.training.encoder_pretraining import build_model
from mm1_jax.training.loop import Trainer

STEPS = 3
# One layer of each kind, because a program for eight devices takes long to compile.
TINY = {
    **TWO_LAYERS,
    "encoder": {**TWO_LAYERS["encoder"], "layers": 1},
    "language_model": {**TWO_LAYERS["language_model"], "layers": 1},
}
EXPERTS = {**TINY["language_model"], "kind": "moe", "experts": 4, "every": 1}
MODELS: dict[str, dict[str, Any]] = {
    "dense": {},
    "scanned": {"training": {"layers": "scanned", "attention": "chunked"}},
    "convolutions": {"connector": {"kind": "c_abstractor", "tokens": 4, "width": 16, "depth": 1}},
    "places": {"language_model": {**EXPERTS, "capacity_factor": 2.0, "group_tokens": 20}},
    "dropless": {"language_model": EXPERTS},
    "adafactor": {"optimizer": {"kind": "adafactor"}},
}


def setting(job: dict[str, Any], mesh: dict[str, int]) -> tuple[Any, Any, list[dict[str, Any]]]:
    """The config, the module with its first weights, and a batch for each step."""
    training = {**TINY["training"], "batch_size": 8, "mesh": mesh, **job.get("training", {})}
    draws = np.random.default_rng(0)
    if job["model"] in ("clip", "siglip"):
        stage = EncoderStageConfig.model_validate(
            {
                "encoder": TINY["encoder"],
                "objective": {
                    "kind": job["model"],
                    "text_tower": TINY["language_model"],
                    "width": 16,
                },
                "vocabulary": 300,
                "text_tokens": 6,
                "training": training,
                "optimizer": {"peak_lr": 0.01, "warmup_steps": 2},
            }
        )
        batches = [
            {
                "images": draws.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8),
                "tokens": draws.integers(2, 300, (8, 6)).astype(np.int32),
                "lengths": draws.integers(2, 7, 8).astype(np.int32),
                "matches": np.eye(8, dtype=bool),
            }
            for _ in range(STEPS)
        ]
        return stage, initialise(build_model(stage), 0), batches
    more = MODELS[job["model"]] if job["model"] != "text" else {}
    merged = {**TINY, **more, "training": {**training, **more.get("training", {})}}
    merged["optimizer"] = {**TINY["optimizer"], **more.get("optimizer", {})}
    config = TrainConfig.model_validate(merged)
    batches = [build_batch(config, number) for number in range(STEPS)]
    if job["model"] != "text":
        return config, initialise(MultimodalModel(config), 0), batches
    stage = LanguageModelStageConfig.model_validate(
        {
            "language_model": config.language_model,
            "vocabulary": 300,
            "training": config.training,
            "optimizer": {"warmup_steps": 2},
        }
    )
    texts = []
    for batch in batches:
        words = {name: batch[name] for name in ("tokens", "loss_weights")}
        first = {name: batch[name][:, :12] for name in ("segments", "positions")}
        texts.append(words | first)
    return stage, initialise(LanguageModel(stage), 0), texts


def trained(job: dict[str, Any], mesh: dict[str, int]) -> tuple[list[float], float, list[Any]]:
    """Losses of the steps, norm of the first gradient, first moments after the first step."""
    config, model, batches = setting(job, mesh)
    trainer = Trainer(model, config.training, config.optimizer, 0)
    losses, norm, moments = [], 0.0, []
    for number, batch in enumerate(batches, start=1):
        metrics = trainer.step(batch, 0.01, number)
        losses.append(float(metrics["loss"]))
        if number == 1:
            norm, moments = float(metrics["grad_norm"]), jax.tree.leaves(trainer.moments)
            if jax.process_count() == 1:
                moments = [np.asarray(moment) for moment in moments]
        if number == 1 and "then_mesh" in job:
            trainer = moved(trainer, job, model)
    return losses, norm, moments


def moved(trainer: Trainer, job: dict[str, Any], model: Any) -> Trainer:
    """The training gone on with on another mesh, through a checkpoint."""
    config, _, _ = setting(job, job["then_mesh"])
    other = Trainer(model, config.training, config.optimizer, 0)
    with tempfile.TemporaryDirectory() as folder:
        progress = Progress(Path(folder) / "progress")
        progress.save(1, trainer.state(), [])
        other.restore(progress.load_newest(other.state())[0])
        progress.close()
    return other


def main() -> None:
    if "MM1_TEST_PROCESS" in os.environ:
        number, address = os.environ["MM1_TEST_PROCESS"].split()
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, num_processes=2, process_id=int(number))
    for text in sys.argv[1:]:
        job = json.loads(text)
        losses, norm, moments = trained(job, job["mesh"])
        found: dict[str, Any] = {"losses": losses, "grad_norm": norm, "devices": len(jax.devices())}
        if jax.process_count() == 1:
            alone = {**job, "training": {**job.get("training", {}), "micro_batches": 1}}
            alone.pop("then_mesh", None)
            expected, norm, references = trained(alone, {})
            found |= {"expected_losses": expected, "expected_grad_norm": norm}
            found["gradient_error"] = max(
                float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12))
                for a, b in zip(moments, references, strict=True)
            )
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
