"""What a task that is answered by generated text consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # scoring files must start quickly, and that reads Parquet
    from mm1_jax.data.sources.prepared_packages import PreparedData


@dataclass(frozen=True)
class Item:
    """One test item: an image, what is asked, and the answers that count.

    `kind` says which training examples may demonstrate it: those of the same kind, of another
    concept. An item with `demonstrations` of its own takes the first of them instead, and
    `wrong_demonstrations` where they are to mislead. An `introduction` stands before everything
    else.
    """

    item_id: str
    image_id: int
    prompt: str
    references: tuple[str, ...]
    kind: str = ""
    concept: str = ""
    demonstrations: tuple[Demonstration, ...] = ()
    wrong_demonstrations: tuple[Demonstration, ...] = ()
    introduction: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Demonstration:
    """A training example as it may stand in a few-shot prompt."""

    image_id: int
    prompt: str
    response: str
    kind: str = ""
    concept: str = ""


@dataclass(frozen=True)
class Score:
    """A score per item, and metric → value over all of them.

    `items` are of the first metric, if that is a mean over items; `also` has those of others that
    are.
    """

    items: list[float]
    metrics: dict[str, float]
    also: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class GenerationTask:
    """A task's functions.

    items             the test split
    demonstrations    the training split: examples for prompts, and what a blind answerer learns
    score             of (items asked, predictions, all items, demonstrations)
    """

    name: str
    items: Callable[[PreparedData], list[Item]]
    demonstrations: Callable[[PreparedData], list[Demonstration]]
    score: Callable[[Sequence[Item], Sequence[str], Sequence[Item], Sequence[Demonstration]], Score]


def blind_answers(items: Sequence[Item], demonstrations: Sequence[Demonstration]) -> list[str]:
    """What the best answerer says that never sees an image.

    The majority training response to the same prompt, or of all prompts if that one is new; ties
    go to the response seen first.
    """
    overall: Counter[str] = Counter()
    by_prompt: dict[str, Counter[str]] = {}
    for example in demonstrations:
        overall[example.response] += 1
        by_prompt.setdefault(example.prompt, Counter())[example.response] += 1
    majority = {prompt: counts.most_common(1)[0][0] for prompt, counts in by_prompt.items()}
    return [majority.get(item.prompt, overall.most_common(1)[0][0]) for item in items]


def score_among_choices(
    items: Sequence[Item], answers: Sequence[str], right: list[float], among: str
) -> Score:
    """Percentages of `right` answers and, as metric `among`, of those that are a choice.

    `chance_accuracy` is that of who guesses among an item's choices.
    """
    chosen = [100.0 * (a in item.choices) for a, item in zip(answers, items, strict=True)]
    return Score(
        right,
        {
            "accuracy": float(np.mean(right)),
            among: float(np.mean(chosen)),
            "chance_accuracy": float(np.mean([100.0 / len(item.choices) for item in items])),
        },
    )
