from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation.tasks import fast_binding, prompts


@pytest.fixture(scope="module")
def prepared(in_context_data):
    return open_prepared(*in_context_data)


@pytest.fixture(scope="module")
def items(prepared):
    return fast_binding.items(prepared)


def build(item, shots, wrong=False):
    shown = prompts.draw_demonstrations({}, shots, 0, "fast_binding", item, wrong=wrong)
    return prompts.build(item, item.image_id, shown)


def test_without_demonstrations_the_names_are_announced_and_nothing_is_bound(items):
    for item in items[:20]:
        first, second = item.choices
        assert prompts.as_text(build(item, 0)) == f"a {first} or a {second}\n\n<image>"
        assert set(item.references) < set(item.choices)


def test_demonstrations_bind_each_drawing_to_its_name(items):
    for item in items[:20]:
        parts = build(item, 8)[1:-2]
        bound = dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))
        assert len(bound) == 2
        assert bound[item.image_id] == item.references[0]
        assert build(item, 2)[:5] == build(item, 8)[:5]


def test_wrong_demonstrations_exchange_the_names(items):
    for item in items[:20]:
        parts, exchanged = build(item, 4)[1:-2], build(item, 4, wrong=True)[1:-2]
        assert exchanged[::2] == parts[::2]
        both = {text.strip() for text in parts[1::2]}
        for text, other in zip(parts[1::2], exchanged[1::2], strict=True):
            assert {text.strip(), other.strip()} == both


def test_episodes_are_of_held_out_drawings(prepared, items):
    held_out = {record["image"] for record in prepared.records("emoji", "test")}
    trained = set(prepared.documents("binding_documents", "train").images.tolist())
    shown = {item.image_id for item in items}
    assert shown <= held_out
    assert not shown & trained


def test_guessing_scores_about_chance(items):
    guesses = [item.choices[0] for item in items]
    score = fast_binding.score(items, guesses, items, [])
    assert score.metrics["kind_accuracy"] == 100
    assert score.metrics["chance_accuracy"] == 50
    assert 44 < score.metrics["accuracy"] < 56
    right = fast_binding.score(items, [item.references[0] for item in items], items, [])
    assert right.metrics["accuracy"] == 100


def test_more_demonstrations_than_an_item_has_are_refused(items):
    with pytest.raises(UserError, match="shots: 9 of fast_binding: an item has 8"):
        build(items[0], 9)
