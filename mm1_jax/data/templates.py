"""The words around questions and captions, and around the turns of a conversation.

Training documents and evaluation prompts come from these same functions, so a model is asked in
the words it was trained on. A response starts with its own space: encoding prompt and response
apart then gives the tokens of encoding them together, because the tokenizer splits at spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from ablations.errors import UserError, nearest
from mm1_jax.data.tokenizer import END_OF_TEXT, Marker, Tokenizer

Image = TypeVar("Image")


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
    kind, among = in_words(kind), in_words(category)
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


def emoji_captions(name: str, aliases: tuple[str, ...], category: str, kind: str) -> list[str]:
    """All wordings that describe one emoji: its name, its aliases, and a sentence of categories.

    `("dog face", ("dog",), "Animals & Nature", "animal-mammal")` gives `dog face`, `dog` and
    `a picture of dog face: animal mammal, animals and nature`.
    """
    return [name, *aliases, f"a picture of {name}: {in_words(kind)}, {in_words(category)}"]


def emoji_questions(name: str, category: str, kind: str, other: str) -> list[Turn]:
    """What can be asked of one emoji with a certain answer; `other` is a category it is not in."""
    category, kind, other = in_words(category), in_words(kind), in_words(other)
    return [
        Turn("what is this?", f" {name}"),
        Turn("what category is it in?", f" {category}"),
        Turn("what kind is it?", f" {kind}"),
        Turn(f"is it one of {category}?", " yes"),
        Turn(f"is it one of {other}?", " no"),
    ]


def in_words(label: str) -> str:
    """`Animals & Nature` → `animals and nature`, `animal-mammal` → `animal mammal`."""
    return label.lower().replace("&", "and").replace("-", " ")


# -- conversations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange(Generic[Image]):
    """One turn of a conversation: what a user shows and asks, and the answer; None is still due."""

    asked: tuple[Image | str, ...]
    answer: str | None


@dataclass(frozen=True)
class Template:
    """What stands around the turns of a conversation.

    start      once, before all
    asks       before what a user says
    answers    between what a user says and the answer
    end        after an answer, and part of it: it bears loss, so that a model learns to stop
    then       after that, before the next turn
    after_image    between a user's image and the text after it, which does not begin a line
    space      whether an answer keeps the space it begins with
    """

    start: tuple[str | Marker, ...] = ()
    asks: tuple[str | Marker, ...] = ()
    answers: tuple[str | Marker, ...] = ()
    end: tuple[str | Marker, ...] = (END_OF_TEXT,)
    then: tuple[str | Marker, ...] = ()
    after_image: str = ""
    space: bool = True


_IM_START, _IM_END = Marker("<|im_start|>"), Marker("<|im_end|>")

# plain: as the questions of pre-training. vicuna: LLaVA-1.5's (Liu et al., 2024). chatml: that of
# Qwen and others, whose special tokens must be in the vocabulary.
TEMPLATES: dict[str, Template] = {
    "plain": Template(),
    "vicuna": Template(
        start=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions. ",
        ),
        asks=("USER: ",),
        answers=(" ASSISTANT:",),
        after_image="\n",
    ),
    "chatml": Template(
        start=(_IM_START, "system\nYou are a helpful assistant.", _IM_END, "\n"),
        asks=(_IM_START, "user\n"),
        answers=(_IM_END, "\n", _IM_START, "assistant\n"),
        end=(_IM_END,),
        then=("\n",),
        after_image="\n",
        space=False,
    ),
}


def template_of(name: str) -> Template:
    """The template of this name. `UserError` names the nearest where there is none."""
    if name not in TEMPLATES:
        raise UserError(f"unknown template {name!r}{nearest(name, TEMPLATES)}")
    return TEMPLATES[name]


def answer_ends(name: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token ids that end an answer of a model trained with this template."""
    markers = [part for part in template_of(name).end if isinstance(part, Marker)]
    own = [tokenizer.marker(marker) for marker in markers]
    return tuple(dict.fromkeys([tokenizer.end, *own]))


def converse(
    exchanges: Iterable[Exchange[Image]], template: Template
) -> tuple[tuple[Image | str | Marker, ...], tuple[bool, ...]]:
    """A conversation as a document's parts, and of each text part whether it bears loss.

    Texts that follow each other and bear loss alike are one part, so that they are encoded
    together. The end of the last answer is the document's own `<|end|>` where it is the same.
    A last exchange without answer makes a prompt.
    """
    parts: list[Image | str | Marker] = []
    answers: list[bool] = []

    def say(words: Iterable[Image | str | Marker], *, loss: bool = False) -> None:
        for word in words:
            last = parts[-1] if parts else None
            if isinstance(word, str) and isinstance(last, str) and answers[-1] == loss:
                parts[-1] = last + word
                continue
            parts.append(word)
            if isinstance(word, str | Marker):
                answers.append(loss)

    say(template.start)
    for number, exchange in enumerate(exchanges):
        if number:
            say(template.then)
        say(template.asks)
        after_image = False
        for word in exchange.asked:
            if after_image and isinstance(word, str) and not word.startswith("\n"):
                say([template.after_image] if template.after_image else [])
            say([word])
            after_image = not isinstance(word, str)
        say(template.answers)
        if exchange.answer is not None:
            said = exchange.answer if template.space else exchange.answer.removeprefix(" ")
            say([said, *template.end], loss=True)
    if parts and parts[-1] == END_OF_TEXT:
        parts.pop()
        answers.pop()
    return tuple(parts), tuple(answers)


def exchanges_of(parts: Sequence[Image | str], answers: Sequence[bool]) -> list[Exchange[Image]]:
    """A conversation as it was read: parts, and of each text part whether it is an answer.

    What stands between two answers was asked together; an answer without its leading space gets
    one. What is asked last and never answered is left out: it would teach nothing.
    """
    found: list[Exchange[Image]] = []
    asked: list[Image | str] = []
    said = iter(answers)
    for part in parts:
        if isinstance(part, str) and next(said):
            found.append(Exchange(tuple(asked), part if part.startswith(" ") else f" {part}"))
            asked = []
        else:
            asked.append(part)
    return found
