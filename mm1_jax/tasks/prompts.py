"""Prompts: which demonstrations, which image, and how they become rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from mm1_jax.data.draws import generator
from mm1_jax.data.packing import Packed
from mm1_jax.data.templates import Exchange, converse, template_of
from mm1_jax.data.tokenizer import Marker, Tokenizer
from mm1_jax.errors import UserError
from mm1_jax.tasks.generation_task import Demonstration, Item

T = TypeVar("T")
Prompt = tuple[int | str | Marker, ...]  # as a document's parts: an int is an image id
_SEPARATOR = "\n\n"  # after each demonstration
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


def tokenized(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[Packed]:
    """One sequence per prompt, of one document, all with the same static sizes."""
    parts = [part for prompt in prompts for part in prompt]
    texts = list(dict.fromkeys(part for part in parts if isinstance(part, str)))
    ids: dict[str | Marker, list[int]] = dict(
        zip(texts, tokenizer.encode_batch(texts), strict=True)
    )
    for part in parts:
        if isinstance(part, Marker):
            ids[part] = [tokenizer.marker(part)]
    longest = max(sum(len(ids[p]) for p in q if not isinstance(p, int)) for q in prompts)
    text_budget = -(-longest // _ROUNDED_TO) * _ROUNDED_TO
    image_budget = max(sum(isinstance(p, int) for p in prompt) for prompt in prompts)
    return [_packed(prompt, ids, text_budget, image_budget) for prompt in prompts]


def _packed(
    prompt: Prompt, ids: Mapping[str | Marker, list[int]], text_budget: int, image_budget: int
) -> Packed:
    tokens: list[int] = []
    image_ids, image_at = [], []
    for part in prompt:
        if isinstance(part, int):
            image_ids.append(part)
            image_at.append(len(tokens))
        else:
            tokens += ids[part]
    no_text, no_image = text_budget - len(tokens), image_budget - len(image_ids)
    return Packed(
        tokens=np.array(tokens + [0] * no_text, np.int32),
        segments=np.array([1] * len(tokens) + [0] * no_text, np.int32),
        image_ids=np.array(image_ids + [-1] * no_image, np.int32),
        image_at=np.array(image_at + [0] * no_image, np.int32),
        image_segments=np.array([1] * len(image_ids) + [0] * no_image, np.int32),
    )
