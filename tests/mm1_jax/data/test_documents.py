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
