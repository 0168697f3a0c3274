"""A worker: one process with one core that runs stage after stage and keeps what it compiled.

JAX is imported by the stages themselves, so only here, and after `environment` is in force.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import os
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray

from ablations.stages import Stage, stage_code
from mm1_jax.compilation_cache import cache_variables
from mm1_jax.errors import UserError, nearest
from mm1_jax.stage import ResultRow, Run, StageStopped
from sweeps import leases
from sweeps.objects import is_disk_full
from sweeps.store import Attempt, Status, Store

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "NPROC",  # XLA's own pools
)
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "ray")


def environment(cache: Path) -> dict[str, str]:
    """Variables of a worker's process: one thread, and a compilation cache that all share."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {
        **dict.fromkeys(THREAD_VARIABLES, "1"),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        **cache_variables(cache),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


@dataclass(frozen=True)
class Outcome:
    """What came of asking for a stage."""

    stage: str
    state: Literal["done", "failed", "stopped", "elsewhere", "disk full"]
    seconds: float = 0.0  # of this run; 0 if the result was there already
    error: str = ""  # one line
    again: bool = True  # whether another try may help


class StageContext:
    """The `mm1_jax.stage.Context` of a stage that a worker runs."""

    def __init__(
        self, store: Store, attempt: Attempt, data: Path, stop: threading.Event, lease: leases.Lease
    ):
        self.scratch = store.scratch(attempt.stage.id)
        self.output = attempt.output
        self.data = data
        self.facts: dict[str, Any] = {}
        self._stop, self._lease = stop, lease
        self.scratch.mkdir(parents=True, exist_ok=True)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line that `Store.progress` reads."""
        values = {name: float(value) for name, value in metrics.items()}
        line = json.dumps({"step": int(step), "time": time.time(), **values})
        with open(self.scratch / "reports.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def record(self, facts: Mapping[str, Any]) -> None:
        """Keep facts for the execution record."""
        self.facts |= facts

    def stop_requested(self) -> bool:
        """Whether the run is ending, or somebody took this stage over."""
        return self._stop.is_set() or self._lease.lost


def execute(
    store: Store, stage: Stage, data: Path, stop: threading.Event, git_revision: str
) -> Outcome:
    """Run one stage and put its results into the store; whatever happens is in the outcome."""
    if store.is_done(stage.id):
        return Outcome(stage.id, "done")
    lease = leases.acquire(store.objects, store.lease_folder(stage.id))
    if lease is None:
        return Outcome(stage.id, "elsewhere")
    try:
        if store.is_done(stage.id):  # while we were asking
            return Outcome(stage.id, "done")
        return _attempt(store, stage, data, stop, git_revision, lease)
    except (OSError, UserError) as error:
        if is_disk_full(error):
            return Outcome(stage.id, "disk full", error=_line(error))
        raise
    finally:
        if store.is_done(stage.id):
            lease.remove()
        else:
            lease.release()


def _attempt(
    store: Store,
    stage: Stage,
    data: Path,
    stop: threading.Event,
    git_revision: str,
    lease: leases.Lease,
) -> Outcome:
    attempt = store.begin(stage)
    started, clock = time.time(), time.perf_counter()
    try:
        context = StageContext(store, attempt, data, stop, lease)
        run = resolve(stage.run)
        if stage_code(stage.kind, stage.run) != stage.code_fingerprint:
            raise UserError("the code here is not what the study was planned with; plan it anew")
        inputs = {name: store.stage_folder(source) for name, source in stage.inputs.items()}
        rows = run(stage.config, stage.seed, inputs, context)
        seconds = time.perf_counter() - clock
        execution = {
            **_execution_class(stage.config),
            **context.facts,
            "host": socket.gethostname(),
            "git_revision": git_revision,
            "started_at": started,
            "seconds": seconds,
        }
        store.finish(attempt, rows, execution, _status(store, stage, rows))
        return Outcome(stage.id, "done", seconds)
    except StageStopped:
        store.discard(attempt)
        return Outcome(stage.id, "stopped")
    except Exception as error:
        if is_disk_full(error):
            store.discard(attempt)
            return Outcome(stage.id, "disk full", error=_line(error))
        seconds = time.perf_counter() - clock
        failure = {
            "error": _line(error),
            "traceback": traceback.format_exc(),
            "host": socket.gethostname(),
            "seconds": seconds,
        }
        store.fail(attempt, failure)
        mistake = isinstance(error, UserError)  # the same again would only fail again
        return Outcome(stage.id, "failed", seconds, _line(error), again=not mistake)


def resolve(path: str) -> Run:
    """The function that an import path `package.module:function` names.

    Raises:
        UserError: there is no such module or function.
    """
    module_name, _, function = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"cannot import {path!r}: {error}") from error
    try:
        return getattr(module, function)
    except AttributeError:
        raise UserError(
            f"{module_name} has no {function!r}{nearest(function, vars(module))}"
        ) from None


def _status(store: Store, stage: Stage, rows: Sequence[ResultRow]) -> Status:
    """A stage says that it diverged by a row `diverged`; what takes input from it did so too."""
    if any(row.metric == "diverged" and row.value for row in rows):
        return "diverged"
    if any(store.status(source) == "diverged" for source in stage.inputs.values()):
        return "diverged"
    return "ok"


# Of a training: other orders of the same sums.
FORM = ("layers", "remat", "attention", "micro_batches")


def _execution_class(config: Mapping[str, Any]) -> dict[str, Any]:
    """What bitwise equality is promised within."""
    devices = sys.modules["jax"].devices() if "jax" in sys.modules else []
    training = config.get("training", {})
    mesh = training.get("mesh") or config.get("mesh")  # an evaluation's, where it is stated
    form = {name: training[name] for name in FORM if name in training}
    return {
        **({"mesh": mesh} if mesh else {}),
        **({"form": form} if form else {}),
        "device_kind": devices[0].device_kind if devices else "cpu",
        "device_count": len(devices) or 1,
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": _versions(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


class Worker:
    """The Ray actor around `execute`; `stop` is answered while a stage runs."""

    def __init__(self, store: str, data: str, git_revision: str):
        self._store = Store(store)
        self._data = Path(data)
        self._git_revision = git_revision
        self._stop = threading.Event()

    def run(self, stage: Stage) -> Outcome:
        """Run one stage."""
        return execute(self._store, stage, self._data, self._stop, self._git_revision)

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Ask the running stage to save itself and stop."""
        self._stop.set()
