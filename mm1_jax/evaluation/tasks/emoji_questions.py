"""Questions about emoji whose concepts were held out of training: where they belong, exact match.

Their names cannot be known, but what is like them can: category, kind, and yes or no.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mm1_jax.data.sources.conversations import questions_about
from mm1_jax.data.sources.emoji import Emoji
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.metrics.exact_match import accuracies
from mm1_jax.evaluation.tasks.generation_task import (
    Demonstration,
    GenerationTask,
    Item,
    Score,
    blind_answers,
)


def items(prepared: PreparedData) -> list[Item]:
    """The questions about each held-out drawing, but for its name."""
    emoji = [Emoji.model_validate(record) for record in prepared.records("emoji", "test")]
    return [
        Item(f"{item.name}/{number}", item.image, turn.prompt, (turn.response.removeprefix(" "),))
        for item, turns in zip(emoji, questions_about(emoji), strict=True)
        for number, turn in enumerate(turns[1:])
    ]


def demonstrations(prepared: PreparedData) -> list[Demonstration]:
    """The same questions about the training drawings."""
    emoji = [Emoji.model_validate(record) for record in prepared.records("emoji", "train")]
    return [
        Demonstration(item.image, *turn)
        for item, turns in zip(emoji, questions_about(emoji), strict=True)
        for turn in turns[1:]
    ]


def score(
    asked: Sequence[Item],
    predictions: Sequence[str],
    all_items: Sequence[Item],
    examples: Sequence[Demonstration],
) -> Score:
    """Accuracy in percent, with that of the majority training answer to the same question."""
    scores = accuracies(asked, predictions)
    blind = accuracies(asked, blind_answers(asked, examples))
    return Score(
        scores, {"accuracy": float(np.mean(scores)), "blind_accuracy": float(np.mean(blind))}
    )


TASK = GenerationTask("emoji_questions", items, demonstrations, score)
