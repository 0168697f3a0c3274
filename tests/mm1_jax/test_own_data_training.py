from __future__ import annotations

import pytest

from mm1_jax import multimodal_training


@pytest.fixture
def config(tiny, own_captions):
    mine = {"folder": str(own_captions), "kind": "captions"}
    data = {
        "sources": {"mine": mine},
        "mixture": {"mine": 1},
        "exhausted": {"mine": "stop"},
        "text_tokens": 48,
        "images": 4,
        "vocabulary": 1024,
    }
    return tiny(data=data, training={"steps": 30})


def test_training_ends_with_its_data_and_says_what_it_has_seen(config, context_of):
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
