"""Colours named in the words that the examples keep to: each further example settles more.

A colour may be called by its word in any language of `data.embedded.glossary_documents`; the
examples of an item use one word for each of its four colours. Who sees the colours and follows the
examples is right where the colour was shown, and guesses among its words where it was not: so the
score rises with every example. The drawings that are asked about were held out of training.
"""

from __future__ import annotations

from collections.abc import Sequence

from ablations.errors import UserError
from mm1_jax.data import templates
from mm1_jax.data.sources.glossary import Episode, Named
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.metrics.exact_match import accuracies
from mm1_jax.evaluation.tasks.generation_task import (
    Demonstration,
    GenerationTask,
    Item,
    Score,
    score_among_choices,
)
from mm1_jax.evaluation.tasks.task_recognition import answer_of


def _episodes(prepared: PreparedData) -> list[Episode]:
    if not prepared.has_records("glossaries", "test"):
        raise UserError(
            "the data has no words for colours; set data.embedded.glossary_documents.languages"
        )
    return [Episode.model_validate(record) for record in prepared.records("glossaries", "test")]


def _shown(picture: Named, word: str) -> Demonstration:
    return Demonstration(picture.image, *templates.caption(word))


def items(prepared: PreparedData) -> list[Item]:
    """One question an episode, with eight demonstrations of its own; another glossary misleads."""
    result = []
    for episode in _episodes(prepared):
        *before, asked = episode.pictures
        result.append(
            Item(
                item_id=episode.name,
                image_id=asked.image,
                prompt=templates.caption(asked.word).prompt,
                references=(asked.word,),
                kind=asked.colour,
                choices=asked.words,
                demonstrations=tuple(_shown(one, one.word) for one in before),
                wrong_demonstrations=tuple(_shown(one, one.other_word) for one in before),
            )
        )
    return result


def demonstrations(prepared: PreparedData) -> list[Demonstration]:
    """All that is shown in the episodes, as long as any answer."""
    return [
        _shown(picture, word)
        for episode in _episodes(prepared)
        for picture in episode.pictures
        for word in picture.words
    ]


def score(
    asked: Sequence[Item],
    predictions: Sequence[str],
    all_items: Sequence[Item],
    examples: Sequence[Demonstration],
) -> Score:
    """Percentages of the right word, and of the right colour in any language.

    `chance_accuracy` is that of who sees the colour and guesses its word.
    """
    answers = [answer_of(prediction) for prediction in predictions]
    return score_among_choices(asked, answers, accuracies(asked, answers), "colour_accuracy")


TASK = GenerationTask("emoji_glossary", items, demonstrations, score)
