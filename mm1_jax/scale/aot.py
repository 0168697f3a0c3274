"""Programs compiled ahead of time for TPU slices that are not there: do they fit, how fast at best.

The compiler, libtpu, needs no TPU. Weights are shapes, never values, so a model of any size is
compiled on a machine of any size.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ablations.errors import UserError
from mm1_jax.config.bounds import nearest_divisor
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.scale import costs
from mm1_jax.scale.chips import CHIPS, Chip, chip_of
from mm1_jax.scale.compiled_program import Program, read_program

What = Literal["train", "prefill", "decode"]

QUERY_IMAGES, QUERY_TEXT = 9, 512  # an 8-shot query: an image a shot, one of its own, and text
NEW_TOKENS = 64  # for which the cache has room
MOST_COMPILATIONS, MOST_SECONDS = 3, 600
ROOM = 0.9  # share of a chip's memory that the formula may fill: it is off by up to a third


@dataclass(frozen=True)
class Compilation:
    """What became of one program on one slice. Bytes and FLOPs are per chip unless they say else.

    memory: bytes by kind; {} where it did not fit, and then `missing_bytes` says by how much.
    model_flops: of the whole step by formula, without what is computed twice; flops_per_step: what
    the program computes on all chips. roofline_seconds is the longest of the three times below it,
    as if all overlapped; pessimistic_seconds their sum. mfu_ceiling: model FLOPs over what all
    chips could do in `roofline_seconds`.
    """

    what: What
    topology: str
    chips: int
    mesh: dict[str, int]
    micro_batches: int
    tokens_per_step: int
    model_flops: float
    fits: bool = False
    compile_seconds: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)
    bytes_per_chip: int = 0
    missing_bytes: int = 0
    flops_per_step: float = 0.0
    flops_per_chip: float = 0.0
    hbm_bytes: float = 0.0
    collectives: dict[str, dict[str, float]] = field(default_factory=dict)
    not_counted: tuple[str, ...] = ()
    compute_seconds: float = 0.0
    hbm_seconds: float = 0.0
    ici_seconds: float = 0.0
    roofline_seconds: float = 0.0
    pessimistic_seconds: float = 0.0
    mfu_ceiling: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs: all of it, and what it comes to."""
        return asdict(self)


# -- the compiler --------------------------------------------------------------------------------


def use_compiler() -> None:
    """Let this process compile for TPUs; before JAX starts. Raises UserError without libtpu."""
    library = os.environ.get("TPU_LIBRARY_PATH")
    path = Path(library) if library else Path(sys.prefix) / "libtpu" / "libtpu" / "libtpu.so"
    if not path.exists():
        raise UserError(
            f"no TPU compiler at {path}; `make env` installs it, or TPU_LIBRARY_PATH names a "
            f"libtpu.so (Linux, x86-64)"
        )
    os.environ |= {
        "TPU_LIBRARY_PATH": str(path),
        "JAX_PLATFORMS": "cpu",
        # Look for no TPU, neither on this host nor by the cloud's metadata, and share the library.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    }


def devices_of(topology: str) -> list[Any]:
    """One device per chip of a topology, "v5e:16x16". Raises UserError where it is none."""
    use_compiler()
    chip, count = chip_of(topology)
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    # A v4 chip has two cores, which can be programmed as one.
    more = {"chip_config_name": "megacore"} if chip.name == "v4" else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **more).devices
    except JaxRuntimeError as error:
        raise UserError(
            f"topology {topology!r}: {str(error).splitlines()[0]}; slices: "
            f"{', '.join(chip.topologies)}"
        ) from error
    assert len(found) == count, f"{topology} has {len(found)} devices"
    return found


def for_accelerators(config: TrainConfig, mesh: MeshConfig, micro_batches: int) -> TrainConfig:
    """The config on this mesh, with what is left to the device told: `auto` would ask this one."""
    training = config.training.told(on_cpu=False)
    cut = training.model_copy(update={"mesh": mesh, "micro_batches": micro_batches})
    return config.model_copy(update={"training": cut})


