"""OK-VQA (Marino et al., 2019): questions that need knowledge from outside the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.benchmarks.vqav2 import first_line, people_score, read_vqa
from mm1_jax.evaluation.metrics.vqa import textvqa_accuracy, vqa_accuracy
from mm1_jax.evaluation.official.published_files import read_answers
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score


def read(path: Path) -> list[Question]:
    """`mscoco_val2014_annotations.json` with `OpenEnded_mscoco_val2014_questions.json`."""
    return read_vqa(path, "ok_vqa")


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy by lmms-eval's rule (always normalised); `accuracy_vqa_rule` by VQA's own code.

    Answers are those of `answer`, the stemmed ones; predictions are not stemmed.
    """
    found = people_score(questions, given, textvqa_accuracy, ("question_type",))
    official = people_score(questions, given, vqa_accuracy)
    return Score(
        found.items,
        found.metrics | {"accuracy_vqa_rule": official.metrics["accuracy"]},
        {"accuracy_vqa_rule": official.items},
    )


TASK = OfficialTask("ok_vqa", read, read_answers, first_line, score)
