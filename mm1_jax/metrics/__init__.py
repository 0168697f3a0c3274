"""Scores of generated text against references, and of likelihoods."""

from mm1_jax.metrics.captions import bleu, cider_d, rouge_l
from mm1_jax.metrics.exact_match import exact_match
from mm1_jax.metrics.likelihood import bits_per_byte, perplexity

__all__ = ["bits_per_byte", "bleu", "cider_d", "exact_match", "perplexity", "rouge_l"]
