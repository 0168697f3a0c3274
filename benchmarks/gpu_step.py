"""Tokens per second and MFU of one GPU, against PyTorch with `torch.compile`, in one run.

    .venv/bin/python benchmarks/gpu_step.py [--preset 3b] [--text-tokens 2048] [--batch 8]

Trains the language model alone on full packed texts of two documents each, in bfloat16 with
float32 weights; without --preset the largest dense preset whose weights, moments and gradients take
at most 70 % of the GPU's memory. MFU is the model's FLOPs (no recomputation, all of the scores)
over what the same GPU reaches in the same run in a bfloat16 product of 8192 × 8192 matrices. The
twin in PyTorch starts from the same weights, attends by SDPA with the same mask, and must agree on
the first loss. It is trained after ours, whose memory is given back first.
Not yet run on a GPU: on a CPU (JAX_PLATFORMS=cpu, --preset mini) it shows that it works, no more.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable

# Both frameworks share the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from step_time import our_step, synthetic_batch, torch_step

from mm1_jax.config.language_model import DenseConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.scale import costs

BYTES_PER_WEIGHT = 16  # float32 weight and gradient, two moments
SHARE_OF_MEMORY = 0.7  # the rest is for activations


def stage(preset: str, text_tokens: int, batch: int, attention: str) -> LanguageModelStageConfig:
    """The language model's training as it is compared."""
    return LanguageModelStageConfig.model_validate(
        {
            "language_model": {"preset": preset},
            "vocabulary": 32000,
            "text_tokens": text_tokens,
            "training": {
                "batch_size": batch,
                "compute_dtype": "bfloat16",
                "layers": "scanned",
                "remat": "dots",
                "attention": attention,
            },
        }
    )


def largest_preset(memory_bytes: int) -> str:
    """The largest dense preset that leaves room. SystemExit where none does."""
    sizes = {
        name: BYTES_PER_WEIGHT * DenseConfig.model_validate({"preset": name}).parameters()
        for name in DenseConfig.presets
    }
    fitting = [name for name, size in sizes.items() if size <= SHARE_OF_MEMORY * memory_bytes]
    if not fitting:
        raise SystemExit(f"no preset fits into {memory_bytes / 2**30:.0f} GiB")
    return max(fitting, key=sizes.__getitem__)


def matmul_peak(side: int) -> float:
    """FLOP/s of the best of ten bfloat16 products of square matrices."""
    x = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def seconds(step: Callable[[], float], count: int) -> float:
    """The median time of a step, which ends when its loss is read."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure ours, then the twin, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", choices=sorted(DenseConfig.presets))
    parser.add_argument("--text-tokens", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    (device, *_) = jax.devices()
    on_gpu = device.platform == "gpu"
    memory = (device.memory_stats() or {}).get("bytes_limit", 2**34)
    preset = arguments.preset or largest_preset(memory)
    config = stage(preset, arguments.text_tokens, arguments.batch, "fused" if on_gpu else "plain")
    batch = synthetic_batch(config)
    tokens = config.text_tokens * config.training.batch_size
    flops = costs.language_model_stage_flops(config)
    peak = matmul_peak(8192 if on_gpu else 1024)
    print(f"{device.device_kind}: {peak / 1e12:.1f} TFLOP/s in a bfloat16 product")

    step, weights = our_step(config, batch)
    size = sum(weight.size for weight in weights.values())
    print(f"{preset}: {size:,} weights, {tokens:,} tokens a step, {flops / 1e12:.1f} TFLOP")
    first = step()
    ours = seconds(step, arguments.steps)
    print(f"JAX      {tokens / ours:10,.0f} tokens/s  MFU {100 * flops / (ours * peak):5.1f} %")
    del step
    gc.collect()
    jax.clear_caches()
    try:
        twin = torch_step(config, batch, weights, device="cuda" if on_gpu else "cpu", compiled=True)
    except ModuleNotFoundError:
        print("PyTorch is not installed (make reference): no ratio")
        return
    theirs_first = twin()
    if not np.isclose(first, theirs_first, rtol=1e-2):
        raise SystemExit(f"first loss: JAX {first:.4f}, PyTorch {theirs_first:.4f}")
    theirs = seconds(twin, arguments.steps)
    print(f"PyTorch  {tokens / theirs:10,.0f} tokens/s  MFU {100 * flops / (theirs * peak):5.1f} %")
    print(f"ratio of tokens per second JAX / PyTorch {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
