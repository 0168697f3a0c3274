"""The stage `encoder`: the image encoder learns before it meets a language model (MM1 §3.1).

By captions (`contrastive`: CLIP, SigLIP) or by pixels alone (`autoregressive_images`: AIM), on the
same images in the same order.
"""

from __future__ import annotations

from pathlib import Path

from ablations.stage import Context, ResultRow
from ablations.timeline import doing
from mm1_jax.config.encoder_pretraining import AimObjective, EncoderStageConfig
from mm1_jax.data.batches.encoder_batches import EncoderBatches, encoder_batches
from mm1_jax.model.initialisation import initialise
from mm1_jax.scale.costs import encoder_stage_flops
from mm1_jax.scale.sharding import own_rows
from mm1_jax.training.autoregressive_images import AutoregressiveModel
from mm1_jax.training.checkpoints import save_part
from mm1_jax.training.contrastive import ContrastiveModel
from mm1_jax.training.loop import fit


def build_model(config: EncoderStageConfig) -> ContrastiveModel | AutoregressiveModel:
    """The module that the objective trains, from shapes alone."""
    if isinstance(config.objective, AimObjective):
        return AutoregressiveModel(config)
    return ContrastiveModel(config)


def first_model(config: EncoderStageConfig, seed: int) -> ContrastiveModel | AutoregressiveModel:
    """The module with its first weights; the encoder's are those of the multimodal stage."""
    seeds = config.seeds
    return initialise(
        build_model(config), seeds.for_initialisation(seed), seeds.initialisation_salt
    )


def pretrain(
    config: EncoderStageConfig, seed: int, data_root: Path, context: Context
) -> list[ResultRow]:
    """Train the encoder; write `config.json` and `checkpoint/` into `context.output`."""
    with doing("data"):
        batches = EncoderBatches(config, data_root, seed, own_rows(config.training))
    return fit(
        first_model(config, seed),
        training=config.training,
        optimizer=config.optimizer,
        peak_lr=config.optimizer.peak_lr,
        seed=seed,
        batches=lambda done: encoder_batches(batches, config, done),
        context=context,
        save=lambda folder, model: save_part(folder, config, model),
        measured=batches.measured,
        tokens_per_step=config.training.batch_size * config.encoder.patches,
        flops_per_step=encoder_stage_flops(config),
    )
