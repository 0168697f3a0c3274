"""The n-gram model against an example by hand, a plain recursion, and the laws of probability."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from mm1_jax.evaluation.ngrams import UNUSUAL_COUNTS, KneserNey, count, discounts, fit_ngrams

VOCABULARY = 7


def model(texts, order: int, vocabulary: int = VOCABULARY) -> KneserNey:
    return KneserNey(count(texts, order, vocabulary), order, vocabulary)


def random_texts(seed: int, number: int = 40) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    shares = np.arange(VOCABULARY, 0, -1) ** 2.0
    shares[-1] = 0  # one token never occurs
    return [
        draws.choice(VOCABULARY, draws.integers(1, 15), p=shares / shares.sum())
        for _ in range(number)
    ]


def test_an_example_by_hand():
    # Text 0 1 0 1 after its mark ^. Bigrams ^0 once, 01 twice, 10 once; 0 follows ^ and 1, and 1
    # follows 0. Too few for estimated discounts: 0.5 of a count of 1, 1 of a count of 2.
    # One token:  p(0) = (2 - 1) / 3 + 0.5 / 3 = 1/2, p(1) = 0.5 / 3 + 0.5 / 3 = 1/3, p(2) = 1/6.
    # p(0|^) = 0.5 + 0.5 / 2, p(1|0) = 1 / 2 + 1/2 · 1/3, p(0|1) = 0.5 + 0.5 / 2,
    # p(2|0) = 1/2 · 1/6.
    bigrams = model([np.array([0, 1, 0, 1])], order=2, vocabulary=3)
    (nats,) = bigrams.nats([np.array([0, 1, 0, 2])])
    np.testing.assert_allclose(np.exp(-nats), [3 / 4, 2 / 3, 3 / 4, 1 / 12])


def test_discounts_follow_from_how_many_ngrams_have_small_counts():
    # n1 … n4 = 10, 4, 2, 1; Y = 10 / 18.
    counts = np.repeat([1, 2, 3, 4, 9], [10, 4, 2, 1, 5])
    np.testing.assert_allclose(discounts(counts), [0, 5 / 9, 7 / 6, 17 / 9])
    assert discounts(np.array([1, 1, 2, 3])) is UNUSUAL_COUNTS
    assert discounts(np.repeat([1, 2, 3, 4], [1, 1, 9, 9])) is UNUSUAL_COUNTS


@pytest.mark.parametrize("order", [1, 2, 4])
def test_it_equals_a_plain_recursion(order):
    texts, asked = random_texts(0), random_texts(1, number=10)
    expected = [plain_nats(texts, order, text) for text in asked]
    for ours, theirs in zip(model(texts, order).nats(asked), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)


def plain_nats(texts, order: int, asked) -> list[float]:
    """Counts in dictionaries; "^" stands before each text."""
    raw: Counter = Counter()
    before = defaultdict(set)
    for text in texts:
        row = ["^", *text.tolist()]
        for end in range(1, len(row)):
            for start in range(max(0, end - order + 1), end + 1):
                gram = tuple(row[start : end + 1])
                raw[gram] += 1
                if start > 0:
                    before[gram].add(row[start - 1])
    counts = {
        gram: n if len(gram) == order or gram[0] == "^" else len(before[gram])
        for gram, n in raw.items()
    }

    def probability(context: tuple, token: int) -> float:
        length = len(context) + 1
        grams = {g: n for g, n in counts.items() if len(g) == length}
        taken = discounts(np.array(list(grams.values())))
        shorter = probability(context[1:], token) if context else 1 / VOCABULARY
        own = {g: n for g, n in grams.items() if g[:-1] == context}
        if not own:
            return shorter
        left_over = sum(taken[min(n, 3)] for n in own.values()) / sum(own.values())
        n = own.get((*context, token), 0)
        return (n - taken[min(n, 3)]) / sum(own.values()) + left_over * shorter

    row = ["^", *asked.tolist()]
    return [
        -np.log(probability(tuple(row[max(0, end - order + 1) : end]), row[end]))
        for end in range(1, len(row))
    ]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_probabilities_of_all_tokens_add_up_to_one(order):
    trained = model(random_texts(0), order)
    for context in ([], [0], [2, 1, 0], [VOCABULARY - 1], [0, 0, 0, 0, 0, 1]):
        texts = [np.array([*context, token]) for token in range(VOCABULARY)]
        shares = [np.exp(-nats[-1]) for nats in trained.nats(texts)]
        assert min(shares) > 0
        assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("steps_back", [1, 2, 3])
def test_the_order_is_the_one_that_serves_best_on_texts_held_back(steps_back):
    draws = np.random.default_rng(0)

    def text() -> np.ndarray:
        """Three times in four the sum of the last few tokens, else any token."""
        tokens = draws.integers(0, 10, 60)
        for place in range(steps_back, 60):
            if draws.random() < 0.75:
                tokens[place] = tokens[place - steps_back : place].sum() % 10
        return tokens

    assert fit_ngrams([text() for _ in range(200)], 10).order == steps_back + 1
