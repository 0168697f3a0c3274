from __future__ import annotations

import numpy as np
import pytest

from ablations.errors import UserError
from mm1_jax.config.connector import AveragePoolingConfig
from mm1_jax.config.data import DataConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.packing import (
    SOURCES,
    Budget,
    Pieces,
    budget_of,
    cut,
    fill,
    lay_out,
    pack,
)
from mm1_jax.data.documents import DocumentTable


def table(*documents: list[int | str], given: tuple[int, ...] = ()) -> DocumentTable:
    """Tokens are ints, those in `given` bear no loss; strings such as "i7" are images, row 7."""
    tokens, images, image_at, token_starts, image_starts = [], [], [], [0], [0]
    for parts in documents:
        for part in parts:
            if isinstance(part, str):
                images.append(int(part[1:]))
                image_at.append(len(tokens) - token_starts[-1])
            else:
                tokens.append(part)
        token_starts.append(len(tokens))
        image_starts.append(len(images))
    return DocumentTable(
        [f"d{i}" for i in range(len(documents))],
        np.array(tokens, np.int32),
        np.array(token_starts),
        np.array(images, np.int32),
        np.array(image_at, np.int32),
        np.array(image_starts),
        np.isin(tokens, given),
    )


def pieces_of(documents: DocumentTable, pieces: Pieces) -> list[list[int | str]]:
    """The pieces written as the documents above."""
    result = []
    for d, t0, t1, i0, i1 in zip(
        pieces.document,
        pieces.text_start,
        pieces.text_end,
        pieces.image_start,
        pieces.image_end,
        strict=True,
    ):
        content: list[int | str] = documents.tokens[t0:t1].tolist()
        for i in reversed(range(i0, i1)):
            place = documents.token_starts[d] + documents.image_at[i] - t0
            content.insert(place, f"i{documents.images[i]}")
        result.append(content)
    return result


def packed(documents: DocumentTable, budget: Budget, chosen: list[int]):
    return pack(documents, cut(documents, budget), np.array(chosen, np.int64), budget, "text")


def test_the_drawn_example_of_lay_out():
    documents = table(["i5", 10, 11], [12, 13, 14])
    budget = Budget(text=6, images=2)
    batch = lay_out([packed(documents, budget, [0, 1])], tokens_per_image=2)
    assert {name: array[0].tolist() for name, array in batch.items()} == {
        "tokens": [10, 11, 12, 13, 14, 0],
        "gather": [6, 7, 0, 1, 2, 3, 4, 0, 0, 0],
        "segments": [1, 1, 1, 1, 2, 2, 2, 0, 0, 0],
        "positions": [0, 1, 2, 3, 0, 1, 2, 0, 0, 0],
        "predictors": [1, 2, 0, 4, 5, 0],
        "loss_weights": [1, 1, 0, 1, 1, 0],
        "sources": SOURCES.index("text"),
    }
    assert {name: str(array.dtype) for name, array in batch.items() if name != "tokens"} == {
        **dict.fromkeys(("gather", "segments", "positions", "predictors", "sources"), "int32"),
        "loss_weights": "float32",
    }


def test_images_within_and_after_text_and_beside_each_other():
    # d0: text, image, text. d1: two images, text, an image at its very end.
    documents = table([10, "i1", 11], ["i2", "i3", 12, "i4"])
    sequence = packed(documents, Budget(text=3, images=4), [0, 1])
    assert sequence.image_at.tolist() == [1, 2, 2, 3]
    assert sequence.image_segments.tolist() == [1, 2, 2, 2]
    batch = lay_out([sequence], tokens_per_image=1)
    assert batch["gather"][0].tolist() == [0, 3, 1, 4, 5, 2, 6]
    assert batch["segments"][0].tolist() == [1, 1, 1, 2, 2, 2, 2]
    assert batch["positions"][0].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert batch["predictors"][0].tolist() == [0, 1, 4]
    assert batch["loss_weights"][0].tolist() == [0, 1, 1]


def test_a_predictor_stands_just_before_its_token_in_the_same_document():
    rng = np.random.default_rng(0)
    documents = table(
        *(
            [
                f"i{rng.integers(99)}" if rng.random() < 0.2 else int(rng.integers(2, 99))
                for _ in range(n)
            ]
            for n in rng.integers(1, 12, size=60)
        )
    )
    budget, k = Budget(text=24, images=5), 3
    pieces = cut(documents, budget)
    sequences = [pack(documents, pieces, chosen, budget) for chosen in fill(pieces, budget)]
    batch = lay_out(sequences, k)
    for row, sequence in enumerate(sequences):
        segments, gather = batch["segments"][row], batch["gather"][row]
        for t in np.flatnonzero(sequence.segments):
            (place,) = np.flatnonzero((gather == t) & (segments > 0))
            assert segments[place] == sequence.segments[t]
            first_of_document = place == 0 or segments[place - 1] != segments[place]
            assert batch["loss_weights"][row, t] == (not first_of_document)
            assert batch["predictors"][row, t] == (0 if first_of_document else place - 1)
        filled = segments > 0
        assert filled.sum() == (sequence.segments > 0).sum() + k * (sequence.image_ids >= 0).sum()
        assert (np.diff(segments[filled]) >= 0).all()
        assert not batch["loss_weights"][row, sequence.segments == 0].any()


