"""`mm1 generate`: text from any language model or multimodal model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ablations import strict_json
from ablations.errors import UserError
from mm1.terminal import say_answer
from mm1.utf8_mode import typed


@dataclass(frozen=True)
class Answer:
    """What was generated: token ids with their log-probabilities (nats), and their text."""

    tokens: list[int]
    text: str
    logprobs: list[float]


@click.command()
@click.argument("folder", metavar="WEIGHTS", type=click.Path(path_type=Path))
@click.option("--prompt", default=None, help="Text to go on from.")
@click.option("--ids", default=None, help="Token ids instead of a text: 1,2,3.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An image before the text; again for more.",
)
@click.option("--max-tokens", type=click.IntRange(1, 2**20), default=64, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.0, help="[0: greedy]")
@click.option("--top-k", type=click.IntRange(1), default=None)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=None)
@click.option("--stop", "stops", multiple=True, help="Text that ends the answer; again for more.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--store", default=None, help="Store whose data may have the tokenizer. [$MM1_STORE, .mm1]"
)
@click.option("--data", type=click.Path(path_type=Path), default=None, help="[STORE/data]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def generate(
    folder: Path,
    prompt: str | None,
    ids: str | None,
    images: tuple[Path, ...],
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    stops: tuple[str, ...],
    seed: int,
    store: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Continue a prompt, greedily unless told otherwise.

    WEIGHTS is a Hugging Face folder of a Llama-like model or of LLaVA-1.5, or a checkpoint of ours;
    images need a multimodal one. A model of conversations is asked the prompt in a turn of its
    template; token ids are taken as they are, after the images. The tokens end with the model's
    end token, if it comes.

    \b
    Example: mm1 generate SmolLM2-135M --prompt "The capital of France is" --max-tokens 8
    """
    from mm1_jax.model.generation import Sampling
    from mm1_jax.weights.weights_folder import CONFIG_FILE, is_checkpoint, is_multimodal, stated

    if (prompt is None) == (ids is None):
        raise UserError("give the prompt as --prompt TEXT or as --ids 1,2,3, and not both")
    if prompt is not None:
        prompt = typed(prompt, "--prompt")
    stops = tuple(typed(stop, "--stop") for stop in stops)
    given = _numbers(ids) if ids is not None else None
    sampling = Sampling(temperature, top_k, top_p)
    if not folder.is_dir():
        raise UserError(f"no folder {str(folder)!r}")
    if is_checkpoint(folder):
        kind = stated(folder).kind
    else:
        found = (folder / CONFIG_FILE).is_file() and is_multimodal(folder)
        kind = "multimodal" if found else "files"
    if images and kind != "multimodal":
        raise UserError(f"--image: {_cannot_see(folder, kind)}")
    if kind == "multimodal":
        answer = _multimodal(
            folder, prompt, given, images, max_tokens, sampling, stops, seed, _data(store, data)
        )
    else:
        answer = _text(
            folder, kind, prompt, given, max_tokens, sampling, stops, seed, _data(store, data)
        )
    if as_json:
        click.echo(strict_json.dumps(vars(answer)))
    else:
        say_answer(answer.text)


def _cannot_see(folder: Path, kind: str) -> str:
    from mm1_jax.weights.part_weights import language_model_weights

    if kind == "files":
        language_model_weights(folder)  # UserError where it holds something else, or nothing
    if kind == "encoder":
        return f"{folder} holds an image encoder alone, which says nothing"
    return f"{folder} holds a language model, which sees no images; leave --image out"


def _data(store: str | None, data: Path | None) -> Path:
    from mm1 import api

    return data or Path(store or api.default_store()) / "data"


def _numbers(ids: str) -> list[int]:
    try:
        return [int(number) for number in ids.split(",")]
    except ValueError:
        raise UserError(f"--ids {ids!r}: expected whole numbers with commas, like 1,2,3") from None


