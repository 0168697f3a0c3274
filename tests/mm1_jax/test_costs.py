from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax import costs
from mm1_jax.config import (
    AttentionPoolingConfig,
    AveragePoolingConfig,
    CAbstractorConfig,
    DenseConfig,
    LinearConfig,
    MlpConfig,
    PerceiverResamplerConfig,
    PixelUnshuffleConfig,
    VisionTransformerConfig,
)
from mm1_jax.connectors import CONNECTORS, build_connector
from mm1_jax.model import MultimodalModel

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
    batch, images = config.training.batch_size, config.data.images
    text, length = config.data.text_tokens, config.sequence_length
    size = config.encoder.image_size
    integers = {
        "tokens": (batch, text),
        "gather": (batch, length),
        "segments": (batch, length),
        "positions": (batch, length),
        "predictors": (batch, text),
    }
    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in integers.items()}
    shapes["images"] = jax.ShapeDtypeStruct((batch, images, size, size, 3), jnp.uint8)
    shapes["loss_weights"] = jax.ShapeDtypeStruct((batch, text), jnp.float32)
    frozen = config.training.freeze
    graphdef, learning, still = nnx.split(model, lambda path, _: path[0] not in frozen, ...)

    def loss(learning, still, batch):
        return nnx.merge(graphdef, learning, still).loss(batch, None)[0]

    program = jax.value_and_grad(loss) if train else loss
    return jax.jit(program).lower(learning, still, shapes).cost_analysis()["flops"]


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
        {"training": {"freeze": ["encoder"]}},
        {"optimizer": {"weight_decay": 0.2}},
    ):
        assert costs.compile_class(tiny(**other)) != base, other


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
