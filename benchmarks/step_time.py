"""Time of one training step on one core, against the same model in PyTorch eager, in one run.

    .venv/bin/python benchmarks/step_time.py [--recipe FILE] [--connector KIND] [--steps 40]

PyTorch is optional: without it only our time is printed. The twin starts from the same weights;
the run ends with an error if its loss or its number of parameters differs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mm1_jax.config import TrainConfig, VisionTransformerConfig
from mm1_jax.freed_memory import keep_freed_memory

RATE = 1e-3
TWINS = ("average_pooling", "mlp", "c_abstractor")  # connectors that are written in PyTorch below


def synthetic_batch(config: TrainConfig) -> dict[str, np.ndarray]:
    """A full batch: each sequence holds I documents of one image and T / I text tokens."""
    from mm1_jax.data.packing import Packed, lay_out

    draws = np.random.default_rng(0)
    text, images = config.data.text_tokens, config.data.images
    share = text // images
    segments = np.minimum(np.arange(text) // share, images - 1).astype(np.int32) + 1
    rows = [
        Packed(
            tokens=draws.integers(2, config.data.vocabulary, text).astype(np.int32),
            segments=segments,
            image_ids=np.arange(images, dtype=np.int32),
            image_at=np.arange(images, dtype=np.int32) * share,
            image_segments=np.arange(images, dtype=np.int32) + 1,
        )
        for _ in range(config.training.batch_size)
    ]
    batch = lay_out(rows, config.image_tokens, config.sequence_length)
    size = config.encoder.image_size
    shape = (config.training.batch_size, images, size, size, 3)
    batch["images"] = draws.integers(0, 256, shape).astype(np.uint8)
    return batch


def our_step(
    config: TrainConfig, batch: dict[str, np.ndarray]
) -> tuple[Callable[[], float], dict[str, np.ndarray]]:
    """A function that trains one step and returns the loss before it, and the first weights."""
    from flax import nnx

    from mm1_jax.initialisation import initialise
    from mm1_jax.model import MultimodalModel
    from mm1_jax.training import Trainer

    model = initialise(MultimodalModel(config), 0)
    trainer = Trainer(model, config.training, config.optimizer, seed=0)
    flat = nnx.to_flat_state(nnx.state(trainer.model()))
    weights = {"/".join(map(str, path)): np.array(leaf.get_value()) for path, leaf in flat}
    return lambda: float(trainer.step(batch, RATE, 1)["loss"]), weights


def torch_step(
    config: TrainConfig, batch: dict[str, np.ndarray], first: dict[str, np.ndarray]
) -> Callable[[], float]:
    """The same training step in PyTorch eager, from the same weights."""
    torch: Any = importlib.import_module("torch")  # optional: absent from the environment
    F = torch.nn.functional
    torch.set_num_threads(1)
    weights: dict[str, Any] = {}
    for name, value in first.items():
        layers = list(value) if "/blocks/" in name else [value]
        for layer, part in enumerate(layers):
            # torch keeps a linear layer's weight as [out, in].
            array = part.T if name.endswith("/kernel") else part
            key = name.replace("/blocks/", f"/{layer}/")
            weights[key] = torch.nn.Parameter(torch.tensor(np.ascontiguousarray(array)))
    decayed = [w for name, w in weights.items() if not name.endswith(("/bias", "/scale"))]
    others = [w for name, w in weights.items() if name.endswith(("/bias", "/scale"))]
    o = config.optimizer
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=RATE,
        betas=(o.b1, o.b2),
        eps=o.eps,
        weight_decay=o.weight_decay,
    )
    arrays = {name: torch.from_numpy(value) for name, value in batch.items()}
    encoder, lm = config.encoder, config.language_model
    assert isinstance(encoder, VisionTransformerConfig)
    rows = len(batch["tokens"])
    head = lm.width // lm.heads

    def dense(x: Any, name: str) -> Any:
        return F.linear(x, weights[f"{name}/kernel"], weights.get(f"{name}/bias"))

    def layer_norm(x: Any, name: str) -> Any:
        return F.layer_norm(
            x, x.shape[-1:], weights[f"{name}/scale"], weights[f"{name}/bias"], 1e-6
        )

    def rms_norm(x: Any, name: str) -> Any:
        return F.rms_norm(x, x.shape[-1:], weights[f"{name}/scale"], 1e-6)

    def encode(images: Any) -> Any:
        n, patch, grid = len(images), encoder.patch_size, encoder.grid
        x = images.float() / 127.5 - 1
        x = x.reshape(n, grid, patch, grid, patch, 3).permute(0, 1, 3, 2, 4, 5)
        x = dense(x.reshape(n, grid * grid, -1), "encoder/patch_embedding")
        x = x + weights["encoder/positions"]
        for layer in range(encoder.layers):
            at = f"encoder/{layer}"
            qkv = dense(layer_norm(x, f"{at}/attention_norm"), f"{at}/qkv")
            q, k, v = qkv.reshape(n, grid * grid, 3, encoder.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
            x = x + dense(mixed, f"{at}/attention_out")
            hidden = F.gelu(
                dense(layer_norm(x, f"{at}/mlp_norm"), f"{at}/mlp_in"), approximate="tanh"
            )
            x = x + dense(hidden, f"{at}/mlp_out")
        return layer_norm(x, "encoder/norm")

    def to_grid(x: Any) -> Any:
        side = round(x.shape[1] ** 0.5)
        return x.transpose(1, 2).reshape(len(x), -1, side, side)

    def pool(x: Any) -> Any:
        side = round(config.image_tokens**0.5)
        return F.adaptive_avg_pool2d(to_grid(x), side).flatten(2).transpose(1, 2)

    def regnet(x: Any, at: str) -> Any:
        y = F.silu(layer_norm(dense(x, f"{at}/conv_in"), f"{at}/norm_in"))
        kernel = weights[f"{at}/depthwise"].permute(2, 0, 1)[:, None]
        y = F.conv2d(to_grid(y), kernel, padding=1, groups=len(kernel)).flatten(2).transpose(1, 2)
        y = F.silu(layer_norm(y, f"{at}/norm_depthwise"))
        gate = dense(F.silu(dense(y.mean(1, keepdim=True), f"{at}/squeeze")), f"{at}/excite")
        y = layer_norm(dense(y * gate.sigmoid(), f"{at}/conv_out"), f"{at}/norm_out")
        if f"{at}/shortcut/kernel" in weights:
            x = layer_norm(dense(x, f"{at}/shortcut"), f"{at}/shortcut_norm")
        return F.silu(x + y)

    def connect(features: Any) -> Any:
        connector = config.connector
        if connector.kind == "average_pooling":
            return dense(pool(features), "connector/projection")
        if connector.kind == "mlp":
            hidden = F.gelu(dense(features, "connector/readout_in"))
            return dense(hidden, "connector/readout_out")
        assert connector.kind == "c_abstractor"
        x = features + weights["connector/positions"]
        for block in range(connector.depth):
            x = regnet(x, f"connector/before/{block}")
        x = pool(x)
        for block in range(connector.depth):
            x = regnet(x, f"connector/after/{block}")
        return dense(F.silu(dense(x, "connector/readout_in")), "connector/readout_out")

    def rotate(x: Any, cos: Any, sin: Any) -> Any:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def decode(x: Any) -> Any:
        count = x.shape[1]
        powers = -torch.arange(0, head, 2, dtype=torch.float32) / head
        angles = arrays["positions"][..., None].float() * lm.rope_theta**powers
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        segments = arrays["segments"]
        mask = segments[:, :, None] == segments[:, None, :]
        mask = (mask & torch.ones(count, count, dtype=torch.bool).tril())[:, None]
        for layer in range(lm.layers):
            at = f"language_model/{layer}"
            qkv = dense(rms_norm(x, f"{at}/attention_norm"), f"{at}/qkv")
            qkv = qkv.reshape(rows, count, -1, head).transpose(1, 2)
            q, k, v = qkv.split([lm.heads, lm.kv_heads, lm.kv_heads], dim=1)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
            x = x + dense(mixed.transpose(1, 2).reshape(x.shape), f"{at}/attention_out")
            gate, up = dense(rms_norm(x, f"{at}/mlp_norm"), f"{at}/gate_up").chunk(2, dim=-1)
            x = x + dense(F.silu(gate) * up, f"{at}/down")
        return rms_norm(x, "language_model/norm")

    def take(x: Any, index: Any) -> Any:
        return x.gather(1, index.long()[..., None].expand(-1, -1, x.shape[-1]))

    def loss_of() -> Any:
        table = weights["language_model/embedding"]
        image_tokens = connect(encode(arrays["images"].flatten(0, 1))).reshape(rows, -1, lm.width)
        text = F.embedding(arrays["tokens"].long(), table) * lm.width**0.5
        states = decode(take(torch.cat([text, image_tokens], dim=1), arrays["gather"]))
        logits = F.linear(take(states, arrays["predictors"]), table)
        losses = F.cross_entropy(
            logits.flatten(0, 1), arrays["tokens"].long().flatten(), reduction="none"
        )
        per_token = arrays["loss_weights"].flatten()
        return (losses * per_token).sum() / per_token.sum()

    def step() -> float:
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), o.clip_norm)
        optimizer.step()
        return loss.item()

    ours = sum(value.size for value in first.values())
    theirs = sum(weight.numel() for weight in weights.values())
    if ours != theirs:
        raise SystemExit(f"the twin has {theirs} parameters, the model {ours}")
    return step


def milliseconds(step: Callable[[], float], count: int) -> list[float]:
    """Wall time of each of `count` steps."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Measure in alternating rounds, so that other load hits both alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", help="YAML; default: the mini model")
    parser.add_argument("--connector", choices=TWINS, help="in the place of the recipe's")
    parser.add_argument("--steps", type=int, default=40, help="steps of each, in 4 rounds")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    keep_freed_memory()
    config = TrainConfig()
    if arguments.recipe:
        from ablations.study import load_recipe

        config = load_recipe(arguments.recipe).train_config()
    if arguments.connector:
        config = TrainConfig.model_validate(
            {**dict(config), "connector": {"kind": arguments.connector}}
        )
    if config.connector.kind not in TWINS or config.training.freeze:
        kinds = ", ".join(TWINS)
        raise SystemExit(f"the PyTorch twin trains everything; its connectors: {kinds}")
    batch = synthetic_batch(config)
    step, weights = our_step(config, batch)
    start = time.perf_counter()
    first_loss = step()
    compiling = time.perf_counter() - start
    size = sum(weight.size for weight in weights.values())
    print(
        f"{size:,} parameters, one core; first loss {first_loss:.6f}; compiled in {compiling:.1f} s"
    )
    try:
        twin = torch_step(config, batch, weights)
    except ModuleNotFoundError:
        ours = milliseconds(step, arguments.steps)
        print(f"JAX            {statistics.median(ours):8.1f} ms a step")
        print("PyTorch is not installed (dependency group torch): no ratio")
        return
    twin_loss = twin()
    if abs(twin_loss - first_loss) > 1e-4:
        raise SystemExit(f"the twin's first loss is {twin_loss:.6f}")
    ours, theirs = [], []
    for _ in range(4):
        ours += milliseconds(step, arguments.steps // 4)
        theirs += milliseconds(twin, arguments.steps // 4)
    final, twin_final = step(), twin()
    print(f"loss after {arguments.steps + 1} steps: JAX {final:.4f}, PyTorch {twin_final:.4f}")
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"JAX            {a:8.1f} ms a step")
    print(f"PyTorch eager  {b:8.1f} ms a step")
    print(f"ratio JAX / PyTorch {a / b:.2f}")


if __name__ == "__main__":
    main()
