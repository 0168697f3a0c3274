"""Multiple-choice questions as prompts: the options with letters, a letter as the answer."""

from __future__ import annotations

import string
from collections.abc import Sequence

from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.multiple_choice import letters
from mm1_jax.evaluation.official.published_rows import Row, as_text
from mm1_jax.evaluation.official.task import Question
from mm1_jax.evaluation.tasks.generation_task import Score

LETTER = "\nAnswer with the option's letter from the given choices directly."


def with_options(question: str, options: Sequence[str]) -> str:
    """The question and a line per option: `A. …`."""
    return "\n".join(
        [question, *(f"{letter}. {text}" for letter, text in letters(options).items())]
    )


def right_letter(row: Row, name: str, options: Sequence[str]) -> str:
    """The letter of the right option, which the field `name` states as a letter.

    UserError if it is none, as in a split without answers, or if that option is empty.
    """
    _check_count(row, options)
    there = letters(options)
    stated = as_text(row.fields[name])
    if stated in set(string.ascii_uppercase[: len(options)]) - set(there):
        raise row.error(f"{name} is {stated}, an option that is empty")
    return list(there)[row.among(name, tuple(there))]


def letter_at(row: Row, name: str, options: Sequence[str]) -> str:
    """The letter of the right option, which the field `name` states as its place from 0."""
    _check_count(row, options)
    place = row.whole(name)
    if place >= len(options):
        raise row.error(f"{name} is {place}, but there are {len(options)} options, from 0")
    if not options[place].strip():
        raise row.error(f"{name} is {place}, an option that is empty")
    return string.ascii_uppercase[place]


def _check_count(row: Row, options: Sequence[str]) -> None:
    if len(options) > len(string.ascii_uppercase):
        raise row.error(f"{len(options)} options are more than there are letters")


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
