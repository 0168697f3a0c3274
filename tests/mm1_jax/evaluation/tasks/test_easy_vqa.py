from __future__ import annotations

import pytest

from mm1_jax.config.data import DataConfig
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation.tasks import easy_vqa
from mm1_jax.evaluation.tasks.generation_task import Demonstration, Item, blind_answers


@pytest.fixture(scope="module")
def prepared(data_root):
    return open_prepared(DataConfig(), data_root)


def test_blind_answerer_and_oracle_reach_the_known_numbers(prepared):
    items = easy_vqa.items(prepared)
    gold = [item.references[0].upper() + " " for item in items]
    score = easy_vqa.score(items, gold, items, easy_vqa.demonstrations(prepared))
    assert len(items) == 9673
    assert score.metrics["accuracy"] == 100
    assert round(score.metrics["blind_accuracy"], 2) == 67.0
    assert round(score.metrics["oracle_accuracy"], 2) == 67.81
    assert set(score.items) == {100.0}


def test_a_blind_answerer_learns_from_training_answers_only():
    examples = [Demonstration(i, "q?", f" {answer}") for i, answer in enumerate("abb")]
    items = [Item("0", 9, "q?", ("a",)), Item("1", 9, "new?", ("a",))]
    assert blind_answers(items, examples) == [" b", " b"]
    assert easy_vqa.oracle_answers(items) == ["a", "a"]
    assert easy_vqa.score(items, ["b", "a"], items, examples).items == [0.0, 100.0]
