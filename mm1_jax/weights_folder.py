"""Folders of weights that a part starts from: what they hold, without reading the weights' values.

A folder is Hugging Face's (`config.json`, `*.safetensors`) or a checkpoint of ours (`config.json`,
`checkpoint/`). Its identity is the hash of those files' contents, never its path. No JAX here:
planning reads this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm1_jax.content_hash import content_hash
from mm1_jax.errors import UserError

CONFIG_FILE = "config.json"
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
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return False  # opening it says what is wrong
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
    found = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return Stated(folder, found["kind"], found["config"])


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
        files = [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]
    if not config.is_file() or not files:
        raise UserError(
            f"{folder} holds no weights: neither {CONFIG_FILE} with *.safetensors nor "
            f"{CONFIG_FILE} with {CHECKPOINT_FOLDER}/"
        )
    return [config, *sorted(files)]
