"""What the official caption tasks have in common: prompt, result file, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from mm1_jax.data import templates
from mm1_jax.evaluation.metrics.captions import bleu, cider_d, rouge_l
from mm1_jax.evaluation.official.published_files import read_answers, rows_of
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

PROMPT = templates.caption("").prompt
_OFFICIAL_UNIT = 0.01  # pycocoevalcap prints BLEU and ROUGE-L up to 1 and CIDEr up to 10


def coco_questions(content: Any, path: Path, task: str) -> list[Question]:
    """One item per image of a file in COCO's form; its captions are the references.

    `content` has `images` (id, file_name) and `annotations` (image_id, caption). Scoring needs no
    file_name, and reading the image tells that there is none. Facts of an item are its image's
    other fields. UserError if it has other fields or an image without captions.
    """
    images = {}
    captions: dict[str, list[str]] = {}
    for row in rows_of(content, "images", ["id"], path, task, "id"):
        image_id = row.id("id")
        if image_id in images:
            raise UserError(f"{task}: image {image_id} is there twice", file=str(path))
        images[image_id], captions[image_id] = row, []
    for row in rows_of(content, "annotations", ["image_id", "caption"], path, task, "image_id"):
        image_id = row.id("image_id")
        if image_id not in images:
            raise UserError(
                f"{task}: a caption of image {image_id}, which is not among the images",
                file=str(path),
            )
        captions[image_id].append(row.text("caption"))
    return [
        question(row, "id", _file_of(row), captions[image_id], _facts(row))
        for image_id, row in images.items()
    ]


def _facts(image: Row) -> dict[str, Any]:
    own = {"domain": image.label("domain")} if "domain" in image else {}
    return {**image.fields, **own}


def _file_of(image: Row) -> str:
    if image.optional("file_name"):
        return image.image("file_name")
    return f"(image {image.id('id')} has no file_name in the annotations)"


def question(
    row: Row, id_name: str, file: str, captions: Sequence[str], facts: Mapping[str, Any]
) -> Question:
    """An image to describe, the id in a row's field `id_name`; UserError if nobody has."""
    image_id = row.id(id_name)
    if not any(captions):
        raise UserError(
            f"{row.task}: image {image_id} has no captions; a split without references?",
            file=str(row.path),
        )
    return Question(image_id, (file,), PROMPT, tuple(captions), facts=facts)


def predictions(path: Path) -> dict[str, str]:
    """COCO's result file: a list of `image_id` and `caption`, one an image."""
    return read_answers(path, ids=("image_id",), texts=("caption",))


def answer(text: str) -> str:
    """The first line of what was generated."""
    return text.strip().split("\n", 1)[0].strip()


def score(items: Sequence[Question], captions: Sequence[str]) -> Score:
    """CIDEr-D, BLEU-4 and ROUGE-L as pycocoevalcap has them (papers and studies: × 100).

    `cider`, `bleu_4` and `rouge_l` are returned × 100. Document frequencies and the number of
    images are those of `items`.
    """
    references = [item.references for item in items]
    cider = 100 * cider_d(captions, references)
    rouge = 100 * rouge_l(captions, references)
    metrics = {
        "cider": float(cider.mean()),
        "bleu_4": float(100 * bleu(captions, references)[3]),
        "rouge_l": float(rouge.mean()),
    }
    return Score(cider.tolist(), metrics, {"rouge_l": rouge.tolist()})


def caption_task(
    name: str,
    read: Callable[[Path], list[Question]],
    *,
    read_training: Callable[[Path], list[Question]] | None = None,
    score: Callable[[Sequence[Question], Sequence[str]], Score] = score,
) -> OfficialTask:
    """A task of captions: only its files are its own."""
    return OfficialTask(
        name,
        read,
        predictions,
        answer,
        score,
        read_training=read_training,
        official_unit=_OFFICIAL_UNIT,
    )
