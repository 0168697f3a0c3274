"""The multimodal stage: encoder, connector and language model trained together (MM1 §3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ablations.stage import Context, ResultRow
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.pipeline import batches, stream_of
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.scale.costs import flops_per_step
from mm1_jax.scale.sharding import own_rows
from mm1_jax.training.checkpoints import save_part
from mm1_jax.training.initial_weights import take_weights
from mm1_jax.training.loop import fit
from mm1_jax.training.schedule import peak_lr


def train(
    config: TrainConfig, seed: int, data_root: Path, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Train the multimodal model; write `config.json` and `checkpoint/` into `context.output`.

    `inputs` are the folders of the parts that were trained before, by the parts' names; all other
    parts start from random weights. UserError where a folder holds another part than the config's.
    """
    seeds = config.seeds
    model = initialise(
        MultimodalModel(config), seeds.for_initialisation(seed), seeds.initialisation_salt
    )
    for part, folder in inputs.items():
        model = take_weights(model, config, part, folder)
    return fit_model(model, config, seed, data_root, context)


def fit_model(
    model: MultimodalModel, config: TrainConfig, seed: int, data_root: Path, context: Context
) -> list[ResultRow]:
    """Train a model from the weights it has; as `train`."""
    stream = stream_of(config, data_root, seed, beside=context.scratch)
    rows = own_rows(config.training)
    return fit(
        model,
        training=config.training,
        optimizer=config.optimizer,
        peak_lr=peak_lr(config),
        seed=seed,
        batches=lambda done: batches(config, data_root, seed, done, stream, rows),
        context=context,
        save=lambda folder, model: save_part(folder, config, model),
        sources=config.data.source_names,
        measured=stream.measured,
        data_steps=stream.steps,
        keep_beside=stream.keep,
        tokens_per_step=config.training.batch_size * config.sequence_length,
        flops_per_step=sum(flops_per_step(config).values()),
    )
