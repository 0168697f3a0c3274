"""ARC, the easy questions (Clark et al., 2018): science exams of schools, mostly four choices."""

from __future__ import annotations

from pathlib import Path

from mm1_jax.evaluation.official.likelihood_tasks import likelihood_task, multiple_choice
from mm1_jax.evaluation.official.published_files import find_one, rows_with
from mm1_jax.evaluation.official.task import Question


def read_arc(path: Path, task: str, name: str) -> list[Question]:
    """The questions of a Parquet or JSON-lines file of ARC, or of a folder's test split.

    The columns of the Parquet form are `question`, `choices` (`text`, `label`) and `answerKey`;
    in the original JSON lines `question` holds `stem` and a list of choices.
    """
    hub = (f"**/{name}/test-*.parquet", "test-*.parquet", f"**/{name}/train-*.parquet")
    original = (f"**/{name}-Test.jsonl", f"**/{name}-Train.jsonl")
    file = find_one(path, task, *hub, "train-*.parquet", *original)
    questions = []
    for row in rows_with(file, ["question", "answerKey"], task, "id"):
        if isinstance(row.fields["question"], dict):  # the original
            asked = row.part("question", "stem", "choices")
            stem = asked.text("stem")
            choices, labels = (asked.texts("choices", key=key) for key in ("text", "label"))
        else:
            stem = row.text("question")
            asked = row.part("choices", "text", "label")
            choices, labels = asked.options("text"), asked.texts("label")
        if len(set(labels)) < len(labels) or len(labels) != len(choices):
            raise row.error("expected a label of its own for each choice")
        right = row.among("answerKey", labels)
        prompt = f"Question: {stem}\nAnswer:"
        questions.append(multiple_choice(row, prompt, choices, right, question=stem))
    return questions


def read(path: Path) -> list[Question]:
    """ARC-Easy; its test split has 2,376 questions."""
    return read_arc(path, "arc_easy", "ARC-Easy")


TASK = likelihood_task("arc_easy", read)
