from __future__ import annotations

import jax
import numpy as np
import object_store
import pytest

from ablations.stage import StageStopped
from mm1_jax.data.batches import windows
from mm1_jax.data.batches.packed_source import PackedSource
from mm1_jax.training import multimodal_training
from mm1_jax.training.checkpoints import load_subtree


@pytest.fixture
def config_of(tiny):
    """`config_of(folder)`: one epoch of the captions in a folder."""

    def build(folder):
        mine = {"folder": str(folder), "kind": "captions"}
        data = {
            "sources": {"mine": mine},
            "mixture": {"mine": 1},
            "exhausted": {"mine": "stop"},
            "text_tokens": 48,
            "images": 4,
            "vocabulary": 1024,
        }
        return tiny(data=data, training={"steps": 30})

    return build


def test_training_ends_with_its_data_and_says_what_it_has_seen(config_of, own_captions, context_of):
    config = config_of(own_captions)
    rows = multimodal_training.train(config, 0, context_of("s").data, {}, context_of("s"))
    last = max(row.step for row in rows)
    found = {row.metric: row.value for row in rows if row.step == last}
    # 80 captions of about 14 tokens, 48 to a sequence, two sequences a step.
    assert 10 <= last <= 14
    assert found["epochs.mine"] == pytest.approx(1.0, abs=0.1)
    assert found["loss.mine"] == pytest.approx(found["loss"], rel=0.3)
    assert 0.6 < found["text_occupancy"] <= 1
    assert 0 < found["image_occupancy"] <= 1
    assert found["learning_rate"] > 0.001  # of its step out of 30, not the last
    assert (context_of("s").output / "checkpoint").is_dir()


def test_training_from_a_bucket_goes_on_where_it_was_stopped(
    config_of, own_captions, context_of, monkeypatch
):
    monkeypatch.setattr(windows, "WINDOW_DOCUMENTS", 20)  # four of them, of two shards each
    packed, pack = [], PackedSource._pack_window
    monkeypatch.setattr(
        PackedSource,
        "_pack_window",
        lambda self, number: packed.append(number) or pack(self, number),
    )

    def train(folder, name, stop=None):
        context = context_of(name, stop)
        return multimodal_training.train(config_of(folder), 0, context.data, {}, context)

    whole = train(own_captions, "whole")
    with object_store.bucket_server() as bucket:
        there = object_store.upload(own_captions, f"{bucket}/captions")
        with pytest.raises(StageStopped):
            train(there, "parts", stop=5)
        assert packed[-1] > 0
        packed.clear()
        assert train(there, "parts") == whole
    assert 0 not in packed  # nothing before the window that step 5 stands in
    ours, theirs = (
        load_subtree(context_of(name).output, "connector")[1] for name in ("parts", "whole")
    )
    assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(theirs)))
