from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1_jax.data import documents, templates, tokenizer
from mm1_jax.data.documents import Document
from mm1_jax.data.templates import Exchange
from mm1_jax.evaluation import asking
from mm1_jax.evaluation.tasks import prompts
from mm1_jax.evaluation.tasks.generation_task import Demonstration, Item

ITEMS = [Item(f"i{n}", n // 3, f"what is {n}?", ("a",)) for n in range(60)]
POOL = [Demonstration(100 + n, "is it?", f" {n}") for n in range(30)]


def test_every_image_is_replaced_by_another_one_once():
    images = [item.image_id for item in ITEMS]
    other = prompts.derangement(images, seed=0, task="t")
    assert set(other) == set(other.values()) == set(images)
    assert all(image != shown for image, shown in other.items())
    assert prompts.derangement(images, seed=0, task="t") == other
    assert prompts.derangement(images, seed=1, task="t") != other


def test_one_image_cannot_be_shuffled():
    with pytest.raises(UserError, match="at least two images"):
        prompts.derangement([3, 3], seed=0, task="t")


def test_a_subset_is_fixed_and_part_of_larger_ones():
    small = prompts.subset(ITEMS, 10, seed=0, task="t")
    large = prompts.subset(ITEMS, 20, seed=0, task="t")
    assert len(small) == 10
    assert [item for item in large if item in small] == small
    assert prompts.subset(ITEMS, 10, seed=1, task="t") != small
    assert prompts.subset(ITEMS, None, seed=0, task="t") == ITEMS
    with pytest.raises(UserError, match="the test split has 60"):
        prompts.subset(ITEMS, 61, seed=0, task="t")


def test_fewer_demonstrations_are_the_first_of_more():
    def drawn(shots, number=1, seed=0):
        return prompts.draw_demonstrations({"": POOL}, shots, seed, "t", ITEMS[number])

    eight = drawn(8)
    assert len({example.image_id for example in eight}) == 8
    for shots in range(8):
        assert drawn(shots) == eight[:shots]
    assert drawn(8, number=2) != eight
    assert drawn(8, seed=1) != eight
    assert len(drawn(30)) == 30
    with pytest.raises(UserError, match="shots: 31"):
        drawn(31)


def test_a_prompt_is_what_a_training_document_starts_with():
    turn = templates.visual_question("what color is the shape?", "blue")
    prompt = prompts.build(Item("i", 7, turn.prompt, ("blue",)), 7, [])
    assert prompt == (7, "what color is the shape?")
    few = prompts.build(ITEMS[0], 9, POOL[:1])
    assert few == (100, "is it? 0\n\n", 9, "what is 0?")
    assert prompts.as_text(few) == "<image>is it? 0\n\n<image>what is 0?"
    assert prompts.without_images(few) == ("is it? 0\n\nwhat is 0?",)


@pytest.mark.parametrize("template", ["vicuna", "chatml"])
def test_with_a_chat_template_demonstrations_are_the_turns_before(template):
    words = templates.template_of(template)
    asked = prompts.build(ITEMS[0], 9, POOL[:2], template)
    turns = [Exchange((one.image_id, one.prompt), one.response) for one in POOL[:2]]
    trained, _ = templates.converse([*turns, Exchange((9, "what is 0?"), " a")], words)
    assert asked == trained[: len(asked)]
    assert [part for part in asked if isinstance(part, int)] == [100, 101, 9]
    tokens = tokenizer.train([], 260, ["<|im_start|>", "<|im_end|>"])
    (row,) = asking.encoded([asked], tokens)
    whole = documents.tokenize([Document("d", trained)], tokens)
    assert row.tokens == whole.tokens[: len(row.tokens)].tolist()
    assert row.image_at == whole.image_at.tolist()
    assert "<image>" in prompts.as_text(asked)
