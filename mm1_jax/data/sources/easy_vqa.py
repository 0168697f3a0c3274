"""easy-VQA (Zhou, 2019): questions about one drawn shape, with its official split."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.sources.packages import data_folder
from mm1_jax.images.pictures import read_picture

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

Split = Literal["train", "test"]


class Question(BaseModel):
    """One question. `image` is an index within the split until preparation makes it a row."""

    name: str
    image: int
    question: str
    answer: str


def questions(split: Split, first_row: int) -> list[Question]:
    """All questions of a split; its images are rows `first_row`… of the image table."""
    path = data_folder("easy-vqa") / split / "questions.json"
    return [
        Question(
            name=f"easy_vqa/{split}/{number}",
            image=first_row + image,
            question=question,
            answer=answer,
        )
        for number, (question, answer, image) in enumerate(
            json.loads(path.read_text(encoding="utf-8"))
        )
    ]


def image_names(split: Split) -> list[str]:
    """Names of a split's images, in the order that questions count them."""
    count = sum(1 for _ in (data_folder("easy-vqa") / split / "images").glob("*.png"))
    return [f"easy_vqa/{split}/{number}" for number in range(count)]


def read_image(name: str) -> np.ndarray:
    """The image called `easy_vqa/<split>/<number>`: uint8 [64, 64, 3]."""
    _, split, number = name.split("/")
    return np.asarray(read_picture(data_folder("easy-vqa") / split / "images" / f"{number}.png"))


def single_questions(asked: list[Question]) -> list[Document]:
    """One question per document: several about one image would give answers away."""
    result = []
    for item in asked:
        turn = templates.visual_question(item.question, item.answer)
        result.append(Document(item.name, (item.image, *turn), answers=(False, True)))
    return result


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """The questions of the training split, each by itself."""
    return {"easy_vqa-train": single_questions(contents.asked["train"])}


def records(contents: PackageContents) -> dict[str, list[Question]]:
    """All questions."""
    return {f"easy_vqa-{split}": asked for split, asked in contents.asked.items()}
