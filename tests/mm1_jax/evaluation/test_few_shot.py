"""A small model learns from language documents to do what its examples do."""

from __future__ import annotations

import pytest

from mm1_jax import runner
from mm1_jax.config.connector import AveragePoolingConfig
from mm1_jax.config.data import MixtureConfig
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.language_model import DenseConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import OptimizerConfig, TrainingConfig


@pytest.mark.slow
def test_examples_say_what_is_asked_after_a_minute_of_training(in_context_data, recording_context):
    data, root = in_context_data
    documents = MixtureConfig(language_documents=1)
    config = TrainConfig(
        encoder=VisionTransformerConfig(image_size=16, patch_size=8, width=32, layers=1, heads=2),
        connector=AveragePoolingConfig(tokens=1),
        language_model=DenseConfig(width=64, layers=2, heads=4, kv_heads=2, mlp_width=192),
        data=data.model_copy(update={"mixture": documents, "text_tokens": 144, "images": 18}),
        training=TrainingConfig(steps=400, batch_size=4, log_every=100),
        optimizer=OptimizerConfig(peak_lr=0.003, warmup_steps=50),
    )
    context = recording_context("model")
    context.data = root
    runner.train(config.model_dump(mode="json"), 0, {}, context)

    def right_kind(shots: int, condition: str = "intact") -> float:
        evaluation = recording_context(f"{shots}-{condition}")
        evaluation.data = root
        stage = {"task": "emoji_attributes", "shots": shots, "condition": condition}
        rows = runner.evaluate(stage, 0, {"model": context.output}, evaluation)
        return next(row.value for row in rows if row.metric == "kind_accuracy")

    assert right_kind(0) < 75  # one kind for all, or none
    assert right_kind(2) > 95
    assert right_kind(2, "wrong_demonstrations") < 5
