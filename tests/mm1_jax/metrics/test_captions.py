from __future__ import annotations

import numpy as np
import pytest

from mm1_jax.metrics import cider_d, words

# Scored with coco-caption's CIDEr-D after its PTB tokenizer.
REFERENCES = [
    ["A man riding a wave on top of a surfboard.", "A surfer rides a large wave."],
    ["A plate of food with broccoli and rice.", "Broccoli and rice on a white plate."],
    ["Two dogs play in the snow.", "Two dogs run through deep snow."],
]
CANDIDATES = [
    "a man riding a wave on a surfboard",
    "a plate of broccoli",
    "two dogs play in the snow",
]


def test_cider_d_gives_the_official_scores():
    scores = cider_d(CANDIDATES, REFERENCES)
    np.testing.assert_allclose(scores, [3.620292, 2.009035, 5.875], atol=5e-7)
    assert scores.mean() == pytest.approx(3.834776, abs=5e-7)


def test_short_captions_cap_cider_d_even_when_perfect():
    texts = ["one two three four", "five six", "seven"]
    perfect = cider_d(texts, [[text] for text in texts])
    np.testing.assert_allclose(perfect, [10.0, 5.0, 2.5])


def test_cider_d_of_one_image_alone_is_zero():
    assert cider_d(CANDIDATES[:1], REFERENCES[:1]).tolist() == [0.0]


def test_document_frequencies_of_the_corpus_keep_scores_of_a_subset():
    candidates = [CANDIDATES[i] for i in (0, 0, 1)]
    references = [REFERENCES[i] for i in (0, 0, 1)]
    assert cider_d(candidates, references).mean() == pytest.approx(2.4714, abs=5e-5)
    assert cider_d(candidates, references, REFERENCES).mean() == pytest.approx(3.0832, abs=5e-5)


def test_words_are_lower_case_without_punctuation():
    assert words("A T-shirt, isn't it?  Yes -- 3!") == ["a", "t-shirt", "isn't", "it", "yes", "3"]
