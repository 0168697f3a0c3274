"""Seconds from the start of a process to the end of its first training step.

    .venv/bin/python benchmarks/start_up.py [--recipe FILE] [--data FOLDER] [--times 5]

Each time a new process with a worker's environment trains one step through the same door as a
worker (`mm1_jax.runner:train`): the first with an empty compilation cache, the others with what
that one left, compiled Python among it. Where the seconds go is printed beside them, and the
seconds of the processor in all, which other load on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOAL_SECONDS = 5.0
PHASES = ("python", "imports", "data", "initial weights", "trace", "compile or load", "rest")
# What JAX calls them → our phase.
JAX_DURATIONS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "trace",
    "/jax/core/compile/backend_compile_duration": "compile or load",
}


class FirstStep:
    """A `ablations.stage.Context` that ends the process after the first report."""

    def __init__(self, folder: Path, data: Path, done: Callable[[], None]):
        self.output, self.scratch, self.data = folder / "output", folder / "scratch", data
        self.gang = None
        self.output.mkdir()
        self.scratch.mkdir()
        self._done = done

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """The step's numbers are there, so it is over."""
        self._done()

    def record(self, facts: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def stop_requested(self) -> bool:
        """Never gets that far."""
        return True


def train_one_step(started: float, config: Mapping[str, Any], data: Path) -> None:
    """In the new process: print the seconds of each phase as JSON, and end.

    `started` is the wall-clock time at which the process was asked for.
    """
    seconds: dict[str, float] = defaultdict(float, python=time.time() - started)
    at = time.perf_counter()
    import jax

    from mm1_jax import runner
    from mm1_jax.training import multimodal_training

    training: Any = multimodal_training  # whose functions are replaced by timed ones
    seconds["imports"] = time.perf_counter() - at

    this_thread = threading.get_ident()
    inside: list[str] = []  # phases under way, which count what JAX does inside them

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event in JAX_DURATIONS and threading.get_ident() == this_thread and not inside:
            seconds[JAX_DURATIONS[event]] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)

    def timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            at = time.perf_counter()
            inside.append(phase)
            try:
                return function(*arguments)
            finally:
                inside.pop()
                seconds[phase] += time.perf_counter() - at

        return call

    def timed_batches(*arguments: Any) -> Any:
        stream = iter(timed("data", original)(*arguments))
        while True:
            yield timed("data", next)(stream)

    original = training.batches
    training.batches = timed_batches
    training.initialise = timed("initial weights", training.initialise)

    def done() -> None:
        seconds["total"] = time.time() - started
        seconds["processor"] = time.process_time()
        seconds["rest"] = seconds["total"] - sum(seconds[phase] for phase in PHASES[:-1])
        print(json.dumps(seconds), flush=True)
        os._exit(0)

    with tempfile.TemporaryDirectory() as folder:
        runner.train(config, 0, {}, FirstStep(Path(folder), data, done))


def measure(config: Mapping[str, Any], data: Path, cache: Path) -> dict[str, float]:
    """The seconds of a new process, by phase."""
    from ablations.resources import Shape
    from mm1_jax.scale.execution import environment

    variables = {**os.environ, **environment(Shape(), cache)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, __file__, "--child", json.dumps(config), "--data", str(data)]
    ended = subprocess.run(
        [*command, "--started", str(time.time())],
        env=variables,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return json.loads(ended.stdout)


def main() -> None:
    """Once cold, then warm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default=str(ROOT / "ablations" / "recipes" / "mini.yaml"))
    parser.add_argument("--data", type=Path, default=Path(".mm1/data"), help="prepared data")
    parser.add_argument("--times", type=int, default=5, help="warm starts")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        train_one_step(arguments.started, json.loads(arguments.child), arguments.data)
        return
    from mm1.local import prepare_data
    from mm1_jax.workload import load_recipe

    config = load_recipe(arguments.recipe).train_config()
    prepare_data([config.data], arguments.data)
    dump = config.model_dump(mode="json")
    dump["training"] |= {"log_every": 1}
    with tempfile.TemporaryDirectory() as folder:
        cold = measure(dump, arguments.data, Path(folder))
        warm = [measure(dump, arguments.data, Path(folder)) for _ in range(arguments.times)]
    typical = {phase: statistics.median(one[phase] for one in warm) for phase in warm[0]}
    print(f"{'seconds':<18}{'cold':>8}{'warm':>8}   (median of {len(warm)})")
    for phase in (*PHASES, "total", "processor"):
        print(f"{phase:<18}{cold[phase]:8.2f}{typical[phase]:8.2f}")
    totals = ", ".join(f"{one['total']:.2f}" for one in warm)
    met = "met" if typical["total"] <= GOAL_SECONDS else "missed"
    print(f"warm starts: {totals}; goal of {GOAL_SECONDS:.0f} s {met}")


if __name__ == "__main__":
    main()
