"""The learning rate: how high (the paper's law) and how it moves over the steps. No JAX."""

from __future__ import annotations

import math

from mm1_jax.config import OptimizerConfig, TrainConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig


def peak_lr(config: TrainConfig | LanguageModelStageConfig) -> float:
    """The configured peak, or the paper's law exp(-0.4214 ln N - 0.5535) (MM1 §3).

    N is the language model's non-embedding parameters, so that arms with another encoder or
    connector share one rate.
    """
    if config.optimizer.peak_lr is not None:
        return config.optimizer.peak_lr
    return math.exp(-0.4214 * math.log(config.language_model.parameters()) - 0.5535)


def learning_rate(optimizer: OptimizerConfig, peak: float, steps: int, step: int) -> float:
    """The rate of step 1 … `steps`: linear warm-up to the peak, then half a cosine.

    The last step has exactly `final_lr_share` of the peak.
    """
    if step <= optimizer.warmup_steps:
        return peak * step / optimizer.warmup_steps
    progress = (step - optimizer.warmup_steps) / (steps - optimizer.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (optimizer.final_lr_share + (1 - optimizer.final_lr_share) * cosine)
