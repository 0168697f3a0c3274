"""Tasks that only the demonstrations tell: in which language a name is asked, or an attribute.

The question is the same for every kind of answer, so that without demonstrations a model can only
guess what is meant. `emoji_languages` asks for names of concepts seen in training, drawn in the
second style; `emoji_attributes` for the category or the colour of drawings of held-out concepts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablations.errors import UserError
from mm1_jax.data import templates
from mm1_jax.data.sources.languages import ATTRIBUTES, Answer
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.tasks.generation_task import (
    Demonstration,
    Item,
    Score,
    blind_answers,
)
from mm1_jax.evaluation.tasks.prompts import by_kind


def _answers(prepared: PreparedData, split: str, style: str) -> list[Answer]:
    if not prepared.has_records("answers", split):
        raise UserError(
            "the data has no answers in several languages; "
            "set data.embedded.language_documents.languages"
        )
    answers = [Answer.model_validate(record) for record in prepared.records("answers", split)]
    found = [answer for answer in answers if answer.name.startswith(f"{style}/")]
    if not found:
        raise UserError(
            f"the data has no drawings of the style {style}; "
            "add it to data.embedded.drawings.styles"
        )
    return found


def _items(answers: Sequence[Answer]) -> list[Item]:
    return [
        Item(
            item_id=f"{answer.name}/{answer.kind}",
            image_id=answer.image,
            prompt=templates.caption(answer.text).prompt,
            references=(answer.text,),
            kind=answer.kind,
            concept=answer.concept,
        )
        for answer in answers
    ]


def names(prepared: PreparedData) -> list[Item]:
    """Every name, in every language, of the training concepts in OpenMoji's style."""
    answers = _answers(prepared, "train", "openmoji")
    return _items([answer for answer in answers if answer.kind not in ATTRIBUTES])


def attributes(prepared: PreparedData) -> list[Item]:
    """The category and the colour of every held-out drawing."""
    answers = _answers(prepared, "test", "twemoji")
    return _items([answer for answer in answers if answer.kind in ATTRIBUTES])


def demonstrations(prepared: PreparedData) -> list[Demonstration]:
    """The training drawings with answers of every kind."""
    return [
        Demonstration(
            answer.image,
            *templates.caption(answer.text),
            kind=answer.kind,
            concept=answer.concept,
        )
        for answer in _answers(prepared, "train", "twemoji")
    ]


def score(
    asked: Sequence[Item],
    predictions: Sequence[str],
    all_items: Sequence[Item],
    examples: Sequence[Demonstration],
) -> Score:
    """Percentages of right answers, and of answers of the kind that is asked, right or wrong.

    `blind_accuracy` is that of who always gives the most frequent training answer of the kind.
    """
    of_kind = by_kind(examples)
    known = {
        kind: {example.response.strip() for example in listed} for kind, listed in of_kind.items()
    }
    majority = {
        kind: blind_answers(asked[:1], listed)[0].strip() for kind, listed in of_kind.items()
    }
    answers = [answer_of(prediction) for prediction in predictions]
    right = [100.0 * (a in item.references) for a, item in zip(answers, asked, strict=True)]
    kind = [100.0 * (a in known[item.kind]) for a, item in zip(answers, asked, strict=True)]
    blind = [100.0 * (majority[item.kind] in item.references) for item in asked]
    return Score(
        right,
        {
            "accuracy": float(np.mean(right)),
            "kind_accuracy": float(np.mean(kind)),
            "blind_accuracy": float(np.mean(blind)),
        },
    )


def answer_of(prediction: str) -> str:
    """The first line: after it a model goes on with the next example."""
    return prediction.partition("\n")[0].strip()
