"""WinoGrande (Sakaguchi et al., 2020): which of two names fills the blank of a sentence?"""

from __future__ import annotations

from pathlib import Path

from mm1_jax.evaluation.official.likelihood_tasks import likelihood_task, multiple_choice
from mm1_jax.evaluation.official.published_files import find_one, rows_with
from mm1_jax.evaluation.official.published_rows import short
from mm1_jax.evaluation.official.task import Question

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
    for row in rows_with(file, _FIELDS, "winogrande"):
        sentence = row.text("sentence")
        before, blank, after = sentence.partition("_")
        if not blank:
            raise row.error(f"no _ in {short(sentence)!r}")
        right = row.among("answer", ("1", "2"))
        options = [row.text(name) for name in ("option1", "option2")]
        if not all(option.strip() for option in options):
            raise row.error("an option is empty")
        contexts = [before + option for option in options]
        questions.append(multiple_choice(row, "", contexts, right, continuation=after.strip()))
    return questions


TASK = likelihood_task("winogrande", read)
