"""The learning rate: how high (the paper's law) and how it moves over the steps. No JAX."""

from __future__ import annotations

import math

from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import OptimizerConfig


def peak_lr(config: TrainConfig | LanguageModelStageConfig) -> float:
    """The configured peak, or the paper's law exp(-0.4214 ln N - 0.5535) (MM1 §3).

    N is the language model's non-embedding parameters, so that arms with another encoder or
    connector share one rate.
    """
    if config.optimizer.peak_lr is not None:
        return config.optimizer.peak_lr
    return math.exp(-0.4214 * math.log(config.language_model.parameters()) - 0.5535)


def learning_rate(optimizer: OptimizerConfig, peak: float, steps: int, step: int) -> float:
    """The rate of step 1 … `steps`: linear warm-up to the peak, then the schedule's course.

    cosine: half a cosine; linear: a straight line; wsd: the peak, then a straight line over the
    last `decay_share` of the steps (MiniCPM, Hu et al., 2024); constant: the peak. The last step
    of those that decay has exactly `final_lr_share` of the peak.
    """
    if step <= optimizer.warmup_steps:
        return peak * step / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return peak
    start = float(optimizer.warmup_steps)
    if optimizer.schedule == "wsd":
        start = max(start, steps * (1 - optimizer.decay_share))
    progress = max(0.0, (step - start) / (steps - start))
    if optimizer.schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        left = 1 - progress
    return peak * (optimizer.final_lr_share + (1 - optimizer.final_lr_share) * left)
