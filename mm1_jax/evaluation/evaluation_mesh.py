"""On which devices an evaluated model lies: a copy on each, or its weights cut over a mesh.

A mesh decides how fast a model is asked and whether it fits, never what it says but for the order
of sums: no mesh is part of an evaluation's identity.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import jax
from jax.sharding import Mesh

from ablations.errors import UserError
from mm1_jax.config.connector import AnyEncoder
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model import LanguageModelConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.scale.sharding import build_mesh
from mm1_jax.training.checkpoints import load_config, shapes_of

BYTES_PER_WEIGHT = 4  # float32, whatever the model computes in
WEIGHTS_SHARE = 0.5  # of a device's memory; the rest is for caches, activations and casts

_logger = logging.getLogger(__name__)


def mesh_of_checkpoint(folder: Path, stated: MeshConfig | None) -> Mesh | None:
    """The mesh for what a training stage's folder holds; None where there is one device.

    `UserError` where `stated` takes other devices than there are, or does not go with the model.
    """
    config = load_config(folder)
    if isinstance(config, EncoderStageConfig):
        raise UserError(f"{folder} holds an encoder alone, which answers no questions")
    if isinstance(config, TrainConfig):
        check_mesh(stated, config.language_model, config.data.vocabulary, config.encoder)
    else:
        check_mesh(stated, config.language_model, config.vocabulary)
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(folder)))
    return evaluation_mesh(stated, config.training.mesh, weights)


def check_mesh(
    stated: MeshConfig | None,
    language_model: LanguageModelConfig,
    vocabulary: int,
    encoder: AnyEncoder | None = None,
) -> None:
    """`UserError` where a stated mesh would cut a dimension of the model unevenly."""
    if stated is None:
        return
    try:
        language_model.check_mesh(stated, vocabulary)
        if encoder is not None:
            encoder.check_mesh(stated)
    except ValueError as error:
        raise UserError(f"evaluation.{error}") from None


def evaluation_mesh(stated: MeshConfig | None, trained: MeshConfig, weights: int) -> Mesh | None:
    """The mesh over this process's devices for a model of so many weights; None for one device.

    `trained` is the mesh that the model was trained on; see `chosen` where none is stated.
    """
    devices = jax.local_devices()
    if stated is None:
        room = (devices[0].memory_stats() or {}).get("bytes_limit")
        stated = chosen(trained, weights * BYTES_PER_WEIGHT, len(devices), room)
    elif stated.devices != len(devices):
        others = stated.devices // stated.data
        copies, left = divmod(len(devices), others)
        best = f"data: {copies}" if not left and copies else f"fsdp: {len(devices)}, all others 1"
        raise UserError(
            f"evaluation.mesh {stated.written} takes {stated.devices} devices, there are "
            f"{len(devices)}; nearest: {best}"
        )
    return build_mesh(stated, devices) if len(devices) > 1 else None


def chosen(trained: MeshConfig, weight_bytes: int, devices: int, room: int | None) -> MeshConfig:
    """The mesh where none is stated: a copy on each device wherever half a device holds one.

    `room` is a device's memory in bytes, None where it does not say (CPUs). Weights that are too
    large for that lie as in their training if it had as many devices, else along fsdp.
    """
    if room is None or weight_bytes <= WEIGHTS_SHARE * room or devices == 1:
        return MeshConfig(data=devices)
    fits = trained.devices == devices and trained.data < devices
    cut = trained if fits else MeshConfig(fsdp=devices)
    _logger.warning(
        "%.1f GB of weights are more than half of a device's %.1f GB: they are cut over mesh %s",
        *(weight_bytes / 1e9, room / 1e9, cut.written),
    )
    return cut
