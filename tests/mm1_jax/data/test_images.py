from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mm1_jax.config import DataConfig
from mm1_jax.data import emoji
from mm1_jax.data.images import image_png
from mm1_jax.data.prepared import open_prepared


@pytest.fixture(scope="module")
def prepared(data_root):
    return open_prepared(DataConfig(), data_root)


def test_ids_lead_to_the_right_picture(prepared):
    row = prepared.images.names.index("twemoji/1f436")
    expected = emoji.read_image("twemoji/1f436", (255, 255, 255))
    np.testing.assert_array_equal(prepared.images.native(row), expected)
    with Image.open(io.BytesIO(image_png(prepared.folder, row))) as image:
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_images_are_resized_bicubically_and_an_empty_slot_is_black(prepared):
    ids = np.array([[3, -1], [6000, 3]], np.int32)
    for _ in range(2):  # the second time from memory
        pixels = prepared.images.at_size(ids, 24)
        assert pixels.shape == (2, 2, 24, 24, 3)
        assert pixels.dtype == np.uint8
        assert not pixels[0, 1].any()
        for image_id, seen in ((3, pixels[0, 0]), (6000, pixels[1, 0])):
            image = Image.fromarray(prepared.images.native(image_id))
            resized = np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))
            np.testing.assert_array_equal(seen, resized)