def check_mesh(config: TrainConfig, topology: str, mesh: MeshConfig, micro_batches: int) -> None:
    """UserError unless the mesh takes the slice's chips and cuts the batch evenly."""
    _, chips = chip_of(topology)
    if mesh.devices != chips:
        others = mesh.devices // mesh.fsdp
        best = f"fsdp={chips // others}" if chips % others == 0 else f"fsdp={chips}, all others 1"
        raise UserError(
            f"mesh {mesh.written} takes {mesh.devices} chips, {topology} has {chips}; "
            f"nearest: {best}"
        )
    try:
        config.encoder.check_mesh(mesh)
        config.language_model.check_mesh(mesh, config.data.vocabulary)
    except ValueError as error:
        raise UserError(f"--mesh {mesh.written}: {error}") from error
    parts, batch = mesh.batch_shards * micro_batches, config.training.batch_size
    if batch % parts:
        raise UserError(
            f"training.batch_size {batch} cannot be cut into {parts} parts (data × fsdp × expert × "
            f"micro_batches of mesh {mesh.written}, {micro_batches}); "
            f"nearest: {nearest_divisor(batch, parts)}"
        )


# -- one program ---------------------------------------------------------------------------------


def compile_train(
    config: TrainConfig, topology: str, mesh: MeshConfig, micro_batches: int = 1
) -> Compilation:
    """The training step of a config on a slice.

    Raises UserError where slice, mesh and batch do not go together.
    """
    config = for_accelerators(config, mesh, micro_batches)
    check_mesh(config, topology, mesh, micro_batches)
    devices = devices_of(topology)
    import jax

    from mm1_jax.model.multimodal import MultimodalModel
    from mm1_jax.scale.sharding import build_mesh
    from mm1_jax.training.loop import step_from_shapes

    on = build_mesh(mesh, devices)
    step, arguments = step_from_shapes(
        MultimodalModel(config), config.training, config.optimizer, batch_shapes(config), on
    )
    weights, moments, recent, fixed, batch, *rest = arguments
    kinds = {"weights": (weights, fixed), "moments": moments, "batch": (batch, recent, rest)}
    with jax.set_mesh(on):
        lowered = step.lower(*arguments)
    return _figures(
        "train",
        topology,
        config,
        kinds,
        lowered,
        tokens=config.training.batch_size * config.sequence_length,
        model_flops=sum(costs.flops_per_step(config).values()),
    )


def compile_generation(
    config: TrainConfig, topology: str, mesh: MeshConfig, queries_per_part: int = 1
) -> Iterator[Compilation]:
    """Reading a query of 9 images and 512 text tokens, then one token more, with a KV cache.

    `queries_per_part` queries for each part into which the mesh cuts a batch. Weights lie as in
    training, in the compute dtype.
    """
    config = for_accelerators(config, mesh, 1)
    devices = devices_of(topology)
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax.sharding import NamedSharding, PartitionSpec

    from mm1_jax.model.multimodal import MultimodalModel
    from mm1_jax.scale.sharding import BATCH, batch_sharding, build_mesh, parameter_shardings

    on = build_mesh(mesh, devices)
    queries = queries_per_part * mesh.batch_shards
    images = QUERY_IMAGES * config.view_tokens
    length = QUERY_TEXT + images
    model = MultimodalModel(config)
    dtype = jnp.dtype(config.training.compute_dtype)
    graphdef, state = nnx.split(model)
    names = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]
    leaves, tree = jax.tree.flatten(state)
    places = parameter_shardings(names, [leaf.shape for leaf in leaves], on)
    weights = [
        jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=place)
        for leaf, place in zip(leaves, places, strict=True)
    ]
    rows = batch_sharding(on)

    def of(shape: tuple[int, ...], dtype: Any, sharding: Any = rows) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    size = config.encoder.image_size
    batch = {
        "images": of((queries, QUERY_IMAGES, size, size, 3), jnp.uint8),
        "tokens": of((queries, QUERY_TEXT), jnp.int32),
        **{n: of((queries, length), jnp.int32) for n in ("gather", "segments", "positions")},
    }

    def merged(weights: Any) -> Any:
        return nnx.merge(graphdef, jax.tree.unflatten(tree, weights))

    def prefill(weights: Any, batch: Any) -> Any:
        model = merged(weights)
        decoder, x = model.language_model, model.embed(batch)
        states, cache = decoder.prefill(x, batch["positions"], batch["segments"], model.form)
        room = ((0, 0), (0, 0), (0, NEW_TOKENS), (0, 0), (0, 0))
        return decoder.logits(states[:, -1]), jax.tree.map(lambda leaf: jnp.pad(leaf, room), cache)

    def decode(weights: Any, cache: Any, tokens: Any, at: Any) -> Any:
        model = merged(weights)
        decoder = model.language_model
        x = decoder.embed(tokens[:, None], dtype)
        states, cache = decoder.extend(x, at, cache, model.form)
        return decoder.logits(states[:, 0]), cache

    lm = config.language_model
    heads = "tensor" if lm.kv_heads % mesh.tensor == 0 else None
    lies = NamedSharding(on, PartitionSpec(None, BATCH, None, heads))
    slots = (lm.layers, queries, length + NEW_TOKENS, lm.kv_heads, lm.head)
    cache = (of(slots, dtype, lies),) * 2
    row = of((queries,), jnp.int32)
    with jax.set_mesh(on):
        first = jax.jit(prefill, out_shardings=(rows, (lies, lies))).lower(weights, batch)
        more = jax.jit(decode, donate_argnums=1, out_shardings=(rows, (lies, lies)))
        second = more.lower(weights, cache, row, row)
    reading = queries * costs.query_flops(config, QUERY_IMAGES, length)
    yield _figures(
        *("prefill", topology, config, {"weights": weights, "batch": batch}, first),
        tokens=queries * length,
        model_flops=reading,
    )
    yield _figures(
        *("decode", topology, config, {"weights": weights, "cache": cache}, second),
        tokens=queries,
        model_flops=queries * costs.token_flops(config, length + NEW_TOKENS),
    )


