"""Time of one training step on one core, against the same model in PyTorch eager, in one run.

    .venv/bin/python benchmarks/step_time.py [--model NAME ...] [--connector KIND] [--steps 40]
    .venv/bin/python benchmarks/step_time.py --recipe FILE

Without --model all of these, one after another:

    mini            the mini recipe's encoder, connector and decoder
    vit_small_mini  that encoder (64 px, 64 patches), 16 tokens per image, a decoder of width 128
    language_model  the mini decoder alone on packed texts of 256 tokens
    mini_moe        the mini model with four experts in every second layer; in PyTorch each expert
                    takes its own tokens by index, one expert after another

PyTorch is optional: without it only our time is printed. The twin starts from the same weights;
the run ends with an error if its loss, at first or at last, or its number of parameters differs.
Times are of the processor, which on an idle core are those of the clock.
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

from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.scale.freed_memory import keep_freed_memory

RATE = 1e-3
ROUNDS = 8
TWINS = ("average_pooling", "mlp", "c_abstractor")  # connectors that are written in PyTorch below
WIDTH_128 = {"width": 128, "layers": 4, "heads": 4, "kv_heads": 2, "mlp_width": 384}
MODELS: dict[str, dict[str, Any]] = {
    "mini": {},
    "vit_small_mini": {
        "encoder": {"preset": "vit_small_mini"},
        "connector": {"kind": "average_pooling", "tokens": 16},
        "language_model": WIDTH_128,
    },
    "language_model": {},
    "mini_moe": {"language_model": {"kind": "moe", "preset": "mini_moe"}},
}
Config = TrainConfig | LanguageModelStageConfig


def synthetic_batch(config: Config) -> dict[str, np.ndarray]:
    """A full batch: each sequence holds I documents of one image and T / I text tokens.

    For a language model alone the documents are two, without images.
    """
    from mm1_jax.data.batches.packing import Packed, lay_out, lay_out_texts

    draws = np.random.default_rng(0)
    alone = isinstance(config, LanguageModelStageConfig)
    text, images = config.data.text_tokens, 2 if alone else config.data.images
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
    if isinstance(config, LanguageModelStageConfig):
        return lay_out_texts(rows)
    batch = lay_out(rows, config.image_tokens, config.sequence_length)
    size = config.encoder.image_size
    shape = (config.training.batch_size, images, size, size, 3)
    batch["images"] = draws.integers(0, 256, shape).astype(np.uint8)
    return batch


def our_step(
    config: Config, batch: dict[str, np.ndarray]
) -> tuple[Callable[[], float], dict[str, np.ndarray]]:
    """A function that trains one step and returns the loss before it, and the first weights.

    Weights by path, those of a stack layer by layer: `language_model/0/qkv/kernel`.
    """
    from flax import nnx

    from mm1_jax.model.initialisation import initialise
    from mm1_jax.model.language_model import LanguageModel
    from mm1_jax.model.multimodal import MultimodalModel
    from mm1_jax.training.loop import Trainer

    if isinstance(config, LanguageModelStageConfig):
        model = initialise(LanguageModel(config), 0)
    else:
        model = initialise(MultimodalModel(config), 0)
    weights: dict[str, np.ndarray] = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        name, values = "/".join(map(str, path)), np.array(variable.get_value())
        if variable.layers is None:
            weights[name] = values
            continue
        start, _, rest = name.replace("expert_blocks", "blocks").partition("/blocks/")
        for layer, own in zip(variable.layers, values, strict=True):
            weights[f"{start}/{layer}/{rest}"] = own
    trainer = Trainer(model, config.training, config.optimizer, seed=0)
    return lambda: float(trainer.step(batch, RATE, 1)["loss"]), weights


def torch_step(
    config: Config,
    batch: dict[str, np.ndarray],
    first: dict[str, np.ndarray],
    *,
    device: str = "cpu",
    compiled: bool = False,
) -> Callable[[], float]:
    """The same training step in PyTorch, from the same weights, eager or by `torch.compile`.

    Weights in float32, products in the config's compute dtype; on CPU with one thread.
    """
    torch: Any = importlib.import_module("torch")  # optional: absent from the environment
    F = torch.nn.functional
    if device == "cpu":
        torch.set_num_threads(1)
    dtype = getattr(torch, config.training.compute_dtype)
    weights: dict[str, Any] = {}
    for name, value in first.items():
        # torch keeps a linear layer's weight as [out, in], each expert's too.
        if name.endswith("/experts/gate_up"):
            value = value.reshape(*value.shape[:2], -1)
        is_linear = name.endswith(("/kernel", "/experts/gate_up", "/experts/down"))
        array = value.swapaxes(-1, -2) if is_linear else value
        weights[name] = torch.nn.Parameter(torch.tensor(np.ascontiguousarray(array), device=device))
    decayed = [w for name, w in weights.items() if not name.endswith(("/bias", "/scale"))]
    others = [w for name, w in weights.items() if name.endswith(("/bias", "/scale"))]
    o = config.optimizer
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=RATE,
        betas=(o.b1, o.b2),
        eps=o.eps,
        weight_decay=o.weight_decay,
        fused=device != "cpu",
    )
    arrays = {name: torch.from_numpy(value).to(device) for name, value in batch.items()}
    lm = config.language_model
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
        assert isinstance(config, TrainConfig)
        encoder = config.encoder
        assert isinstance(encoder, VisionTransformerConfig)
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
        assert isinstance(config, TrainConfig)
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
        assert isinstance(config, TrainConfig)
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

    def through_experts(x: Any, at: str) -> tuple[Any, Any]:
        """What the chosen experts add, and the layer's auxiliary losses; no token is padding."""
        assert lm.kind == "moe"
        tokens = x.reshape(-1, x.shape[-1])
        logits = tokens @ weights[f"{at}/router"]
        shares = logits.softmax(-1)
        gates, choices = shares.topk(lm.top_k)
        gates = gates / gates.sum(-1, keepdim=True)
        y = torch.zeros_like(tokens)
        for expert in range(lm.experts):
            own, place = (choices == expert).nonzero(as_tuple=True)
            both = F.linear(tokens[own], weights[f"{at}/gate_up"][expert])
            gate, up = both.chunk(2, dim=-1)
            out = F.linear(F.silu(gate) * up, weights[f"{at}/down"][expert])
            y = y.index_add(0, own, out * gates[own, place, None])
        first = F.one_hot(choices[:, 0], lm.experts).float().mean(0)
        balance = lm.experts * (first * shares.mean(0)).sum()
        z = logits.logsumexp(-1).square().mean()
        return y.reshape(x.shape), lm.balance_loss * balance + lm.router_z_loss * z

    def decode(x: Any) -> tuple[Any, Any]:
        auxiliary = torch.zeros((), device=device)
        count = x.shape[1]
        powers = -torch.arange(0, head, 2, dtype=torch.float32, device=device) / head
        angles = arrays["positions"][..., None].float() * lm.rope_theta**powers
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        segments = arrays["segments"]
        mask = segments[:, :, None] == segments[:, None, :]
        mask = (mask & torch.ones(count, count, dtype=torch.bool, device=device).tril())[:, None]
        for layer in range(lm.layers):
            at = f"language_model/{layer}"
            qkv = dense(rms_norm(x, f"{at}/attention_norm"), f"{at}/qkv")
            qkv = qkv.reshape(rows, count, -1, head).transpose(1, 2)
            q, k, v = qkv.split([lm.heads, lm.kv_heads, lm.kv_heads], dim=1)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            # The rotation leaves float32 behind it, which autocast does not bring back.
            q, k = q.to(v.dtype), k.to(v.dtype)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
            x = x + dense(mixed.transpose(1, 2).reshape(x.shape), f"{at}/attention_out")
            normed = rms_norm(x, f"{at}/mlp_norm")
            if f"{at}/experts/router" in weights:
                y, more = through_experts(normed, f"{at}/experts")
                auxiliary = auxiliary + more
            else:
                gate, up = dense(normed, f"{at}/gate_up").chunk(2, dim=-1)
                y = dense(F.silu(gate) * up, f"{at}/down")
            x = x + y
        return rms_norm(x, "language_model/norm"), auxiliary

    def take(x: Any, index: Any) -> Any:
        return x.gather(1, index.long()[..., None].expand(-1, -1, x.shape[-1]))

    def loss_of() -> Any:
        table = weights["language_model/embedding"]
        x = F.embedding(arrays["tokens"].long(), table) * lm.width**0.5
        if "images" in arrays:
            seen = connect(encode(arrays["images"].flatten(0, 1))).reshape(rows, -1, lm.width)
            states, auxiliary = decode(take(torch.cat([x, seen], dim=1), arrays["gather"]))
            states = take(states, arrays["predictors"])
        else:
            states, auxiliary = decode(x)
            states = states.roll(1, dims=1)
        logits = F.linear(states, table)
        losses = F.cross_entropy(
            logits.flatten(0, 1), arrays["tokens"].long().flatten(), reduction="none"
        )
        per_token = arrays["loss_weights"].flatten()
        return (losses * per_token).sum() / per_token.sum() + auxiliary

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = forward()
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
    """The processor's time of each of `count` steps."""
    times = []
    for _ in range(count):
        start = time.process_time()
        step()
        times.append(1000 * (time.process_time() - start))
    return times


