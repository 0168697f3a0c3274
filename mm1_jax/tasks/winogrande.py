"""WinoGrande (Sakaguchi et al., 2020): which of two names fills the blank of a sentence?"""

from __future__ import annotations

from pathlib import Path

from mm1_jax.errors import UserError
from mm1_jax.tasks.likelihood import likelihood_task, multiple_choice
from mm1_jax.tasks.official import Question
from mm1_jax.tasks.official_files import find_one, index_of, rows_with

_FIELDS = ["sentence", "option1", "option2", "answer"]


def read(path: Path) -> list[Question]:
    """A file with the published columns, or the validation split (1,267) of `winogrande_xl`.

    The contexts differ and the continuation is shared: the sentence up to and with each name, and
    what follows the blank.
    """
    splits = ("validation-*.parquet", "train-*.parquet")
    hub = [name for split in splits for name in (f"**/winogrande_xl/{split}", split)]
    patterns = (*hub, "dev.jsonl", "train_xl.jsonl")
    file = find_one(path, "winogrande", *patterns)
    questions = []
    for number, row in enumerate(rows_with(file, _FIELDS, "winogrande")):
        before, blank, after = row["sentence"].partition("_")
        if not blank:
            raise UserError(f"row {number + 1}: no _ in {row['sentence']!r}", file=str(file))
        right = index_of(row["answer"], ("1", "2"), "answer", file, number)
        contexts = [before + row["option1"], before + row["option2"]]
        questions.append(multiple_choice(number, "", contexts, right, continuation=after.strip()))
    return questions


TASK = likelihood_task("winogrande", read)
