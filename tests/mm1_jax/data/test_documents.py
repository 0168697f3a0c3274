from __future__ import annotations

import numpy as np
import pytest

from mm1_jax.data import documents, tokenizer
from mm1_jax.data.documents import Document

WORDS = tokenizer.train(["a plain rich caption of some length"], vocabulary=262)


@pytest.fixture(scope="module")
def tables():
    plain = [Document(f"c/{n}", (n, "caption:", f" p{n}"), given=2) for n in range(200)]
    rich = [Document(f"c/{n}", (n, "a caption:", f" much richer {n}"), given=2) for n in range(200)]
    return documents.tokenize(plain, WORDS), documents.tokenize(rich, WORDS)


def text(table, document: int) -> str:
    return WORDS.decode(table.tokens_of(document))


@pytest.mark.parametrize("share", [0.07, 0.5, 1.0])
def test_a_share_of_the_documents_is_replaced_and_the_rest_is_left(tables, share):
    plain, rich = tables
    mixed = documents.replaced(plain, rich, share)
    taken = [text(mixed, d) == text(rich, d) for d in range(200)]
    assert sum(taken) == round(200 * share)
    for document, take in enumerate(taken):
        origin = rich if take else plain
        assert text(mixed, document) == text(origin, document)
        assert mixed.given[document] == origin.given[document]
        start = mixed.image_starts[document]
        assert mixed.images[start : mixed.image_starts[document + 1]].tolist() == [document]
    assert mixed.names == plain.names
    assert mixed.token_starts.dtype == plain.token_starts.dtype


def test_a_larger_share_replaces_the_same_and_more(tables):
    plain, rich = tables
    small, large = (documents.replaced(plain, rich, share) for share in (0.1, 0.3))
    for document in range(200):
        if text(small, document) == text(rich, document):
            assert text(large, document) == text(rich, document)


def test_none_replaced_is_the_table_itself(tables):
    plain, rich = tables
    same = documents.replaced(plain, rich, 0.0)
    for name, values in vars(plain).items():
        np.testing.assert_array_equal(getattr(same, name), values)
