from __future__ import annotations

from mm1_jax.metrics import exact_match


def test_exact_match_ignores_case_and_surrounding_space():
    assert exact_match(" Blue\n", "blue")
    assert not exact_match("blue circle", "blue")
