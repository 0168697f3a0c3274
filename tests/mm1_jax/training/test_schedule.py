from __future__ import annotations

import itertools

import pytest

from mm1_jax.config.language_model import DenseConfig
from mm1_jax.training.schedule import learning_rate, peak_lr


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


def course(tiny, schedule, steps=100, **optimizer):
    settings = {"peak_lr": 2.0, "warmup_steps": 20, "final_lr_share": 0.1, **optimizer}
    config = tiny(training={"steps": steps}, optimizer={"schedule": schedule, **settings})
    return [rate_of(config, step) for step in range(1, steps + 1)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_every_schedule_warms_up_alike_and_does_not_rise_after_it(tiny, schedule):
    rates = course(tiny, schedule)
    assert rates[:20] == pytest.approx([0.1 * step for step in range(1, 21)])
    assert rates[19] == 2.0
    assert all(later <= rate for rate, later in itertools.pairwise(rates[19:]))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("share", [0.1, 0.0, 1 / 3])
def test_the_last_step_of_schedules_that_decay_has_exactly_its_share_of_the_peak(
    tiny, schedule, share
):
    for steps, warmup in [(100, 20), (7, 0), (7, 6)]:
        rates = course(tiny, schedule, steps, final_lr_share=share, warmup_steps=warmup)
        assert rates[-1] == 2.0 * share


def test_a_linear_schedule_is_a_line_from_the_peak_to_its_end(tiny):
    rates = course(tiny, "linear")
    assert rates[59] == pytest.approx(2.0 * 0.55)  # half-way
    assert rates[39] == pytest.approx(2.0 * 0.775)


def test_wsd_holds_the_peak_until_its_last_part(tiny):
    rates = course(tiny, "wsd", decay_share=0.25)
    assert set(rates[19:75]) == {2.0}
    assert rates[75] == pytest.approx(2.0 * (1 - 0.9 / 25))
    assert rates[86] < 2.0 * 0.6 < rates[85]
    # No longer than what the warm-up leaves: then it is the linear schedule.
    assert course(tiny, "wsd", decay_share=1.0) == course(tiny, "linear")


def test_a_constant_schedule_keeps_the_peak_to_the_end(tiny):
    assert set(course(tiny, "constant")[19:]) == {2.0}
