from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ablations.errors import UserError
from mm1_jax.images.preprocessing import MEAN_AND_STD, stated_preprocessing, usual_preprocessing


def picture(height, width):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def test_squash_takes_the_whole_picture_and_half_means_minus_one_to_one():
    wanted = usual_preprocessing("squash", 32, "half")
    expected = np.asarray(picture(40, 90).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(wanted.image(picture(40, 90)), expected)
    np.testing.assert_allclose(wanted.pixels(picture(40, 90)), expected / 127.5 - 1, atol=1e-6)


def test_crop_takes_the_middle_after_the_shorter_side_has_its_size():
    wanted = usual_preprocessing("crop", 32, "clip")
    whole = np.asarray(picture(40, 90).resize((72, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(wanted.image(picture(40, 90)), whole[:, 20:52])
    mean, std = MEAN_AND_STD["clip"]
    expected = (whole[:, 20:52] / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(wanted.pixels(picture(40, 90)), expected, atol=1e-6)


def test_what_the_folder_states_goes_before_what_is_usual(tmp_path):
    usual = usual_preprocessing("crop", 32, "clip")
    assert stated_preprocessing(tmp_path, usual) == usual
    stated = {"do_center_crop": False, "size": {"height": 20, "width": 24}, "image_mean": [0, 0, 0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated), encoding="utf-8")
    found = stated_preprocessing(tmp_path, usual)
    assert (found.resize, found.height, found.width) == ("squash", 20, 24)
    assert (found.mean, found.std) == ((0, 0, 0), usual.std)
    stated = {"do_center_crop": True, "size": 30, "crop_size": 28}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated), encoding="utf-8")
    found = stated_preprocessing(tmp_path, usual)
    assert (found.shortest_edge, found.height, found.width) == (30, 28, 28)


def test_what_newer_files_nest_is_read_and_the_older_file_goes_first(tmp_path):
    usual = usual_preprocessing("crop", 32, "clip")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    nested = {"image_processor": {**sizes, "do_pad": True}, "patch_size": 8}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested), encoding="utf-8")
    found = stated_preprocessing(tmp_path, usual)
    assert found == usual_preprocessing("pad", 32, "clip")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(sizes), encoding="utf-8")
    assert stated_preprocessing(tmp_path, usual) == usual


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"do_resize": False}, "do_resize false is not known; valid: true"),
        ({"rescale_factor": 0.5}, r"rescale_factor 0\.5; valid: 1 / 255"),
        ({"do_pad": True, "size": 40, "crop_size": 32}, "do_pad with a crop of less than all"),
    ],
)
def test_what_is_not_known_is_refused(stated, message, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        stated_preprocessing(tmp_path, usual_preprocessing("crop", 32, "clip"))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(70, 90), (121, 60), (56, 56)])
@pytest.mark.parametrize(
    ("rule", "mean_and_std", "kind"),
    [
        ("crop", "clip", "CLIPImageProcessorPil"),
        ("squash", "half", "SiglipImageProcessorPil"),
        ("pad", "clip", "LlavaImageProcessorPil"),
        ("crop_875", "imagenet", "BitImageProcessorPil"),  # DINOv2's
    ],
)
def test_pixels_equal_those_of_transformers_pillow_processors(shape, rule, mean_and_std, kind):
    transformers = pytest.importorskip("transformers")
    mean, std = MEAN_AND_STD[mean_and_std]
    settings = {"size": {"shortest_edge": 64 if rule == "crop_875" else 56}}
    settings["crop_size"] = {"height": 56, "width": 56}
    settings |= {"image_mean": mean, "image_std": std}
    if rule == "squash":
        settings |= {"size": {"height": 56, "width": 56}}
        del settings["crop_size"]
    if rule == "pad":
        settings["do_pad"] = True
    processor = getattr(transformers, kind)(**settings)
    expected = processor(picture(*shape), return_tensors="np")["pixel_values"][0]
    found = usual_preprocessing(rule, 56, mean_and_std).pixels(picture(*shape))
    np.testing.assert_array_equal(found, expected.transpose(1, 2, 0))


def test_padding_squares_with_the_mean_colour_before_it_squashes():
    wanted = usual_preprocessing("pad", 32, "clip")
    seen = wanted.image(picture(40, 90))
    assert (seen[[0, 31]] == (122, 116, 104)).all()
    assert wanted.image(picture(90, 90)).tolist() == (
        usual_preprocessing("squash", 32, "clip").image(picture(90, 90)).tolist()
    )
