"""Asking a model many prompts: those of like length together, and nothing twice after a stop."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.stage import Context, StageStopped
from ablations.timeline import doing
from mm1_jax.data.batches.packing import Packed
from mm1_jax.data.tokenizer import Marker, Tokenizer
from mm1_jax.evaluation.evaluated_model import Batch, EvaluatedModel, Pictures
from mm1_jax.evaluation.tasks.prompts import Prompt, joined

Hashed = Callable[[Sequence[int]], str]  # what images hold, by their ids
ANSWERED_FILE = "answered.jsonl"  # in the scratch folder: one line a finished batch
_BATCHES = 4  # that must have had the same sizes before smaller ones are compiled
_STEP = 16  # of the static text lengths up to 128 tokens; above, a quarter of a power of two


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """A prompt in tokens: text, and the images that stand before the text token with that index."""

    tokens: list[int]
    image_ids: list[int]
    image_at: list[int]
    asked: int = 0  # last tokens whose likelihood is asked for


def ask(
    model: EvaluatedModel,
    prompts: Sequence[Prompt],
    *,
    pictures: Pictures | None,
    longest: int,
    stops: Sequence[str] = (),
    batch_size: int,
    context: Context,
    hashed: Hashed | None = None,
) -> list[str]:
    """The model's answer to each prompt, at most `longest` tokens and up to a stop string.

    With `hashed` what was answered before an interruption is asked again where its images are not
    the same ones any more.
    """

    def compute(batch: Batch, chosen: Sequence[Encoded]) -> list[str]:
        return model.answers(batch, longest, stops)[: len(chosen)]

    rows = encoded(prompts, model.words, begin=model.begin, as_one=model.as_one)
    return _in_batches(model, rows, pictures, batch_size, context, compute, hashed)


def likelihoods(
    model: EvaluatedModel,
    pairs: Sequence[tuple[Prompt, str]],
    *,
    pictures: Pictures | None,
    batch_size: int,
    context: Context,
) -> list[tuple[float, bool]]:
    """Log-probability (nats) of each continuation of a prompt, and whether it is the greedy one."""

    def compute(batch: Batch, chosen: Sequence[Encoded]) -> list[tuple[float, bool]]:
        filled = [*chosen, *[chosen[0]] * (len(batch["tokens"]) - len(chosen))]
        ends = np.array([len(row.tokens) for row in filled])
        nats, greedy = model.likelihoods(batch, ends, np.array([row.asked for row in filled]))
        return list(zip(nats.tolist(), greedy.tolist(), strict=True))[: len(chosen)]

    rows = continued(pairs, model)
    found = _in_batches(model, rows, pictures, batch_size, context, compute)
    return [(nats, greedy) for nats, greedy in found]


@doing("data")
def encoded(
    prompts: Sequence[Prompt],
    words: Tokenizer,
    *,
    begin: Sequence[int] = (),
    as_one: bool = False,
) -> list[Encoded]:
    """Prompts in tokens, after those of `begin`; see `EvaluatedModel` for `as_one`."""
    first = later = words.encode_batch
    if as_one:
        prompts, later = [joined(prompt) for prompt in prompts], words.encode_between
    at_first = _ids(words, first, [prompt[:1] for prompt in prompts])
    then = _ids(words, later, [prompt[1:] for prompt in prompts])
    return [_encoded(prompt, at_first, then, begin) for prompt in prompts]


def _ids(
    words: Tokenizer,
    encode: Callable[[Sequence[str]], list[list[int]]],
    prompts: Sequence[Prompt],
) -> dict[str | Marker, list[int]]:
    """The tokens of every text and marker in the prompts."""
    texts = list(dict.fromkeys(p for prompt in prompts for p in prompt if isinstance(p, str)))
    ids: dict[str | Marker, list[int]] = dict(zip(texts, encode(texts), strict=True))
    markers = {p for prompt in prompts for p in prompt if isinstance(p, Marker)}
    return ids | {marker: [words.marker(marker)] for marker in markers}


def encode_pairs(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """Token ids of context and continuation of each pair, as the EleutherAI harness splits them.

    Spaces at the context's end go to the continuation; both are encoded together and cut where the
    context's own encoding ends, for a token may span both. Of an empty context there are none.
    """
    befores = tokenizer.encode_batch([context.rstrip() for context, _ in pairs])
    wholes = tokenizer.encode_batch([context + continuation for context, continuation in pairs])
    return [(before, whole[len(before) :]) for before, whole in zip(befores, wholes, strict=True)]


def continued(pairs: Sequence[tuple[Prompt, str]], model: EvaluatedModel) -> list[Encoded]:
    """Prompts and continuations in tokens; see `encode_pairs`."""
    last = [p[-1] if p and isinstance(p[-1], str) else "" for p, _ in pairs]
    texts = [
        (context, continuation) for context, (_, continuation) in zip(last, pairs, strict=True)
    ]
    earlier = [p[:-1] if p and isinstance(p[-1], str) else p for p, _ in pairs]
    rows = encoded(earlier, model.words)
    result = []
    for row, (context, after) in zip(rows, encode_pairs(model.words, texts), strict=True):
        asked = max(1, len(after))
        tokens = row.tokens + context + after
        if len(tokens) == asked and not row.image_ids:  # nothing stands before the first token
            tokens = [model.ends[0] if model.ends else 0, *tokens]
        result.append(Encoded(tokens, row.image_ids, row.image_at, asked))
    return result


def _encoded(
    prompt: Prompt,
    at_first: Mapping[str | Marker, list[int]],
    then: Mapping[str | Marker, list[int]],
    begin: Sequence[int],
) -> Encoded:
    tokens = list(begin)
    image_ids, image_at = [], []
    for place, part in enumerate(prompt):
        if isinstance(part, int):
            image_ids.append(part)
            image_at.append(len(tokens))
        else:
            tokens += (then if place else at_first)[part]
    return Encoded(tokens, image_ids, image_at)


def packed(rows: Sequence[Encoded], tokens: int, images: int) -> list[Packed]:
    """One sequence per prompt, of one document, with room for so many text tokens and images."""
    return [_packed(row, tokens, images) for row in rows]


def rounded(tokens: int) -> int:
    """The static length for so many text tokens; few lengths, for each is compiled once."""
    step = max(_STEP, 2 ** (max(tokens - 1, 1).bit_length() - 3))
    return max(1, -(-tokens // step)) * step


def _packed(row: Encoded, text_budget: int, image_budget: int) -> Packed:
    no_text, no_image = text_budget - len(row.tokens), image_budget - len(row.image_ids)
    return Packed(
        tokens=np.array(row.tokens + [0] * no_text, np.int32),
        segments=np.array([1] * len(row.tokens) + [0] * no_text, np.int32),
        image_ids=np.array(row.image_ids + [-1] * no_image, np.int32),
        image_at=np.array(row.image_at + [0] * no_image, np.int32),
        image_segments=np.array([1] * len(row.image_ids) + [0] * no_image, np.int32),
    )


@dataclass(frozen=True)
class Group:
    """Prompts that are asked together, and the static sizes of their batch."""

    places: list[int]
    tokens: int
    images: int

    def has_room_for(self, other: Group) -> bool:
        """Whether another group's prompts fit into a batch of these sizes."""
        return self.tokens >= other.tokens and self.images >= other.images


