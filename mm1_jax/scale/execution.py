"""What a stage of ours ran on, for its execution record: results are equal to the bit within it."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.resources import Shape
from mm1_jax.scale.compilation_cache import cache_variables

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "ray")
DEVICE_COUNT = "--xla_force_host_platform_device_count"
VECTORS = ("avx512f", "avx2", "avx", "sve", "asimd")  # the widest first
# Of a training: other orders of the same sums.
FORM = ("layers", "remat", "attention", "micro_batches")


def execution(config: Mapping[str, Any]) -> dict[str, Any]:
    """Devices, mesh, order of sums and libraries of a stage with this config; imports JAX."""
    import jax

    devices = jax.devices()
    training = config.get("training", {})
    mesh = training.get("mesh") or config.get("mesh")  # an evaluation's, where it is stated
    form = {name: training[name] for name in FORM if name in training}
    return {
        **({"mesh": mesh} if mesh else {}),
        **({"form": form} if form else {}),
        **(_host() if devices[0].platform == "cpu" else {}),
        "xla_flags": _flags(),
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "libraries": _versions(),
    }


def _host() -> dict[str, Any]:
    """Of the processor that computes: XLA compiles for its instructions, and cuts sums for a pool.

    The pool has a thread for each core that the process may use, unless NPROC says how many.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    said = os.environ.get("NPROC", "")
    threads = int(said) if said.isdecimal() and int(said) else cores or 1
    return {"processor": _processor(), "pool_threads": threads}


@functools.cache
def _processor() -> str:
    """Its name and its widest vectors, as far as the system says: `AMD EPYC, avx2`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {name.strip(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
    words = told.get("flags", told.get("Features", "")).split()
    widest = next((vectors for vectors in VECTORS if vectors in words), "")
    return ", ".join(filter(None, [told.get("model name", platform.machine()), widest]))


def _flags() -> str:
    """XLA's flags in force, or `none`; how many devices are simulated is told apart."""
    words = sorted(os.environ.get("XLA_FLAGS", "").split())
    return " ".join(word for word in words if DEVICE_COUNT not in word) or "none"


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def environment(shape: Shape, cache: Path | str, flags: str = "") -> dict[str, str]:
    """Variables of a process that runs stages; `flags` are XLA's so far.

    What it compiles is kept in `cache`, which many processes may share.
    """
    threads = max(1, int(shape.cpu))
    eigen = "true" if threads > 1 else "false"
    # XLA reads no further than to a word without dashes, so that one is the last.
    said = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    if shape.simulated_devices > 1:
        said = f"{DEVICE_COUNT}={shape.simulated_devices} {said}"
    return {
        "XLA_FLAGS": f"{flags} {said}".strip(),
        **({} if shape.gpu or shape.tpu else {"JAX_PLATFORMS": "cpu"}),
        **cache_variables(cache),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
