from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from simulated_devices import simulated_devices

from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.contrastive import ContrastiveModel, clip_loss, siglip_loss
from mm1_jax.training.encoder_pretraining import first_model

NONE = np.zeros((4, 4), bool)
# One program each: operation by operation, every one is compiled.
embed_images = nnx.jit(ContrastiveModel.embed_images)
embed_captions = nnx.jit(ContrastiveModel.embed_captions)


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (4, 4)).astype(np.float32)


@pytest.fixture
def ignored() -> np.ndarray:
    pairs = NONE.copy()
    pairs[0, 2] = pairs[3, 1] = True
    return pairs


def softmax_loss(rows: np.ndarray, kept: np.ndarray) -> float:
    """Cross-entropy of the diagonal by the definition, one row after the other."""
    losses = []
    for i, row in enumerate(rows.astype(np.float64)):
        shares = np.exp(row[kept[i]])
        losses.append(-np.log(np.exp(row[i]) / shares.sum()))
    return float(np.mean(losses))


def test_clip_is_the_mean_of_both_directions_cross_entropies(scores, ignored):
    for left_out in (NONE, ignored):
        expected = (softmax_loss(scores, ~left_out) + softmax_loss(scores.T, ~left_out.T)) / 2
        assert float(clip_loss(scores, left_out)) == pytest.approx(expected, rel=1e-6)


def test_siglip_is_a_binary_cross_entropy_of_every_pair_per_image(scores, ignored):
    for left_out in (NONE, ignored):
        expected = 0.0
        for i in range(4):
            for j in range(4):
                probability = 1 / (1 + np.exp(-np.float64(scores[i, j])))
                right = probability if i == j else 1 - probability
                expected -= 0.0 if left_out[i, j] else np.log(right)
        assert float(siglip_loss(scores, left_out)) == pytest.approx(expected / 4, rel=1e-5)


@pytest.mark.parametrize("loss", [clip_loss, siglip_loss])
def test_pairs_that_are_left_out_have_no_gradient(loss, scores, ignored):
    slopes = np.asarray(jax.grad(loss)(jnp.asarray(scores), ignored))
    assert (slopes[ignored] == 0).all()
    assert np.isfinite(slopes).all()
    assert (slopes[~ignored] != 0).all()
    assert (np.diagonal(slopes) < 0).all()  # own captions are pulled


def small(kind: str, **objective) -> EncoderStageConfig:
    tower = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "mlp_width": 16}
    encoder = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 1, "heads": 2}
    return EncoderStageConfig.model_validate(
        {
            "objective": {"kind": kind, "text_tower": tower, "width": 8, **objective},
            "encoder": encoder,
            "vocabulary": 300,
            "text_tokens": 6,
        }
    )


def batch_of(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(seed)
    return {
        "images": draws.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8),
        "tokens": draws.integers(2, 300, (count, 6)).astype(np.int32),
        "lengths": draws.integers(1, 7, count).astype(np.int32),
        "matches": np.eye(count, dtype=bool),
    }


@pytest.mark.parametrize(
    ("kind", "scale", "bias"), [("clip", 1 / 0.07, None), ("siglip", 10.0, -10.0)]
)
@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_scores_are_scaled_cosines_with_the_published_first_values(
    loss_of, kind, scale, bias, pooling
):
    model = first_model(small(kind, pooling=pooling), 0)
    assert isinstance(model, ContrastiveModel)
    batch = batch_of(4)
    images = np.asarray(embed_images(model, batch["images"]))
    captions = np.asarray(embed_captions(model, batch["tokens"], batch["lengths"]))
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(captions, axis=1), 1, rtol=1e-5)
    expected = scale * images @ captions.T + (bias or 0)
    np.testing.assert_allclose(model.head.scores(images, captions), expected, rtol=1e-4, atol=1e-5)
    loss, metrics = loss_of(model, batch)
    function = clip_loss if kind == "clip" else siglip_loss
    assert float(loss) == pytest.approx(float(function(expected, NONE)), rel=1e-4)
    assert float(metrics["scale"]) == pytest.approx(scale, rel=1e-5)


def test_clips_factor_stays_at_100_and_siglips_does_not():
    for kind, expected in [("clip", 100.0), ("siglip", np.exp(5.0))]:
        model = first_model(small(kind), 0)
        assert isinstance(model, ContrastiveModel)
        model.head.scale.set_value(jnp.asarray(5.0))
        assert float(model.scale) == pytest.approx(expected, rel=1e-5)


def test_what_follows_a_captions_end_does_not_matter():
    model = first_model(small("clip"), 0)
    assert isinstance(model, ContrastiveModel)
    batch = batch_of(3)
    lengths = np.array([2, 5, 6], np.int32)
    other = batch["tokens"].copy()
    other[0, 2:], other[1, 5:] = 7, 7
    first, again = (embed_captions(model, one, lengths) for one in (batch["tokens"], other))
    np.testing.assert_allclose(first, again, atol=1e-6)
    other[0, 1] = 9
    assert float(jnp.abs(first - embed_captions(model, other, lengths))[0].max()) > 1e-3


def test_the_encoder_starts_with_the_weights_it_has_without_pretraining():
    config = small("clip")
    whole = initialise(MultimodalModel(TrainConfig(encoder=config.encoder)), 3)
    for a, b in zip(
        jax.tree.leaves(nnx.state(first_model(config, 3).encoder)),
        jax.tree.leaves(nnx.state(whole.encoder)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


ON_EIGHT_DEVICES = """
import sys
import jax, numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
sys.path[:0] = sys.argv[1:]
from test_contrastive import batch_of, small
from mm1_jax.training.encoder_pretraining import first_model

assert len(jax.devices()) == 8
rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
for kind, more in [("clip", {}), ("siglip", {"bias": 0.0})]:
    graphdef, state = nnx.split(first_model(small(kind, pooling="mean", **more), 0))
    step = jax.jit(jax.value_and_grad(lambda s, b: nnx.merge(graphdef, s).loss(b, None)[0]))
    batch = batch_of(16)
    batch["matches"][0, 9] = True  # a pair of two devices
    loss, slopes = step(state, batch)
    cut = {name: jax.device_put(array, rows) for name, array in batch.items()}
    loss_cut, slopes_cut = step(state, cut)
    np.testing.assert_allclose(loss_cut, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(slopes_cut), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
print("equal")
"""


def test_the_loss_is_over_the_whole_batch_however_it_is_cut():
    here = Path(__file__).parent
    made = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES, str(here), str(here.parent)],
        env=simulated_devices(8),
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert made.stdout.strip() == "equal", made.stderr
