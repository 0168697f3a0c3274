"""Where each array lies on a mesh of devices: one table for parameters, one line for batches.

Axes of a mesh (`config.training.MeshConfig`):

    data     copies of the weights, each with its own part of the batch
    fsdp     weights and moments cut up and gathered layer by layer; a part of the batch each
    tensor   heads, MLP columns and the vocabulary cut up; the same batch
    expert   experts cut up; a part of the batch each, tokens cross over to their experts

A pipeline axis has no place yet: it would cut the axis [layers] of stacked parameters, which every
rule below leaves whole, and `layers.run_layers` would hand activations on.

Computation is written over whole arrays. The compiler cuts it by what it is given here, so a mesh
of another shape computes the same numbers but for the order of sums.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ablations.errors import UserError
from mm1_jax.config.training import MeshConfig, TrainingConfig

AXES = ("data", "fsdp", "tensor", "expert")
BATCH = ("data", "fsdp", "expert")  # the axes along which a batch is cut

# (end of a parameter's path, axes of its last dimensions); the first that matches counts. Leading
# dimensions, such as [layers], stay whole, and what no rule names has a copy on every device.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # [vocabulary, width]
    (r"(embedding|language_model/head|decoder/head)", ("tensor", "fsdp")),
    # [experts, width, 2, hidden] and [experts, hidden, width]; the router [width, experts] is small
    (r"experts/gate_up", ("expert", "fsdp", None, "tensor")),
    (r"experts/down", ("expert", "tensor", "fsdp")),
    # Out of the residual stream: [width, heads or hidden].
    (r"(qkv|query|key_value|gate_up|mlp_in|readout_in|conv_in)/kernel", ("fsdp", "tensor")),
    # Back into it: [heads or hidden, width].
    (r"(attention_out|out|down|mlp_out|readout_out|conv_out)/kernel", ("tensor", "fsdp")),
    # Patch embedding, projections, squeeze and excite, shortcuts: [inputs, outputs].
    (r"kernel", (None, "fsdp")),
)

_logger = logging.getLogger(__name__)


def build_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of the config over these devices, by default all there are.

    Raises `UserError` if there are not exactly as many as the axes' product.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in AXES]
    if len(devices) != config.devices:
        shape = ", ".join(f"{axis}: {size}" for axis, size in zip(AXES, sizes, strict=True))
        raise UserError(
            f"training.mesh {{{shape}}} takes {config.devices} devices, there are {len(devices)}; "
            f"nearest: fsdp: {len(devices)} and 1 for the others"
        )
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, axis_types=kinds, devices=list(devices))


@functools.cache  # a step asks several times, and what does not fit is to be said once
def parameter_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Along which axes the parameter at `path`, "encoder/blocks/qkv/kernel", is cut.

    An axis that does not divide its dimension is left out for this parameter, and that is logged.
    """
    found = next((axes for end, axes in RULES if re.search(rf"(^|/){end}$", path)), ())
    axes: list[str | None] = [None] * (len(shape) - len(found)) + list(found)
    for place, axis in enumerate(axes):
        if axis is not None and shape[place] % mesh.shape[axis]:
            _logger.warning(
                "%s %s: %s devices on axis %s do not divide %s; it is not cut there",
                *(path, list(shape), mesh.shape[axis], axis, shape[place]),
            )
            axes[place] = None
    return PartitionSpec(*axes)


def parameter_shardings(
    names: Sequence[str], shapes: Sequence[Sequence[int]], mesh: Mesh
) -> list[NamedSharding]:
    """Where the parameters with these paths and shapes lie."""
    return [
        NamedSharding(mesh, parameter_spec(name, tuple(shape), mesh))
        for name, shape in zip(names, shapes, strict=True)
    ]


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The same for a tree of dicts, whose keys along the way are a parameter's path."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = "/".join(str(key.key) for key in path)
        return NamedSharding(mesh, parameter_spec(name, tuple(leaf.shape), mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def moment_shardings(
    moments: Any, names: Sequence[str], shapes: Sequence[Sequence[int]], mesh: Mesh
) -> Any:
    """The same for an optimiser's state: a moment lies where its parameter does.

    `moments` is a tree in which lists as long as `names` hold the arrays of one parameter each. A
    moment of another shape than its parameter's (a factor) has a copy on every device.
    """
    whole = everywhere(mesh)
    placed = parameter_shardings(names, shapes, mesh)

    def of_parameters(node: Any) -> bool:
        return isinstance(node, list) and len(node) == len(names)

    def where(node: Any) -> Any:
        if not of_parameters(node):
            return whole
        return [
            jax.tree.map(lambda x, at=at, of=of: at if tuple(x.shape) == tuple(of) else whole, own)
            for own, at, of in zip(node, placed, shapes, strict=True)
        ]

    return jax.tree.map(where, moments, is_leaf=of_parameters)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where a batch lies: rows cut along the axes of `BATCH`, all else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Where an array lies of which every device has a copy."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, shardings: Any) -> Any:
    """Host arrays → arrays on the devices of this process and, if there are more, of the others.

    Every process gives the whole arrays, and each device takes its own part.
    """

    def one(value: Any, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(value)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, shardings)


def rows_of_process(mesh: Mesh, rows: int) -> range:
    """Which rows of a batch the devices of this process have."""
    held = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    bounds = [index[0].indices(rows) for index in held if index is not None]
    return range(min(start for start, _, _ in bounds), max(end for _, end, _ in bounds))


def own_rows(training: TrainingConfig) -> range:
    """Which rows of each batch this process has to read."""
    if jax.process_count() == 1:
        return range(training.batch_size)
    return rows_of_process(build_mesh(training.mesh), training.batch_size)


def place_batch(batch: Mapping[str, Any], mesh: Mesh, rows: int) -> dict[str, jax.Array]:
    """A batch of so many rows, cut over the mesh.

    Every process gives the whole batch, or the rows of its own devices alone.
    """
    own, lie = rows_of_process(mesh, rows), batch_sharding(mesh)

    def one(value: Any) -> jax.Array:
        given = np.asarray(value)
        first = 0 if len(given) == rows else own.start

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            if index is None:
                return given
            start, end, _ = index[0].indices(rows)
            return given[(slice(start - first, end - first), *index[1:])]

        return jax.make_array_from_callback((rows, *given.shape[1:]), lie, part)

    return {name: one(value) for name, value in batch.items()}


def any_process(flag: bool) -> bool:
    """Whether the flag is set in one of the processes that share the mesh; all must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def cut_along(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """x, whose dimensions are to lie along these axes of the mesh; x itself where there is none."""
    if not on_a_mesh():
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def rows_of_table(table: jax.Array, rows: jax.Array) -> jax.Array:
    """table [n, width], rows int32 [batch, ...] → [batch, ..., width], cut like the batch.

    On a mesh every device has the whole table for as long as it takes, and looks up its own rows;
    left to the compiler, every device would have the gradients of the whole batch.
    """
    if not on_a_mesh():
        return table[rows]
    look_up = jax.shard_map(
        lambda table, rows: table[rows],
        in_specs=(PartitionSpec(), PartitionSpec(BATCH)),
        out_specs=PartitionSpec(BATCH),
    )
    return look_up(table, rows)


def on_a_mesh() -> bool:
    """Whether what is being traced is for a mesh of several devices (`jax.set_mesh`)."""
    return math.prod(jax.sharding.get_abstract_mesh().axis_sizes) > 1
