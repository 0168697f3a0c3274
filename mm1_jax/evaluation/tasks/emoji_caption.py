"""Captions of emoji whose concepts were held out of training, scored with CIDEr-D."""

from __future__ import annotations

from collections.abc import Sequence

from mm1_jax.data import templates
from mm1_jax.data.sources.emoji import Emoji
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.metrics.captions import cider_d
from mm1_jax.evaluation.tasks.generation_task import (
    Demonstration,
    GenerationTask,
    Item,
    Score,
    blind_answers,
)


def items(prepared: PreparedData) -> list[Item]:
    """One item per held-out drawing; every wording of it is a reference."""
    emoji = [Emoji.model_validate(record) for record in prepared.records("emoji", "test")]
    return [
        Item(item.name, item.image, templates.caption(item.title).prompt, tuple(item.captions))
        for item in emoji
    ]


def demonstrations(prepared: PreparedData) -> list[Demonstration]:
    """Every training drawing with every wording of it."""
    emoji = [Emoji.model_validate(record) for record in prepared.records("emoji", "train")]
    return [
        Demonstration(item.image, *templates.caption(text))
        for item in emoji
        for text in item.captions
    ]


def score(
    asked: Sequence[Item],
    predictions: Sequence[str],
    all_items: Sequence[Item],
    examples: Sequence[Demonstration],
) -> Score:
    """CIDEr-D × 100, with that of the most frequent training caption.

    Document frequencies are those of the whole test split, also for a subset of it.
    """
    references = [item.references for item in asked]
    corpus = [item.references for item in all_items]
    scores = 100 * cider_d(predictions, references, corpus)
    blind = 100 * cider_d(blind_answers(asked, examples), references, corpus)
    return Score(
        scores.tolist(), {"cider": float(scores.mean()), "blind_cider": float(blind.mean())}
    )


TASK = GenerationTask("emoji_caption", items, demonstrations, score)
