"""The words around questions and captions.

Training documents and evaluation prompts come from these same functions, so a model is asked in
the words it was trained on. A response starts with its own space: encoding prompt and response
apart then gives the tokens of encoding them together, because the tokenizer splits at spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def rich_caption(
    name: str,
    keywords: tuple[str, ...],
    category: str,
    kind: str,
    colours: tuple[str, ...],
    form: int,
) -> str:
    """A caption rewritten from what is known of a drawing, in one of three forms.

    `("dog face", ("dog",), "Animals & Nature", "animal-mammal", ("brown", "white"), 0)` gives `a
    brown and white drawing of dog face, also called dog, of the kind animal mammal among animals
    and nature`.
    """
    colour = " and ".join(colours)
    kind = kind.replace("&", "and").replace("-", " ")
    among = lower_category(category)
    also = f", also called {' or '.join(keywords)}" if keywords else ""
    return (
        f"a {colour} drawing of {name}{also}, of the kind {kind} among {among}",
        f"{name}{also}: {kind} from {among}, drawn mostly in {colour}",
        f"this {kind} is {name}{also}; its colours are {colour}, and it belongs to {among}",
    )[form % 3]


def example(turn: Turn) -> str:
    """One of several in a document or a prompt: what is given, the answer, an empty line."""
    return turn.prompt + turn.response + "\n\n"


def naming(name: str) -> Turn:
    """Nothing → ` dax`: the picture is followed by its made-up name."""
    return Turn("", f" {name}")


def introduction(names: Sequence[str]) -> str:
    """`a dax or a blicket`, then an empty line: what the pictures that follow may be called."""
    return " or ".join(f"a {name}" for name in names) + "\n\n"


def lower_category(name: str) -> str:
    """`Animals & Nature` → `animals and nature`."""
    return name.lower().replace("&", "and")


def emoji_captions(name: str, aliases: tuple[str, ...], category: str, kind: str) -> list[str]:
    """All wordings that describe one emoji: its name, its aliases, and a sentence of categories.

    `("dog face", ("dog",), "Animals & Nature", "animal-mammal")` gives `dog face`, `dog` and
    `a picture of dog face: animal mammal, animals and nature`.
    """
    kind = kind.replace("&", "and").replace("-", " ")
    return [name, *aliases, f"a picture of {name}: {kind}, {lower_category(category)}"]
