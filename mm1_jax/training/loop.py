"""Training: one step in the paper's order, and the loop around it (MM1 §3).

Every stage that trains goes through `fit`: a model with `loss(batch, key) -> (loss, metrics)`,
whose parameters' paths start with the name of their part (`encoder/…`, `language_model/…`). On a
mesh of devices the same step runs on arrays that are cut up (`sharding`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from ablations.stage import Context, ResultRow, StageStopped
from ablations.timeline import doing
from mm1_jax.config.training import OptimizerConfig, TrainingConfig
from mm1_jax.scale.sharding import (
    any_process,
    batch_sharding,
    build_mesh,
    everywhere,
    moment_shardings,
    parameter_shardings,
    place,
    place_batch,
)
from mm1_jax.training.checkpoints import Progress
from mm1_jax.training.divergence import RECENT, Divergence, remember
from mm1_jax.training.optimizer import build_optimizer, part_rate
from mm1_jax.training.schedule import learning_rate
from mm1_jax.training.speed import Clock
from mm1_jax.weights.weights_folder import BEST_FOLDER

Batch = Mapping[str, Any]  # arrays by name
Leaves = list[jax.Array]
Metrics = dict[str, jax.Array]


class Trainable(Protocol):
    """What `fit` trains; also an `nnx.Module`."""

    def loss(self, batch: Any, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        """The loss of a batch and what is logged of it; `key` draws what is dropped out.

        Metrics are scalars, but for `by_source` [2, sources]: summed losses and their tokens.
        """
        ...

    def weight(self, batch: Any) -> jax.Array:
        """How much the loss of this part of a batch counts beside those of other parts."""
        ...


Model = TypeVar("Model", bound=nnx.Module)


@dataclass(frozen=True)
class Split:
    """A model as flat lists, which a step takes and gives back.

    Lists, because walking a module tree at every call costs more than a small model's step.
    """

    graphdef: Any
    weights: Leaves  # that are trained
    fixed: Leaves
    trainable: Any  # the tree structure of `weights`
    frozen: Any  # that of `fixed`
    names: tuple[str, ...]  # paths of `weights`
    fixed_names: tuple[str, ...]

    def merged(self, weights: Leaves, fixed: Leaves) -> Any:
        """The model with these values."""
        learning = jax.tree.unflatten(self.trainable, weights)
        return nnx.merge(self.graphdef, learning, jax.tree.unflatten(self.frozen, fixed))

    def step(self, training: TrainingConfig, optimizer: OptimizerConfig, mesh: Mesh | None) -> Any:
        """Its `compiled_step`."""
        return compiled_step(
            *(self.graphdef, self.trainable, self.frozen, self.names, timeless(optimizer)),
            *(training.micro_batches, mesh),
        )


def split(model: nnx.Module, training: TrainingConfig, optimizer: OptimizerConfig) -> Split:
    """What is trained of a model, and what is not: parts that are frozen or whose rate is 0."""
    still = {part for part, rate in optimizer.part_rates if rate == 0} | set(training.freeze)
    graphdef, learning, fixed = nnx.split(model, lambda path, _: path[0] not in still, ...)

    def names(state: Any) -> tuple[str, ...]:
        return tuple("/".join(map(str, path)) for path, _ in nnx.to_flat_state(state))

    weights, trainable = jax.tree.flatten(learning)
    kept, frozen = jax.tree.flatten(fixed)
    return Split(graphdef, weights, kept, trainable, frozen, names(learning), names(fixed))


@functools.lru_cache(maxsize=16)
def compiled_step(
    graphdef: nnx.GraphDef,
    trainable: Any,
    frozen: Any,
    names: tuple[str, ...],
    optimizer: OptimizerConfig,
    micro_batches: int = 1,
    mesh: Mesh | None = None,
) -> Any:
    """The training step of one kind of model, jitted.

    (weights, moments, recent, fixed, batch, rate, spike, draw) → new weights, moments, recent, and
    metrics. `trainable` and `frozen` are the tree structures of the lists `weights` and `fixed`;
    `recent` and `spike` are `divergence.remember`'s; `draw` is uint32 [seed, number of the step].
    The same function is returned for the same arguments, so a process that has compiled it trains
    the next seed without compiling. Weights, moments and `recent` are donated.
    """
    transformation = build_optimizer(optimizer, names)
    rates = [part_rate(optimizer.part_rates, name) for name in names]

    def model(weights: Leaves, fixed: Leaves) -> Any:
        learning = jax.tree.unflatten(trainable, weights)
        return nnx.merge(graphdef, learning, jax.tree.unflatten(frozen, fixed))

    def loss_of(
        weights: Leaves, fixed: Leaves, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        return model(weights, fixed).loss(batch, key)

    differentiated = jax.value_and_grad(loss_of, has_aux=True)

    def whole_batch(
        weights: Leaves, fixed: Leaves, batch: Batch, key: jax.Array
    ) -> tuple[tuple[jax.Array, Metrics], Leaves]:
        if micro_batches == 1:
            return differentiated(weights, fixed, batch, key)
        parts = jax.tree.map(functools.partial(_cut_in_parts, count=micro_batches), batch)
        counts = jax.vmap(lambda part: model(weights, fixed).weight(part))(parts)
        shares = counts / jnp.maximum(counts.sum(), 1e-9)

        def one_part(total: Any, given: tuple[Batch, jax.Array, jax.Array]) -> tuple[Any, None]:
            part, share, number = given
            (loss, metrics), gradients = differentiated(
                weights, fixed, part, jax.random.fold_in(key, number)
            )
            # Means count by their share; `by_source` holds sums.
            shared = {name: x if name == "by_source" else share * x for name, x in metrics.items()}
            more = (share * loss, shared), [share * gradient for gradient in gradients]
            return jax.tree.map(jnp.add, total, more), None

        shapes = jax.eval_shape(
            lambda batch: differentiated(weights, fixed, batch, key),
            jax.tree.map(lambda x: x[0], parts),
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        numbers = jnp.arange(micro_batches)
        return jax.lax.scan(one_part, zeros, (parts, shares, numbers))[0]

    def step(
        weights: Leaves,
        moments: optax.OptState,
        recent: jax.Array,
        fixed: Leaves,
        batch: Batch,
        rate: jax.Array,
        spike: jax.Array,
        draw: jax.Array,
    ) -> tuple[Leaves, optax.OptState, jax.Array, Metrics]:
        key = jax.random.fold_in(jax.random.key(draw[0]), draw[1])
        (loss, metrics), gradients = whole_batch(weights, fixed, batch, key)
        norms = part_norms("grad_norm", names, gradients)
        healthy, recent = remember(recent, loss, norms["grad_norm"], spike)
        updates, new_moments = transformation.update(gradients, moments, weights)
        new_weights = jax.tree.map(
            lambda weight, update, share: weight - (rate if share == 1 else rate * share) * update,
            weights,
            updates,
            rates,
        )
        # A step that went wrong leaves everything as it was; what follows is the policy's.
        keep = functools.partial(jnp.where, healthy)
        weights = jax.tree.map(keep, new_weights, weights)
        moments = jax.tree.map(keep, new_moments, moments)
        if mesh is not None:
            shapes = [weight.shape for weight in weights]
            lie = jax.lax.with_sharding_constraint
            weights = lie(weights, parameter_shardings(names, shapes, mesh))
            moments = lie(moments, moment_shardings(moments, names, shapes, mesh))
            recent = lie(recent, everywhere(mesh))
        norms |= part_norms("weight_norm", names, weights)
        return weights, moments, recent, {"loss": loss, "healthy": healthy, **norms, **metrics}

    return jax.jit(step, donate_argnums=(0, 1, 2))


def _cut_in_parts(x: jax.Array, count: int) -> jax.Array:
    """[rows, ...] → [count, rows / count, ...]; part i has every count-th row.

    So each device's own rows are in every part, and none move.
    """
    return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)


def part_norms(kind: str, names: tuple[str, ...], leaves: Leaves) -> Metrics:
    """`kind`, the Euclidean norm over all arrays, and `kind.PART` over those of each part."""
    squares: dict[str, jax.Array] = {}
    for name, leaf in zip(names, leaves, strict=True):
        part = name.split("/", 1)[0]
        squares[part] = squares.get(part, jnp.float32(0)) + jnp.sum(jnp.square(leaf))
    parts = {f"{kind}.{part}": jnp.sqrt(total) for part, total in sorted(squares.items())}
    return {kind: jnp.sqrt(sum(squares.values(), jnp.float32(0))), **parts}


def timeless(optimizer: OptimizerConfig) -> OptimizerConfig:
    """What of an optimiser the compiled step depends on: the rate's course is its argument."""
    fields = ("peak_lr", "warmup_steps", "final_lr_share", "schedule", "decay_share")
    defaults = OptimizerConfig(warmup_steps=0)
    return OptimizerConfig(**dict(optimizer) | {name: getattr(defaults, name) for name in fields})


