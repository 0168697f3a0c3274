from __future__ import annotations

import numpy as np
import pytest

from mm1_jax.data import documents
from mm1_jax.data.documents import Document
from mm1_jax.data.tokenizer import END, train

BYTES = train([], vocabulary=258)


def test_only_the_answers_of_a_conversation_and_its_end_bear_loss():
    conversation = Document("c", (7, "ab", " c", 8, "de", " f"), (False, True, False, True))
    plain = Document("p", ("gh", 9))
    table = documents.tokenize([conversation, plain], BYTES)
    bears_loss = [table.tokens[~table.given & (np.arange(len(table.tokens)) < 9)], table.tokens[9:]]
    assert [BYTES.decode(ids) for ids in bears_loss] == [" c f", "gh"]
    assert table.tokens[[8, 11]].tolist() == [END, END]
    assert not table.given[8:].any()
    assert table.image_at.tolist() == [0, 4, 2]


def test_every_text_part_is_said_to_be_an_answer_or_not():
    with pytest.raises(ValueError, match="c: 1 answers for 2 text parts"):
        Document("c", ("a", 1, "b"), (True,))


def test_a_written_table_is_read_as_it_was(tmp_path):
    table = documents.tokenize(
        [Document("a", ("x", 3, "yz"), (False, True)), Document("b", (1, 2, "z"))], BYTES
    )
    documents.write(table, tmp_path / "t.parquet")
    back = documents.read(tmp_path / "t.parquet")
    for name, values in vars(table).items():
        np.testing.assert_array_equal(getattr(back, name), values)
        if isinstance(values, np.ndarray):
            assert getattr(back, name).dtype == values.dtype
    documents.write(documents.tokenize([], BYTES), tmp_path / "none.parquet")
    assert len(documents.read(tmp_path / "none.parquet")) == 0


SAID = (False, True)
CAPTION_WORDS = train(["a plain rich caption of some length"], vocabulary=262)


@pytest.fixture(scope="module")
def tables():
    plain = [Document(f"c/{n}", (n, "caption:", f" p{n}"), SAID) for n in range(200)]
    rich = [
        Document(f"c/{n}", (n, "a caption:", f" much richer {n}"), answers=(False, True))
        for n in range(200)
    ]
    return documents.tokenize(plain, CAPTION_WORDS), documents.tokenize(rich, CAPTION_WORDS)


def text(table, document: int) -> str:
    return CAPTION_WORDS.decode(table.tokens_of(document))


@pytest.mark.parametrize("share", [0.07, 0.5, 1.0])
def test_a_share_of_the_documents_is_replaced_and_the_rest_is_left(tables, share):
    plain, rich = tables
    mixed = documents.replaced(plain, rich, share)
    taken = [text(mixed, d) == text(rich, d) for d in range(200)]
    assert sum(taken) == round(200 * share)
    for document, take in enumerate(taken):
        origin = rich if take else plain
        assert text(mixed, document) == text(origin, document)
        own = slice(*mixed.token_starts[document : document + 2])
        theirs = slice(*origin.token_starts[document : document + 2])
        assert mixed.given[own].tolist() == origin.given[theirs].tolist()
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
