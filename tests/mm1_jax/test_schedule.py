from __future__ import annotations

import pytest

from mm1_jax.config import DenseConfig
from mm1_jax.schedule import learning_rate, peak_lr


def rate_of(config, step):
    return learning_rate(config.optimizer, peak_lr(config), config.training.steps, step)


def test_the_law_gives_the_papers_rates(monkeypatch, tiny):
    config = tiny(optimizer={"peak_lr": None})
    for size, rate in [(9e6, 6.75e-4), (85e6, 2.62e-4), (302e6, 1.54e-4), (1.2e9, 8.58e-5)]:
        monkeypatch.setattr(DenseConfig, "parameters", lambda _, size=size: size)
        assert peak_lr(config) == pytest.approx(rate, rel=5e-3)


def test_a_given_peak_overrides_the_law(tiny):
    assert peak_lr(tiny(optimizer={"peak_lr": 0.02})) == 0.02


def test_the_rate_warms_up_linearly_and_ends_at_its_share_of_the_peak(tiny):
    config = tiny(
        training={"steps": 100},
        optimizer={"peak_lr": 1.0, "warmup_steps": 20, "final_lr_share": 0.1},
    )
    assert rate_of(config, 1) == pytest.approx(0.05)
    assert rate_of(config, 20) == 1.0
    assert rate_of(config, 60) == pytest.approx(0.55)  # half-way down the cosine
    assert rate_of(config, 100) == pytest.approx(0.1)


def test_a_run_that_is_all_warm_up_or_none_has_its_rates(tiny):
    only = tiny(training={"steps": 5}, optimizer={"peak_lr": 1.0, "warmup_steps": 5})
    assert rate_of(only, 5) == 1.0
    none = tiny(training={"steps": 5}, optimizer={"peak_lr": 1.0, "warmup_steps": 0})
    assert 0.9 < rate_of(none, 1) < 1.0