def step_from_shapes(
    model: nnx.Module,
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
) -> tuple[Any, tuple[Any, ...]]:
    """The jitted step and its arguments as shapes that say where they lie: for `step.lower(*…)`.

    `model` is built from shapes alone. To be lowered under `jax.set_mesh(mesh)`.
    """
    parts = split(model, training, optimizer)
    step = parts.step(training, optimizer, mesh)
    moments = jax.eval_shape(build_optimizer(optimizer, parts.names).init, parts.weights)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    draw = jax.ShapeDtypeStruct((2,), jnp.uint32)

    def lying(tree: Any, shardings: Any) -> Any:
        return jax.tree.map(
            lambda x, there: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), tree, shardings
        )

    shapes = [weight.shape for weight in parts.weights]
    fixed = parameter_shardings(parts.fixed_names, [leaf.shape for leaf in parts.fixed], mesh)
    arguments = (
        lying(parts.weights, parameter_shardings(parts.names, shapes, mesh)),
        lying(moments, moment_shardings(moments, parts.names, shapes, mesh)),
        lying(jax.ShapeDtypeStruct((RECENT,), jnp.float32), everywhere(mesh)),
        lying(parts.fixed, fixed),
        {name: lying(x, batch_sharding(mesh)) for name, x in batch.items()},
        *(scalar, scalar, draw),
    )
    return step, arguments


