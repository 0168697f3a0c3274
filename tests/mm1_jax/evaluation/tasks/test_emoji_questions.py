from __future__ import annotations

import pytest

from mm1_jax.config.data import DataConfig
from mm1_jax.data.sources.drawing_captions import read_drawings
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation.tasks import emoji_questions


@pytest.fixture(scope="module")
def prepared(data_root):
    return open_prepared(DataConfig(), data_root)


def test_it_asks_four_questions_about_each_held_out_drawing_and_never_its_name(prepared):
    items = emoji_questions.items(prepared)
    held_out = {drawing.image for drawing in read_drawings(prepared, "test")}
    shown = {example.image_id for example in emoji_questions.demonstrations(prepared)}
    assert len(items) == 4 * len(held_out) == 856
    assert {item.image_id for item in items} == held_out
    assert not held_out & shown
    assert "what is this?" not in {item.prompt for item in items}
    assert len({item.item_id for item in items}) == len(items)


def test_right_answers_score_100_and_blind_ones_what_majorities_do(prepared):
    items, pool = emoji_questions.items(prepared), emoji_questions.demonstrations(prepared)
    right = [item.references[0] for item in items]
    score = emoji_questions.score(items, right, items, pool)
    assert score.metrics["accuracy"] == 100.0
    assert 30 < score.metrics["blind_accuracy"] < 45
    wrong = emoji_questions.score(items, ["?"] * len(items), items, pool)
    assert wrong.metrics["accuracy"] == 0.0
    assert wrong.metrics["blind_accuracy"] == score.metrics["blind_accuracy"]
