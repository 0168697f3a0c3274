"""The stage `language_model`: the decoder learns from texts before it sees images (MM1 §3)."""

from __future__ import annotations

from pathlib import Path

from ablations.stage import Context, ResultRow
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.data.batches.pipeline import text_batches, text_stream
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.language_model import LanguageModel
from mm1_jax.scale.costs import language_model_stage_flops
from mm1_jax.scale.sharding import own_rows
from mm1_jax.training.checkpoints import save_part
from mm1_jax.training.loop import fit
from mm1_jax.training.schedule import peak_lr


def pretrain(
    config: LanguageModelStageConfig, seed: int, data_root: Path, context: Context
) -> list[ResultRow]:
    """Train the decoder; write `config.json` and `checkpoint/` into `context.output`.

    Its first weights are those that it has in the multimodal stage without this one.
    """
    seeds = config.seeds
    model = initialise(
        LanguageModel(config), seeds.for_initialisation(seed), seeds.initialisation_salt
    )
    stream, rows = text_stream(config, data_root, seed, context.scratch), own_rows(config.training)
    return fit(
        model,
        training=config.training,
        optimizer=config.optimizer,
        peak_lr=peak_lr(config),
        seed=seed,
        batches=lambda done: text_batches(config, data_root, seed, done, stream, rows),
        context=context,
        save=lambda folder, model: save_part(folder, config, model),
        measured=stream.measured,
        keep_beside=stream.keep,
        tokens_per_step=config.training.batch_size * config.text_tokens,
        flops_per_step=language_model_stage_flops(config),
    )
