"""Prompts: which items, which demonstrations, which image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ablations.errors import UserError
from mm1_jax.data import templates
from mm1_jax.data.draws import generator
from mm1_jax.data.templates import Exchange, converse, template_of
from mm1_jax.data.tokenizer import Marker
from mm1_jax.evaluation.tasks.generation_task import Demonstration, Item

T = TypeVar("T")
Prompt = tuple[int | str | Marker, ...]  # as a document's parts: an int is an image id


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


def by_kind(pool: Sequence[Demonstration]) -> dict[str, list[Demonstration]]:
    """The training examples of each kind of answer."""
    kinds: dict[str, list[Demonstration]] = {}
    for example in pool:
        kinds.setdefault(example.kind, []).append(example)
    return kinds


def draw_demonstrations(
    kinds: Mapping[str, Sequence[Demonstration]],
    shots: int,
    seed: int,
    task: str,
    item: Item,
    *,
    wrong: bool = False,
) -> list[Demonstration]:
    """`shots` different training examples for one item; fewer shots are the first of more.

    Of the item's kind and not of its concept, or the item's own. If `wrong`, they demonstrate
    something else: another kind, drawn for each item, or what the item has to mislead.
    UserError where there are too few, or nothing else to demonstrate.
    """
    if item.demonstrations:
        own = item.wrong_demonstrations if wrong else item.demonstrations
        if shots > len(own):
            raise UserError(f"shots: {shots} of {task}: an item has {len(own)} demonstrations")
        return list(own[:shots])
    kind = item.kind
    if wrong:
        others = [other for other in kinds if other != kind]
        if not others:
            raise UserError(f"condition wrong_demonstrations: {task} has one kind of answer only")
        kind = others[generator(seed, "wrong kind", task, item.item_id).integers(len(others))]
    pool = kinds[kind]
    own_concept = sum(example.concept == item.concept for example in pool) if item.concept else 0
    if shots > len(pool) - own_concept:
        of_kind = f" of {kind!r}" if kind else ""
        raise UserError(
            f"shots: {shots} of {task}: there are {len(pool) - own_concept} examples{of_kind}"
        )
    draws = generator(seed, "demonstrations", task, item.item_id)
    chosen: dict[int, None] = {}
    while len(chosen) < shots:
        place = int(draws.integers(len(pool)))
        if not item.concept or pool[place].concept != item.concept:
            chosen[place] = None
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
    parts: list[int | str] = [item.introduction] if item.introduction else []
    for example in demonstrations:
        turn = templates.Turn(example.prompt, example.response)
        parts += [example.image_id, templates.example(turn)]
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
