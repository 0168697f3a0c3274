"""Folders as Hugging Face keeps models: `config.json` and tensors by name in `*.safetensors`."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ablations.errors import UserError
from mm1_jax.weights.json_object import read_object, stating
from mm1_jax.weights.public_config import check_kinds
from mm1_jax.weights.weights_folder import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, tensor_files

_logger = logging.getLogger(__name__)
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
    """Read the headers of the files that count (`tensor_files`); others are told once.

    A tensor that an index puts into one file counts there alone, whatever other files have.

    Raises:
        UserError: no such folder, no config, no tensors, or a file that is cut short or foreign.
    """
    if not path.is_dir():
        raise UserError(f"no folder {str(path)!r}")
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"{path} has no {CONFIG_FILE}")
    config, counting = read_object(path / CONFIG_FILE), tensor_files(path)
    with stating(path / CONFIG_FILE):
        check_kinds(config)
    if config.get("transformers_weights") is not None:
        raise UserError("transformers_weights is not known", file=str(path / CONFIG_FILE))
    if counting.strays:
        _tell_strays(path, counting.strays, counting.of is not None)
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for one in counting.files:
        try:
            with safe_open(one, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if counting.of is not None and counting.of.get(name) != one:
                        continue
                    part = file.get_slice(name)
                    files[name], dtypes[name] = one, part.get_dtype()
                    shapes[name] = tuple(part.get_shape())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{one} is cut short or damaged: {error}") from None
    missing = sorted(set(counting.of or ()) - set(files))
    if missing:
        where = (counting.of or {})[missing[0]].name
        raise UserError(f"{where} in {path} has no {missing[0]}, which {INDEX_FILE} says it has")
    return SafetensorsFolder(path, config, files, shapes, dtypes)


@functools.cache
def _tell_strays(path: Path, strays: tuple[str, ...], indexed: bool) -> None:
    """Once in a process, however often the folder is opened."""
    _logger.warning(
        "%s: not read: %s, because %s",
        path,
        ", ".join(strays),
        f"{INDEX_FILE} does not name it" if indexed else f"{WEIGHTS_FILE} is the model's",
    )


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
