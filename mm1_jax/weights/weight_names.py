"""Our parameters under the names that other libraries' files have for them.

A family's table maps a module of ours, or one parameter, to a tensor's name without its ending:

    blocks/qkv      encoder.layers.#.self_attn.{q,k,v}_proj
    class_token     embeddings.cls_token[1,1]

`#` is the layer, braces name several tensors that stand one after the other in ours, and
`[1,1]` are axes of length 1 that the file has before ours. A module's kernel and scale are called
`weight` there. Matrices are [outputs, inputs] in files and [inputs, outputs] here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax import nnx

from ablations.errors import UserError
from mm1_jax.weights.safetensors_folder import DTYPES, SafetensorsFolder

Tree = dict[Any, Any]
_ENDINGS = {"kernel": "weight", "scale": "weight", "bias": "bias"}


@dataclass(frozen=True)
class Names:
    """How a family's files call our parameters."""

    table: Mapping[str, str]
    # Rows of each of several tensors, where they differ, by the module's path.
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    patches: str = "convolution"  # or "linear": a matrix over flattened patches

    def read(self, folder: SafetensorsFolder, module: nnx.Module, prefix: str = "") -> Tree:
        """The module's weights, float32, as a tree of arrays.

        `UserError` names the first tensor that is missing or has another shape.
        """
        tree: Tree = {}
        for path, variable in _parameters(module):
            layers = variable.get_value().shape[0] if variable.layers is not None else None
            values = []
            for layer in range(layers or 1):
                pieces = [
                    _checked(folder, piece) for piece in self.pieces(path, variable, layer, prefix)
                ]
                values.append(self._join(path, pieces))
            value = np.stack(values) if layers else values[0]
            shape = variable.get_value().shape
            _put(tree, path, value.reshape(shape).astype(np.float32))
        return tree

    def write(
        self, tree: Tree, module: nnx.Module, dtypes: Mapping[str, str], prefix: str = ""
    ) -> dict[str, np.ndarray]:
        """Tensors by name, each of its dtype in `dtypes`, float32 where none is given."""
        tensors: dict[str, np.ndarray] = {}
        for path, variable in _parameters(module):
            value = np.asarray(_get(tree, path), np.float32)
            layers = value.shape[0] if variable.layers is not None else None
            for layer in range(layers or 1):
                own = value[layer] if layers else value
                start = 0
                for piece in self.pieces(path, variable, layer, prefix):
                    part, start = self._cut(path, own, piece, start)
                    dtype = DTYPES[dtypes.get(piece.name, "F32")]
                    tensors[piece.name] = part.reshape(piece.shape).astype(dtype)
        return tensors

    def pieces(
        self, path: tuple, variable: nnx.Variable, layer: int, prefix: str
    ) -> Iterator[Piece]:
        """The tensors, in order, that one parameter (of one layer) is made of."""
        shape = variable.get_value().shape
        shape = shape[1:] if variable.layers is not None else shape
        names, leading = self._names(path)
        module = "/".join(map(str, path[:-1]))
        rows = self.rows.get(module) or (shape[-1] // len(names),) * len(names)
        for name, count in zip(names, rows, strict=True):
            if _is_kernel(path):
                if self._is_patch_kernel(path) and self.patches == "convolution":
                    side = math.isqrt(shape[0] // 3)
                    there = (count, 3, side, side)
                else:
                    there = (count, shape[0])
            else:
                there = (*leading, *shape[:-1], count)
            yield Piece(prefix + name.replace("#", str(layer)), there)

    def _names(self, path: tuple) -> tuple[list[str], tuple[int, ...]]:
        full = "/".join(map(str, path))
        if full in self.table:
            pattern = self.table[full]
        else:
            module, _, leaf = full.rpartition("/")
            if module not in self.table:
                raise UserError(f"this format has no place for {full}")
            pattern = f"{self.table[module]}.{_ENDINGS[leaf]}"
        leading = ()
        if found := re.search(r"\[([\d,]+)\]$", pattern):
            leading = tuple(map(int, found[1].split(",")))
            pattern = pattern[: found.start()]
        if found := re.search(r"\{(.*)\}", pattern):
            before, after = pattern[: found.start()], pattern[found.end() :]
            return [before + word + after for word in found[1].split(",")], leading
        return [pattern], leading

    def _is_patch_kernel(self, path: tuple) -> bool:
        return path[-2:] == ("patch_embedding", "kernel")

    def _join(self, path: tuple, pieces: list[np.ndarray]) -> np.ndarray:
        if not _is_kernel(path):
            return np.concatenate([piece.reshape(piece.shape) for piece in pieces], axis=-1)
        joined = np.concatenate(pieces)
        if joined.ndim == 4:  # [width, 3, side, side] → (row, column, channel) within a patch
            return joined.transpose(2, 3, 1, 0).reshape(-1, len(joined))
        return joined.T

    def _cut(
        self, path: tuple, value: np.ndarray, piece: Piece, start: int
    ) -> tuple[np.ndarray, int]:
        count = piece.shape[0] if _is_kernel(path) else piece.shape[-1]
        part = value[..., start : start + count]
        if not _is_kernel(path):
            return part, start + count
        if len(piece.shape) == 4:
            width, channels, side, _ = piece.shape
            return part.reshape(side, side, channels, width).transpose(3, 2, 0, 1), start + count
        return part.T, start + count


@dataclass(frozen=True)
class Piece:
    """A tensor of a file."""

    name: str
    shape: tuple[int, ...]


def names_held(names: Names, module: nnx.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor that the module is made of."""
    return {
        piece.name: piece.shape
        for path, variable in _parameters(module)
        for layer in range(variable.get_value().shape[0] if variable.layers is not None else 1)
        for piece in names.pieces(path, variable, layer, prefix)
    }


def _parameters(module: nnx.Module) -> list[tuple[tuple, Any]]:
    return [(path, variable) for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param))]


def _is_kernel(path: tuple) -> bool:
    return path[-1] == "kernel"


def _checked(folder: SafetensorsFolder, piece: Piece) -> np.ndarray:
    if piece.name not in folder.shapes:
        raise UserError(f"{folder.path} lacks the tensor {piece.name} {list(piece.shape)}")
    if folder.shapes[piece.name] != piece.shape:
        raise UserError(
            f"{piece.name} is {list(folder.shapes[piece.name])} in {folder.path}; "
            f"its config asks for {list(piece.shape)}"
        )
    return folder.read(piece.name)


def _put(tree: Tree, path: tuple, value: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _get(tree: Tree, path: tuple) -> Any:
    for key in path:
        tree = tree[key]
    return tree
