from __future__ import annotations

from mm1_jax.evaluation.metrics.exact_match import exact_match


def test_exact_match_ignores_case_and_surrounding_space():
    assert exact_match(" Blue\n", "blue")
    assert not exact_match("blue circle", "blue")
