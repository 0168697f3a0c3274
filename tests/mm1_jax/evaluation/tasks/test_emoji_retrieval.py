from __future__ import annotations

import numpy as np
import pytest

from mm1_jax.evaluation.tasks import emoji_retrieval


def test_recall_counts_images_whose_caption_is_among_the_best_k():
    scores = np.eye(6)
    scores[1, [0, 2]] = 2  # two captions beat its own
    scores[2] = 1  # all the same: the right one comes last
    found = emoji_retrieval.score(scores)
    assert found.ranks.tolist() == [0, 2, 5, 0, 0, 0]
    assert found.metrics == pytest.approx(
        {
            "recall_at_1": 100 * 4 / 6,
            "recall_at_5": 100 * 5 / 6,
            "chance_at_1": 100 / 6,
            "chance_at_5": 100 * 5 / 6,
        }
    )


def test_a_model_that_gives_all_the_same_score_finds_nothing():
    assert emoji_retrieval.score(np.zeros((20, 20))).metrics["recall_at_5"] == 0
