"""Training: one step in the paper's order, and the loop around it (MM1 §3)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mm1_jax.checkpoints import Progress, save_model
from mm1_jax.config import OptimizerConfig, TrainConfig
from mm1_jax.data.pipeline import batches
from mm1_jax.initialisation import initialise
from mm1_jax.model import Batch, MultimodalModel
from mm1_jax.optimizer import build_optimizer
from mm1_jax.schedule import learning_rate
from mm1_jax.stage import Context, ResultRow, StageStopped

Leaves = list[jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[Leaves, Any, Leaves, Batch, float], tuple[Leaves, Any, Metrics]]


@functools.lru_cache(maxsize=16)
def compiled_step(
    graphdef: nnx.GraphDef,
    trainable: Any,
    frozen: Any,
    names: tuple[str, ...],
    adam: OptimizerConfig,
) -> Step:
    """The training step of one kind of model: (weights, moments, fixed, batch, rate) → new ones.

    `trainable` and `frozen` are the tree structures of the lists `weights` and `fixed`. The same
    function is returned for the same arguments, so a process that has compiled it trains the next
    seed without compiling. Lists and donation, because walking a module tree at every call costs
    more than a small model's step.
    """
    optimizer = build_optimizer(adam, names)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(
        weights: Leaves, moments: optax.OptState, fixed: Leaves, batch: Batch, rate: jax.Array
    ) -> tuple[Leaves, optax.OptState, Metrics]:
        def loss_of(weights: Leaves) -> jax.Array:
            model = nnx.merge(
                graphdef,
                jax.tree.unflatten(trainable, weights),
                jax.tree.unflatten(frozen, fixed),
            )
            return model.loss(batch)

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        updates, moments = optimizer.update(gradients, moments, weights)
        weights = jax.tree.map(lambda weight, update: weight - rate * update, weights, updates)
        return weights, moments, {"loss": loss, "grad_norm": optax.global_norm(gradients)}

    return step


class Trainer:
    """The weights and moments of one training, and the step that moves them."""

    def __init__(self, config: TrainConfig, seed: int):
        first = config.seeds.initialisation
        model = initialise(
            MultimodalModel(config),
            seed if first is None else first,
            config.seeds.initialisation_salt,
        )
        self._graphdef, learning, still = nnx.split(
            model, lambda path, _: path[0] not in config.training.freeze, ...
        )
        names = tuple("/".join(map(str, path)) for path, _ in nnx.to_flat_state(learning))
        self.weights, self._learning = jax.tree.flatten(learning)
        self.fixed, self._still = jax.tree.flatten(still)
        self.moments = build_optimizer(config.optimizer, names).init(self.weights)
        # The rate's course is an argument of the step, not a part of it.
        adam = config.optimizer.model_copy(
            update={"peak_lr": None, "warmup_steps": 0, "final_lr_share": 0.0}
        )
        self._step = compiled_step(self._graphdef, self._learning, self._still, names, adam)

    def step(self, batch: Batch, rate: float) -> Metrics:
        """Learn from one batch at learning rate `rate`; the loss is that before the step."""
        self.weights, self.moments, metrics = self._step(
            self.weights, self.moments, self.fixed, batch, rate
        )
        return metrics

    def model(self) -> MultimodalModel:
        """The model as it is now."""
        return nnx.merge(
            self._graphdef,
            jax.tree.unflatten(self._learning, self.weights),
            jax.tree.unflatten(self._still, self.fixed),
        )

    def state(self) -> dict[str, Leaves]:
        """What a checkpoint must hold for the training to go on."""
        return {
            "weights": self.weights,
            "fixed": self.fixed,
            "moments": jax.tree.leaves(self.moments),
        }

    def restore(self, state: dict[str, Leaves]) -> None:
        """Go on from what `state` returned."""
        # As fresh arrays: those of a checkpoint are bound to their device, which jit would take
        # for another kind of argument and compile anew.
        state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)
        self.weights, self.fixed = state["weights"], state["fixed"]
        self.moments = jax.tree.unflatten(jax.tree.structure(self.moments), state["moments"])


def train(config: TrainConfig, seed: int, data_root: Path, context: Context) -> list[ResultRow]:
    """Train, or go on where the scratch folder says; write `config.json` and `checkpoint/`.

    Interrupted and resumed training gives the same bits as uninterrupted training. A loss that is
    not finite ends the training; the row `diverged` 1.0 says so.

    Raises `StageStopped` after saving, when the context asks to stop.
    """
    trainer = Trainer(config, seed)
    progress = Progress(context.scratch / "progress")
    done, rows = _resume(trainer, progress)
    steps = range(done + 1, config.training.steps + 1)
    documents = batches(config, data_root, seed, done)
    for step, batch in zip(steps, documents, strict=False):
        rate = learning_rate(config, step)
        metrics = trainer.step(batch, rate)
        if step % config.training.log_every == 0 or step == config.training.steps:
            numbers = {name: float(metrics[name]) for name in ("loss", "grad_norm")}
            numbers["learning_rate"] = rate
            diverged = not math.isfinite(numbers["loss"])
            if diverged:
                numbers["diverged"] = 1.0
            rows += [ResultRow("training", name, x, step=step) for name, x in numbers.items()]
            context.report(step, numbers)
            if diverged:
                break
        stop = context.stop_requested()
        if stop or (step % config.training.checkpoint_every == 0 and step < config.training.steps):
            progress.save(step, trainer.state(), [asdict(row) for row in rows])
        if stop:
            progress.close()
            raise StageStopped(f"after step {step} of {config.training.steps}")
    progress.close()
    save_model(context.output, config, trainer.model())
    return rows


def _resume(trainer: Trainer, progress: Progress) -> tuple[int, list[ResultRow]]:
    """Steps done and rows so far, from the newest checkpoint; (0, []) where there is none."""
    step = progress.latest_step()
    if step is None:
        return 0, []
    state, notes = progress.load(step, trainer.state())
    trainer.restore(state)
    return step, [ResultRow(**row) for row in notes]
