"""Every value that a factor of the model or its training can have learns from a batch.

By default values of several factors go into one model, so that few programs are compiled; the slow
tests try each alone and hold it against the base: what it should change it changes.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ablations.schema import Config
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.language_model import DenseConfig, MixtureOfExpertsConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import OptimizerConfig, TrainingConfig
from mm1_jax.model.connectors import CONNECTORS
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.mixture_of_experts import from_dense
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.loop import Trainer
from mm1_jax.training.schedule import learning_rate, peak_lr

STEPS = 8
BASE: dict[str, dict[str, Any]] = {
    "encoder": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
    "connector": {"kind": "average_pooling", "tokens": 1},
    "language_model": {"width": 16, "layers": 1, "heads": 4, "kv_heads": 2, "mlp_width": 24},
    "data": {"text_tokens": 12, "images": 2, "vocabulary": 300},
    "training": {"batch_size": 2, "steps": STEPS, "layers": "unrolled"},
    "optimizer": {"peak_lr": 0.01, "warmup_steps": 2},
}
# Each half of a fused encoder.
TOWER = {"image_size": 16, "patch_size": 8, "width": 8, "layers": 1, "heads": 2}
EXPERTS = {"kind": "moe", "experts": 3}

# Section of the config → name → fields that differ from the base.
VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "encoder": {
        "class token": {"class_token": True},
        "registers": {"registers": 2},
        "sincos positions": {"positions": "sincos"},
        "no positions": {"positions": "none"},
        "norm of patches": {"embedding_norm": "patches"},
        "norm of tokens": {"embedding_norm": "tokens"},
        "rms norm": {"norm": "rms_norm"},
        "gelu": {"activation": "gelu"},
        "quick gelu": {"activation": "quick_gelu"},
        "swiglu": {"activation": "swiglu"},
        "no bias": {"bias": False},
        "no patch bias": {"patch_bias": False},
        "layer scale": {"layer_scale": 0.5},
        "output of the embeddings": {"output_layer": 0},
        "output of the last but one": {"output_layer": -2, "layers": 2},
        "no output norm": {"output_norm": False},
        "pixels as clip": {"pixels": "clip"},
        "pixels as imagenet": {"pixels": "imagenet"},
        "pixels left over": {"image_size": 18, "remainder": "drop"},
        "fused": {
            "kind": "fused",
            "first": TOWER,
            "second": {**TOWER, "class_token": True},
        },
    },
    "connector": {
        "attention pooling": {"kind": "attention_pooling", "tokens": 4, "heads": 2},
        "linear": {"kind": "linear", "tokens": 4},
        "mlp": {"kind": "mlp", "tokens": 4},
        "pixel unshuffle": {"kind": "pixel_unshuffle", "tokens": 1},
        "perceiver resampler": {"kind": "perceiver_resampler", "tokens": 4, "depth": 1, "heads": 2},
        "c-abstractor": {"kind": "c_abstractor", "tokens": 4, "width": 16, "depth": 1},
    },
    "language_model": {
        "norm of queries and keys": {"qk_norm": True},
        "qkv biases": {"qkv_bias": True},
        "linear rope scaling": {"rope_scaling": {"kind": "linear", "factor": 4}},
        "llama3 rope scaling": {
            "rope_scaling": {"kind": "llama3", "factor": 8, "original_length": 16}
        },
        "free head": {"tied_embeddings": False},
        "embeddings as they are": {"scaled_embeddings": False},
        "dropout": {"dropout": 0.2},
        "heads wider than their share": {"head_width": 8},
        "experts in every layer": {**EXPERTS, "every": 1},
        "experts in every 2nd layer": {**EXPERTS, "every": 2, "layers": 2},
        "experts with places": {**EXPERTS, "every": 1, "capacity_factor": 1.0, "group_tokens": 8},
        "one expert a token": {**EXPERTS, "every": 1, "top_k": 1},
    },
    "training": {
        "mean over sequences": {"loss_mean": "sequences"},
        "z-loss": {"z_loss": 0.01},
        "bfloat16": {"compute_dtype": "bfloat16"},
        "scanned": {"layers": "scanned", "remat": "none"},
        "scanned, dots kept": {"layers": "scanned", "remat": "dots"},
        "scanned, nothing kept": {"layers": "scanned", "remat": "full"},
        "attention in chunks": {"attention": "chunked"},
        "frozen encoder": {"freeze": ["encoder"]},
        "frozen connector": {"freeze": ["connector"]},
        "frozen language model": {"freeze": ["language_model"]},
    },
    "optimizer": {
        "adafactor": {"kind": "adafactor"},
        "linear": {"schedule": "linear"},
        "wsd": {"schedule": "wsd", "decay_share": 0.5},
        "constant": {"schedule": "constant"},
        "parts at rates of their own": {"part_rates": {"connector": 3.0, "encoder": 0.5}},
    },
}
NAMED = [(section, name) for section, choices in VALUES.items() for name in choices]
# Needs a GPU, is what the base has, has a test of its own, or says what is kept of a training.
UNTRIED = {
    "attention": {"plain", "fused"},
    "layers": {"unrolled"},
    "from_dense": {True},
    "antialias": {True},
    "keep_best": {True},
}
# Forms of the program: they compute the same.
SAME = ("scanned", "scanned, dots kept", "scanned, nothing kept", "attention in chunks")


def packed() -> list[list[tuple[str, str]]]:
    """Values in as few models as their fields allow: no field is set twice."""
    models: list[list[tuple[str, str]]] = []

    def clash(section: str, first: str, second: str) -> bool:
        fields, others = VALUES[section][first], VALUES[section][second]
        return bool(fields.keys() & others.keys()) or "fused" in (first, second)

    for section, name in NAMED:
        for model in models:
            if not any(clash(section, name, other) for own, other in model if own == section):
                model.append((section, name))
                break
        else:
            models.append([(section, name)])
    return models


def config_of(*changes: dict[str, dict[str, Any]]) -> TrainConfig:
    """The base with fields replaced; an encoder of another kind is replaced as a whole."""
    sections = dict(BASE)
    for section, fields in (item for change in changes for item in change.items()):
        old = {} if fields.get("kind") == "fused" else sections[section]
        sections[section] = old | fields
    return TrainConfig.model_validate(sections)


@pytest.fixture(scope="module")
def train(synthetic_batch):
    """`train(config, first)`: losses of eight steps on one batch, and the model after them.

    From the model `first`, or from the first weights of seed 0.
    """

    def run(
        config: TrainConfig, first: MultimodalModel | None = None
    ) -> tuple[list[float], MultimodalModel]:
        model = initialise(MultimodalModel(config), 0) if first is None else first
        trainer = Trainer(model, config.training, config.optimizer, 0)
        batch, losses = synthetic_batch(config), []
        batch["loss_weights"][0, 3:] = 0  # fewer than in the other row: means differ
        for step in range(1, STEPS + 1):
            rate = learning_rate(config.optimizer, peak_lr(config), STEPS, step)
            losses.append(float(trainer.step(batch, rate, step)["loss"]))
        return losses, trainer.model()

    return run


def assert_lowered(losses: list[float], config: TrainConfig) -> None:
    """By a fifth; by anything where the language model is frozen."""
    share = 1.0 if "language_model" in config.training.freeze else 0.8
    assert np.isfinite(losses).all()
    assert losses[-1] < share * losses[0], losses


@pytest.mark.parametrize("values", packed(), ids=lambda values: values[0][1])
def test_every_value_learns_among_others(values, train):
    config = config_of(*({section: VALUES[section][name]} for section, name in values))
    assert_lowered(train(config)[0], config)


@pytest.fixture(scope="module")
def plain(train):
    """`plain(section, layers)`: losses of the base with so many layers there, computed once."""
    return functools.cache(
        lambda section, layers: train(config_of({section: {"layers": layers}}))[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("section", "name"), NAMED)
def test_every_value_alone_learns_and_changes_what_it_should(section, name, train, plain):
    fields = VALUES[section][name]
    config = config_of({section: fields})
    losses, _ = train(config)
    assert_lowered(losses, config)
    layers = fields.get("layers", 1)
    without = plain(section, 2) if layers == 2 else plain("encoder", 1)
    if name in SAME:
        np.testing.assert_allclose(losses, without, rtol=1e-4)
    elif name != "gelu":  # nearly gelu_tanh: seen in the features (test_encoders), not in a loss
        assert np.abs(np.subtract(losses, without)).max() > 1e-4


@pytest.mark.slow
def test_experts_that_start_as_a_trained_dense_mlp_go_on_from_its_loss(train):
    config = config_of({"language_model": {**EXPERTS, "every": 1, "from_dense": True}})
    _, dense = train(config_of())
    graphdef, state = nnx.split(initialise(MultimodalModel(config), 0))
    tree = nnx.to_pure_dict(nnx.state(dense))
    fresh = nnx.to_pure_dict(state)["language_model"]
    tree["language_model"] = from_dense(config.language_model, tree["language_model"], fresh)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.array, tree))
    losses, _ = train(config, nnx.merge(graphdef, state))
    on, _ = train(config_of(), dense)
    # What the router's losses add: 0.01 for an even choice, and the z-loss.
    assert 0.005 < losses[0] - on[0] < 0.02
    assert_lowered(losses, config)


def values_of(config: type[Config]) -> dict[str, set[Any]]:
    """Field → what it can be, for fields with a few values: Literal, bool."""
    found = {}
    for name, field in config.model_fields.items():
        if field.annotation is bool:
            found[name] = {True, False}
        elif get_origin(field.annotation) is Literal:
            found[name] = set(get_args(field.annotation))
    return found


@pytest.mark.parametrize(
    ("section", "config"),
    [
        ("encoder", VisionTransformerConfig),
        ("language_model", DenseConfig),
        ("language_model", MixtureOfExpertsConfig),
        ("training", TrainingConfig),
        ("optimizer", OptimizerConfig),
    ],
)
def test_every_value_of_a_choice_is_tried(section, config):
    for field, known in values_of(config).items():
        tried = {fields[field] for fields in VALUES[section].values() if field in fields}
        missing = known - tried - {config.model_fields[field].default}
        assert missing <= UNTRIED.get(field, set()), field


def test_every_kind_of_connector_is_tried():
    tried = {fields["kind"] for fields in VALUES["connector"].values()}
    assert tried | {"average_pooling"} == set(CONNECTORS)
