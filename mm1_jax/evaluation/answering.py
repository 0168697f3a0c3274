"""One prompt answered by any model: a checkpoint of ours, a Hugging Face folder, LLaVA.

A model of conversations is asked a text in a turn of its template; token ids are taken as they
are, after the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tokenizers

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.packing import lay_out, with_views
from mm1_jax.data.sources.package_preparation import is_prepared
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.data.templates import Exchange, answer_ends, converse, template_of
from mm1_jax.data.tokenizer import (
    END,
    Tokenizer,
    check_same,
    check_vocabulary,
    load,
    tokenizer_file,
)
from mm1_jax.evaluation.asking import Encoded, encoded, packed
from mm1_jax.evaluation.imported_model import imported_model, imported_words
from mm1_jax.images.pictures import read_picture
from mm1_jax.images.sub_images import views_of
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.generation import (
    GREEDY,
    Sampling,
    cut,
    generate_text,
    generate_with_scores,
    ids_as_rows,
)
from mm1_jax.model.layers import UNROLLED
from mm1_jax.model.multimodal import MultimodalModel, load_model
from mm1_jax.training.checkpoints import load_config
from mm1_jax.weights.imported_tokenizer import TOKENIZER_FILE, ends_of, imported_tokenizer
from mm1_jax.weights.part_weights import (
    LanguageModelWeights,
    filled,
    language_model_weights,
)
from mm1_jax.weights.weights_folder import (
    CONFIG_FILE,
    SOURCE_FILE,
    is_checkpoint,
    is_imported,
    is_multimodal,
    stated,
)

if TYPE_CHECKING:
    import jax

Prompt = str | Sequence[int]  # a text, or token ids


@dataclass(frozen=True)
class Answer:
    """What was generated: token ids with their log-probabilities (nats), and their text."""

    tokens: list[int]
    text: str
    logprobs: list[float]


class _Words(NamedTuple):
    """How a model is spoken to; encode and decode are None where it has no tokenizer."""

    encode: Callable[[str], list[int]] | None
    decode: Callable[[Sequence[int]], str] | None
    ends: tuple[int, ...]  # ids that end an answer


def _spoken(words: Tokenizer | None, ends: tuple[int, ...]) -> _Words:
    return _Words(None, None, ends) if words is None else _Words(words.encode, words.decode, ends)


class Speaker:
    """The model in a folder, to be asked again and again: it is read once.

    `data` is where prepared data may have the tokenizer of a checkpoint that has none beside it.
    Raises `UserError` where there is no such folder.
    """

    def __init__(self, folder: Path, data: Path):
        self._folder, self._data, self._kind = folder, data, _kind(folder)

    @property
    def sees(self) -> bool:
        """Whether it can be shown images."""
        return self._kind == "multimodal"

    @cached_property
    def _seeing(self) -> tuple[TrainConfig, MultimodalModel]:
        return (imported_model if is_imported(self._folder) else load_model)(self._folder)

    @cached_property
    def _reading(self) -> tuple[LanguageModelWeights, Decoder]:
        found = language_model_weights(self._folder)
        return found, filled(Decoder(found.config, found.vocabulary), found.tree)

    def answer(
        self,
        prompt: Prompt,
        *,
        images: Sequence[Path] = (),
        most_tokens: int = 64,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
        seed: int = 0,
    ) -> Answer:
        """What it says after images and a prompt.

        The tokens end with the model's end token, if it comes, and before the first of `stops`.

        Raises:
            UserError: the folder holds no model that speaks, or none that sees although images are
                given; there is no tokenizer and one is needed; an id is out of the vocabulary.
        """
        if self.sees:
            new, logprobs, words = self._seen(prompt, images, most_tokens, sampling, seed)
        elif images:
            raise UserError(_cannot_see(self._folder, self._kind))
        else:
            new, logprobs, words = self._read(prompt, most_tokens, sampling, seed)
        if stops and words.decode is None:
            raise UserError("a stop string needs a tokenizer, and there is none beside the weights")
        ids = np.asarray(new)[0].tolist()
        count, text = cut(ids, words.decode or (lambda _: ""), ends=words.ends, stops=tuple(stops))
        return Answer(ids[:count], text, [float(x) for x in np.asarray(logprobs)[0][:count]])

    def _read(
        self, prompt: Prompt, most_tokens: int, sampling: Sampling, seed: int
    ) -> tuple[jax.Array, jax.Array, _Words]:
        """New ids [1, T], their log-probabilities, of a language model alone."""
        folder = self._folder
        found, model = self._reading
        if self._kind == "files" or (folder / SOURCE_FILE).is_file():
            words = _imported_words(folder, found.vocabulary)
        else:
            must = isinstance(prompt, str)
            words = _spoken(
                _tokenizer_of(folder, load_config(folder).data, self._data, must=must), (END,)
            )
        if isinstance(prompt, str):
            if words.encode is None:
                raise UserError(f"{folder} has no tokenizer.json; give the prompt as token ids")
            prompt = words.encode(prompt)
        _check_ids(prompt, found.vocabulary)
        tokens, lengths = ids_as_rows([list(prompt)])
        new, logprobs = generate_text(
            model,
            tokens,
            lengths,
            most_tokens,
            form=UNROLLED,
            ends=words.ends,
            sampling=sampling,
            seed=seed,
        )
        return new, logprobs, words

    def _seen(
        self,
        prompt: Prompt,
        images: Sequence[Path],
        most_tokens: int,
        sampling: Sampling,
        seed: int,
    ) -> tuple[jax.Array, jax.Array, _Words]:
        """New ids [1, T], their log-probabilities, of a model that sees."""
        config, model = self._seeing
        seen = views_of(config)
        pictures = [seen.of(read_picture(path, seen.background)) for path in images]
        asked, words = _asked(self._folder, config, prompt, list(range(len(images))), self._data)
        _check_ids(asked.tokens, config.data.vocabulary)
        (row,) = packed([asked], len(asked.tokens), len(images))
        # A text without an image stands beside a black one that no position shows.
        black = np.zeros((1, seen.size, seen.size, 3), np.uint8)
        pixels = np.concatenate(pictures or [black])
        row = with_views(row, [len(views) for views in pictures], len(pixels))
        batch = lay_out([row], config.view_tokens)
        batch["images"] = pixels[None]
        lengths = (batch["segments"] > 0).sum(axis=1).astype(np.int32)
        new, logprobs = generate_with_scores(
            model, batch, lengths, most_tokens, sampling, seed, words.ends
        )
        return new, logprobs, words


def answer(
    folder: Path,
    prompt: Prompt,
    *,
    images: Sequence[Path] = (),
    most_tokens: int = 64,
    sampling: Sampling = GREEDY,
    stops: Sequence[str] = (),
    seed: int = 0,
    data: Path,
) -> Answer:
    """What the model in a folder says after images and a prompt; as `Speaker.answer`."""
    return Speaker(folder, data).answer(
        prompt,
        images=images,
        most_tokens=most_tokens,
        sampling=sampling,
        stops=stops,
        seed=seed,
    )


def _kind(folder: Path) -> str:
    """The part that a checkpoint of ours is; of Hugging Face's files `multimodal` or `files`."""
    if not folder.is_dir():
        raise UserError(f"no folder {str(folder)!r}")
    if is_checkpoint(folder):
        return stated(folder).kind
    found = (folder / CONFIG_FILE).is_file() and is_multimodal(folder)
    return "multimodal" if found else "files"


