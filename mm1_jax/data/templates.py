"""The words around questions and captions.

Training documents and evaluation prompts come from these same functions, so a model is asked in
the words it was trained on. A response starts with its own space: encoding prompt and response
apart then gives the tokens of encoding them together, because the tokenizer splits at spaces.
"""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """What stands after an image: what is given, and what a model should say."""

    prompt: str
    response: str


def visual_question(question: str, answer: str) -> Turn:
    """`what color is the shape?` → ` blue`."""
    return Turn(question, f" {answer}")


def caption(text: str) -> Turn:
    """`caption:` → ` dog face`."""
    return Turn("caption:", f" {text}")


def emoji_captions(name: str, aliases: tuple[str, ...], category: str, kind: str) -> list[str]:
    """All wordings that describe one emoji: its name, its aliases, and a sentence of categories.

    `("dog face", ("dog",), "Animals & Nature", "animal-mammal")` gives `dog face`, `dog` and
    `a picture of dog face: animal mammal, animals and nature`.
    """
    category = category.lower().replace("&", "and")
    kind = kind.replace("&", "and").replace("-", " ")
    return [name, *aliases, f"a picture of {name}: {kind}, {category}"]