def batch_shapes(config: TrainConfig) -> dict[str, Any]:
    """A training batch as shapes, see `MultimodalModel`."""
    import jax
    import jax.numpy as jnp

    rows, data = config.training.batch_size, config.data
    size = config.encoder.image_size
    text, whole = (rows, data.text_tokens), (rows, config.sequence_length)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "images": ((rows, config.image_slots, size, size, 3), jnp.uint8),
        "tokens": (text, jnp.int32),
        **dict.fromkeys(("gather", "segments", "positions"), (whole, jnp.int32)),
        "predictors": (text, jnp.int32),
        "loss_weights": (text, jnp.float32),
        "sources": ((rows,), jnp.int32),
    }
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def _figures(
    what: What,
    topology: str,
    config: TrainConfig,
    kinds: dict[str, Any],
    lowered: Any,
    *,
    tokens: int,
    model_flops: float,
) -> Compilation:
    from jax.errors import JaxRuntimeError

    chip, chips = chip_of(topology)
    about = Compilation(
        what=what,
        topology=topology,
        chips=chips,
        mesh=dict(config.training.mesh),
        micro_batches=config.training.micro_batches if what == "train" else 1,
        tokens_per_step=tokens,
        model_flops=model_flops,
    )
    start = time.monotonic()
    try:
        compiled, text = _compile(lowered)
    except JaxRuntimeError as error:
        missing = missing_bytes(str(error))
        if missing is None:
            raise
        return replace(
            about,
            compile_seconds=time.monotonic() - start,
            bytes_per_chip=chip.hbm_bytes + missing,
            missing_bytes=missing,
        )
    seconds = time.monotonic() - start
    stats = compiled.memory_analysis()
    memory = {kind: _bytes_on_a_chip(tree) for kind, tree in kinds.items()}
    memory |= {
        "temporaries": stats.temp_size_in_bytes,
        "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    held = replace(
        about,
        fits=True,
        compile_seconds=seconds,
        memory=memory,
        bytes_per_chip=sum(memory.values()),
    )
    return _with_roofline(held, read_program(text), chip)


