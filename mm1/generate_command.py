"""`mm1 generate`: text from any language model or multimodal model."""

from __future__ import annotations

from pathlib import Path

import click

from ablations import strict_json
from ablations.errors import UserError
from mm1.terminal import say_answer
from mm1.utf8_mode import typed


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
    if (prompt is None) == (ids is None):
        raise UserError("give the prompt as --prompt TEXT or as --ids 1,2,3, and not both")
    said = typed(prompt, "--prompt") if prompt is not None else _numbers(str(ids))
    stops = tuple(typed(stop, "--stop") for stop in stops)
    from mm1 import api
    from mm1_jax.evaluation.answering import answer
    from mm1_jax.model.generation import Sampling

    given = answer(
        folder,
        said,
        images=images,
        most_tokens=max_tokens,
        sampling=Sampling(temperature, top_k, top_p),
        stops=stops,
        seed=seed,
        data=data or Path(store or api.default_store()) / "data",
    )
    if as_json:
        click.echo(strict_json.dumps(vars(given)))
    else:
        say_answer(given.text)


def _numbers(ids: str) -> list[int]:
    try:
        return [int(number) for number in ids.split(",")]
    except ValueError:
        raise UserError(f"--ids {ids!r}: expected whole numbers with commas, like 1,2,3") from None