def _cannot_see(folder: Path, kind: str) -> str:
    if kind == "files":
        language_model_weights(folder)  # UserError where it holds something else, or nothing
    if kind == "encoder":
        return f"{folder} holds an image encoder alone, which says nothing"
    return f"{folder} holds a language model, which sees no images; leave them out"


def _asked(
    folder: Path, config: TrainConfig, prompt: Prompt, images: list[int], data: Path
) -> tuple[Encoded, _Words]:
    """Images and prompt in tokens, a text in a turn of the model's template."""
    template = config.data.template
    text = isinstance(prompt, str)
    imported = is_imported(folder)
    begin: tuple[int, ...] = ()
    if imported and not text and not (folder / TOKENIZER_FILE).is_file():
        words, ends = None, ends_of(folder)
    elif imported:
        spoken = imported_words(folder, config)
        words, begin, ends = spoken.words, spoken.begin, spoken.ends
    else:
        words = _tokenizer_of(folder, config.data, data, must=text)
        ends = (END,) if words is None else answer_ends(template, words)
    if not isinstance(prompt, str):
        return Encoded(list(prompt), images, [0] * len(images)), _spoken(words, ends)
    assert words is not None
    parts = (*images, prompt)
    if template != "plain":
        parts, _ = converse([Exchange(parts, None)], template_of(template))
    (row,) = encoded([parts], words, begin=begin, as_one=imported)
    return row, _spoken(words, ends)


def _check_ids(ids: Sequence[int], vocabulary: int) -> None:
    if not ids:
        raise UserError("the prompt is empty; give at least one token")
    odd = next((number for number in ids if not 0 <= number < vocabulary), None)
    if odd is not None:
        raise UserError(f"token id {odd}: the vocabulary has tokens 0 to {vocabulary - 1}")


def _tokenizer_of(folder: Path, config: DataConfig, data: Path, *, must: bool) -> Tokenizer | None:
    """The tokenizer beside a checkpoint of ours, else that of its prepared data, else None.

    UserError where the one beside it is of another model, or where there `must` be one and is not.
    """
    prepared = is_prepared(config, data)
    if not tokenizer_file(folder).is_file():
        return open_prepared(config, data).tokenizer if must or prepared else None
    words = load(folder)
    check_vocabulary(words, config.vocabulary, f"in {folder}")
    if prepared:  # which alone can tell another tokenizer of the same size
        check_same(open_prepared(config, data).tokenizer, folder)
    return words


def _imported_words(folder: Path, vocabulary: int) -> _Words:
    """Of Hugging Face's files, or of a checkpoint that was imported from such.

    UserError where the tokenizer is of another model.
    """
    file = folder / TOKENIZER_FILE
    if not file.is_file():
        return _Words(None, None, ends_of(folder))
    imported_tokenizer(folder, vocabulary)
    backend = tokenizers.Tokenizer.from_file(str(file))
    return _Words(lambda text: backend.encode(text).ids, backend.decode, ends_of(folder))
