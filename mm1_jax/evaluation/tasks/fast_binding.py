"""Made-up names, shown in the prompt, then asked: binding within the context.

In the manner of the open-ended miniImageNet of Frozen (Tsimpoukelli et al., 2021). The two names
are announced first, so that a model without demonstrations can guess one in two. The drawings'
concepts were held out of training, and each episode names them anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ablations.errors import UserError
from mm1_jax.data import templates
from mm1_jax.data.sources.binding import Episode
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.tasks.generation_task import (
    Demonstration,
    GenerationTask,
    Item,
    Score,
    score_among_choices,
)
from mm1_jax.evaluation.tasks.task_recognition import answer_of


def _episodes(prepared: PreparedData) -> list[Episode]:
    if not prepared.has_records("episodes", "test"):
        raise UserError(
            "the data has no episodes of made-up names; set data.embedded.binding_documents.ways"
        )
    return [Episode.model_validate(record) for record in prepared.records("episodes", "test")]


def _shown(episode: Episode) -> list[Demonstration]:
    return [
        Demonstration(episode.images[place], *templates.naming(episode.names[place]))
        for place in episode.order
    ]


def items(prepared: PreparedData) -> list[Item]:
    """One question an episode, with up to eight demonstrations of its own."""
    result = []
    for episode in _episodes(prepared):
        *shown, asked = _shown(episode)
        result.append(
            Item(
                item_id=episode.name,
                image_id=asked.image_id,
                prompt=asked.prompt,
                references=(episode.names[episode.order[-1]],),
                introduction=templates.introduction(episode.names),
                choices=episode.names,
                demonstrations=tuple(shown),
                wrong_demonstrations=_exchanged(shown),
            )
        )
    return result


def _exchanged(shown: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
    # The same pictures, each class with the next class's name.
    responses = list(dict.fromkeys(example.response for example in shown))
    following = dict(zip(responses, [*responses[1:], responses[0]], strict=True))
    return tuple(
        dataclasses.replace(example, response=following[example.response]) for example in shown
    )


def demonstrations(prepared: PreparedData) -> list[Demonstration]:
    """All that is shown in the episodes, as long as any answer."""
    return [shown for episode in _episodes(prepared) for shown in _shown(episode)]


def score(
    asked: Sequence[Item],
    predictions: Sequence[str],
    all_items: Sequence[Item],
    examples: Sequence[Demonstration],
) -> Score:
    """Percentages of right answers and of answers that are one of the two names.

    `chance_accuracy` is that of who guesses among the names.
    """
    answers = [answer_of(prediction) for prediction in predictions]
    right = [100.0 * (a in item.references) for a, item in zip(answers, asked, strict=True)]
    return score_among_choices(asked, answers, right, "kind_accuracy")


TASK = GenerationTask("fast_binding", items, demonstrations, score)
