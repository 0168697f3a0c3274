"""Multiple-choice questions as prompts: the options with letters, a letter as the answer."""

from __future__ import annotations

from collections.abc import Sequence

from mm1_jax.metrics.groups import group_means
from mm1_jax.metrics.multiple_choice import letters
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.official import Question

LETTER = "\nAnswer with the option's letter from the given choices directly."


def with_options(question: str, options: Sequence[str]) -> str:
    """The question and a line per option: `A. …`."""
    return "\n".join(
        [question, *(f"{letter}. {text}" for letter, text in letters(options).items())]
    )


def right_letter(index: int) -> str:
    """The letter of option `index`, from 0."""
    return chr(ord("A") + index)


def letter_score(
    questions: Sequence[Question], read: Sequence[str | None], groups: Sequence[str] = ()
) -> Score:
    """Accuracy of the letters read from the answers, by the facts named in `groups`.

    None is wrong; `unparsed` is the share of it.
    """
    items = [
        100.0 * (letter == question.references[0])
        for question, letter in zip(questions, read, strict=True)
    ]
    values = {group: [str(question.facts[group]) for question in questions] for group in groups}
    unparsed = 100 * sum(letter is None for letter in read) / len(read)
    return Score(items, group_means("accuracy", items, values) | {"unparsed": unparsed})
