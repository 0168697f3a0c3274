from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.config.connector import (
    AttentionPoolingConfig,
    AveragePoolingConfig,
    CAbstractorConfig,
    LinearConfig,
    MlpConfig,
    PerceiverResamplerConfig,
    PixelUnshuffleConfig,
)
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model import DenseConfig, MixtureOfExpertsConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.model.connectors import CONNECTORS, build_connector
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.language_model import LanguageModel
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.scale import costs
from mm1_jax.scale.aot import batch_shapes

CONNECTOR_CONFIGS = [
    {"kind": "average_pooling", "tokens": 9},
    {"kind": "attention_pooling", "tokens": 7, "heads": 2},
    {"kind": "linear", "tokens": None},
    {"kind": "mlp", "tokens": None},
    {"kind": "pixel_unshuffle", "tokens": 4},
    {"kind": "perceiver_resampler", "tokens": 7, "depth": 2, "heads": 3, "head_width": 6},
    {"kind": "c_abstractor", "tokens": 4, "width": 24, "depth": 2},
    {"kind": "c_abstractor", "tokens": 4, "width": 16, "depth": 1},
]


def counted(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_every_connector_is_held_against_its_formulas():
    assert {config["kind"] for config in CONNECTOR_CONFIGS} == set(CONNECTORS)


@pytest.mark.parametrize("connector", CONNECTOR_CONFIGS, ids=lambda c: c["kind"])
def test_parameter_formulas_equal_the_real_tree(tiny, connector):
    config = tiny(
        connector=connector, language_model={"layers": 3, "mlp_width": 40}, encoder={"width": 16}
    )
    model = MultimodalModel(config)
    formulas = costs.parameters(config)
    embedding = model.language_model.embedding.get_value().size
    assert formulas == {
        "encoder": counted(nnx.state(model.encoder)),
        "connector": counted(nnx.state(model.connector)),
        "language_model": counted(nnx.state(model.language_model)) - embedding,
        "embedding": embedding,
    }


LARGE = VisionTransformerConfig(image_size=336, patch_size=14, width=1024, layers=24, heads=16)


EXPERTS = {"kind": "moe", "layers": 4, "mlp_width": 40, "experts": 3}


@pytest.mark.parametrize(
    "language_model",
    [
        {**EXPERTS, "every": 2},
        {**EXPERTS, "every": 1},
        {**EXPERTS, "every": 4, "tied_embeddings": False, "qk_norm": True},
    ],
    ids=str,
)
def test_all_experts_are_counted(tiny, language_model):
    config = tiny(language_model=language_model)
    model, formulas = MultimodalModel(config).language_model, costs.parameters(config)
    assert formulas["language_model"] + formulas["embedding"] == counted(nnx.state(model))


# MM1 §3: what the paper says of its sizes; the others are those of the learning-rate law's grid.
PRESETS = {
    ("dense", "9m"): 9e6,
    ("dense", "85m"): 85e6,
    ("dense", "302m"): 302e6,
    ("dense", "1.2b"): 1.2e9,
    ("dense", "2.9b"): 2.9e9,
    ("dense", "6.4b"): 6.4e9,
    ("dense", "30b"): 30e9,
    ("moe", "3b_moe"): 64e9,
    ("moe", "7b_moe"): 47e9,
}
KINDS: dict[str, type[DenseConfig | MixtureOfExpertsConfig]] = {
    "dense": DenseConfig,
    "moe": MixtureOfExpertsConfig,
}


def test_every_preset_has_a_size_to_be_held_against():
    named = {(kind, name) for kind, config in KINDS.items() for name in config.presets}
    assert named - {("dense", "mini"), ("moe", "mini_moe")} == set(PRESETS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_presets_formula_equals_its_real_tree(kind):
    for name in KINDS[kind].presets:
        config = KINDS[kind].model_validate({"preset": name})
        built = counted(nnx.state(Decoder(config, 32_000)))
        assert built == config.all_parameters() + config.head_parameters(32_000), name


@pytest.mark.parametrize(("kind", "name"), PRESETS)
def test_presets_have_the_papers_sizes_within_3_percent(kind, name):
    config = KINDS[kind].model_validate({"preset": name})
    # "9M" is 12 layers of width 256: 12 · 12 · 256² is 9.4M.
    near = 0.06 if name == "9m" else 0.03
    assert config.all_parameters() == pytest.approx(PRESETS[kind, name], rel=near)


@pytest.mark.parametrize(("name", "total", "share"), [("3b_moe", 64e9, 67), ("7b_moe", 47e9, 82)])
def test_the_share_of_feed_forward_weights_is_the_one_the_totals_ask_for(name, total, share):
    moe = MixtureOfExpertsConfig.model_validate({"preset": name})
    dense = {"3b_moe": 2.9e9, "7b_moe": 6.4e9}[name]
    asked = 100 * (total / dense - 1) * moe.every / (moe.experts - 1)
    assert asked == pytest.approx(share, abs=0.5)
    own = 100 * moe.layers * 3 * moe.width * moe.mlp_width / moe.dense().parameters()
    assert own == pytest.approx(asked, abs=0.5)


@pytest.mark.parametrize(
    ("connector", "expected"),
    [
        (CAbstractorConfig(tokens=144, width=1024, depth=3), 22_713_856),
        (CAbstractorConfig(tokens=144, width=2048, depth=3), 71_052_032),
        (AttentionPoolingConfig(tokens=144), 6_449_152),
        (AveragePoolingConfig(tokens=144), 2_099_200),
        (LinearConfig(), 2_099_200),
        (MlpConfig(), 6_295_552),
        (PixelUnshuffleConfig(tokens=144), 12_595_200),
        (PerceiverResamplerConfig(tokens=144, depth=6, heads=8, head_width=64), 65_200_128),
    ],
)
def test_connectors_have_the_known_sizes_at_the_papers_scale(connector, expected):
    assert connector.parameters(LARGE, 2048) == expected
    assert counted(nnx.state(build_connector(connector, LARGE, 2048))) == expected


def test_a_24_layer_language_model_has_the_known_size():
    gated = DenseConfig(width=4096, layers=32, heads=32, kv_heads=32, mlp_width=11008)
    assert gated.parameters() + 2 * 32_000 * 4096 == 6_738_415_616


# Widths at which norms and activations, which the formulas leave out, are a small share.
WIDE = {
    "encoder": {"image_size": 32, "patch_size": 8, "width": 256, "layers": 2, "heads": 2},
    "language_model": {"width": 256, "layers": 2, "heads": 2, "kv_heads": 1, "mlp_width": 768},
    "data": {"text_tokens": 64, "images": 4, "vocabulary": 512},
}


def xla_flops(config, train: bool) -> float:
    """What XLA counts for the unrolled program."""
    model = MultimodalModel(config)
    frozen = config.training.freeze
    graphdef, learning, still = nnx.split(model, lambda path, _: path[0] not in frozen, ...)

    def loss(learning, still, batch):
        return nnx.merge(graphdef, learning, still).loss(batch, None)[0]

    program = jax.value_and_grad(loss) if train else loss
    return jax.jit(program).lower(learning, still, batch_shapes(config)).cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("connector", "freeze"),
    [
        ({"kind": "average_pooling", "tokens": 4}, ()),
        ({"kind": "attention_pooling", "tokens": 9, "heads": 2}, ()),
        ({"kind": "c_abstractor", "tokens": 4, "width": 256, "depth": 2}, ()),
        ({"kind": "linear", "tokens": None}, ()),
        ({"kind": "mlp", "tokens": None}, ()),
        ({"kind": "pixel_unshuffle", "tokens": 4}, ()),
        ({"kind": "perceiver_resampler", "tokens": 9, "head_width": 64, "heads": 8}, ()),
        ({"kind": "average_pooling", "tokens": 4}, ("encoder",)),
        ({"kind": "average_pooling", "tokens": 4}, ("language_model",)),
        ({"kind": "average_pooling", "tokens": 4}, ("connector", "encoder")),
    ],
    ids=str,
)
def test_flops_of_a_step_equal_xlas_count_of_the_unrolled_program(tiny, connector, freeze):
    config = tiny(**WIDE, connector=connector, training={"freeze": freeze, "layers": "unrolled"})
    formula = sum(costs.flops_per_step(config).values())
    assert formula == pytest.approx(xla_flops(config, train=True), rel=0.03)


@pytest.mark.parametrize("train", [False, True])
def test_flops_of_experts_with_places_equal_xlas_count(tiny, train):
    experts = {"kind": "moe", "experts": 4, "every": 2, "capacity_factor": 1.25, "group_tokens": 64}
    language_model = {**WIDE["language_model"], **experts}
    config = tiny(
        **{**WIDE, "language_model": language_model},
        training={"layers": "unrolled", "freeze": () if train else ("encoder", "connector")},
    )
    formula = sum(costs.flops_per_step(config).values())
    assert formula == pytest.approx(xla_flops(config, train=True), rel=0.03)


@pytest.mark.parametrize(
    "experts", [{}, {"kind": "moe", "experts": 4, "capacity_factor": 1.25, "group_tokens": 64}]
)
def test_flops_of_a_language_models_step_equal_xlas_count(experts):
    config = LanguageModelStageConfig.model_validate(
        {
            "language_model": {**WIDE["language_model"], **experts},
            "text_tokens": 64,
            "vocabulary": 512,
            "training": {"layers": "unrolled", "batch_size": 4},
        }
    )
    graphdef, state = nnx.split(LanguageModel(config))
    shapes = {
        name: jax.ShapeDtypeStruct((4, 64), jnp.float32 if name == "loss_weights" else jnp.int32)
        for name in ("tokens", "segments", "positions", "loss_weights")
    }

    def loss(state, batch):
        return nnx.merge(graphdef, state).loss(batch, None)[0]

    counted = jax.jit(jax.value_and_grad(loss)).lower(state, shapes).cost_analysis()["flops"]
    assert costs.language_model_stage_flops(config) == pytest.approx(counted, rel=0.03)


def test_only_the_experts_that_are_chosen_cost_flops(tiny):
    def flops(**more):
        experts = {"kind": "moe", "width": 64, "mlp_width": 192, "experts": 8, **more}
        return costs.flops_per_step(tiny(language_model=experts))["language_model"]

    config, passes, layers = tiny(), 3, 1
    positions = config.training.batch_size * config.sequence_length
    more_router = passes * layers * positions * 2 * 64 * 8
    assert flops(experts=16) - flops() == pytest.approx(more_router)
    dense = costs.flops_per_step(
        tiny(language_model={"kind": "dense", "width": 64, "mlp_width": 192})
    )["language_model"]
    assert flops(every=1, top_k=1, experts=1) > dense
    assert flops(every=1, top_k=1, experts=1) == pytest.approx(dense, rel=0.01)


def test_the_compile_class_ignores_what_does_not_change_the_program(tiny):
    base = costs.compile_class(tiny())
    for same in (
        {"training": {"steps": 9, "log_every": 3}},
        {"optimizer": {"peak_lr": 0.5, "warmup_steps": 1}},
        {"data": {"mixture": {"text": 1.0}}},
        {"seeds": {"initialisation_salt": 3}},
    ):
        assert costs.compile_class(tiny(**same)) == base, same
    for other in (
        {"encoder": {"image_size": 32}},
        {"connector": {"kind": "c_abstractor"}},
        {"language_model": {"layers": 8}},
        {"data": {"text_tokens": 48}},
        {"training": {"freeze": ["encoder"]}},
        {"optimizer": {"weight_decay": 0.2}},
    ):
        assert costs.compile_class(tiny(**other)) != base, other


@pytest.mark.parametrize(
    ("stage", "other"),
    [
        (EncoderStageConfig, {"objective": {"kind": "siglip"}}),
        (EncoderStageConfig, {"encoder": {"layers": 3}}),
        (LanguageModelStageConfig, {"text_tokens": 48}),
        (LanguageModelStageConfig, {"language_model": {"layers": 3}}),
    ],
)
def test_the_compile_class_of_a_pretraining_is_of_its_program(stage, other):
    def of(**fields):
        return costs.pretraining_compile_class(stage.model_validate(fields))

    assert of(training={"steps": 99}, optimizer={"peak_lr": 0.5}) == of()
    for config in (other, {"training": {"batch_size": 6}}, {"optimizer": {"b1": 0.5}}):
        assert of(**config) != of(), config


def test_memory_and_seconds_grow_with_what_causes_them(tiny):
    for bigger in (
        {"training": {"batch_size": 64}},
        {"language_model": {"layers": 8}},
        {"encoder": {"image_size": 64}},
    ):
        assert costs.memory_bytes(tiny(**bigger)) > costs.memory_bytes(tiny())
        assert costs.seconds_per_step(tiny(**bigger)) > costs.seconds_per_step(tiny())
    frozen = tiny(training={"freeze": ["language_model"]})
    assert costs.memory_bytes(frozen) < costs.memory_bytes(tiny())


def test_adafactor_saves_two_moments_per_learning_weight(tiny):
    def needed(kind, **training):
        return costs.memory_bytes(tiny(optimizer={"kind": kind}, training=training))

    counts = costs.parameters(tiny())
    assert needed("adamw") - needed("adafactor") == 8 * sum(counts.values())
    saved = needed("adamw", freeze=["encoder"]) - needed("adafactor", freeze=["encoder"])
    assert saved == 8 * (sum(counts.values()) - counts["encoder"])
