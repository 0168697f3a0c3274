"""Training: one step in the paper's order, and the loop around it (MM1 §3).

Every stage that trains goes through `fit`: a model with `loss(batch, key) -> (loss, metrics)`,
whose parameters' paths start with the name of their part (`encoder/…`, `language_model/…`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mm1_jax.checkpoints import Progress
from mm1_jax.config import OptimizerConfig, TrainingConfig
from mm1_jax.optimizer import build_optimizer, part_rate
from mm1_jax.schedule import learning_rate
from mm1_jax.stage import Context, ResultRow, StageStopped

Batch = Mapping[str, Any]  # arrays by name
Leaves = list[jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[Leaves, Any, Leaves, Batch, float, np.ndarray], tuple[Leaves, Any, Metrics]]


class Trainable(Protocol):
    """What `fit` trains; also an `nnx.Module`."""

    def loss(self, batch: Any, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        """The loss of a batch and scalars to log; `key` draws what is dropped out."""
        ...


Model = TypeVar("Model", bound=nnx.Module)


@functools.lru_cache(maxsize=16)
def compiled_step(
    graphdef: nnx.GraphDef,
    trainable: Any,
    frozen: Any,
    names: tuple[str, ...],
    optimizer: OptimizerConfig,
) -> Step:
    """The training step of one kind of model.

    (weights, moments, fixed, batch, rate, draw) → new weights and moments, metrics. `trainable` and
    `frozen` are the tree structures of the lists `weights` and `fixed`; `draw` is uint32
    [seed, number of the step]. The same function is returned for the same arguments, so a process
    that has compiled it trains the next seed without compiling. Lists and donation, because walking
    a module tree at every call costs more than a small model's step.
    """
    transformation = build_optimizer(optimizer, names)
    rates = [part_rate(optimizer.part_rates, name) for name in names]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(
        weights: Leaves,
        moments: optax.OptState,
        fixed: Leaves,
        batch: Batch,
        rate: jax.Array,
        draw: jax.Array,
    ) -> tuple[Leaves, optax.OptState, Metrics]:
        key = jax.random.fold_in(jax.random.key(draw[0]), draw[1])

        def loss_of(weights: Leaves) -> tuple[jax.Array, Metrics]:
            learning = jax.tree.unflatten(trainable, weights)
            model: Any = nnx.merge(graphdef, learning, jax.tree.unflatten(frozen, fixed))
            return model.loss(batch, key)

        (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights)
        updates, moments = transformation.update(gradients, moments, weights)
        weights = jax.tree.map(
            lambda weight, update, share: weight - (rate if share == 1 else rate * share) * update,
            weights,
            updates,
            rates,
        )
        norm = optax.global_norm(gradients)
        return weights, moments, {"loss": loss, "grad_norm": norm, **metrics}

    return step


class Trainer:
    """The weights and moments of one training, and the step that moves them.

    Parts that `training.freeze` names, and those whose rate is multiplied by 0, keep their weights
    and have no moments.
    """

    def __init__(
        self, model: nnx.Module, training: TrainingConfig, optimizer: OptimizerConfig, seed: int
    ):
        still = {part for part, rate in optimizer.part_rates if rate == 0} | set(training.freeze)
        self._graphdef, learning, fixed = nnx.split(
            model, lambda path, _: path[0] not in still, ...
        )
        names = tuple("/".join(map(str, path)) for path, _ in nnx.to_flat_state(learning))
        self.weights, self._learning = jax.tree.flatten(learning)
        self.fixed, self._fixed = jax.tree.flatten(fixed)
        self.moments = build_optimizer(optimizer, names).init(self.weights)
        # The rate's course is an argument of the step, not a part of it.
        timeless = optimizer.model_copy(
            update={
                "peak_lr": None,
                "warmup_steps": 0,
                "final_lr_share": 0.0,
                "schedule": "cosine",
                "decay_share": 1.0,
            }
        )
        self._step = compiled_step(self._graphdef, self._learning, self._fixed, names, timeless)
        self._seed = seed % 2**32

    def step(self, batch: Batch, rate: float, number: int) -> Metrics:
        """Learn from one batch at learning rate `rate`; the metrics are those before the step.

        What step `number` drops out follows from it and the seed.
        """
        draw = np.array([self._seed, number], np.uint32)
        self.weights, self.moments, metrics = self._step(
            self.weights, self.moments, self.fixed, batch, rate, draw
        )
        return metrics

    def model(self) -> Any:
        """The model as it is now."""
        return nnx.merge(
            self._graphdef,
            jax.tree.unflatten(self._learning, self.weights),
            jax.tree.unflatten(self._fixed, self.fixed),
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


def fit(
    model: Model,
    *,
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    peak_lr: float,
    seed: int,
    batches: Callable[[int], Iterator[Batch]],
    context: Context,
) -> tuple[Model, list[ResultRow]]:
    """Train the model, or go on where the scratch folder says; the trained model and its rows.

    `batches(n)` gives the batches of step n + 1, n + 2, …. Interrupted and resumed training gives
    the same bits as uninterrupted training. A loss that is not finite ends the training; the row
    `diverged` 1.0 says so.

    Raises `StageStopped` after saving, when the context asks to stop.
    """
    trainer = Trainer(model, training, optimizer, seed)
    progress = Progress(context.scratch / "progress")
    done, rows = _resume(trainer, progress)
    steps = range(done + 1, training.steps + 1)
    for step, batch in zip(steps, batches(done), strict=False):
        rate = learning_rate(optimizer, peak_lr, training.steps, step)
        metrics = trainer.step(batch, rate, step)
        if step % training.log_every == 0 or step == training.steps:
            numbers = {name: float(value) for name, value in metrics.items()}
            numbers["learning_rate"] = rate
            diverged = not math.isfinite(numbers["loss"])
            if diverged:
                numbers["diverged"] = 1.0
            rows += [ResultRow("training", name, x, step=step) for name, x in numbers.items()]
            context.report(step, numbers)
            if diverged:
                break
        stop = context.stop_requested()
        if stop or (step % training.checkpoint_every == 0 and step < training.steps):
            progress.save(step, trainer.state(), [asdict(row) for row in rows])
        if stop:
            progress.close()
            raise StageStopped(f"after step {step} of {training.steps}")
    progress.close()
    return trainer.model(), rows


def _resume(trainer: Trainer, progress: Progress) -> tuple[int, list[ResultRow]]:
    """Steps done and rows so far, from the newest checkpoint; (0, []) where there is none."""
    step = progress.latest_step()
    if step is None:
        return 0, []
    state, notes = progress.load(step, trainer.state())
    trainer.restore(state)
    return step, [ResultRow(**row) for row in notes]