def _compile(lowered: Any) -> tuple[Any, str]:
    """The compiled program, and its text as the compiler writes it.

    Not by `as_text`: JAX cannot read back programs that hand work to SparseCores (jaxlib 0.10.2,
    libtpu 0.0.52: "async-update instruction should have 1 operands").
    """
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile({"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        (file,) = Path(folder).glob("*.after_codegen.txt")
        return compiled, file.read_text(encoding="utf-8")


def _with_roofline(held: Compilation, program: Program, chip: Chip) -> Compilation:
    sent = sum(collective.sent_bytes for collective in program.collectives.values())
    compute = program.flops / chip.peak_flops
    hbm = program.hbm_bytes / chip.hbm_bandwidth
    ici = sent / chip.ici_bandwidth
    longest = max(compute, hbm, ici)
    return replace(
        held,
        compute_seconds=compute,
        hbm_seconds=hbm,
        ici_seconds=ici,
        flops_per_step=program.flops * held.chips,
        flops_per_chip=program.flops,
        hbm_bytes=program.hbm_bytes,
        collectives={kind: asdict(c) for kind, c in sorted(program.collectives.items())},
        not_counted=tuple(sorted(program.custom_calls)),
        roofline_seconds=longest,
        pessimistic_seconds=compute + hbm + ici,
        mfu_ceiling=held.model_flops / (longest * held.chips * chip.peak_flops),
    )


def _bytes_on_a_chip(tree: Any) -> int:
    import jax

    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"


def missing_bytes(message: str) -> int | None:
    """By how many bytes a program did not fit, as the compiler's error says; None if it is another.

    The error names either what is missing or the temporaries and what is left for them.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    by = re.search(rf"[Ee]xceeded hbm capacity by {_SIZE}", message)
    if by:
        return int(float(by.group(1)) * _UNITS[by.group(2)])
    over = re.search(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)", message)
    if over:
        needed, needed_unit, there, there_unit = over.groups()
        return int(float(needed) * _UNITS[needed_unit] - float(there) * _UNITS[there_unit])
    return 0


# -- the smallest slice --------------------------------------------------------------------------


@dataclass(frozen=True)
class Proposal:
    """A slice, a mesh over it, and into how many parts a batch is cut, one after another.

    bytes_per_chip is the formula's.
    """

    topology: str
    mesh: MeshConfig
    micro_batches: int
    bytes_per_chip: float

    def as_yaml(self) -> str:
        """The lines for a recipe's `training`."""
        axes = ", ".join(f"{axis}: {size}" for axis, size in self.mesh)
        return f"training:\n  micro_batches: {self.micro_batches}\n  mesh: {{{axes}}}"


def proposals(config: TrainConfig, chip: Chip) -> Iterator[Proposal]:
    """Slices on which the formula finds room, smallest first, each with the fewest micro-batches.

    All chips along `fsdp`; with experts some along `expert`, as many as need the least memory.
    """
    for topology in chip.topologies:
        chips = chip_of(topology)[1]
        for micro_batches in _powers(config.training.batch_size):
            best = min(
                (
                    Proposal(
                        topology,
                        mesh,
                        micro_batches,
                        sum(
                            costs.memory_per_chip(
                                for_accelerators(config, mesh, micro_batches)
                            ).values()
                        ),
                    )
                    for mesh in _meshes(config, chips)
                    if config.training.batch_size % (micro_batches * mesh.batch_shards) == 0
                ),
                key=lambda proposal: proposal.bytes_per_chip,
                default=None,
            )
            if best is not None and best.bytes_per_chip <= ROOM * chip.hbm_bytes:
                yield best


def _powers(most: int) -> list[int]:
    return [2**n for n in range(most.bit_length()) if 2**n <= most]


def _meshes(config: TrainConfig, chips: int) -> list[MeshConfig]:
    lm = config.language_model
    experts = lm.experts if lm.kind == "moe" else 1
    return [
        MeshConfig(fsdp=chips // n, expert=n)
        for n in range(1, min(experts, chips) + 1)
        if experts % n == 0 and chips % n == 0
    ]


def fit(
    config: TrainConfig,
    chip_name: str | None = None,
    *,
    compile_one: Callable[..., Compilation] = compile_train,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Proposal, Compilation]:
    """The smallest slice of a kind of chip that holds the training step, as compiled.

    The formula selects; at most 3 programs are compiled, and none is begun after 10 minutes. What
    does not fit is tried with more micro-batches, on the next slice, on the next kind of chip.
    UserError where the formula finds no slice; where none fitted, the last compilation, which says
    by how much.
    """
    start, last = time.monotonic(), None
    names = list(CHIPS) if chip_name is None else [chip_name]
    found = itertools.chain.from_iterable(proposals(config, CHIPS[name]) for name in names)
    for number, proposal in enumerate(found):
        if number == MOST_COMPILATIONS or time.monotonic() - start > MOST_SECONDS:
            break
        say(
            f"compiling for {proposal.topology}, mesh {proposal.mesh.written}, "
            f"{proposal.micro_batches} micro-batches: "
            f"{proposal.bytes_per_chip / 2**30:.1f} GiB a chip by formula"
        )
        last = (
            proposal,
            compile_one(config, proposal.topology, proposal.mesh, proposal.micro_batches),
        )
        if last[1].fits:
            return last
    if last is None:
        sizes = ", ".join(CHIPS[name].topologies[-1] for name in names)
        others = [name for name in CHIPS if name not in names]
        more = f"; other chips: {', '.join(others)}" if others else ""
        raise UserError(f"no slice up to {sizes} holds this config{more}")
    return last
