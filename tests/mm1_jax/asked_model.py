"""A small model that is asked eight prompts with drawn images, by text and by likelihood."""

from __future__ import annotations

import numpy as np
from conftest import TINY

from mm1_jax.config.connector import AveragePoolingConfig
from mm1_jax.config.data import DataConfig
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.language_model import DenseConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data import tokenizer
from mm1_jax.evaluation.asking import ask, likelihoods
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.images.sub_images import views_of
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel

WORDS = tokenizer.train([f"what is it? is it so {n * 7919} ?" for n in range(60)], vocabulary=300)
CONFIG = TrainConfig.model_validate(
    {
        **TINY,
        "encoder": {**TINY["encoder"], "layers": 1},
        "language_model": {**TINY["language_model"], "layers": 1, "tied_embeddings": False},
    }
)
# Of the prepared data, for evaluations as stages.
EVALUATED = TrainConfig(
    encoder=VisionTransformerConfig(image_size=16, patch_size=8, width=16, layers=1, heads=2),
    connector=AveragePoolingConfig(tokens=1),
    language_model=DenseConfig(width=16, layers=1, heads=2, kv_heads=1, mlp_width=16),
    data=DataConfig(text_tokens=64, images=2),
)
PROMPTS = [
    tuple(
        part
        for n in range(1 + (i < 2))
        for part in ((10 * i + n) % 7, "what is it? " * (1 + (3 * i + n) % 3))
    )
    for i in range(8)
]


class Drawn:
    """Images that are drawn from their numbers."""

    def in_views(self, sequence, seen, slots, sharp=None):
        return sequence

    def views(self, image_ids, which, seen):
        size = seen.size
        pixels = np.zeros((*image_ids.shape, size, size, 3), np.uint8)
        for at in np.ndindex(*image_ids.shape):
            if image_ids[at] >= 0:
                draws = np.random.default_rng(int(image_ids[at]))
                pixels[at] = draws.integers(0, 256, (size, size, 3))
        return pixels


def evaluated() -> EvaluatedModel:
    model = initialise(MultimodalModel(CONFIG), 0)
    return EvaluatedModel(model, WORDS, view_tokens=CONFIG.view_tokens, views=views_of(CONFIG))


def asked(model: EvaluatedModel, context, prompts=PROMPTS, batch_size=4) -> list[str]:
    settings = {"pictures": Drawn(), "longest": 6, "batch_size": batch_size}
    return ask(model, prompts, context=context, **settings)


PAIRS = [(prompt, f" so{' it' * (i % 3)}") for i, prompt in enumerate(PROMPTS)]


def measured(model: EvaluatedModel, context, batch_size=4) -> list[tuple[float, bool]]:
    settings = {"pictures": Drawn(), "batch_size": batch_size}
    return likelihoods(model, PAIRS, context=context, **settings)