class Trainer:
    """The weights and moments of one training, and the step that moves them.

    On `training.mesh`, where that has more than one device; `UserError` if they are not there.
    """

    def __init__(
        self, model: nnx.Module, training: TrainingConfig, optimizer: OptimizerConfig, seed: int
    ):
        self.mesh = None if training.mesh.devices == 1 else build_mesh(training.mesh)
        self._split = parts = split(model, training, optimizer)
        self.weights, self.fixed = parts.weights, parts.fixed
        self.recent = jnp.full(RECENT, jnp.nan, jnp.float32)
        start = build_optimizer(optimizer, parts.names).init
        if self.mesh is None:
            self.moments = start(self.weights)
        else:
            shapes = [weight.shape for weight in self.weights]
            fixed = [leaf.shape for leaf in self.fixed]
            self.weights = place(self.weights, parameter_shardings(parts.names, shapes, self.mesh))
            self.fixed = place(self.fixed, parameter_shardings(parts.fixed_names, fixed, self.mesh))
            moments = jax.eval_shape(start, self.weights)
            there = moment_shardings(moments, parts.names, shapes, self.mesh)
            self.moments = jax.jit(start, out_shardings=there)(self.weights)
            self.recent = place(self.recent, everywhere(self.mesh))
        self._step = parts.step(training, optimizer, self.mesh)
        self._spike = training.divergence.spike_factor or np.inf
        self._seed = seed % 2**32
        self._batch_size = training.batch_size

    def step(self, batch: Batch, rate: float, number: int) -> Metrics:
        """Learn from one batch at learning rate `rate`; the metrics are those before the step.

        What step `number` drops out follows from it and the seed. `healthy` False: nothing was
        learnt, because the loss or the gradient is not finite, or the loss is a spike.
        """
        draw = np.array([self._seed, number], np.uint32)
        context: Any = contextlib.nullcontext()
        if self.mesh is not None:
            rows = self._batch_size
            batch, context = place_batch(batch, self.mesh, rows), jax.set_mesh(self.mesh)
        with context:
            self.weights, self.moments, self.recent, metrics = self._step(
                *(self.weights, self.moments, self.recent, self.fixed, batch),
                *(rate, self._spike, draw),
            )
        return metrics

    def model(self) -> Any:
        """The model as it is now."""
        return self._split.merged(self.weights, self.fixed)

    def state(self) -> dict[str, Leaves]:
        """What a checkpoint must hold for the training to go on."""
        return {
            "weights": self.weights,
            "fixed": self.fixed,
            "moments": jax.tree.leaves(self.moments),
            "recent": [self.recent],
        }

    def restore(self, state: dict[str, Leaves]) -> None:
        """Go on from what `state` returned, on this mesh or another."""
        if self.mesh is None:
            # As fresh arrays: those of a checkpoint are bound to their device, which jit would
            # take for another kind of argument and compile anew.
            state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)
        self.weights, self.fixed = state["weights"], state["fixed"]
        self.moments = jax.tree.unflatten(jax.tree.structure(self.moments), state["moments"])
        (self.recent,) = state["recent"]


