"""Stages that say which devices their process sees. Imported by path in workers too."""

from __future__ import annotations

import os
import time

from ablations.stage import ResultRow


def train(config, seed, inputs, context):
    """Record what is seen, and when; waits until as many as `together` are at it at once."""
    import ray

    began = time.time()
    context.record(
        {
            "sees": {
                "node": ray.get_runtime_context().get_node_id(),
                "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "threads": os.environ.get("OMP_NUM_THREADS"),
                "memory_share": os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"),
                "process": os.getpid(),
                "began": began,
            }
        }
    )
    (context.output / "config.json").write_text("{}", encoding="utf-8")
    if "together" in config:
        _meet(context.data, str(config["arm"]), config["together"])
    context.record({"ended": time.time()})
    return [ResultRow("training", "loss", 1.0)]


def _meet(folder, name, count):
    """Return once that many have come, so that they were all there at once."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("", encoding="utf-8")
    until = time.monotonic() + 300
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > until:
            raise TimeoutError(f"{count} were never there at once")
        time.sleep(0.02)
