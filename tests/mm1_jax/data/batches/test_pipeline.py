from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from ablations.errors import UserError
from mm1_jax.config.connector import AttentionPoolingConfig, AveragePoolingConfig
from mm1_jax.config.data import DataConfig, MixtureConfig
from mm1_jax.config.embedded_sources import CaptionsConfig, EmbeddedConfig
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import SeedsConfig, TrainingConfig
from mm1_jax.data.batches.pipeline import batches, stream_of
from mm1_jax.data.sources.prepared_packages import open_prepared

MIXTURE = MixtureConfig(easy_vqa=5, emoji_captions=2, interleaved=2, text=1)


def config(**changes) -> TrainConfig:
    data = DataConfig(mixture=MIXTURE, text_tokens=64, images=6)
    return TrainConfig(**{"data": data, "training": TrainingConfig(batch_size=4), **changes})


def sequences(count, config, data_root, seed):
    stream = stream_of(config, data_root, seed)
    return [stream[number] for number in range(count)]


def first(n: int, **arguments) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(batches(**arguments), n))


def assert_equal(ours, theirs, names=None):
    for one, other in zip(ours, theirs, strict=True):
        for name in names or one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_batch_has_the_promised_arrays(data_root):
    (batch,) = first(1, config=config(), data_root=data_root, seed=0)
    assert {name: (array.shape, str(array.dtype)) for name, array in batch.items()} == {
        "images": ((4, 6, 32, 32, 3), "uint8"),
        "tokens": ((4, 64), "int32"),
        "gather": ((4, 88), "int32"),
        "segments": ((4, 88), "int32"),
        "positions": ((4, 88), "int32"),
        "predictors": ((4, 64), "int32"),
        "loss_weights": ((4, 64), "float32"),
        "sources": ((4,), "int32"),
    }


def test_resuming_gives_the_batches_that_would_have_followed(data_root):
    whole = first(9, config=config(), data_root=data_root, seed=3)
    resumed = first(4, config=config(), data_root=data_root, seed=3, start_step=5)
    assert_equal(resumed, whole[5:])


@pytest.mark.parametrize(
    "changes",
    [
        {"connector": AveragePoolingConfig(tokens=1)},
        {"connector": AttentionPoolingConfig(tokens=7)},
        {"encoder": VisionTransformerConfig(image_size=16, patch_size=4, width=32)},
    ],
    ids=["tokens", "connector", "encoder"],
)
def test_arms_see_the_same_documents_in_the_same_order(data_root, changes):
    base = first(6, config=config(), data_root=data_root, seed=1)
    arm = first(6, config=config(**changes), data_root=data_root, seed=1)
    assert_equal(arm, base, names=("tokens", "loss_weights"))
    for ours, theirs in zip(arm, base, strict=True):
        black = [batch["images"].any(axis=(2, 3, 4)) for batch in (ours, theirs)]
        np.testing.assert_array_equal(*black)
    named = [sequences(24, c, data_root, 1) for c in (config(), config(**changes))]
    assert [s.documents for s in named[0]] == [s.documents for s in named[1]]


def test_the_seed_decides_the_order_and_the_config_can_pin_it(data_root):
    one, other = (first(1, config=config(), data_root=data_root, seed=s)[0] for s in (1, 2))
    assert not np.array_equal(one["tokens"], other["tokens"])
    pinned = config(seeds=SeedsConfig(data_order=1))
    assert_equal(first(1, config=pinned, data_root=data_root, seed=2), [one])


def test_each_source_has_its_share_and_sequences_hold_one_source(data_root):
    stream = sequences(400, config(), data_root, 0)
    share = Counter(sequence.source for sequence in stream)
    for source, weight in MIXTURE.weights.items():
        assert abs(share[source] - 400 * weight) <= 1
    for sequence in stream:
        assert all(name.startswith(f"{sequence.source}/") for name in sequence.documents)