def fit(
    model: Model,
    *,
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    peak_lr: float,
    seed: int,
    batches: Callable[[int], Iterator[Batch]],
    context: Context,
    save: Callable[[Path, Model], None],
    sources: tuple[str, ...] = (),
    measured: Callable[[int, int], dict[str, float]] | None = None,
    data_steps: int | None = None,
    keep_beside: Callable[[], None] | None = None,
    tokens_per_step: int = 0,
    flops_per_step: float = 0.0,
) -> list[ResultRow]:
    """Train the model, or go on where the scratch folder says, and save it; the training's rows.

    `batches(n)` gives the batches of step n + 1, n + 2, …; where there are only `data_steps`, the
    training ends with the last of them, at the rate that its step has. `measured(n, m)` is what the
    batches of step n + 1 to m hold, and becomes part of the rows. `keep_beside` is called with
    every checkpoint, in the first process. Interrupted and resumed training gives the same bits as
    uninterrupted training. What happens to a loss that is not finite or a spike is
    `training.divergence`'s; it is counted in the rows `skipped_steps`, `rolled_back_steps`, and
    `diverged` 1.0 says that the training ended with it. `save(folder, model)` writes the trained
    model into `context.output`, and with `training.keep_best` that of the checkpoint with the
    lowest mean loss into `best/` below it.

    Reported beside the rows, because they are no result: tokens per second and, if
    `training.peak_tflops` is stated, the share of it that the model's FLOPs come to (MFU).
    Raises `StageStopped` after saving, when the context asks to stop.
    """
    with doing("start"):
        trainer = Trainer(model, training, optimizer, seed)
    clock = Clock(training, tokens_per_step, flops_per_step)
    with doing("start"):
        kept = Progress(
            context.scratch / "progress", keep_last=training.keep_last, keep_best=training.keep_best
        )
    with contextlib.closing(kept) as progress:
        with doing("start"):
            course = Course.resumed(trainer, progress, Divergence(training.divergence), sources)

        def keep() -> None:
            course.save(trainer, progress)
            if keep_beside is not None and jax.process_index() == 0:
                keep_beside()

        if course.step == 0 and course.divergence.rolls_back:
            keep()
        last = min(training.steps, training.steps if data_steps is None else data_steps)
        steps = range(course.step + 1, last + 1)
        with doing("steps"):
            for step, batch in zip(steps, batches(course.step), strict=False):
                rate = learning_rate(optimizer, peak_lr, training.steps, step)
                metrics = jax.device_get(trainer.step(batch, rate, step))
                course.step = step
                verdict = course.divergence.judge(healthy=bool(metrics.pop("healthy")))
                course.add(metrics)
                if verdict == "roll back":
                    trainer.restore(progress.load_newest(trainer.state())[0])
                if step % training.log_every == 0 or step == last or verdict == "stop":
                    first = {"loss": metrics.pop("loss"), "learning_rate": rate}
                    held = measured(course.logged, step) if measured else {}
                    numbers = course.log(first | metrics | held, diverged=verdict == "stop")
                    context.report(step, numbers | clock.since_last(step))
                if verdict == "stop":
                    break
                stop = any_process(context.stop_requested())
                if stop or (step % training.checkpoint_every == 0 and step < last):
                    keep()
                if stop:
                    raise StageStopped(f"after step {step} of {training.steps}")
        save(context.output, trainer.model())
        if training.keep_best and (best := progress.best_step()) is not None:
            trainer.restore(progress.load(best, trainer.state())[0])
            save(context.output / BEST_FOLDER, trainer.model())
    return course.rows


