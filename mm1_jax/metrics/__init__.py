"""Scores of generated text against references, and of likelihoods."""

from mm1_jax.metrics.captions import cider_d, words
from mm1_jax.metrics.exact_match import exact_match
from mm1_jax.metrics.likelihood import bits_per_byte, perplexity

__all__ = ["bits_per_byte", "cider_d", "exact_match", "perplexity", "words"]
