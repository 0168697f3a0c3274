"""What is asked of an official task: its questions, their demonstrations, and the words.

Few-shot prompts show training examples that are drawn for each question from (seed, task, question
id): they are the same in all arms, and those of fewer shots are the first of more. No JAX here: a
study is checked before it runs.
"""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.config.official import OfficialStage
from mm1_jax.data.draws import generator
from mm1_jax.data.templates import Exchange, converse, template_of
from mm1_jax.evaluation.official.task import OfficialTask, Question, questions_in
from mm1_jax.evaluation.official.task_folder import OfficialFolder
from mm1_jax.evaluation.tasks.generation_task import Demonstration, Item, blind_answers
from mm1_jax.evaluation.tasks.prompts import Prompt, joined

CONCLUSION = "The answer is"


def task_in(module: str) -> OfficialTask:
    """The task of a module, which is imported now: others may change without changing this one."""
    return importlib.import_module(module).TASK


def questions_of(module: str, folder: OfficialFolder) -> tuple[list[Question], list[Question]]:
    """What is asked, and what demonstrations are drawn from, as the task in `module` reads it.

    UserError if it is another format, or holds no questions.
    """
    asked = _read(module, folder.annotations, folder.content)
    if not asked:
        raise UserError(f"{task_in(module).name}: no questions in {folder.annotations}")
    if folder.train is None:
        return asked, []
    return asked, _read(module, folder.train, folder.content, training=True)


@functools.lru_cache(maxsize=4)
def _read(module: str, place: Path, content: str, training: bool = False) -> list[Question]:
    """Kept for the arms, seeds, shots and conditions that a worker is given one after another."""
    task = task_in(module)
    questions = questions_in(task, place, training=training)
    wordless = [] if task.by_likelihood else [q.item_id for q in questions if not q.prompt]
    if wordless:  # of VQA's annotations alone, which can be scored
        message = f"{task.name}: {wordless[0]} has no question: is the question file beside it?"
        raise UserError(message, file=str(place))
    return questions


def check_shots(task: str, shots: int, examples: int) -> None:
    """Raise `UserError` unless a question can have so many demonstrations."""
    if shots > examples:
        there = (
            f"has {examples} examples"
            if examples
            else "is not in the folder (`--train`, key `train`)"
        )
        raise UserError(f"shots: {shots} of {task}: the training split {there}")


def drawn_for(
    question: Question, training: Sequence[Question], shots: int, seed: int, task: str
) -> list[Question]:
    """`shots` different training examples for one question, never the question itself."""
    draws = generator(seed, "demonstrations", task, question.item_id)
    chosen: dict[int, None] = {}
    passed: set[int] = set()
    while len(chosen) < shots:
        place = int(draws.integers(len(training)))
        if _words(training[place]) == _words(question):
            passed.add(place)
            check_shots(task, shots, len(training) - len(passed))
        else:
            chosen[place] = None
    return [training[place] for place in chosen]


def _words(question: Question) -> tuple[object, ...]:
    return question.images, question.prompt, question.choices


def few_shot_prompt(
    task: str,
    settings: OfficialStage,
    question: Question,
    images: Sequence[str],
    demonstrations: Sequence[Question],
    number: Callable[..., int],
    template: str = "plain",
) -> Prompt:
    """Demonstrations with their answers, then `images` and what is asked of them.

    `number` gives the image id of a name; of a demonstration's with `training=True`. With a chat
    template the demonstrations are the turns before.
    """
    turns: list[Exchange[int]] = []
    for example in demonstrations:
        shown = (number(name, training=True) for name in example.images)
        words = worded(task, settings, example)
        answer = reasoned(task, example) if settings.reasoning else demonstrated(example)
        turns.append(Exchange((*shown, words), f" {answer}"))
    turns.append(Exchange((*map(number, images), worded(task, settings, question)), None))
    if template != "plain":
        return converse(turns, template_of(template))[0]
    parts: list[int | str] = []
    for turn in turns:
        parts += turn.asked
        if turn.answer is not None:
            parts.append(turn.answer + settings.separator)
    return joined(parts)


def worded(task: str, settings: OfficialStage, question: Question) -> str:
    """What follows the images of a question."""
    template = settings.prompt
    if "{question}" in template and "question" not in question.facts:
        raise UserError(f"{task}: prompt {template!r}: this task's prompts have no {{question}}")
    words = template.replace("{prompt}", question.prompt)
    return words.replace("{question}", str(question.facts.get("question")))


def demonstrated(example: Question) -> str:
    """The answer that a demonstration gives: what most people said, of equals the first."""
    return Counter(example.references).most_common(1)[0][0]


def reasoned(task: str, example: Question) -> str:
    """The same after its reasons, as a chain-of-thought demonstration has it (MM1 §7).

    UserError where the task's files have none.
    """
    reasons = " ".join(str(example.facts.get("reasoning") or "").split())
    if not reasons:
        raise UserError(f"{task}: reasoning: training example {example.item_id} has no reasons")
    return f"{reasons} {CONCLUSION} {demonstrated(example)}."


def concluded(text: str) -> str:
    """What a reasoned answer comes to: the words after its last `The answer is`, else all of it."""
    return text.rpartition(CONCLUSION)[2].strip().removesuffix(".")


def majority(
    task: str, settings: OfficialStage, questions: Sequence[Question], training: Sequence[Question]
) -> list[str]:
    """What the best answerer says that knows the training answers and never sees an image."""
    shown = [Demonstration(-1, worded(task, settings, t), demonstrated(t)) for t in training]
    asked = [Item(q.item_id, -1, worded(task, settings, q), q.references) for q in questions]
    return blind_answers(asked, shown)