def _text(
    folder: Path,
    kind: str,
    prompt: str | None,
    ids: list[int] | None,
    max_tokens: int,
    sampling: Any,
    stops: tuple[str, ...],
    seed: int,
    data: Path,
) -> Answer:
    import numpy as np

    from mm1_jax.data.tokenizer import END
    from mm1_jax.model import generation
    from mm1_jax.model.decoder import Decoder
    from mm1_jax.model.layers import UNROLLED
    from mm1_jax.training.checkpoints import load_config
    from mm1_jax.weights.part_weights import filled, language_model_weights
    from mm1_jax.weights.weights_folder import SOURCE_FILE

    found = language_model_weights(folder)
    if kind == "files" or (folder / SOURCE_FILE).is_file():
        encode, decode, ends = _tokenizer_of(folder, found.vocabulary)
    else:
        encode = decode = None
        ends = (END,)
        words = _words_of(folder, load_config(folder).data, data, must=ids is None)
        if words is not None:
            encode, decode = words.encode, words.decode
    if ids is None:
        if encode is None:
            raise UserError(f"{folder} has no tokenizer.json; give the prompt as --ids")
        ids = encode(str(prompt))
    _check_ids(ids, found.vocabulary)
    tokens, lengths = generation.ids_as_rows([ids])
    new, logprobs = generation.generate_text(
        filled(Decoder(found.config, found.vocabulary), found.tree),
        tokens,
        lengths,
        max_tokens,
        form=UNROLLED,
        ends=ends,
        sampling=sampling,
        seed=seed,
    )
    return _answer(np.asarray(new)[0], np.asarray(logprobs)[0], decode, ends, stops)


def _multimodal(
    folder: Path,
    prompt: str | None,
    ids: list[int] | None,
    images: tuple[Path, ...],
    max_tokens: int,
    sampling: Any,
    stops: tuple[str, ...],
    seed: int,
    data: Path,
) -> Answer:
    import numpy as np

    from mm1_jax.data.batches.packing import lay_out, with_views
    from mm1_jax.evaluation.asking import Encoded, packed
    from mm1_jax.evaluation.imported_model import imported_model
    from mm1_jax.images.pictures import read_picture
    from mm1_jax.images.sub_images import views_of
    from mm1_jax.model import generation
    from mm1_jax.model.multimodal import load_model
    from mm1_jax.weights.weights_folder import is_imported

    config, model = (imported_model if is_imported(folder) else load_model)(folder)
    seen = views_of(config)
    pictures = [seen.of(read_picture(path, seen.background)) for path in images]
    shown = list(range(len(images)))
    if ids is None:
        encoded, decode, ends = _asked(folder, config, str(prompt), shown, data)
    else:
        encoded = Encoded(ids, shown, [0] * len(images))
        decode, ends = _unasked(folder, config, data)
    _check_ids(encoded.tokens, config.data.vocabulary)
    (row,) = packed([encoded], len(encoded.tokens), len(images))
    # A text without an image stands beside a black one that no position shows.
    black = np.zeros((1, seen.size, seen.size, 3), np.uint8)
    pixels = np.concatenate(pictures or [black])
    row = with_views(row, [len(views) for views in pictures], len(pixels))
    batch = lay_out([row], config.view_tokens)
    batch["images"] = pixels[None]
    lengths = (batch["segments"] > 0).sum(axis=1).astype(np.int32)
    new, logprobs = generation.generate_with_scores(
        model, batch, lengths, max_tokens, sampling, seed, ends
    )
    return _answer(np.asarray(new)[0], np.asarray(logprobs)[0], decode, ends, stops)


