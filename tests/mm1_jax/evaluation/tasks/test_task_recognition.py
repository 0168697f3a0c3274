from __future__ import annotations

from collections import Counter

import pytest

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation.tasks import emoji_attributes, emoji_languages, prompts, task_recognition
from mm1_jax.evaluation.tasks.generation_task import Item

TASKS = (emoji_languages.TASK, emoji_attributes.TASK)


@pytest.fixture(scope="module")
def prepared(in_context_data):
    return open_prepared(*in_context_data)


@pytest.fixture(scope="module")
def pool(prepared):
    return task_recognition.demonstrations(prepared)


def test_names_are_asked_of_seen_concepts_in_the_second_style(prepared, pool):
    items = task_recognition.names(prepared)
    assert Counter(item.kind for item in items) == {"de": 732, "en": 732}
    assert {item.concept for item in items} == {example.concept for example in pool}
    assert not {item.image_id for item in items} & {example.image_id for example in pool}
    names = prepared.images.names
    assert all(names[item.image_id].startswith("openmoji/") for item in items)


def test_attributes_are_asked_of_held_out_concepts(prepared, pool):
    items = task_recognition.attributes(prepared)
    assert Counter(item.kind for item in items) == {"category": 121, "colour": 121}
    assert not {item.concept for item in items} & {example.concept for example in pool}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_demonstrations_are_of_the_kind_asked_and_of_other_concepts(task, prepared, pool):
    kinds = prompts.by_kind(pool)
    for item in task.items(prepared)[:300:10]:
        shown = prompts.draw_demonstrations(kinds, 8, 0, task.name, item)
        assert {example.kind for example in shown} == {item.kind}
        assert item.concept not in {example.concept for example in shown}
        assert shown[:2] == prompts.draw_demonstrations(kinds, 2, 0, task.name, item)
        assert shown != prompts.draw_demonstrations(kinds, 8, 1, task.name, item)


def test_wrong_demonstrations_are_all_of_one_other_kind(prepared, pool):
    kinds = prompts.by_kind(pool)
    seen = set()
    for item in task_recognition.names(prepared)[:100:5]:
        shown = prompts.draw_demonstrations(kinds, 4, 0, "emoji_languages", item, wrong=True)
        (kind,) = {example.kind for example in shown}
        assert kind != item.kind
        seen.add(kind)
    assert len(seen) == 3


def test_a_drawing_never_demonstrates_its_own_concept(pool):
    kinds = prompts.by_kind([e for e in pool if e.kind == "en"][:3])
    asked = Item("i", 0, "caption:", ("x",), kind="en", concept=kinds["en"][0].concept)
    for seed in range(10):
        shown = prompts.draw_demonstrations(kinds, 2, seed, "t", asked)
        assert asked.concept not in {example.concept for example in shown}
    with pytest.raises(UserError, match="shots: 3 of t: there are 2 examples of 'en'"):
        prompts.draw_demonstrations(kinds, 3, 0, "t", asked)


def test_a_task_with_one_kind_of_answer_has_no_wrong_demonstrations(pool):
    kinds = prompts.by_kind([example for example in pool if example.kind == "en"])
    with pytest.raises(UserError, match="one kind of answer only"):
        prompts.draw_demonstrations(kinds, 1, 0, "t", Item("i", 0, "", (), kind="en"), wrong=True)


def test_the_right_kind_is_told_from_the_right_answer(prepared, pool):
    items = task_recognition.names(prepared)
    chosen = [next(i for i in items if i.kind == "de" and i.references == ("schmetterling",))] * 4
    said = ["schmetterling\n\ncaption: bus", "hund", "butterfly", "no such word"]
    score = task_recognition.score(chosen, said, items, pool)
    assert score.items == [100, 0, 0, 0]
    assert score.metrics["accuracy"] == 25
    assert score.metrics["kind_accuracy"] == 50


def test_the_blind_answer_is_the_most_frequent_category(prepared, pool):
    items = [i for i in task_recognition.attributes(prepared) if i.kind == "category"]
    share = 100 * sum(item.references == ("objects",) for item in items) / len(items)
    score = task_recognition.score(items, ["objects"] * len(items), items, pool)
    assert score.metrics["accuracy"] == score.metrics["blind_accuracy"] == pytest.approx(share)


def test_data_without_languages_or_second_style_is_told_what_to_set(data_root, tmp_path):
    plain = open_prepared(DataConfig(), data_root)
    for task in TASKS:
        with pytest.raises(UserError, match=r"set data\.embedded\.language_documents\.languages"):
            task.items(plain)
