"""First weights by name: a parameter's value depends on the seed and on its path, nothing else.

A generator that counts calls would give the decoder other first weights as soon as a connector
draws one number more. Here two arms start bit-equal wherever they share path and shape, so their
difference is the factor's and not the draw's.

Modules are built from shapes alone (`parameter`); `initialise` fills them from a seed, and
`checkpoints` fills them from disk.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ablations.timeline import doing

Module = TypeVar("Module", bound=nnx.Module)


BLOCK = 1024  # consecutive values of one parameter that share a key
CALL = 256  # blocks per compiled call, so that one compilation serves every model


@dataclass(frozen=True)
class Normal:
    """Gaussian with mean 0."""

    std: float


@dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float


def parameter(shape: tuple[int, ...], first: Normal | Constant) -> nnx.Param:
    """A float32 parameter of `shape` without a value yet; `first` is how it will start."""
    return nnx.Param(
        jax.ShapeDtypeStruct(shape, jnp.float32), first=first, layers=None, renamed=None
    )


def stack(
    module: Module, layers: int | Sequence[int], renamed: tuple[str, str] | None = None
) -> Module:
    """Copies of `module` for these layers in one: each parameter gets a leading axis [layers, ...].

    `layers` are their numbers in the model, or how many there are. `renamed` = (own name, name of
    another stack): first values are drawn as if these layers stood in the other, so that a layer
    starts alike whichever stack of a model holds it.
    """
    numbers = tuple(range(layers)) if isinstance(layers, int) else tuple(layers)
    for _, variable in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        shape = (len(numbers), *variable.get_value().shape)
        variable.set_value(jax.ShapeDtypeStruct(shape, jnp.float32))
        variable.set_metadata("layers", numbers)
        variable.set_metadata("renamed", renamed)
    return module


@doing("start")
def initialise(model: Module, seed: int, salt: int = 0) -> Module:
    """The model with its first values.

    Block b of the parameter at `path` is drawn from fold_in(fold_in(fold_in(seed, salt),
    hash of path), b). The layers of a stacked parameter have paths of their own, `path/0` …, so a
    deeper model shares the first layers of a shallower one. `salt` gives other values for the same
    seed (null arms).
    """
    graphdef, state = nnx.split(model)
    key = jax.random.fold_in(jax.random.key(seed), salt)
    variables = nnx.to_flat_state(state)
    sizes: dict[str, int] = {}
    for path, variable in variables:
        if isinstance(variable.first, Normal):
            sizes |= dict.fromkeys(_layer_names(path, variable), _layer_size(variable))
    normals = _draw_normals(key, sizes)
    leaves = []
    for path, variable in variables:
        shape = variable.get_value().shape
        if isinstance(variable.first, Constant):
            values = np.full(shape, variable.first.value, np.float32)
        else:
            names = _layer_names(path, variable)
            values = variable.first.std * np.stack([normals[name] for name in names])
        leaves.append(jnp.asarray(values.reshape(shape), jnp.float32))
    return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(state), leaves))


def _layer_names(path: tuple, variable: nnx.Variable) -> list[str]:
    own, other = variable.renamed or ("", "")
    name = "/".join(other if part == own else str(part) for part in path)
    if variable.layers is None:
        return [name]
    return [f"{name}/{layer}" for layer in variable.layers]


def _layer_size(variable: nnx.Variable) -> int:
    shape = variable.get_value().shape
    return math.prod(shape if variable.layers is None else shape[1:])


def _draw_normals(key: jax.Array, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Standard normal numbers by name, float32 [size]."""
    if not sizes:
        return {}
    blocks = {name: math.ceil(size / BLOCK) for name, size in sizes.items()}
    hashes = [stable_hash(name) for name, count in blocks.items() for _ in range(count)]
    numbers = [number for count in blocks.values() for number in range(count)]
    padding = [0] * (-len(hashes) % CALL)
    pairs = np.array([hashes + padding, numbers + padding], np.uint32).reshape(2, -1, CALL)
    drawn = [np.asarray(_draw_blocks(key, *pairs[:, call])) for call in range(pairs.shape[1])]
    flat = np.concatenate(drawn).reshape(-1)
    starts = np.cumsum([0, *blocks.values()]) * BLOCK
    return {
        name: flat[start : start + size]
        for (name, size), start in zip(sizes.items(), starts, strict=False)
    }


@jax.jit
def _draw_blocks(key: jax.Array, hashes: jax.Array, numbers: jax.Array) -> jax.Array:
    """Standard normal numbers [CALL, BLOCK], each row from its own hash and number."""

    def block(name: jax.Array, number: jax.Array) -> jax.Array:
        return jax.random.normal(
            jax.random.fold_in(jax.random.fold_in(key, name), number), (BLOCK,)
        )

    return jax.vmap(block)(hashes, numbers)


def stable_hash(text: str) -> int:
    """32 bits that are the same in every process and version."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
