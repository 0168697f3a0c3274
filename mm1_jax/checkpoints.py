"""Weights on disk, in Orbax's format: the finished model, and a training's progress.

Orbax writes beside the target and commits it last, so what a kill leaves half-written is never
listed and never loaded. The layout does not depend on how layers are run: a model trained with
scanned layers is read by an unrolled one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx

from mm1_jax.config import TrainConfig
from mm1_jax.errors import UserError
from mm1_jax.model import MultimodalModel

CONFIG_FILE = "config.json"
CHECKPOINT_FOLDER = "checkpoint"

# Orbax tells every save at INFO and its choice of defaults at WARNING.
logging.getLogger("absl").setLevel(logging.ERROR)


def save_model(stage_folder: Path, config: TrainConfig, model: MultimodalModel) -> None:
    """Write `config.json` and `checkpoint/` into the folder of a training stage."""
    (stage_folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2))
    weights = nnx.to_pure_dict(nnx.state(model))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((stage_folder / CHECKPOINT_FOLDER).absolute(), weights, force=True)


def load_model(stage_folder: Path) -> tuple[TrainConfig, MultimodalModel]:
    """The config and the trained model of a training stage's folder.

    Raises `UserError` where the folder holds no finished checkpoint.
    """
    config_file = stage_folder / CONFIG_FILE
    checkpoint = (stage_folder / CHECKPOINT_FOLDER).absolute()
    if not config_file.is_file() or not checkpoint.is_dir():
        raise UserError(f"{stage_folder} holds no trained model ({CONFIG_FILE}, checkpoint/)")
    config = TrainConfig.model_validate_json(config_file.read_text())
    graphdef, state = nnx.split(MultimodalModel(config))
    with ocp.StandardCheckpointer() as checkpointer:
        weights = checkpointer.restore(checkpoint, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, weights)
    return config, nnx.merge(graphdef, state)


class Progress:
    """The newest state of a training that goes on, kept in a scratch folder.

    A state is a dict of lists of arrays; `notes` is JSON beside it. Only the newest is kept.
    """

    def __init__(self, folder: Path):
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1, create=True, enable_async_checkpointing=False
            ),
        )

    def latest_step(self) -> int | None:
        """The step of the newest complete state, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Mapping[str, Any], notes: Any) -> None:
        """Write the state after `step` and, when it is complete, remove the one before."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(dict(state)), notes=ocp.args.JsonSave(notes)
            ),
        )

    def load(self, step: int, like: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """The state and notes saved after `step`; `like` has the shapes and the tree."""
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(like))
        saved = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes), notes=ocp.args.JsonRestore()
            ),
        )
        return saved["state"], saved["notes"]

    def close(self) -> None:
        """Release what Orbax holds."""
        self._manager.close()
