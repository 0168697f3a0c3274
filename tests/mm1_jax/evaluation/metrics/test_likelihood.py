from __future__ import annotations

import math

import pytest

from mm1_jax.evaluation.metrics.likelihood import bits_per_byte, perplexity


def test_likelihood_metrics():
    assert perplexity(10 * math.log(7), 10) == pytest.approx(7)
    assert bits_per_byte(6 * math.log(2), 3) == pytest.approx(2)


def test_perplexity_beyond_a_float_is_infinite_and_no_error():
    assert perplexity(8000.0, 10) == math.inf
