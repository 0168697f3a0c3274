"""Folders as Hugging Face keeps models: `config.json` and tensors by name in `*.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mm1_jax.errors import UserError
from mm1_jax.weights_folder import CONFIG_FILE

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class SafetensorsFolder:
    """What a folder holds; values are read one tensor at a time."""

    path: Path
    config: dict[str, Any]
    files: dict[str, Path]  # by tensor
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]  # as the format spells them: F32, BF16, …

    def read(self, name: str) -> np.ndarray:
        """One tensor, of its own dtype. `UserError` for a dtype that float32 cannot hold."""
        if self.dtypes[name] not in DTYPES:
            raise UserError(
                f"{name} in {self.path} is {self.dtypes[name]}; valid: {', '.join(DTYPES)}"
            )
        with safe_open(self.files[name], framework="np") as file:
            return file.get_tensor(name)


def open_folder(path: Path) -> SafetensorsFolder:
    """Read the headers of a folder, of one file or of those that the index names.

    Raises:
        UserError: no such folder, no config, no tensors, or a file that is cut short.
    """
    if not path.is_dir():
        raise UserError(f"no folder {str(path)!r}")
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"{path} has no {CONFIG_FILE}")
    if (path / INDEX_FILE).is_file():
        names = sorted(
            set(json.loads((path / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"].values())
        )
        found = [path / name for name in names]
    else:
        found = sorted(path.glob("*.safetensors"))
    if not found:
        raise UserError(f"{path} has no *.safetensors")
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for one in found:
        try:
            with safe_open(one, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    part = file.get_slice(name)
                    files[name], dtypes[name] = one, part.get_dtype()
                    shapes[name] = tuple(part.get_shape())
        except FileNotFoundError:
            raise UserError(f"{path} lacks {one.name}, which {INDEX_FILE} names") from None
        except SafetensorError as error:
            raise UserError(f"{one} is cut short or damaged: {error}") from None
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"not JSON: {error.msg}", file=str(path / CONFIG_FILE), line=error.lineno
        ) from None
    return SafetensorsFolder(path, config, files, shapes, dtypes)


def write_folder(path: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write `config.json` and one file of tensors."""
    path.mkdir(parents=True, exist_ok=True)
    (path / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # PyTorch's loaders ask for the format.
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        path / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
