"""Scores of generated text against references, and of likelihoods."""
