from __future__ import annotations

import numpy as np
from PIL import Image

from mm1_jax.data.sources import easy_vqa
from mm1_jax.data.sources.packages import data_folder


def test_the_official_split_is_read_whole():
    train = easy_vqa.questions("train", first_row=0)
    test = easy_vqa.questions("test", first_row=4000)
    assert (len(train), len(test)) == (38575, 9673)
    assert len(easy_vqa.image_names("train")) == 4000
    assert len(easy_vqa.image_names("test")) == 1000
    assert {item.image for item in test} == set(range(4000, 5000))
    assert (train[1].question, train[1].answer) == ("what color is the shape?", "blue")


def test_a_document_is_one_image_one_question_and_its_answer():
    asked = easy_vqa.questions("train", first_row=7)[:3]
    documents = easy_vqa.single_questions(asked)
    assert documents[1].parts == (7, "what color is the shape?", " blue")
    assert documents[1].answers == (False, True)
    assert len(documents) == 3


def test_images_are_rgb():
    pixels = easy_vqa.read_image("easy_vqa/test/3")
    with Image.open(data_folder("easy-vqa") / "test" / "images" / "3.png") as image:
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    assert pixels.shape == (64, 64, 3)