def test_a_source_is_the_same_in_another_mixture(data_root):
    alone = DataConfig(mixture=MixtureConfig(text=1), text_tokens=64, images=6)
    mixed = [s for s in sequences(60, config(), data_root, 0) if s.source == "text"]
    unmixed = sequences(len(mixed), config(data=alone), data_root, 0)
    assert [s.documents for s in mixed] == [s.documents for s in unmixed]


def test_an_epoch_has_every_document_and_the_next_another_order(data_root):
    data = DataConfig(mixture=MixtureConfig(emoji_captions=1), text_tokens=64, images=6)
    seen: list[str] = []
    for sequence in sequences(3000, config(data=data), data_root, 0):
        seen += sequence.documents
    documents = len(set(seen))
    assert documents == 3714
    assert len(set(seen[:documents])) == documents
    assert seen[:documents] != seen[documents : 2 * documents]


def test_documents_fill_the_budget_that_binds(data_root):
    for source, budget in (("easy_vqa", "images"), ("text", "text"), ("interleaved", "text")):
        mixture = MixtureConfig(**{source: 1})
        data = DataConfig(mixture=mixture, text_tokens=128, images=8)
        stream = sequences(200, config(data=data), data_root, 0)
        used = {
            "text": np.mean([(s.segments > 0).mean() for s in stream]),
            "images": np.mean([(s.image_ids >= 0).mean() for s in stream]),
        }
        assert used[budget] > 0.9, (source, used)


def test_nearly_all_text_positions_are_used_on_the_demo_captions(data_root):
    data = DataConfig(mixture=MixtureConfig(emoji_captions=1), text_tokens=96, images=8)
    stream = stream_of(config(data=data), data_root, 0)
    epoch = stream.sources["emoji_captions"].first_epoch() // 4
    assert stream.measured(0, epoch)["text_occupancy"] >= 0.98


def test_only_answers_and_ends_bear_loss_in_questions(data_root):
    data = DataConfig(mixture=MixtureConfig(easy_vqa=1), text_tokens=64, images=6)
    (batch,) = first(1, config=config(data=data), data_root=data_root, seed=0)
    words = open_prepared(data, data_root).tokenizer
    learnt = words.decode(batch["tokens"][batch["loss_weights"] > 0])
    answers = {
        record["answer"] for record in open_prepared(data, data_root).records("easy_vqa", "train")
    }
    assert len(learnt.split()) == 24
    assert set(learnt.split()) <= answers


def test_data_that_is_not_prepared_is_said_so(tmp_path):
    with pytest.raises(UserError, match="no prepared data"):
        batches(config(), tmp_path, seed=0)


def test_a_share_of_the_captions_is_rich_and_nothing_else_changes(data_root):
    def texts(rich: float) -> dict[str, set[str]]:
        mixture = MixtureConfig(captions=1, emoji_captions=1)
        embedded = EmbeddedConfig(captions=CaptionsConfig(rich=rich))
        data = DataConfig(mixture=mixture, text_tokens=64, images=6, embedded=embedded)
        tokenizer = open_prepared(data, data_root).tokenizer
        found: dict[str, set[str]] = {"captions": set(), "emoji_captions": set()}
        for packed in sequences(60, config(data=data), data_root, 0):
            for segment in range(1, int(packed.segments.max()) + 1):
                text = tokenizer.decode(packed.tokens[packed.segments == segment])
                found[packed.source].add(text)
        return found

    plain, some, all_rich = texts(0.0), texts(0.3), texts(1.0)
    assert plain["emoji_captions"] == some["emoji_captions"]

    def share(found: set[str]) -> float:
        marks = (", drawn mostly", " drawing of ", "this ")
        whole = [text for text in found if text.startswith("caption:")]  # not the rest of a cut
        return float(np.mean([any(mark in text for mark in marks) for text in whole]))

    assert share(plain["captions"]) < 0.01
    assert 0.2 < share(some["captions"]) < 0.6  # rich captions are longer: fewer a sequence
    assert share(all_rich["captions"]) > 0.95
