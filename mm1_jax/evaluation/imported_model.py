"""A whole model that was trained elsewhere, with all that it needs to be asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jax.sharding import Mesh

from ablations.errors import UserError
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.data.templates import answer_ends
from mm1_jax.data.tokenizer import JsonTokenizer
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.evaluation.evaluation_mesh import check_mesh, evaluation_mesh, mesh_of_checkpoint
from mm1_jax.images.sub_images import views_of
from mm1_jax.model.multimodal import MultimodalModel, load_model
from mm1_jax.weights.imported_tokenizer import TOKENIZER_FILE, begin_of, ends_of, imported_tokenizer
from mm1_jax.weights.json_object import read_object, stating
from mm1_jax.weights.multimodal_weights import image_token, recognise_multimodal
from mm1_jax.weights.part_weights import filled
from mm1_jax.weights.safetensors_folder import open_folder
from mm1_jax.weights.weights_folder import CONFIG_FILE, SOURCE_FILE, is_checkpoint


@dataclass(frozen=True)
class ImportedWords:
    """A model's tokenizer, what begins a prompt and what ends an answer."""

    words: JsonTokenizer
    begin: tuple[int, ...]
    ends: tuple[int, ...]


def imported_model(folder: Path, mesh: Mesh | None = None) -> tuple[TrainConfig, MultimodalModel]:
    """The config and the model in Hugging Face files, or in a checkpoint made of such."""
    if is_checkpoint(folder):
        return load_model(folder, mesh)
    file = recognise_multimodal(open_folder(folder))
    return file.config, filled(MultimodalModel(file.config), file.weights(), mesh)


def mesh_of_import(folder: Path, stated: MeshConfig | None) -> Mesh | None:
    """The mesh for the model in such a folder; as `mesh_of_checkpoint`, reads no weights."""
    if is_checkpoint(folder):
        return mesh_of_checkpoint(folder, stated)
    file = recognise_multimodal(open_folder(folder))
    config = file.config
    check_mesh(stated, config.language_model, config.data.vocabulary, config.encoder)
    return evaluation_mesh(stated, MeshConfig(), sum(map(math.prod, file.held().values())))


def imported_words(folder: Path, config: TrainConfig) -> ImportedWords:
    """How the model in such a folder is spoken to.

    UserError where there is no tokenizer, or one of another model.
    """
    words = imported_tokenizer(folder, config.data.vocabulary)
    source = folder / (SOURCE_FILE if is_checkpoint(folder) else CONFIG_FILE)
    stated = read_object(source)
    with stating(source):
        marker = image_token(stated.get("config", stated))
        known = words.word(marker)
    if not known:
        raise UserError(
            f"{folder / TOKENIZER_FILE} has no token {marker}, which marks an image "
            "(image_token_index): it is of another model"
        )
    of_template = answer_ends(config.data.template, words)
    return ImportedWords(
        words,
        begin_of(folder, words),
        tuple(dict.fromkeys([*ends_of(folder), *of_template])),
    )


def evaluated_import(
    folder: Path, stated: MeshConfig | None = None, sharp_images: int | None = None
) -> EvaluatedModel:
    """The model in such a folder, as tasks ask it, over the mesh that is `stated`."""
    mesh = mesh_of_import(folder, stated)
    config, model = imported_model(folder, mesh)
    spoken = imported_words(folder, config)
    return EvaluatedModel(
        model,
        spoken.words,
        ends=spoken.ends,
        template=config.data.template,
        view_tokens=config.view_tokens,
        views=views_of(config),
        sharp_images=sharp_images,
        mesh=mesh,
        begin=spoken.begin,
        as_one=True,
    )