def compare(config: Config, steps: int) -> float | None:
    """Print both times of one model, measured in alternating rounds; JAX's over PyTorch's.

    None where PyTorch is not installed. Raises `SystemExit` where the twin computes another loss.
    """
    batch = synthetic_batch(config)
    step, weights = our_step(config, batch)
    start = time.perf_counter()
    first_loss = step()
    compiling = time.perf_counter() - start
    size = sum(weight.size for weight in weights.values())
    print(f"{size:,} parameters; first loss {first_loss:.6f}; compiled in {compiling:.1f} s")
    try:
        twin = torch_step(config, batch, weights)
    except ModuleNotFoundError:
        ours = milliseconds(step, steps)
        print(f"JAX            {statistics.median(ours):8.1f} ms a step")
        print("PyTorch is not installed (make reference): no ratio")
        return None
    twin_loss = twin()
    if abs(twin_loss - first_loss) > 1e-4:
        raise SystemExit(f"the twin's first loss is {twin_loss:.6f}")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours += milliseconds(step, max(1, steps // ROUNDS))
        theirs += milliseconds(twin, max(1, steps // ROUNDS))
    final, twin_final = step(), twin()
    print(f"loss after {len(ours) + 1} steps: JAX {final:.4f}, PyTorch {twin_final:.4f}")
    if not abs(final - twin_final) <= 0.02 * abs(final):
        raise SystemExit("the twin's last loss is another")
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"JAX            {a:8.1f} ms a step")
    print(f"PyTorch eager  {b:8.1f} ms a step")
    print(f"ratio JAX / PyTorch {a / b:.2f}", flush=True)
    return a / b


def main() -> None:
    """Compare the models that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", nargs="+", choices=MODELS, help="default: all of them")
    parser.add_argument("--recipe", help="YAML; in the place of a model")
    parser.add_argument("--connector", choices=TWINS, help="in the place of the model's")
    parser.add_argument("--steps", type=int, default=40, help=f"of each, in {ROUNDS} rounds")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    keep_freed_memory()
    configs: dict[str, Config] = {}
    if arguments.recipe:
        from mm1_jax.workload import load_recipe

        configs[arguments.recipe] = load_recipe(arguments.recipe).train_config()
    else:
        chosen = arguments.model or MODELS
        configs = {
            name: LanguageModelStageConfig()
            if name == "language_model"
            else TrainConfig.model_validate(MODELS[name])
            for name in chosen
        }
    ratios: dict[str, float | None] = {}
    for name, config in configs.items():
        if isinstance(config, TrainConfig):
            if arguments.connector:
                connector = {"kind": arguments.connector}
                config = TrainConfig.model_validate({**dict(config), "connector": connector})
            if config.connector.kind not in TWINS or config.training.freeze:
                kinds = ", ".join(TWINS)
                raise SystemExit(f"the PyTorch twin trains everything; its connectors: {kinds}")
        print(f"{name}, one core: ", end="")
        ratios[name] = compare(config, arguments.steps)
    if len(ratios) > 1:
        print("JAX / PyTorch: " + ", ".join(f"{name} {x:.2f}" for name, x in ratios.items() if x))


if __name__ == "__main__":
    main()
