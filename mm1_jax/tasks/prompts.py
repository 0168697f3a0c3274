"""Prompts: which demonstrations, which image, and how they become rows of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from mm1_jax.data import templates
from mm1_jax.data.draws import generator
from mm1_jax.data.packing import Packed
from mm1_jax.data.tokenizer import Tokenizer
from mm1_jax.errors import UserError
from mm1_jax.tasks.generation_task import Demonstration, Item

T = TypeVar("T")
Prompt = tuple[int | str, ...]  # as a document's parts: an int is an image id
_ROUNDED_TO = 8  # prompt lengths, so that another vocabulary seldom means another shape


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
    something else: another kind, drawn for each item, or the item's own with answers exchanged.
    UserError where there are too few, or nothing else to demonstrate.
    """
    if item.demonstrations:
        own = item.demonstrations
        if shots > len(own):
            raise UserError(f"shots: {shots} of {task}: an item has {len(own)} demonstrations")
        return list(_exchanged(own) if wrong else own)[:shots]
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


def _exchanged(demonstrations: Sequence[Demonstration]) -> list[Demonstration]:
    """The same pictures, each class with the next class's answer."""
    responses = list(dict.fromkeys(example.response for example in demonstrations))
    following = dict(zip(responses, [*responses[1:], responses[0]], strict=True))
    return [
        dataclasses.replace(example, response=following[example.response])
        for example in demonstrations
    ]


def build(item: Item, image_id: int, demonstrations: Sequence[Demonstration]) -> Prompt:
    """Demonstrations with their answers, then the item's image and what is asked of it."""
    parts: list[int | str] = [item.introduction] if item.introduction else []
    for example in demonstrations:
        turn = templates.Turn(example.prompt, example.response)
        parts += [example.image_id, templates.example(turn)]
    return (*parts, image_id, item.prompt)


def as_text(prompt: Prompt) -> str:
    """What stands in the examples table: each image is shown as `<image>`."""
    return "".join(part if isinstance(part, str) else "<image>" for part in prompt)


def tokenized(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[Packed]:
    """One sequence per prompt, of one document, all with the same static sizes."""
    texts = dict.fromkeys(p for prompt in prompts for p in prompt if isinstance(p, str))
    ids = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))
    longest = max(sum(len(ids[p]) for p in q if isinstance(p, str)) for q in prompts)
    text_budget = -(-longest // _ROUNDED_TO) * _ROUNDED_TO
    image_budget = max(sum(isinstance(p, int) for p in prompt) for prompt in prompts)
    return [_packed(prompt, ids, text_budget, image_budget) for prompt in prompts]


def _packed(
    prompt: Prompt, ids: Mapping[str, list[int]], text_budget: int, image_budget: int
) -> Packed:
    tokens: list[int] = []
    image_ids, image_at = [], []
    for part in prompt:
        if isinstance(part, str):
            tokens += ids[part]
        else:
            image_ids.append(part)
            image_at.append(len(tokens))
    no_text, no_image = text_budget - len(tokens), image_budget - len(image_ids)
    return Packed(
        tokens=np.array(tokens + [0] * no_text, np.int32),
        segments=np.array([1] * len(tokens) + [0] * no_text, np.int32),
        image_ids=np.array(image_ids + [-1] * no_image, np.int32),
        image_at=np.array(image_at + [0] * no_image, np.int32),
        image_segments=np.array([1] * len(image_ids) + [0] * no_image, np.int32),
    )
