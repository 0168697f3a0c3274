"""A part's config and weights out of a folder: a checkpoint of ours, or Hugging Face's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ablations.errors import UserError
from mm1_jax.config.connector import AnyEncoder
from mm1_jax.config.encoder import FusedEncoderConfig
from mm1_jax.config.language_model import LanguageModelConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.images.pictures import WHITE, Colour
from mm1_jax.images.preprocessing import Preprocessing, stated_preprocessing, usual_preprocessing
from mm1_jax.scale.sharding import place, tree_shardings
from mm1_jax.training.checkpoints import StageConfig, Tree, load_config, load_subtree
from mm1_jax.weights.decoder_weights import DecoderFile, recognise_decoder
from mm1_jax.weights.encoder_weights import FAMILIES, EncoderFile, recognise_encoder
from mm1_jax.weights.json_object import read_object, stating
from mm1_jax.weights.multimodal_weights import recognise_multimodal
from mm1_jax.weights.safetensors_folder import open_folder
from mm1_jax.weights.weights_folder import SOURCE_FILE, is_checkpoint, is_multimodal

Module = TypeVar("Module", bound=nnx.Module)


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder, and how it gets its images."""

    config: AnyEncoder
    tree: Tree
    preprocessing: Preprocessing
    background: Colour = WHITE  # behind what is transparent in a picture


@dataclass(frozen=True)
class LanguageModelWeights:
    """A language model, and how many tokens its tokenizer knows."""

    config: LanguageModelConfig
    vocabulary: int
    tree: Tree


def encoder_weights(folder: Path) -> EncoderWeights:
    """The encoder of a folder of either kind. `UserError` if there is none."""
    if is_checkpoint(folder):
        stated, tree = load_subtree(folder, "encoder")
        config: AnyEncoder = getattr(stated, "encoder")  # noqa: B009 - not every stage has one
        background: Colour = getattr(stated, "data").background  # noqa: B009 - nor this
        return EncoderWeights(config, tree, _preprocessing(folder, config), background)
    file = encoder_file(folder)
    return EncoderWeights(file.config, file.weights(), file.preprocessing())


def language_model_weights(folder: Path) -> LanguageModelWeights:
    """The language model of a folder of either kind. `UserError` if there is none."""
    if is_checkpoint(folder):
        stated, tree = load_subtree(folder, "language_model")
        config: LanguageModelConfig = getattr(stated, "language_model")  # noqa: B009
        return LanguageModelWeights(config, _vocabulary(stated), tree)
    file = decoder_file(folder)
    return LanguageModelWeights(file.config, file.vocabulary, file.weights())


def encoder_file(folder: Path) -> EncoderFile:
    """The encoder in Hugging Face files, also of a whole model. `UserError` if there is none."""
    opened = open_folder(folder)
    whole = is_multimodal(folder)
    return recognise_multimodal(opened).encoder if whole else recognise_encoder(opened)


def decoder_file(folder: Path) -> DecoderFile:
    """The language model in such files, also of a whole model. `UserError` if there is none."""
    opened = open_folder(folder)
    whole = is_multimodal(folder)
    return recognise_multimodal(opened).decoder if whole else recognise_decoder(opened)


def part_config(folder: Path, part: str) -> tuple[AnyEncoder | LanguageModelConfig, int | None]:
    """The part's config and, of a language model, its vocabulary; reads no weights."""
    if is_checkpoint(folder):
        stated = load_config(folder)
        if not hasattr(stated, part):
            raise UserError(f"{folder} has no {part}")
        return getattr(stated, part), _vocabulary(stated)
    if part == "encoder":
        return encoder_file(folder).config, None
    file = decoder_file(folder)
    return file.config, file.vocabulary


def _vocabulary(stated: StageConfig) -> int:
    """Of the tokenizer that a checkpoint goes with; a public model's may be smaller than ours."""
    return stated.data.vocabulary if isinstance(stated, TrainConfig) else stated.vocabulary


def filled(module: Module, tree: Tree, mesh: Mesh | None = None) -> Module:
    """A module built from shapes alone, with these values, as float32, on a mesh or one device."""
    graphdef, state = nnx.split(module)
    if mesh is None:
        values = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
    else:
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)
        values = place(wide, tree_shardings(wide, mesh))
    nnx.replace_by_pure_dict(state, values)
    return nnx.merge(graphdef, state)


def _preprocessing(folder: Path, config: AnyEncoder) -> Preprocessing:
    """How a checkpoint of ours gets its images: as its family if imported, else squashed."""
    one = config.first if isinstance(config, FusedEncoderConfig) else config
    source = folder / SOURCE_FILE
    if not source.is_file():
        return usual_preprocessing("squash", config.image_size, one.pixels)
    said = read_object(source)
    with stating(source):
        rule = FAMILIES[said.get("encoder_family") or said["family"]].images
    return stated_preprocessing(folder, usual_preprocessing(rule, config.image_size, one.pixels))
