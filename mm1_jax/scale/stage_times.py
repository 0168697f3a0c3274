"""Where the time of a stage goes: imports and compilation apart from the work itself.

A worker imports and compiles for the first stage of a kind and not for those that follow, so with
these in it two equal trials look unequal. What is measured goes into the execution record.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablations.stage import Context, ResultRow, Run
from ablations.timeline import did, doing
from mm1_jax.scale import processes
from mm1_jax.scale.execution import execution

# What JAX calls tracing, lowering, and compiling or loading what was compiled.
_DURATIONS = frozenset(
    f"/jax/core/compile/{name}"
    for name in (
        "jaxpr_trace_duration",
        "jaxpr_to_mlir_module_duration",
        "backend_compile_duration",
    )
)


class Intervals:
    """Seconds in which at least one of several things went on; they may nest and overlap."""

    def __init__(self) -> None:
        self._apart: list[tuple[float, float]] = []  # in their order; none touches another
        self._lock = threading.Lock()

    def add(self, start: float, end: float) -> None:
        """Something went on from `start` to `end`, mostly after all that is known."""
        with self._lock:
            later: list[tuple[float, float]] = []
            while self._apart and self._apart[-1][1] >= start:
                other = self._apart.pop()
                if other[0] > end:
                    later.append(other)
                else:
                    start, end = min(start, other[0]), max(end, other[1])
            self._apart += [(start, end), *reversed(later)]

    def seconds(self) -> float:
        """Of all so far."""
        with self._lock:
            return sum(end - start for start, end in self._apart)


_compiling: Intervals | None = None  # of this process, since the first stage


def _compilation() -> Intervals:
    """Listen to JAX from the first call on."""
    global _compiling
    if _compiling is None:
        import jax.monitoring

        _compiling = intervals = Intervals()

        def listen(event: str, duration_secs: float, **_: object) -> None:
            if event in _DURATIONS:
                now = time.perf_counter()
                intervals.add(now - duration_secs, now)
                did("compile", duration_secs)

        jax.monitoring.register_event_duration_secs_listener(listen)
    return _compiling


def timed(module: str) -> Callable[[Run], Run]:
    """Decorate what runs a stage: `module` is imported first, and the context is told seconds.

    `import_seconds` and `compilation_seconds` come into the execution record of what succeeds,
    with what it ran on.
    """

    def decorate(run: Run) -> Run:
        @functools.wraps(run)
        def timed_run(
            config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
        ) -> list[ResultRow]:
            started = time.perf_counter()
            with doing("start"):
                if context.gang is not None:
                    processes.join(context.gang)
                importlib.import_module(module)
                compiling = _compilation()
            imported, before = time.perf_counter(), compiling.seconds()
            rows = run(config, seed, inputs, context)
            context.record(
                {
                    **execution(config),
                    "import_seconds": imported - started,
                    "compilation_seconds": compiling.seconds() - before,
                }
            )
            return rows

        return timed_run

    return decorate
