"""Prompts: which items, which demonstrations, which image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from mm1_jax.data.draws import generator
from mm1_jax.data.templates import Exchange, converse, template_of
from mm1_jax.data.tokenizer import Marker
from mm1_jax.errors import UserError
from mm1_jax.tasks.generation_task import Demonstration, Item

T = TypeVar("T")
Prompt = tuple[int | str | Marker, ...]  # as a document's parts: an int is an image id
_SEPARATOR = "\n\n"  # after each demonstration


def subset(items: Sequence[T], size: int | None, seed: int, task: str) -> list[T]:
    """A random subset of `size` items in their order, the same in every arm; None takes all.

    A smaller subset is part of a larger one. UserError if there are not that many.
    """
    if size is None:
        return list(items)
    if size > len(items):
        raise UserError(f"items: {size} of {task}: the test split has {len(items)}")
    chosen = generator(seed, "subset", task).permutation(len(items))[:size]
    return [items[i] for i in sorted(chosen)]


def derangement(image_ids: Sequence[int], seed: int, task: str) -> dict[int, int]:
    """Image → another image, each given exactly once, none its own: one random cycle (Sattolo).

    UserError if there is only one image.
    """
    distinct = sorted(set(image_ids))
    if len(distinct) < 2:
        raise UserError(f"condition shuffled of {task} needs items with at least two images")
    cycle = generator(seed, "shuffled images", task).permutation(distinct).tolist()
    return dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))


def draw_demonstrations(
    pool: Sequence[Demonstration], shots: int, seed: int, task: str, item_id: str
) -> list[Demonstration]:
    """`shots` different training examples for one item; fewer shots are the first of more."""
    if shots > len(pool):
        raise UserError(f"shots: {shots} of {task}: the training split has {len(pool)} examples")
    draws = generator(seed, "demonstrations", task, item_id)
    chosen: dict[int, None] = {}
    while len(chosen) < shots:
        chosen[int(draws.integers(len(pool)))] = None
    return [pool[i] for i in chosen]


def build(
    item: Item, image_id: int, demonstrations: Sequence[Demonstration], template: str = "plain"
) -> Prompt:
    """Demonstrations with their answers, then the item's image and what is asked of it.

    With a chat template they are the turns of one conversation, whose last answer is due.
    """
    if template != "plain":
        turns = [Exchange((one.image_id, one.prompt), one.response) for one in demonstrations]
        turns.append(Exchange((image_id, item.prompt), None))
        return converse(turns, template_of(template))[0]
    parts: list[int | str] = []
    for example in demonstrations:
        text = example.prompt + example.response + _SEPARATOR
        parts += [example.image_id, text]
    return (*parts, image_id, item.prompt)


def as_text(prompt: Prompt) -> str:
    """What stands in the examples table: an image is shown as `<image>`, a marker by its name."""

    def shown(part: int | str | Marker) -> str:
        if isinstance(part, Marker):
            return part.name
        return part if isinstance(part, str) else "<image>"

    return "".join(map(shown, prompt))


def without_images(prompt: Prompt) -> Prompt:
    """The same words alone: what a model is asked that sees no image at all."""
    return joined(part for part in prompt if not isinstance(part, int))


def joined(parts: Iterable[int | str | Marker]) -> Prompt:
    """Texts that follow one another as one: a tokenizer is to see them together."""
    result: list[int | str | Marker] = []
    for part in parts:
        last = result[-1] if result else None
        if isinstance(part, str) and isinstance(last, str):
            result[-1] = last + part
        else:
            result.append(part)
    return tuple(result)