class Course:
    """How far a training is and what it has come to: all of its progress but the arrays."""

    def __init__(self, divergence: Divergence, sources: tuple[str, ...]):
        self.step = 0
        self.logged = 0  # the last step with rows
        self.rows: list[ResultRow] = []
        self.divergence = divergence
        self._sources = sources
        self._by_source = np.zeros((2, len(sources)))  # losses and tokens since the last row
        self._losses: list[float] = []  # since the last checkpoint

    @classmethod
    def resumed(
        cls, trainer: Trainer, progress: Progress, divergence: Divergence, sources: tuple[str, ...]
    ) -> Course:
        """That of the newest checkpoint, whose arrays the trainer takes; else a new one."""
        course = cls(divergence, sources)
        if progress.latest_step() is not None:
            state, notes = progress.load_newest(trainer.state())
            trainer.restore(state)
            course.step = notes["step"]
            course.rows = [ResultRow(**row) for row in notes["rows"]]
            course.logged = max((row.step for row in course.rows), default=0)
            divergence.counts = notes["divergence"]
            course._by_source = np.array(notes["by_source"]).reshape(2, len(sources))
        return course

    def save(self, trainer: Trainer, progress: Progress) -> None:
        """Write a checkpoint of all this and the trainer's arrays."""
        notes = {
            "step": self.step,
            "rows": [asdict(row) for row in self.rows],
            "divergence": self.divergence.counts,
            "by_source": self._by_source.tolist(),
        }
        loss = float(np.mean(self._losses)) if self._losses else None
        progress.save(self.step, trainer.state(), notes, loss)
        self._losses.clear()

    def add(self, metrics: dict[str, Any]) -> None:
        """Take in what one step has measured; leaves what is to be logged of it alone."""
        self._losses.append(float(metrics["loss"]))
        by_source = metrics.pop("by_source", None)
        if by_source is not None:
            self._by_source += by_source

    def log(self, metrics: Mapping[str, Any], *, diverged: bool) -> dict[str, float]:
        """Make rows of one step's metrics; the same numbers by name."""
        numbers = {name: float(value) for name, value in metrics.items()}
        losses, tokens = self._by_source
        numbers |= {
            f"loss.{source}": float(losses[place] / tokens[place])
            for place, source in enumerate(self._sources)
            if tokens[place] > 0
        }
        self._by_source[:] = 0
        numbers |= self.divergence.numbers()
        if diverged:
            numbers["diverged"] = 1.0
        self.rows += [ResultRow("training", name, x, step=self.step) for name, x in numbers.items()]
        self.logged = self.step
        return numbers
