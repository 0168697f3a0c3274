from __future__ import annotations

import numpy as np
import pytest

from mm1_jax.config.data import DataConfig
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation.tasks import emoji_caption


@pytest.fixture(scope="module")
def prepared(data_root):
    return open_prepared(DataConfig(), data_root)


def test_items_are_held_out_drawings_with_all_wordings(prepared):
    items = emoji_caption.items(prepared)
    assert len(items) == 214
    assert all(len(item.references) >= 2 for item in items)
    shown_in_training = {example.image_id for example in emoji_caption.demonstrations(prepared)}
    assert shown_in_training.isdisjoint(item.image_id for item in items)


def test_cider_of_a_subset_keeps_the_scores_of_the_whole(prepared):
    items = emoji_caption.items(prepared)
    examples = emoji_caption.demonstrations(prepared)
    names = [item.references[0] for item in items]
    whole = emoji_caption.score(items, names, items, examples)
    part = emoji_caption.score(items[:20], names[:20], items, examples)
    assert part.items == whole.items[:20]
    assert whole.metrics["cider"] == pytest.approx(np.mean(whole.items))
    assert whole.metrics["cider"] > 100 > whole.metrics["blind_cider"]
