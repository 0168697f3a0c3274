"""Folders of weights that a part starts from: what they hold, without reading the weights' values.

A folder is Hugging Face's (`config.json`, `*.safetensors`) or a checkpoint of ours (`config.json`,
`checkpoint/`). Its identity is the hash of those files' contents, never its path. No JAX here:
planning reads this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ablations.content_hash import content_hash
from ablations.errors import UserError
from mm1_jax.weights.json_object import is_there, read_object, stating

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CHECKPOINT_FOLDER = "checkpoint"
BEST_FOLDER = "best"  # in a training's folder: the same of its checkpoint with the lowest loss
SOURCE_FILE = "source.json"  # what an imported checkpoint was, see `public_weights`

LLAVA = "llava"  # `model_type` of the whole models that are known
_WHOLE = "ForConditionalGeneration"

# How an encoder is used, and not what its weights are; positions are interpolated to another size.
USE = ("image_size", "antialias", "output_layer", "remainder", "dropout")


def content_of(folder: Path) -> str:
    """Hash of the files that decide what is loaded: 32 hexadecimal digits.

    Raises:
        UserError: the folder is missing, or holds no weights.
    """
    return content_hash(folder, _weight_files(folder))


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder is a checkpoint of ours."""
    return (folder / CHECKPOINT_FOLDER).is_dir()


def is_imported(folder: Path) -> bool:
    """Whether what the folder holds was trained elsewhere: files of others, or made of such."""
    return not is_checkpoint(folder) or (folder / SOURCE_FILE).is_file()


def is_multimodal(folder: Path) -> bool:
    """Whether a Hugging Face folder says that it holds a whole multimodal model."""
    config = read_object(folder / CONFIG_FILE)
    with stating(folder / CONFIG_FILE):
        whole = any(name.endswith(_WHOLE) for name in config.get("architectures") or ())
    return config.get("model_type") == LLAVA or (whole and "vision_config" in config)


@dataclass(frozen=True)
class Stated:
    """What `config.json` of a checkpoint of ours says."""

    folder: Path
    kind: str  # multimodal, encoder, language_model
    config: dict[str, Any]

    @property
    def vocabulary(self) -> int:
        """Of the tokenizer it goes with."""
        return self.config.get("data", self.config)["vocabulary"]

    def part(self, part: str) -> dict[str, Any]:
        """The config of a part. `UserError` if the checkpoint has none."""
        if part not in self.config:
            raise UserError(f"{self.folder} is a checkpoint of kind {self.kind}: it has no {part}")
        return self.config[part]


def stated(folder: Path) -> Stated:
    """Read `config.json` of a checkpoint of ours."""
    found = read_object(folder / CONFIG_FILE)
    for key, kind in (("kind", str), ("config", dict)):
        if not isinstance(found.get(key), kind):
            raise UserError(f"{folder / CONFIG_FILE} is of no checkpoint of ours: no {key!r}")
    return Stated(folder, found["kind"], found["config"])


@dataclass(frozen=True)
class TensorFiles:
    """Which files of a Hugging Face folder count.

    `of` says of each tensor which file has the one that counts; None: there is one file, with all.
    `strays` are others that lie beside them and are not read.
    """

    files: tuple[Path, ...]
    of: dict[str, Path] | None
    strays: tuple[str, ...]


def tensor_files(folder: Path) -> TensorFiles:
    """The files that the index names, else the usual one, else the only one; reads no tensors.

    Raises:
        UserError: there are none, or several and nothing says which count.
    """
    there = sorted(path.name for path in folder.glob("*.safetensors"))
    index = folder / INDEX_FILE
    if is_there(index):
        of = _indexed(folder, index)
        names = sorted(set(of.values()))
        if WEIGHTS_FILE in there and WEIGHTS_FILE not in names:
            raise UserError(
                f"{folder} has {WEIGHTS_FILE}, and {INDEX_FILE}, which names other files: both "
                "say that they are the model; move one of them away"
            )
        places = {name: folder / file for name, file in of.items()}
    else:
        if WEIGHTS_FILE not in there and len(there) > 1:
            raise UserError(
                f"{folder} has {', '.join(there)}: none is called {WEIGHTS_FILE} and no "
                f"{INDEX_FILE} says which count; keep one, or add the index"
            )
        names, places = [WEIGHTS_FILE] if WEIGHTS_FILE in there else there, None
    if not names:
        raise UserError(f"{folder} has no *.safetensors")
    strays = tuple(name for name in there if name not in names)
    return TensorFiles(tuple(folder / name for name in names), places, strays)


def _indexed(folder: Path, index: Path) -> dict[str, str]:
    """Tensor → file of an index."""
    of = read_object(index).get("weight_map")
    if not isinstance(of, dict) or not of:
        raise UserError("has no 'weight_map' of tensors to files", file=str(index))
    for name, file in of.items():
        if not isinstance(file, str):
            raise UserError(f"{name}: expected a file's name, found {file!r}", file=str(index))
        inside = PurePosixPath(file)
        if inside.is_absolute() or ".." in inside.parts:
            raise UserError(f"{name}: {file!r} is outside the folder", file=str(index))
        if not (folder / file).is_file():
            raise UserError(f"{folder} lacks {file}, which {INDEX_FILE} names")
    return of


def check_same(
    part: str, wanted: Mapping[str, Any], found: Mapping[str, Any], folder: object
) -> None:
    """Raise `UserError` that shows the first difference between two configs of a part.

    How the part is used (`USE`) may differ.
    """
    wanted, found = dict(wanted), dict(found)
    if part == "language_model" and wanted.get("from_dense") and found.get("kind") == "dense":
        wanted = {**{key: wanted.get(key) for key in found}, "kind": "dense"}
    difference = _first_difference(found, wanted, part)
    if difference is not None:
        raise UserError(f"the weights in {folder} are of another {part}: {difference}")


def _first_difference(found: Any, wanted: Any, path: str) -> str | None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            inner = f"{path}.{key}"
            if key in USE:
                continue
            if key not in found or key not in wanted:
                return f"{inner} is {found.get(key)!r} there and {wanted.get(key)!r} in the recipe"
            if (difference := _first_difference(found[key], wanted[key], inner)) is not None:
                return difference
        return None
    if found == wanted:
        return None
    return f"{path} is {found!r} there and {wanted!r} in the recipe"


def _weight_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"no folder {str(folder)!r}")
    config = folder / CONFIG_FILE
    if is_checkpoint(folder):
        files = [path for path in (folder / CHECKPOINT_FOLDER).rglob("*") if path.is_file()]
        # Orbax writes the time of saving there.
        files = [path for path in files if path.name != "_CHECKPOINT_METADATA"]
    else:
        index = folder / INDEX_FILE
        there = is_there(index) or any(folder.glob("*.safetensors"))
        files = [*(tensor_files(folder).files if there else ()), *([index] if there else ())]
        files = [path for path in files if path.is_file()]
    if not config.is_file() or not files:
        raise UserError(
            f"{folder} holds no weights: neither {CONFIG_FILE} with *.safetensors nor "
            f"{CONFIG_FILE} with {CHECKPOINT_FOLDER}/"
        )
    return [config, *sorted(files)]
