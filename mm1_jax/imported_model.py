"""A whole model that was trained elsewhere, with all that it needs to be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mm1_jax.config import TrainConfig
from mm1_jax.data.templates import answer_ends
from mm1_jax.data.tokenizer import JsonTokenizer
from mm1_jax.errors import UserError
from mm1_jax.evaluated_model import EvaluatedModel
from mm1_jax.imported_tokenizer import TOKENIZER_FILE, begin_of, ends_of, imported_tokenizer
from mm1_jax.model import MultimodalModel, load_model
from mm1_jax.multimodal_weights import image_token, recognise_multimodal
from mm1_jax.part_weights import filled
from mm1_jax.safetensors_folder import open_folder
from mm1_jax.sub_images import views_of
from mm1_jax.weights_folder import CONFIG_FILE, SOURCE_FILE, is_checkpoint


@dataclass(frozen=True)
class ImportedWords:
    """A model's tokenizer, what begins a prompt and what ends an answer."""

    words: JsonTokenizer
    begin: tuple[int, ...]
    ends: tuple[int, ...]


def imported_model(folder: Path) -> tuple[TrainConfig, MultimodalModel]:
    """The config and the model in Hugging Face files, or in a checkpoint made of such."""
    if is_checkpoint(folder):
        return load_model(folder)
    file = recognise_multimodal(open_folder(folder))
    return file.config, filled(MultimodalModel(file.config), file.weights())


def imported_words(folder: Path, config: TrainConfig) -> ImportedWords:
    """How the model in such a folder is spoken to.

    UserError where there is no tokenizer, or one of another model.
    """
    words = imported_tokenizer(folder, config.data.vocabulary)
    source = folder / (SOURCE_FILE if is_checkpoint(folder) else CONFIG_FILE)
    stated = json.loads(source.read_text())
    marker = image_token(stated.get("config", stated))
    if not words.word(marker):
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


def evaluated_import(folder: Path, sharp_images: int | None = None) -> EvaluatedModel:
    """The model in such a folder, as tasks ask it."""
    config, model = imported_model(folder)
    spoken = imported_words(folder, config)
    return EvaluatedModel(
        model,
        spoken.words,
        ends=spoken.ends,
        template=config.data.template,
        view_tokens=config.view_tokens,
        views=views_of(config),
        sharp_images=sharp_images,
        begin=spoken.begin,
        as_one=True,
    )
