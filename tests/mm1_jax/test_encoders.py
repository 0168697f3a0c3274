from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm1_jax.encoders import VisionTransformer, patchify
from mm1_jax.initialisation import initialise


def test_patches_go_row_by_row_and_hold_row_column_channel():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = np.asarray(patchify(jnp.asarray(images), 2))
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4].reshape(-1))


def test_images_do_not_see_each_other_and_positions_matter(tiny):
    encoder = initialise(VisionTransformer(tiny().encoder), 0)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    encode = nnx.jit(lambda images: encoder(images, "unrolled", jnp.dtype("float32")))
    features = encode(images)
    assert features.shape == (2, 16, 16)
    images[1] = 0
    again = encode(images)
    np.testing.assert_allclose(again[0], features[0], atol=1e-6)
    assert float(jnp.abs(again[1] - features[1]).max()) > 0.1
    # A uniform image differs from patch to patch only by its learned positions.
    assert float(jnp.abs(again[1, 0] - again[1, 1]).max()) > 1e-3