def test_given_tokens_bear_no_loss_also_where_a_document_is_cut():
    documents = table(["i1", 2, 3, 4, 5, 6], [7, 8], given=(2, 3, 5))
    budget = Budget(text=3, images=1)
    pieces = cut(documents, budget)
    assert pieces_of(documents, pieces) == [["i1", 2, 3, 4], [5, 6], [7, 8]]
    sequences = [pack(documents, pieces, np.array([n]), budget) for n in range(3)]
    assert lay_out(sequences, 1)["loss_weights"].tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_rows_of_a_batch_do_not_depend_on_each_other():
    documents = table(["i5", 10, 11], [12, 13, 14], ["i6", 15])
    budget = Budget(text=6, images=2)
    sequences = [packed(documents, budget, chosen) for chosen in ([0, 1], [2], [])]
    together = lay_out(sequences, 4)
    for row, sequence in enumerate(sequences):
        alone = lay_out([sequence], 4)
        for name in together:
            np.testing.assert_array_equal(together[name][row], alone[name][0])


def test_tokens_per_image_change_no_document():
    documents = table(["i5", 10, 11], ["i6", 12], [13, "i7", 14])
    budget = Budget(text=6, images=3)
    sequence = packed(documents, budget, [0, 1, 2])
    few, many = lay_out([sequence], 1), lay_out([sequence], 16)
    for name in ("tokens", "loss_weights"):
        np.testing.assert_array_equal(few[name], many[name])
    assert (few["segments"].shape, many["segments"].shape) == ((1, 9), (1, 54))


def test_long_text_goes_on_as_a_further_document():
    documents = table([2, 3, 4, 5, 6, 7, 8], [9])
    pieces = cut(documents, Budget(text=3, images=1))
    assert pieces_of(documents, pieces) == [[2, 3, 4], [5, 6, 7], [8], [9]]
    assert pieces.document.tolist() == [0, 0, 0, 1]


def test_interleaved_documents_are_cut_before_an_image():
    documents = table([2, 3, "i1", 4, 5, "i2", 6, 7])
    budget = Budget(text=5, images=8)
    pieces = cut(documents, budget)
    assert pieces_of(documents, pieces) == [[2, 3, "i1", 4, 5], ["i2", 6, 7]]
    second = pack(documents, pieces, np.array([1]), budget)
    assert second.image_at.tolist()[0] == 0  # counted from the start of the piece
    # Too many images, also at one place.
    assert pieces_of(documents, cut(documents, Budget(text=9, images=1))) == [
        [2, 3, "i1", 4, 5],
        ["i2", 6, 7],
    ]
    several = table(["i1", "i2", "i3", 2])
    assert pieces_of(several, cut(several, Budget(text=4, images=2))) == [["i1", "i2"], ["i3", 2]]


@pytest.mark.parametrize("budget", [Budget(3, 1), Budget(5, 2), Budget(8, 3, 9, 4)])
def test_cutting_and_filling_drop_nothing(budget):
    rng = np.random.default_rng(1)
    contents = [
        [
            f"i{rng.integers(99)}" if rng.random() < 0.3 else int(rng.integers(2, 99))
            for _ in range(n)
        ]
        for n in rng.integers(1, 30, size=80)
    ]
    documents = table(*contents)
    pieces = cut(documents, budget)
    by_document: list[list[int | str]] = [[] for _ in contents]
    for document, content in zip(pieces.document, pieces_of(documents, pieces), strict=True):
        by_document[document] += content
    assert by_document == contents
    filled = fill(pieces, budget)
    assert sorted(np.concatenate(filled).tolist()) == list(range(len(pieces)))
    for chosen in filled:
        text = (pieces.text_end - pieces.text_start)[chosen].sum()
        images = (pieces.image_end - pieces.image_start)[chosen].sum()
        assert budget.fits(text, images)
        pack(documents, pieces, chosen, budget)


def test_a_total_bounds_text_and_image_tokens_together():
    config = TrainConfig(
        data=DataConfig(packing="total", total_tokens=10, text_tokens=8, images=4),
        connector=AveragePoolingConfig(tokens=4),
    )
    budget = budget_of(config)
    documents = table(["i1", 2, 3], ["i2", 4], [5, 6])
    pieces = cut(documents, budget)
    filled = fill(pieces, budget)
    # 6 positions, and of the other two only the text still fits into the 4 that are left.
    assert [chosen.tolist() for chosen in filled] == [[0, 2], [1]]
    batch = lay_out([pack(documents, pieces, filled[0], budget)], 4, length=10)
    assert batch["segments"][0].tolist() == [1] * 6 + [2, 2, 0, 0]
    impossible = config.model_copy(
        update={"data": DataConfig(packing="total", total_tokens=4, text_tokens=4)}
    )
    with pytest.raises(UserError, match="nearest possible: 5"):
        budget_of(impossible)


def test_a_gap_is_filled_by_a_later_document_that_fits():
    documents = table([2, 3, 4], [5, 6, 7], [8])
    filled = fill(cut(documents, Budget(4, 1)), Budget(4, 1))
    assert [chosen.tolist() for chosen in filled] == [[0, 2], [1]]


def test_a_piece_that_fits_no_sequence_is_told():
    """It once went on for ever."""
    documents = table([1, 2], ["i1", 3, 4])
    pieces = cut(documents, Budget(text=4, images=1))
    with pytest.raises(UserError, match="document 1 has 2 text tokens and 1 images"):
        fill(pieces, Budget(text=4, images=0))
