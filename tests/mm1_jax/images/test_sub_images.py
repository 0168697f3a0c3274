from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from mm1_jax.config.data import AnyResolutionConfig, DataConfig, GridConfig
from mm1_jax.data.batches.packing import Packed, lay_out, with_views
from mm1_jax.images.preprocessing import mean_colour, padded_to_square, usual_preprocessing
from mm1_jax.images.sub_images import ImageViews, best_grid, views_of
from mm1_jax.scale import costs

GRIDS = AnyResolutionConfig().grids


def picture(height, width):
    """Colours that tell where in the picture a pixel was."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y * 255 // height, x * 255 // width, (x * 7 + y * 13) % 256], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        *((480, 640, (2, 2)), (1080, 1920, (2, 2)), (1000, 1000, (2, 2))),
        *((300, 1200, (1, 3)), (1200, 300, (3, 1))),
        *((100, 100, (1, 2)), (200, 400, (1, 2)), (336, 336, (1, 2)), (400, 200, (2, 1))),
    ],
)
def test_the_grid_is_llava_nexts(height, width, grid):
    assert best_grid(width, height, GRIDS, 336) == grid


def test_of_grids_that_keep_the_same_the_one_with_least_left_over_is_taken():
    assert best_grid(100, 100, ((2, 2), (1, 3), (2, 1)), 336) == (2, 1)


def test_padding_is_llavas():
    assert mean_colour(usual_preprocessing("pad", 8, "clip").mean) == (122, 116, 104)
    square = np.asarray(padded_to_square(picture(4, 9), (122, 116, 104)))
    assert square.shape == (9, 9, 3)
    np.testing.assert_array_equal(square[2:6], np.asarray(picture(4, 9)))
    assert (square[[0, 1, 6, 7, 8]] == (122, 116, 104)).all()
    tall = np.asarray(padded_to_square(picture(9, 4), (1, 2, 3)))
    np.testing.assert_array_equal(tall[:, 2:6], np.asarray(picture(9, 4)))


def test_a_grid_is_an_overview_and_quarters_row_by_row():
    views = ImageViews(32, sub_images=GridConfig()).of(picture(50, 90))
    squash = usual_preprocessing("squash", 32, "half")
    whole = usual_preprocessing("squash", 64, "half").image(picture(50, 90))
    assert views.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(views[0], squash.image(picture(50, 90)))
    again = np.block([[[views[1]], [views[2]]], [[views[3]], [views[4]]]])
    np.testing.assert_array_equal(again.reshape(64, 64, 3), whole)


def test_any_resolution_keeps_the_aspect_on_black_and_squashes_the_overview():
    seen = ImageViews(16, sub_images=AnyResolutionConfig())
    views = seen.of(picture(20, 80))
    assert len(views) == seen.count(80, 20) == 4
    assert seen.most == 5
    canvas = np.concatenate(views[1:], axis=1)
    scaled = np.asarray(picture(20, 80).resize((48, 12), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(canvas[2:14], scaled)
    assert not canvas[[0, 1, 14, 15]].any()
    np.testing.assert_array_equal(views[0], np.asarray(picture(20, 80).resize((16, 16), 3)))


@pytest.mark.parametrize(
    ("fit", "sub_images", "expected"),
    [
        ("squash", GridConfig(), "9078e7afd6d5"),
        ("crop", GridConfig(), "fbba9d4ca4b3"),
        ("pad", GridConfig(), "552f09c953db"),
        ("squash", AnyResolutionConfig(), "ce92a777f8c3"),
    ],
)
def test_pixels_stay_what_they_are(fit, sub_images, expected):
    assert digest(ImageViews(24, fit, sub_images, "clip").of(picture(37, 61))) == expected


def test_views_stand_where_the_image_stood():
    sequence = Packed(
        tokens=np.array([2, 3, 4, 5, 0], np.int32),
        segments=np.array([1, 1, 2, 2, 0], np.int32),
        image_ids=np.array([8, 9, -1], np.int32),
        image_at=np.array([1, 2, 0], np.int32),
        image_segments=np.array([1, 2, 0], np.int32),
    )
    spread = with_views(sequence, [3, 1], slots=6)
    assert spread.image_ids.tolist() == [8, 8, 8, 9, -1, -1]
    assert spread.image_views is not None
    assert spread.image_views.tolist() == [0, 1, 2, 0, 0, 0]
    batch = lay_out([spread], tokens_per_image=2)
    # t0, three views of two tokens each, t1; one view, t2, t3; four empty image tokens, padding.
    assert batch["gather"][0, :12].tolist() == [0, 5, 6, 7, 8, 9, 10, 1, 11, 12, 2, 3]
    assert not batch["segments"][0, 12:].any()
    assert batch["tokens"].tolist() == [sequence.tokens.tolist()]


@pytest.mark.parametrize(
    ("sub_images", "views"),
    [({"kind": "none"}, 1), ({"kind": "grid"}, 5), ({"kind": "anyres"}, 5)],
)
def test_sub_images_count_in_the_sequence_and_not_in_the_documents(tiny, sub_images, views):
    config = tiny(data={"sub_images": sub_images})
    assert config.view_tokens == tiny().image_tokens
    assert config.image_tokens == views * tiny().image_tokens
    assert config.sequence_length == 12 + 2 * views * 4
    assert config.image_slots == 2 * views
    assert views_of(config).most == views
    flops, once = costs.flops_per_step(config), costs.flops_per_step(tiny())
    assert flops["encoder"] == pytest.approx(views * once["encoder"])


def test_the_default_sees_each_image_once_and_squashed(tiny):
    assert DataConfig().sub_images.kind == "none"
    views = views_of(tiny()).of(picture(20, 30))
    np.testing.assert_array_equal(views[0], np.asarray(picture(20, 30).resize((16, 16), 3)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(48, 64), (30, 120), (120, 30), (20, 20), (57, 33)])
def test_any_resolution_equals_transformers_pillow_processor(shape):
    transformers = pytest.importorskip("transformers")
    size = 28
    processor = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_grid_pinpoints=[[rows * size, columns * size] for rows, columns in GRIDS],
    )
    expected = processor(picture(*shape), return_tensors="np")["pixel_values"][0]
    views = ImageViews(size, sub_images=AnyResolutionConfig()).of(picture(*shape))
    squash = usual_preprocessing("squash", size, "clip")
    found = np.stack([squash.pixels(Image.fromarray(view)) for view in views])
    np.testing.assert_array_equal(found, expected[: len(found)].transpose(0, 2, 3, 1))
    assert not expected[len(found) :].any()
