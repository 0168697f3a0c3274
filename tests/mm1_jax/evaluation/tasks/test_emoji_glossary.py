from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation.tasks import emoji_glossary, prompts


@pytest.fixture(scope="module")
def prepared(in_context_data):
    return open_prepared(*in_context_data)


@pytest.fixture(scope="module")
def items(prepared):
    return emoji_glossary.items(prepared)


def test_a_prompt_says_how_the_colour_is_called_or_does_not_show_it(items):
    for item in items:
        shown = prompts.draw_demonstrations({}, 8, 0, "emoji_glossary", item)
        said = [example.response.strip() for example in shown]
        of_its_colour = {word for word in said if word in item.choices}
        assert of_its_colour <= {item.references[0]}


def test_wrong_demonstrations_keep_to_other_words_for_the_same_pictures(items):
    for item in items[:50]:
        right, wrong = (
            prompts.draw_demonstrations({}, 8, 0, "emoji_glossary", item, wrong=wrong)
            for wrong in (False, True)
        )
        assert [a.image_id for a in right] == [b.image_id for b in wrong]
        assert all(a.response != b.response for a, b in zip(right, wrong, strict=True))
        assert item.references[0] not in {example.response.strip() for example in wrong}


def test_drawings_that_are_asked_about_are_in_no_training_document(prepared, items):
    trained = set(prepared.documents("glossary_documents", "train").images.tolist())
    assert trained.isdisjoint(item.image_id for item in items)


def test_the_score_tells_the_right_word_from_the_right_colour(items):
    words = [item.references[0] for item in items]
    others = [next(w for w in i.choices if w not in i.references) for i in items]
    told = emoji_glossary.score(items, [f" {word}\n\ncaption: x" for word in words], items, [])
    assert told.metrics["accuracy"] == told.metrics["colour_accuracy"] == 100
    told = emoji_glossary.score(items, others, items, [])
    assert told.metrics["accuracy"] == 0
    assert told.metrics["colour_accuracy"] == 100
    chances = [100 / len(item.choices) for item in items]
    assert told.metrics["chance_accuracy"] == pytest.approx(sum(chances) / len(chances))
    assert emoji_glossary.score(items, ["purple?"] * len(items), items, []).metrics == {
        "accuracy": 0,
        "colour_accuracy": 0,
        "chance_accuracy": told.metrics["chance_accuracy"],
    }


def test_data_without_glossaries_says_what_to_set(data_root):
    from mm1_jax.config.data import DataConfig

    with pytest.raises(UserError, match=r"set data\.embedded\.glossary_documents\.languages"):
        emoji_glossary.items(open_prepared(DataConfig(), data_root))
