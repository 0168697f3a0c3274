"""First weights of the multimodal model's parts: from their own pre-training, or from a folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict

from mm1_jax.checkpoints import Tree, load_subtree, save_tree
from mm1_jax.config import TrainConfig
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.errors import UserError
from mm1_jax.stage import Context, ResultRow
from mm1_jax.weights_folder import CHECKPOINT_FOLDER, CONFIG_FILE, check_same, content_of

Module = TypeVar("Module", bound=nnx.Module)


def take_weights(model: Module, config: TrainConfig, part: str, folder: Path) -> Module:
    """The model with the part's weights as the checkpoint in `folder` has them.

    `part` is `encoder` or `language_model`. UserError shows the difference where the checkpoint is
    of another config, or names the first parameter that is missing or has another shape.
    """
    stated, weights = load_subtree(folder, part)
    wanted, found = (getattr(one, part).model_dump(mode="json") for one in (config, stated))
    check_same(part, wanted, found, folder)
    graphdef, state = nnx.split(model)
    tree = nnx.to_pure_dict(state)
    check_shapes(weights, tree[part], part, folder)
    nnx.replace_by_pure_dict(state, {**tree, part: _as_float32(weights)})
    return nnx.merge(graphdef, state)


def check_shapes(found: Tree, wanted: Tree, part: str, folder: object) -> None:
    """Raise `UserError` for the first parameter that is missing, odd, or of another shape."""
    there, here = flatten_dict(found), flatten_dict(wanted)
    for path in sorted({*there, *here}, key=str):
        name = "/".join(map(str, (part, *path)))
        if path not in there:
            raise UserError(f"{folder} lacks {name} {list(here[path].shape)}")
        if path not in here:
            raise UserError(f"{folder} has {name} {list(there[path].shape)}; the recipe has none")
        if there[path].shape != here[path].shape:
            raise UserError(
                f"{name} is {list(there[path].shape)} in {folder} "
                f"and {list(here[path].shape)} in the recipe"
            )


def _as_float32(tree: Tree) -> Tree:
    def leaf(value: Any) -> Any:
        return _as_float32(value) if isinstance(value, dict) else jnp.asarray(value, jnp.float32)

    return {key: leaf(value) for key, value in tree.items()}


def read_weights(
    part: str, folder: Path, *, content: str, vocabulary: int, context: Context
) -> list[ResultRow]:
    """Write the part's weights as a checkpoint of ours into `context.output`.

    `vocabulary` is of the tokenizer that the part is scored with. UserError if the folder does not
    hold what it held when the study was planned, or has no such part.
    """
    if content_of(folder) != content:
        raise UserError(f"{folder} has changed since the study was planned; plan it anew")
    config, weights = load_subtree(folder, part)
    if isinstance(config, TrainConfig):
        alone = (
            EncoderStageConfig(encoder=config.encoder, vocabulary=vocabulary)
            if part == "encoder"
            else LanguageModelStageConfig(
                language_model=config.language_model, vocabulary=vocabulary
            )
        )
        save_tree(context.output, alone, {part: weights})
    else:  # whole: a text tower is needed where the encoder is scored
        shutil.copy(folder / CONFIG_FILE, context.output)
        shutil.copytree(folder / CHECKPOINT_FOLDER, context.output / CHECKPOINT_FOLDER)
    return [ResultRow("training", "parameters", parameter_count(weights))]


def parameter_count(tree: Tree) -> int:
    """Numbers in a tree of arrays."""
    return sum(math.prod(leaf.shape) for leaf in flatten_dict(tree).values())
