"""easy-VQA's official test questions: generated answers, exact match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mm1_jax.data import templates
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
    """The 9,673 test questions."""
    return [
        Item(
            item_id=record["name"],
            image_id=record["image"],
            prompt=templates.visual_question(record["question"], record["answer"]).prompt,
            references=(record["answer"],),
        )
        for record in prepared.records("easy_vqa", "test")
    ]


def demonstrations(prepared: PreparedData) -> list[Demonstration]:
    """The training questions with their answers."""
    return [
        Demonstration(
            record["image"], *templates.visual_question(record["question"], record["answer"])
        )
        for record in prepared.records("easy_vqa", "train")
    ]


def oracle_answers(asked: Sequence[Item]) -> list[str]:
    """The majority answer per question string, learnt on the asked items themselves.

    No answerer that never sees an image can beat it on these items.
    """
    counts: dict[str, Counter[str]] = {}
    for item in asked:
        counts.setdefault(item.prompt, Counter())[item.references[0]] += 1
    return [counts[item.prompt].most_common(1)[0][0] for item in asked]


def score(
    asked: Sequence[Item],
    predictions: Sequence[str],
    all_items: Sequence[Item],
    examples: Sequence[Demonstration],
) -> Score:
    """Accuracy in percent, with the blind answerer's and the oracle's on the same items."""
    scores = accuracies(asked, predictions)
    metrics = {
        "accuracy": float(np.mean(scores)),
        "blind_accuracy": float(np.mean(accuracies(asked, blind_answers(asked, examples)))),
        "oracle_accuracy": float(np.mean(accuracies(asked, oracle_answers(asked)))),
    }
    return Score(scores, metrics)


TASK = GenerationTask("easy_vqa", items, demonstrations, score)
