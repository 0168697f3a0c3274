"""Tasks answered by likelihood, as in the EleutherAI harness: which continuation is likeliest?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.likelihood import LogLikelihood, chosen, perplexity
from mm1_jax.evaluation.official.published_files import one_each, read_rows
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

Pair = tuple[str, str]  # context, continuation
# What a model is to this module: pairs → log-likelihoods of the continuations, in their order.
LogLikelihoods = Callable[[Sequence[Pair]], Sequence[LogLikelihood]]
_DELIMITER = " "  # between a prompt and a choice
_SEPARATOR = "\n\n"  # after each demonstration


def pairs(question: Question, demonstrations: Sequence[Question] = ()) -> list[Pair]:
    """What a model is asked: one (context, continuation) per choice.

    The context is the demonstrations and the prompt, the continuation a space and the choice. Where
    the question states `facts["continuation"]`, as WinoGrande's do, the choices stand in the
    context and that is the continuation of each.
    """
    shown = "".join(right_text(example) + _SEPARATOR for example in demonstrations)
    context = shown + question.prompt
    continuation = question.facts.get("continuation")
    if continuation is not None:
        return [(context + choice, _DELIMITER + continuation) for choice in question.choices]
    return [(context, _DELIMITER + choice) for choice in question.choices]


def right_text(question: Question) -> str:
    """A question with its right answer, as it stands in a few-shot prompt."""
    right = question.references[0]
    continuation = question.facts.get("continuation")
    if continuation is not None:
        return question.prompt + right + _DELIMITER + continuation
    return question.prompt + _DELIMITER + right


def answers(
    questions: Sequence[Question],
    log_likelihoods: LogLikelihoods,
    demonstrations: Sequence[Sequence[Question]] | None = None,
) -> list[str]:
    """Ask a model all pairs of all questions at once; each answer holds its log-likelihoods.

    `demonstrations`: those of each question, none if None.
    """
    shown = demonstrations or [()] * len(questions)
    asked = [pairs(question, own) for question, own in zip(questions, shown, strict=True)]
    found = iter(log_likelihoods([pair for own in asked for pair in own]))
    return [json.dumps([next(found) for _ in own]) for own in asked]


def predictions(path: Path) -> dict[str, str]:
    """The log-likelihoods in a `samples_….jsonl` of the harness (`--log_samples`): doc_id → answer.

    UserError if it is none.
    """
    task = "a samples file of the harness"
    rows = [
        Row(row, ["doc_id", "filtered_resps"], path, task, number, "doc_id")
        for number, row in enumerate(read_rows(path), start=1)
    ]
    return one_each((row, row.id("doc_id"), json.dumps(_measured(row))) for row in rows)


def _measured(row: Row) -> list[LogLikelihood]:
    """The log-likelihoods of a row, whose numbers and truth values the harness writes as text."""
    found = []
    for number, pair in enumerate(row.items("filtered_resps"), start=1):
        try:
            nats, greedy = pair
            value, truth = float(nats), {"True": True, "False": False}[str(greedy)]
        except (TypeError, ValueError, KeyError, OverflowError):
            value, truth = math.nan, False
        if not value <= 0 or isinstance(pair, str):
            message = f"filtered_resps, {number}: expected a log-likelihood and True or False"
            raise row.error(message)
        found.append((value, truth))
    return found


def _read(question: Question, answer: str) -> list[LogLikelihood]:
    found = [(float(nats), bool(greedy)) for nats, greedy in json.loads(answer)]
    if len(found) != len(question.choices):
        counts = f"{len(question.choices)} choices, {len(found)} log-likelihoods"
        raise UserError(f"item {question.item_id}: {counts}")
    return found


def choice_score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """`accuracy` by the sum of log-likelihoods, `accuracy_norm` per character, `accuracy_bytes`.

    The harness calls them acc, acc_norm, acc_bytes. Items are of `accuracy`. The right choice is
    the one at `facts["right"]`.
    """
    hits = [
        [100.0 * (index == question.facts["right"]) for index in chosen(found, question.choices)]
        for question, answer in zip(questions, given, strict=True)
        for found in [_read(question, answer)]
    ]
    total, per_character, per_byte = (list(column) for column in zip(*hits, strict=True))
    also = {"accuracy_norm": per_character, "accuracy_bytes": per_byte}
    metrics = group_means("accuracy", total, {})
    for name, items in also.items():
        metrics |= group_means(name, items, {})
    return Score(total, metrics, also)


def greedy_score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """`exact_match`: whether any choice is what greedy decoding gives."""
    items = [
        100.0 * any(greedy for _, greedy in _read(question, answer))
        for question, answer in zip(questions, given, strict=True)
    ]
    return Score(items, group_means("exact_match", items, {}))


def last_word_score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """`accuracy`: the last word is what greedy decoding gives; `perplexity` per last word."""
    found = [_read(q, answer)[0] for q, answer in zip(questions, given, strict=True)]
    items = [100.0 * greedy for _, greedy in found]
    nats = -sum(value for value, _ in found)
    return Score(
        items, group_means("accuracy", items, {}) | {"perplexity": perplexity(nats, len(found))}
    )


def likelihood_task(
    name: str,
    read: Callable[[Path], list[Question]],
    score: Callable[[Sequence[Question], Sequence[str]], Score] = choice_score,
) -> OfficialTask:
    """A task whose answers are log-likelihoods of the choices, as `answers` writes them."""
    return OfficialTask(
        name, read, predictions, answer=lambda text: text, score=score, by_likelihood=True
    )


def multiple_choice(
    row: Row, prompt: str, choices: Sequence[str], right: int, **facts: object
) -> Question:
    """A question with one right choice; its id is the row from 0, as the harness's `doc_id`.

    UserError if the right choice is empty: no other can be told from it.
    """
    assert row.number is not None
    if not choices[right].strip():
        raise row.error(f"the right choice, {right + 1} of {len(choices)}, is empty")
    return Question(
        item_id=str(row.number - 1),
        images=(),
        prompt=prompt,
        references=(choices[right],),
        choices=tuple(choices),
        facts={"right": right, **facts},
    )
