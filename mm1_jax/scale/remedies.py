"""What would make a training fit that needs too much memory on each device. No JAX."""

from __future__ import annotations

from collections.abc import Iterator

from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.scale.costs import memory_per_chip

MOST = 2  # ways that are told


def remedies(
    config: TrainConfig, room_bytes: float, devices: int, *, smaller_batch: bool = True
) -> list[tuple[str, float]]:
    """Changes after which a training needs at most so much on each of at most so many devices.

    Each with the bytes that it then needs: all layers recomputed, the weights cut over more
    devices, more micro-batches, all of these, and a smaller batch, which alone changes results. The
    first ways that are enough; none where nothing is. `smaller_batch` allows the last.
    """
    found = []
    for ways in _ways(config, devices, smaller_batch):
        for words, changed in ways:
            needed = sum(memory_per_chip(changed).values())
            if needed <= room_bytes:
                found.append((words, needed))
                break
        if len(found) == MOST:
            break
    return found


def _ways(
    config: TrainConfig, devices: int, smaller_batch: bool
) -> Iterator[Iterator[tuple[str, TrainConfig]]]:
    """Ways to need less memory, each from its least change on."""
    training = config.training
    meshes = _meshes(config, devices)
    widest = meshes[-1] if meshes else training.mesh
    if training.remat != "full":
        yield iter([("training.remat: full", _with(config, remat="full"))])
    yield ((f"training.mesh: {{{_said(mesh)}}}", _with(config, mesh=mesh)) for mesh in meshes)
    yield (
        (f"training.micro_batches: {parts}", _with(config, micro_batches=parts))
        for parts in _micro_batches(config, training.mesh)
    )
    yield (
        (
            f"training: {{remat: full, micro_batches: {parts}, mesh: {{{_said(widest)}}}}}",
            _with(config, remat="full", micro_batches=parts, mesh=widest),
        )
        for parts in _micro_batches(config, widest)
    )
    if not smaller_batch:
        return
    yield (
        (
            f"training: {{batch_size: {rows}, remat: full, mesh: {{{_said(widest)}}}}}, which is "
            "another training",
            _with(config, batch_size=rows, micro_batches=1, remat="full", mesh=widest),
        )
        for rows in _smaller_batches(config, widest)
    )


def _smaller_batches(config: TrainConfig, mesh: MeshConfig) -> Iterator[int]:
    rows = config.training.batch_size // 2
    while rows and rows % mesh.batch_shards == 0:
        yield rows
        rows //= 2


def _said(mesh: MeshConfig) -> str:
    return mesh.written.replace("=", ": ").replace(",", ", ")


def _with(config: TrainConfig, **changes: object) -> TrainConfig:
    training = config.training.model_copy(update=changes)
    return config.model_copy(update={"training": training})


def _meshes(config: TrainConfig, devices: int) -> list[MeshConfig]:
    """With 2, 4, … times as many devices along fsdp, as far as the batch is cut evenly."""
    training, found = config.training, []
    fsdp = training.mesh.fsdp * 2
    while True:
        mesh = training.mesh.model_copy(update={"fsdp": fsdp})
        rows = training.batch_size // training.micro_batches
        if mesh.devices > devices or rows % mesh.batch_shards:
            return found
        found.append(mesh)
        fsdp *= 2


def _micro_batches(config: TrainConfig, mesh: MeshConfig) -> Iterator[int]:
    parts = config.training.micro_batches * 2
    while config.training.batch_size % (parts * mesh.batch_shards) == 0:
        yield parts
        parts *= 2
