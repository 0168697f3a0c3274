"""Tokens per second of generation with a cache, against `transformers`, one core, in one run.

    .venv/bin/python benchmarks/generation_speed.py [--shape mini 9m] [--batch 1 16] [--rounds 3]

Random Llama-like weights of a preset's shape are written as `mm1 weights export` writes them and
loaded by `transformers`. Both continue the same prompts greedily and ignore end tokens; the run
ends with an error if their tokens differ. Compilation is not counted, the prompt is.
"""

from __future__ import annotations

import os

# One thread each, as in a worker; in force before XLA starts.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from mm1_jax.config.language_model import DenseConfig
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.initialisation import initialise
from mm1_jax.scale.freed_memory import keep_freed_memory
from mm1_jax.weights.decoder_weights import decoder_names, stated_decoder
from mm1_jax.weights.safetensors_folder import write_folder

VOCABULARY = 8192
PROMPT, NEW = 64, 128  # tokens


def ours(decoder: Decoder, prompts: np.ndarray) -> Callable[[], np.ndarray]:
    """A function that gives the new tokens int32 [batch, NEW]."""
    from mm1_jax.model.generation import generate_text
    from mm1_jax.model.layers import UNROLLED

    lengths = np.full(len(prompts), PROMPT, np.int32)
    return lambda: np.asarray(
        generate_text(decoder, prompts, lengths, NEW, form=UNROLLED, ends=())[0]
    )


def theirs(folder: Path, prompts: np.ndarray) -> Callable[[], np.ndarray]:
    """The same by `transformers`."""
    torch: Any = importlib.import_module("torch")  # optional: absent from the environment
    transformers: Any = importlib.import_module("transformers")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    ids = torch.from_numpy(prompts).long()
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}

    def generate() -> np.ndarray:
        with torch.inference_mode():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return whole[:, PROMPT:].numpy().astype(np.int32)

    return generate


def compare(shape: str, batch: int, rounds: int) -> None:
    """Print both speeds. Raises `SystemExit` where the tokens differ."""
    config = DenseConfig.model_validate(
        {"preset": shape, "scaled_embeddings": False, "tied_embeddings": False}
    )
    decoder = initialise(Decoder(config, VOCABULARY), 0)
    tree = nnx.to_pure_dict(nnx.state(decoder))
    prompts = np.random.default_rng(0).integers(2, VOCABULARY, (batch, PROMPT)).astype(np.int32)
    with tempfile.TemporaryDirectory() as folder:
        tensors = decoder_names(config).write(tree, Decoder(config, VOCABULARY), {})
        write_folder(Path(folder), stated_decoder(config, VOCABULARY), tensors)
        other = theirs(Path(folder), prompts)
    own = ours(decoder, prompts)
    mine, reference = own(), other()
    if not np.array_equal(mine, reference):
        rows = int((mine != reference).any(axis=1).sum())
        raise SystemExit(f"{shape}, batch {batch}: {rows} rows have other tokens")
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, generate in (("ours", own), ("theirs", other)):
            start = time.process_time()
            generate()
            seconds[name].append(time.process_time() - start)
    speed = {name: batch * NEW / statistics.median(times) for name, times in seconds.items()}
    size = sum(tensor.size for tensor in tensors.values())
    print(
        f"{shape:<6}{size / 1e6:6.1f} M  batch {batch:>3}  JAX {speed['ours']:9.0f}  transformers "
        f"{speed['theirs']:9.0f} tokens/s  ratio {speed['ours'] / speed['theirs']:5.2f}",
        flush=True,
    )


def main() -> None:
    """Every shape with every batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", nargs="+", default=["mini", "9m"], help="decoder presets")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    keep_freed_memory()
    print(f"prompts of {PROMPT} tokens, {NEW} new ones, equal tokens; seconds of the processor")
    for shape in arguments.shape:
        for batch in arguments.batch:
            compare(shape, batch, arguments.rounds)


if __name__ == "__main__":
    main()
