"""Conversations for instruction tuning, from the facts that the data packages give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.draws import generator
from mm1_jax.data.sources.easy_vqa import Question
from mm1_jax.data.sources.emoji import Emoji
from mm1_jax.data.templates import Exchange, Template, Turn

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

MOST_TURNS = 4


def about_shapes(asked: Sequence[Question], template: Template) -> list[Document]:
    """Up to `MOST_TURNS` questions of easy-VQA about one image, in a drawn order."""
    by_image: dict[int, list[Turn]] = {}
    for question in asked:
        turn = templates.visual_question(question.question, question.answer)
        by_image.setdefault(question.image, []).append(turn)
    return [
        document
        for image, turns in by_image.items()
        for document in _conversations(f"easy_vqa_chat/{image}", image, turns, template)
    ]


def about_emoji(emoji: Sequence[Emoji], template: Template) -> list[Document]:
    """What an emoji is called and where it belongs, in a drawn order."""
    return [
        document
        for item, turns in zip(emoji, questions_about(emoji), strict=True)
        for document in _conversations(f"emoji_chat/{item.name}", item.image, turns, template)
    ]


def questions_about(emoji: Sequence[Emoji]) -> list[list[Turn]]:
    """The questions about each emoji; the category that it is not in is drawn by its name."""
    categories = sorted({item.category for item in emoji})
    found = []
    for item in emoji:
        others = [category for category in categories if category != item.category]
        other = others[int(generator(0, "other category", item.name).integers(len(others)))]
        found.append(templates.emoji_questions(item.title, item.category, item.kind, other))
    return found


def _conversations(
    name: str, image: int, turns: Sequence[Turn], template: Template
) -> Iterator[Document]:
    order = generator(0, "order of turns", name).permutation(len(turns)).tolist()
    for first in range(0, len(turns), MOST_TURNS):
        chosen = [turns[i] for i in order[first : first + MOST_TURNS]]
        shown = [(image, chosen[0].prompt), *((turn.prompt,) for turn in chosen[1:])]
        exchanges = [
            Exchange(asked, turn.response) for asked, turn in zip(shown, chosen, strict=True)
        ]
        yield Document(f"{name}/{first // MOST_TURNS}", *templates.converse(exchanges, template))


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """Conversations about the images of the training split, in the words of a template."""
    shapes, drawn = contents.asked["train"], contents.drawn_in("train")
    return {
        "easy_vqa_chat-train": about_shapes(shapes, contents.template),
        "emoji_chat-train": about_emoji(drawn, contents.template),
    }


def records(contents: PackageContents) -> dict[str, list[Emoji]]:
    """None: tasks ask with the records of the images."""
    return {}
