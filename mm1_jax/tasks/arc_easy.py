"""ARC, the easy questions (Clark et al., 2018): science exams of schools, mostly four choices."""

from __future__ import annotations

from pathlib import Path

from mm1_jax.tasks.likelihood import likelihood_task, multiple_choice
from mm1_jax.tasks.official import Question
from mm1_jax.tasks.official_files import check_fields, find_one, index_of, rows_with


def read_arc(path: Path, task: str, name: str) -> list[Question]:
    """The questions of a Parquet or JSON-lines file of ARC, or of a folder's test split.

    The columns of the Parquet form are `question`, `choices` (`text`, `label`) and `answerKey`;
    in the original JSON lines `question` holds `stem` and a list of choices.
    """
    hub = (f"**/{name}/test-*.parquet", "test-*.parquet", f"**/{name}/train-*.parquet")
    original = (f"**/{name}-Test.jsonl", f"**/{name}-Train.jsonl")
    file = find_one(path, task, *hub, "train-*.parquet", *original)
    questions = []
    for number, row in enumerate(rows_with(file, ["question", "answerKey"], task)):
        stem, choices = row["question"], row.get("choices", {})
        if isinstance(stem, dict):
            check_fields(stem, ["stem", "choices"], file, task)
            stem, listed = stem["stem"], stem["choices"]
            choices = {key: [choice[key] for choice in listed] for key in ("text", "label")}
        check_fields(choices, ["text", "label"], file, task)
        right = index_of(row["answerKey"], choices["label"], "answerKey", file, number)
        prompt = f"Question: {stem}\nAnswer:"
        questions.append(multiple_choice(number, prompt, choices["text"], right, question=stem))
    return questions


def read(path: Path) -> list[Question]:
    """ARC-Easy; its test split has 2,376 questions."""
    return read_arc(path, "arc_easy", "ARC-Easy")


TASK = likelihood_task("arc_easy", read)