def groups(rows: Sequence[Encoded], batch_size: int) -> list[Group]:
    """Which prompts are asked together: the longest first, so that too long a one shows at once."""

    def size(place: int) -> tuple[int, int, int]:
        row = rows[place]
        return -len(row.image_ids), -rounded(len(row.tokens)), place

    order = sorted(range(len(rows)), key=size)
    found: list[Group] = []
    used = 0  # batches of the last sizes
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        own = Group(
            places,
            rounded(max(len(rows[place].tokens) for place in places)),
            max(1, *(len(rows[place].image_ids) for place in places)),
        )
        if found and used < _BATCHES and found[-1].has_room_for(own):
            own = replace(found[-1], places=places)
        same = found and (own.tokens, own.images) == (found[-1].tokens, found[-1].images)
        used = used + 1 if same else 1
        found.append(own)
    return found


def _in_batches(
    model: EvaluatedModel,
    rows: Sequence[Encoded],
    pictures: Pictures | None,
    batch_size: int,
    context: Context,
    compute: Callable[[Batch, Sequence[Encoded]], Sequence[Any]],
    hashed: Hashed | None = None,
) -> list[Any]:
    """What `compute` says of each row, in their order; finished batches are kept in the scratch."""
    size = model.batch_rows(min(batch_size, len(rows)))
    file = context.scratch / ANSWERED_FILE

    def images_of(places: Iterable[int]) -> str:
        """What the images of some rows hold; nothing where they cannot change."""
        seen = sorted({number for place in places for number in rows[place].image_ids})
        return hashed(seen) if hashed is not None and seen else ""

    answered = _answered(file, images_of)
    # Batches are the same ones after an interruption: what a row says may depend, in its last
    # bits, on the shape of its batch.
    waiting = [
        group
        for group in groups(rows, size)
        if any(place not in answered for place in group.places)
    ]
    with ThreadPoolExecutor(1) as reader:  # the next batch's images, while this one is computed

        def read(group: Group) -> Batch:
            filled = [*group.places, *group.places[:1] * (size - len(group.places))]
            chosen = [rows[place] for place in filled]
            return model.batch(packed(chosen, group.tokens, group.images), pictures)

        coming = reader.submit(read, waiting[0]) if waiting else None
        for number, group in enumerate(waiting, start=1):
            assert coming is not None
            with doing("data"):
                batch = coming.result()
            if number < len(waiting):
                coming = reader.submit(read, waiting[number])
            found = compute(batch, [rows[place] for place in group.places])
            said = list(zip(group.places, found, strict=True))
            line = {"said": said, "images": images_of(group.places)}
            _append(file, json.dumps(line))
            answered |= dict(said)
            context.report(len(answered), {"items": len(answered), "of": len(rows)})
            if number < len(waiting) and context.stop_requested():
                raise StageStopped(f"after {len(answered)} of {len(rows)} items")
    return [answered[place] for place in range(len(rows))]


def _answered(file: Path, images_of: Callable[[Iterable[int]], str]) -> dict[int, Any]:
    """What finished batches said, but for those whose images are others now.

    A line that a kill cut short is taken away.
    """
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    answered: dict[int, Any] = {}
    for line in map(json.loads, whole.splitlines()):
        places = [place for place, _ in line["said"]]
        if line["images"] == images_of(places):
            answered |= dict(line["said"])
        else:
            _logger.warning("%d items are asked again: their images have changed", len(places))
    return answered


@doing("save")
def _append(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(line + "\n")
        opened.flush()
        os.fsync(opened.fileno())
