from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from ablations.contrasts import Design, matched
from ablations.plan import Arm
from ablations.stage import ResultRow
from analysis.compare import render
from analysis.effects import effects, noise_floor, summarize
from analysis.results import load_results
from sweeps.store import Store


def test_effects_are_paired_t_intervals_as_scipy_has_them(full_store: Store) -> None:
    results = load_results("demo", full_store)
    found = {(e.factor, e.task, e.metric): e for e in effects(results.table)}
    assert len(found) == 3 * 3  # factors × metrics, controls left out
    for (factor, task, metric), effect in found.items():
        a = list(results.score(f"{factor}={effect.level}", task, metric).values())
        b = list(results.score("base", task, metric).values())
        oracle = scipy.stats.ttest_rel(a, b)
        low, high = oracle.confidence_interval(0.95)
        assert effect.summary.mean == pytest.approx(np.mean(a) - np.mean(b))
        assert (effect.summary.ci_low, effect.summary.ci_high) == pytest.approx((low, high))
        assert effect.summary.sd == pytest.approx(np.std(np.subtract(a, b), ddof=1))
        assert not effect.interim


def test_the_primary_metric_comes_first(full_store: Store) -> None:
    first = effects(load_results("demo", full_store).table)[0]
    assert (first.task, first.metric) == ("easy_vqa", "accuracy")


def test_effects_use_shared_seeds_only_and_are_marked_interim(
    tmp_path: Path, make_plan, fill
) -> None:
    store, plan = Store(tmp_path), make_plan()
    store.register(plan)
    fill(store, plan, skip={("encoder.image_size=16", 1), ("connector.kind=c_abstractor", 2)})
    table = load_results("demo", store).table
    found = {e.factor: e for e in effects(table) if e.metric == "accuracy"}
    assert set(found["encoder.image_size"].summary.by_seed) == {2, 3}
    assert set(found["connector.kind"].summary.by_seed) == {1, 3}
    assert found["encoder.image_size"].interim
    assert not found["data.mixture.easy_vqa"].interim


def test_one_seed_has_an_effect_but_no_interval() -> None:
    one = summarize({7: 3.5})
    assert (one.mean, one.n) == (3.5, 1)
    assert all(map(math.isnan, (one.sd, one.ci_low, one.ci_high)))
    assert summarize({}).n == 0


def test_seeds_that_all_agree_give_no_interval() -> None:
    same = summarize({1: 0.1 + 0.2, 2: 0.3, 3: 0.3})
    assert same.mean == pytest.approx(0.3)
    assert math.isnan(same.ci_low)
    assert same.sd == 0.0


def test_in_a_factorial_the_effect_is_the_mean_over_the_other_factors() -> None:
    factors = {"a": ("1", "2"), "b": ("x", "y")}
    arms = {
        "base": {"a": "1", "b": "x"},
        "a=2": {"a": "2", "b": "x"},
        "b=y": {"a": "1", "b": "y"},
        "a=2,b=y": {"a": "2", "b": "y"},
    }
    pairs = matched(Design(factors, arms), "a", ("1", "2"))
    assert pairs == [{"1": "base", "2": "a=2"}, {"1": "b=y", "2": "a=2,b=y"}]
    without_corner = Design(factors, {name: arms[name] for name in list(arms)[:3]})
    assert matched(without_corner, "a", ("1", "2")) == [{"1": "base", "2": "a=2"}]


def test_the_noise_floor_is_the_sd_of_null_differences(tmp_path: Path, make_plan, fill) -> None:
    store, plan = Store(tmp_path), make_plan(null=True)
    store.register(plan)
    null = {1: 80.0, 2: 82.0, 3: 81.0}

    def rows(arm: Arm, seed: int, task: str, condition: str) -> list[ResultRow]:
        value = null[seed] if arm.name == "null=1" else 80.5
        metric = "loss" if task == "training" else "accuracy"
        return [ResultRow(task, metric, value, condition=condition, step=1)]

    fill(store, plan, rows=rows)
    results = load_results("demo", store)
    floor = noise_floor(results.table)
    assert floor is not None
    assert floor.sd == pytest.approx(np.std([-0.5, 1.5, 0.5], ddof=1))
    assert floor.arms == ("null=1",)
    for form in ("text", "markdown", "latex"):
        assert "null arms differ from the base by an SD of 1.0" in render(results, form)
    assert all("null=1" not in effect.arms for effect in effects(results.table))


def test_without_null_arms_there_is_no_noise_floor(full_store: Store) -> None:
    assert noise_floor(load_results("demo", full_store).table) is None
