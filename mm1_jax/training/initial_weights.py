"""First weights of the multimodal model's parts: from their own pre-training, or from a folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict

from ablations.errors import UserError
from ablations.timeline import doing
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.mixture_of_experts import from_dense
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.model.positions import at_resolution, connector_at_resolution
from mm1_jax.training.checkpoints import Tree, load_config, load_subtree
from mm1_jax.weights.weights_folder import check_same

Module = TypeVar("Module", bound=nnx.Module)
PARTS = ("encoder", "connector", "language_model")


@doing("start")
def take_weights(model: Module, config: TrainConfig, part: str, folder: Path) -> Module:
    """The model with the part's weights as the checkpoint in `folder` has them.

    `part` is one of `PARTS`. UserError shows the difference where the checkpoint is
    of another config, or names the first parameter that is missing or has another shape. Learned
    positions of another image size are interpolated; a mixture of experts that is made `from_dense`
    takes a dense model's MLPs.
    """
    stated, weights = load_subtree(folder, part)
    weights = _with_numbers(weights)
    wanted, found = (getattr(one, part).model_dump(mode="json") for one in (config, stated))
    check_same(part, wanted, found, folder)
    if part == "encoder":
        weights = at_resolution(weights, getattr(stated, part), config.encoder)
    if part == "connector" and isinstance(stated, TrainConfig):
        weights = connector_at_resolution(weights, stated.encoder, config.encoder)
    graphdef, state = nnx.split(model)
    tree = nnx.to_pure_dict(state)
    experts = config.language_model
    if part == "language_model" and experts.kind == "moe" and found["kind"] == "dense":
        _, dense = nnx.split(Decoder(experts.dense(), config.data.vocabulary))
        check_shapes(weights, nnx.to_pure_dict(dense), part, folder)
        weights = from_dense(experts, weights, tree[part])
    check_shapes(weights, tree[part], part, folder)
    nnx.replace_by_pure_dict(state, {**tree, part: _as_float32(weights)})
    return nnx.merge(graphdef, state)


def take_model(config: TrainConfig, folder: Path) -> MultimodalModel:
    """The model with all its weights as the multimodal checkpoint in `folder` has them.

    UserError as of `take_weights`, also where the tokenizer is of another size.
    """
    stated = load_config(folder)
    vocabulary = stated.data.vocabulary
    if vocabulary != config.data.vocabulary:
        raise UserError(
            f"data.vocabulary {config.data.vocabulary}: the model in {folder} has {vocabulary} "
            "tokens"
        )
    model = initialise(MultimodalModel(config), seed=0)  # every value is replaced
    for part in PARTS:
        model = take_weights(model, config, part, folder)
    return model


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


def _with_numbers(tree: Tree) -> Tree:
    """The tree with numbers as keys where a checkpoint has them as text, as in `before/0`."""
    return {
        int(key) if isinstance(key, str) and key.isdigit() else key: _with_numbers(value)
        if isinstance(value, dict)
        else value
        for key, value in tree.items()
    }


def _as_float32(tree: Tree) -> Tree:
    def leaf(value: Any) -> Any:
        return _as_float32(value) if isinstance(value, dict) else jnp.asarray(value, jnp.float32)

    return {key: leaf(value) for key, value in tree.items()}


def parameter_count(tree: Tree) -> int:
    """Numbers in a tree of arrays."""
    return sum(math.prod(leaf.shape) for leaf in flatten_dict(tree).values())
