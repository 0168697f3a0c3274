from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mm1_jax.config.data import DataConfig, GridConfig
from mm1_jax.data.batches.images import image_png, image_views, view_slots
from mm1_jax.data.batches.packing import Packed
from mm1_jax.data.sources import emoji
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.images.sub_images import ImageViews


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


def test_only_the_last_images_of_a_prompt_are_shown_in_all_their_views(prepared):
    seen = ImageViews(16, sub_images=GridConfig())
    prompt = Packed(
        *(np.zeros(4, np.int32) for _ in range(2)),
        image_ids=np.array([3, 6000, 4], np.int32),
        image_at=np.array([0, 1, 2], np.int32),
        image_segments=np.ones(3, np.int32),
    )
    mixed = prepared.images.in_views(prompt, seen, view_slots(3, seen.most, 1), sharp=1)
    assert mixed.image_ids.tolist() == [3, 6000, 4, 4, 4, 4, 4]
    ids, views = image_views([mixed])
    assert views.tolist() == [[0, 0, 0, 1, 2, 3, 4]]
    pixels = prepared.images.views(ids, views, seen)[0]
    for place, image_id in ((1, 6000), (slice(2, 7), 4)):
        picture = Image.fromarray(prepared.images.native(image_id))
        expected = seen.of(picture) if image_id == 4 else seen.of(picture)[0]
        np.testing.assert_array_equal(pixels[place], expected)
    for sharp, slots in ((None, 15), (5, 15), (0, 3)):
        assert view_slots(3, seen.most, sharp) == slots
        assert (prepared.images.in_views(prompt, seen, slots, sharp).image_ids >= 0).all()
