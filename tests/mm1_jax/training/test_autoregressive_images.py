from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.encoder_pretraining import AimObjective, EncoderStageConfig
from mm1_jax.model.layers import UNROLLED
from mm1_jax.training.autoregressive_images import AutoregressiveModel, pixel_targets, prefix_mask
from mm1_jax.training.encoder_pretraining import first_model

ENCODER = VisionTransformerConfig(image_size=12, patch_size=4, width=16, layers=2, heads=2)
CONFIG = EncoderStageConfig(objective=AimObjective(head_width=8), encoder=ENCODER)
FLOAT = jnp.dtype("float32")
# One program each: operation by operation, every one is compiled.
features = nnx.jit(lambda model, images, mask: model.encoder(images, UNROLLED, FLOAT, mask))
predictions = nnx.jit(lambda model, images, mask: model.head(features(model, images, mask)))


@pytest.fixture(scope="module")
def model() -> AutoregressiveModel:
    model = first_model(CONFIG, 0)
    assert isinstance(model, AutoregressiveModel)
    return model


def images(count: int) -> np.ndarray:
    draws = np.random.default_rng(0)
    return draws.integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)


def test_patches_see_the_prefix_and_what_is_before_them():
    mask = np.asarray(prefix_mask(jnp.array([3, 1]), 5)).astype(int)
    np.testing.assert_array_equal(
        mask[0],
        [
            [1, 1, 1, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1],
        ],
    )
    np.testing.assert_array_equal(mask[1], np.tril(np.ones((5, 5))))


def test_targets_are_patches_in_raster_order_with_mean_0_and_variance_1():
    picture = np.full((1, 4, 4, 3), 200, np.uint8)
    picture[0, :2, 2:] = np.arange(12).reshape(2, 2, 3) * 20  # second patch: 0, 20 … 220
    targets = np.asarray(pixel_targets(jnp.asarray(picture), 2, 2))
    assert targets.shape == (1, 4, 12)
    ramp = np.arange(12) - 5.5
    np.testing.assert_allclose(targets[0, 1], ramp / ramp.std(), rtol=1e-4)
    np.testing.assert_allclose(targets[0, [0, 2, 3]], 0, atol=1e-3)  # of one colour


def test_pixels_that_fill_no_patch_are_no_target():
    picture = images(1)
    whole, cropped = (pixel_targets(jnp.asarray(p), 5, 2) for p in (picture, picture[:, :10, :10]))
    np.testing.assert_array_equal(whole, cropped)


def test_the_loss_is_the_error_of_what_follows_the_prefix_each_image_alike(model, loss_of):
    batch = {"images": images(3), "prefixes": np.array([1, 5, 8], np.int32)}
    mask = prefix_mask(jnp.asarray(batch["prefixes"]), 9)
    predicted = np.asarray(predictions(model, batch["images"], mask))
    targets = np.asarray(pixel_targets(jnp.asarray(batch["images"]), 4, 3))
    of_images, of_means = [], []
    for row, prefix in enumerate(batch["prefixes"]):
        places = range(prefix, 9)  # each is predicted at the place before it
        of_images.append(
            np.mean([np.mean((predicted[row, p - 1] - targets[row, p]) ** 2) for p in places])
        )
        of_means.append(np.mean([np.mean(targets[row, p] ** 2) for p in places]))
    loss, metrics = loss_of(model, batch)
    assert float(loss) == pytest.approx(np.mean(of_images), rel=1e-5)
    assert float(metrics["mean_loss"]) == pytest.approx(np.mean(of_means), rel=1e-5)
    assert float(metrics["mean_loss"]) == pytest.approx(1.0, rel=1e-3)  # no patch is of one colour


@pytest.mark.parametrize(("prefix", "changed"), [(1, 4), (4, 4), (4, 8)])
def test_no_prediction_sees_what_it_predicts(model, prefix, changed):
    """Patch `changed` is not in the prefix: it reaches no feature before its own."""
    picture = images(1)
    mask = prefix_mask(jnp.array([prefix]), 9)
    before = np.asarray(features(model, picture, mask))
    row, column = divmod(changed, 3)
    picture[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] ^= 255
    after = np.asarray(features(model, picture, mask))
    np.testing.assert_allclose(after[0, :changed], before[0, :changed], atol=1e-6)
    assert np.abs(after[0, changed:] - before[0, changed:]).max(-1).min() > 1e-4
    # Without the mask, as the encoder is used afterwards, it reaches all.
    free = np.asarray(features(model, picture, None))
    assert np.abs(free[0] - after[0])[: max(1, changed - 1)].max(-1).min() > 1e-4
