from __future__ import annotations

import random
import re

import numpy as np
import pytest

from mm1_jax.data.sources import wikipedia
from mm1_jax.evaluation.metrics.captions import bleu, cider_d, rouge_l

# Scored with pycocoevalcap 1.2 and its Java tokenizer, as all expected values here.
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
    perfect = cider_d(texts, [[wikipedia] for wikipedia in texts])
    np.testing.assert_allclose(perfect, [10.0, 5.0, 2.5])


def test_cider_d_of_one_image_alone_is_zero():
    assert cider_d(CANDIDATES[:1], REFERENCES[:1]).tolist() == [0.0]


def test_document_frequencies_of_the_corpus_keep_scores_of_a_subset():
    candidates = [CANDIDATES[i] for i in (0, 0, 1)]
    references = [REFERENCES[i] for i in (0, 0, 1)]
    assert cider_d(candidates, references).mean() == pytest.approx(2.4714, abs=5e-5)
    assert cider_d(candidates, references, REFERENCES).mean() == pytest.approx(3.0832, abs=5e-5)


def test_bleu_and_rouge_l_give_the_official_scores():
    np.testing.assert_allclose(
        bleu(CANDIDATES, REFERENCES), [0.94595947, 0.88064034, 0.81942708, 0.76749941], atol=5e-9
    )
    np.testing.assert_allclose(
        rouge_l(CANDIDATES, REFERENCES), [0.87142857, 0.62886598, 1.0], atol=5e-9
    )


def test_scores_of_hard_captions_are_the_official_ones(hard_captions):
    references = [hard_captions[i : i + 3] for i in range(len(hard_captions) - 2)]
    candidates = [
        " ".join(word for at, word in enumerate(texts[1].split()) if at % 4 != 3)
        for texts in references
    ]
    np.testing.assert_allclose(
        bleu(candidates, references), [0.95039118, 0.88645672, 0.81188913, 0.71801156], atol=5e-9
    )
    rouge = rouge_l(candidates, references)
    assert rouge.mean() == pytest.approx(0.91040616, abs=5e-9)
    np.testing.assert_allclose(rouge[:4], [0.884058, 0.894428, 0.855711, 0.835616], atol=5e-7)
    cider = cider_d(candidates, references)
    assert cider.mean() == pytest.approx(2.22437309, abs=5e-9)
    np.testing.assert_allclose(cider[:4], [1.578956, 1.684569, 1.850803, 2.940556], atol=5e-7)


def test_bleu_compares_lengths_with_the_shorter_of_two_equally_close_references():
    longer, shorter = ["a b c d e", "a b c d e f"], ["a b c d e", "a b c"]
    assert bleu(["a b c d"], [shorter])[3] == pytest.approx(1.0)
    assert bleu(["a b c d"], [longer])[3] == pytest.approx(np.exp(1 - 5 / 4))


def test_bleu_counts_a_word_as_often_as_one_reference_has_it():
    assert bleu(["the the"], [["the", "the"]])[0] == pytest.approx(0.5)


def test_rouge_l_takes_precision_and_recall_from_different_references():
    # precision 4/4 by the first, recall 1/1 by the second
    assert rouge_l(["a b c d"], [["a b c d e f g h", "a"]]).tolist() == [1.0]


def test_empty_captions_score_as_in_the_original():
    candidates, references = ["", ""], [["a b c d"], [""]]
    assert bleu(candidates, references).tolist() == [0.0] * 4
    assert rouge_l(candidates, references).tolist() == [0.0, 1.0]
    assert cider_d(candidates, references).tolist() == [0.0, 0.0]


@pytest.mark.slow
def test_scores_of_thousands_of_images_are_those_of_pycocoevalcap(java):
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    draws = random.Random(0)
    leads = [" ".join(lead.text.split()) for lead in wikipedia.read_all()]
    sentences = [part for lead in leads for part in re.split(r"(?<=[.!?]) +", lead)]

    def reworded(sentence: str) -> str:
        words = sentence.split()
        for _ in range(draws.randrange(6)):
            words.insert(draws.randrange(len(words) + 1), draws.choice(sentence.split()))
            del words[draws.randrange(len(words))]
        return " ".join(words)

    drawn = draws.sample(sentences, 4000)
    references = [[reworded(s) for _ in range(draws.randint(1, 6))] for s in drawn]
    candidates = [reworded(s) for s in drawn]
    candidates[:3] = ["", ".", draws.choice(sentences)]

    tokenizer = PTBTokenizer()
    theirs = tokenizer.tokenize(
        {i: [{"caption": caption} for caption in texts] for i, texts in enumerate(references)}
    )
    ours = tokenizer.tokenize({i: [{"caption": caption}] for i, caption in enumerate(candidates)})
    official, _ = Bleu(4).compute_score(theirs, ours, verbose=0)
    np.testing.assert_allclose(bleu(candidates, references), official, rtol=0, atol=1e-9)
    _, official = Rouge().compute_score(theirs, ours)
    np.testing.assert_allclose(rouge_l(candidates, references), official, rtol=0, atol=1e-9)
    _, official = Cider().compute_score(theirs, ours)
    np.testing.assert_allclose(cider_d(candidates, references), official, rtol=0, atol=1e-9)