def _asked(
    folder: Path, config: Any, prompt: str, images: list[int], data: Path
) -> tuple[Any, Any, tuple[int, ...]]:
    """A prompt in tokens; decode; the ids that end an answer."""
    from mm1_jax.data.templates import Exchange, answer_ends, converse, template_of
    from mm1_jax.evaluation.asking import encoded
    from mm1_jax.evaluation.imported_model import imported_words
    from mm1_jax.weights.weights_folder import is_imported

    template = config.data.template
    parts = (*images, prompt)
    if template != "plain":
        parts, _ = converse([Exchange(parts, None)], template_of(template))
    if is_imported(folder):
        spoken = imported_words(folder, config)
        (row,) = encoded([parts], spoken.words, begin=spoken.begin, as_one=True)
        return row, spoken.words.decode, spoken.ends
    words = _words_of(folder, config.data, data, must=True)
    return encoded([parts], words)[0], words.decode, answer_ends(template, words)


def _unasked(folder: Path, config: Any, data: Path) -> tuple[Any, tuple[int, ...]]:
    """Decode (None where there is no tokenizer), and the ids that end an answer."""
    from mm1_jax.data.templates import answer_ends
    from mm1_jax.data.tokenizer import END
    from mm1_jax.evaluation.imported_model import imported_words
    from mm1_jax.weights.imported_tokenizer import TOKENIZER_FILE, ends_of
    from mm1_jax.weights.weights_folder import is_imported

    if is_imported(folder):
        if not (folder / TOKENIZER_FILE).is_file():
            return None, ends_of(folder)
        spoken = imported_words(folder, config)
        return spoken.words.decode, spoken.ends
    words = _words_of(folder, config.data, data, must=False)
    if words is None:
        return None, (END,)
    return words.decode, answer_ends(config.data.template, words)


def _answer(new: Any, logprobs: Any, decode: Any, ends: Any, stops: tuple[str, ...]) -> Answer:
    from mm1_jax.model.generation import cut

    if stops and decode is None:
        raise UserError("--stop needs a tokenizer, and there is none beside the weights")
    count, text = cut(new.tolist(), decode or (lambda _: ""), ends=ends, stops=stops)
    return Answer(new[:count].tolist(), text, [float(x) for x in logprobs[:count]])


def _check_ids(ids: list[int], vocabulary: int) -> None:
    if not ids:
        raise UserError("the prompt is empty; give at least one token")
    odd = next((number for number in ids if not 0 <= number < vocabulary), None)
    if odd is not None:
        raise UserError(f"--ids {odd}: the vocabulary has tokens 0 to {vocabulary - 1}")


def _words_of(folder: Path, config: Any, data: Path, *, must: bool) -> Any:
    """The tokenizer beside a checkpoint of ours, else that of its prepared data, else None.

    UserError where the one beside it is of another model, or where there `must` be one and is not.
    """
    from mm1_jax.data.sources.package_preparation import is_prepared
    from mm1_jax.data.sources.prepared_packages import open_prepared
    from mm1_jax.data.tokenizer import check_same, check_vocabulary, load, tokenizer_file

    prepared = is_prepared(config, data)
    if not tokenizer_file(folder).is_file():
        return open_prepared(config, data).tokenizer if must or prepared else None
    words = load(folder)
    check_vocabulary(words, config.vocabulary, f"in {folder}")
    if prepared:  # which alone can tell another tokenizer of the same size
        check_same(open_prepared(config, data).tokenizer, folder)
    return words


def _tokenizer_of(folder: Path, vocabulary: int) -> tuple[Any, Any, tuple[int, ...]]:
    """Encode, decode (None where the folder has no tokenizer), and the ids that end a text.

    Of Hugging Face files, or of a checkpoint that was imported from such. UserError where the
    tokenizer is of another model.
    """
    import tokenizers

    from mm1_jax.weights.imported_tokenizer import TOKENIZER_FILE, ends_of, imported_tokenizer

    file = folder / TOKENIZER_FILE
    if not file.is_file():
        return None, None, ends_of(folder)
    imported_tokenizer(folder, vocabulary)
    backend = tokenizers.Tokenizer.from_file(str(file))
    return lambda text: backend.encode(text).ids, backend.decode, ends_of(folder)
