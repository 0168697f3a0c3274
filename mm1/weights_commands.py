"""`mm1 weights` and `mm1 encode`: weights from anywhere, opened to comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ablations import strict_json
from ablations.errors import UserError
from mm1.terminal import say

_folder = click.Path(path_type=Path)


@click.group()
def weights() -> None:
    """Read and write weights as Hugging Face folders have them."""


def _told(found: Any, as_json: bool) -> None:
    if as_json:
        click.echo(strict_json.dumps(vars(found), indent=2))
        return
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items())
    say(f"{found.part} of family {found.family}: {found.parameters:,} parameters")
    say(f"tensors: {dtypes}; held {len(found.held)}, not held {len(found.not_held)}")
    stated = {key: value for key, value in found.config.items() if value is not None}
    click.echo("  ".join(f"{key}={value}" for key, value in stated.items()))
    for name in found.not_held:
        say(f"not held: {name}")


@weights.command("inspect")
@click.argument("folder", type=_folder)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def weights_inspect(folder: Path, as_json: bool) -> None:
    """Say what a folder of weights is here, and which of its tensors have no place.

    \b
    Example: mm1 weights inspect clip-vit-large-patch14-336
    """
    from mm1_jax.weights import public_weights
    from mm1_jax.weights.weights_folder import is_checkpoint, stated

    if is_checkpoint(folder):
        found: dict[str, Any] = {
            "kind": stated(folder).kind,
            "parts": public_weights.parts_of(folder),
        }
        click.echo(
            strict_json.dumps(found, indent=2)
            if as_json
            else f"a checkpoint of kind {found['kind']}\n"
            + "\n".join(f"{part}: {count:,} parameters" for part, count in found["parts"].items())
        )
        return
    _told(public_weights.inspect(folder), as_json)


@weights.command("import")
@click.argument("folder", type=_folder)
@click.argument("out", type=_folder)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def weights_import(folder: Path, out: Path, as_json: bool) -> None:
    """Write the part in a Hugging Face FOLDER as a checkpoint of ours into OUT.

    \b
    Example: mm1 weights import siglip-so400m-patch14-384 so400m
    """
    from mm1_jax.weights import public_weights

    _told(public_weights.import_folder(folder, out), as_json)


@weights.command("export")
@click.argument("checkpoint", type=_folder)
@click.argument("out", type=_folder)
@click.option(
    "--part",
    type=click.Choice(["encoder", "language_model"]),
    default=None,
    help="Which part. [the only one]",
)
@click.option(
    "--dtype",
    type=click.Choice(["F32", "F16", "BF16"]),
    default=None,
    help="Of all tensors. [as imported, else F32]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def weights_export(
    checkpoint: Path, out: Path, part: str | None, dtype: str | None, as_json: bool
) -> None:
    """Write a part of a CHECKPOINT of ours as a Hugging Face folder OUT.

    \b
    Example: mm1 weights export so400m so400m-again
    """
    from mm1_jax.weights import public_weights

    written = public_weights.export_folder(checkpoint, out, part, dtype)
    if as_json:
        click.echo(strict_json.dumps({"tensors": {n: list(t.shape) for n, t in written.items()}}))
    else:
        say(f"{out}: {len(written)} tensors")


@click.command()
@click.argument("folder", metavar="WEIGHTS", type=_folder)
@click.argument("images", nargs=-1, required=True, type=_folder)
@click.option("--out", type=_folder, required=True, help="The .npz file to write.")
def encode(folder: Path, images: tuple[Path, ...], out: Path) -> None:
    """Send images through an encoder and keep what every layer gives.

    WEIGHTS is a Hugging Face folder or a checkpoint of ours. OUT has, as float32, `pixels` [images,
    height, width, 3]; `layer_0`, what the first block sees, to `layer_n`, what block n gives, each
    [images, tokens, width]; and `output`, the last of them under the output norm if there is one.

    \b
    Example: mm1 encode clip-vit-large-patch14-336 photo.jpg --out photo.npz
    """
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from mm1_jax.config.encoder import VisionTransformerConfig
    from mm1_jax.images.pictures import read_picture
    from mm1_jax.model.encoders import VisionTransformer
    from mm1_jax.model.layers import UNROLLED
    from mm1_jax.weights.part_weights import encoder_weights, filled

    found = encoder_weights(folder)
    if not isinstance(found.config, VisionTransformerConfig):
        raise UserError(f"{folder} holds an encoder of two towers; valid: an encoder of one")
    pictures = [found.preprocessing.pixels(read_picture(path, found.background)) for path in images]
    encoder = filled(VisionTransformer(found.config), found.tree)

    @nnx.jit
    def states(encoder: VisionTransformer, pixels: Any) -> tuple[list[Any], Any]:
        every = encoder.states(pixels, UNROLLED)
        return every, encoder.output(every[encoder.config.output_layer])

    # One at a time, so that memory does not grow with the images.
    rows = [states(encoder, jnp.asarray(picture)[None]) for picture in pictures]
    arrays: dict[str, Any] = {"pixels": np.stack(pictures)}
    for number in range(found.config.layers + 1):
        arrays[f"layer_{number}"] = np.concatenate([np.asarray(row[0][number]) for row in rows])
    arrays["output"] = np.concatenate([np.asarray(row[1]) for row in rows])
    with out.open("wb") as file:
        np.savez(file, **arrays)
    told = "1 image" if len(images) == 1 else f"{len(images)} images"
    say(f"{out}: {told}, {found.config.layers + 1} layers")
