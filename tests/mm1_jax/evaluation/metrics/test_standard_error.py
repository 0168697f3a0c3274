from __future__ import annotations

import numpy as np
import pytest

from mm1_jax.evaluation.metrics.standard_error import standard_error


def test_of_independent_items_it_is_the_deviation_over_the_root_of_their_number():
    values = [1.0, 4.0, 2.0, 9.0]
    expected = np.std(values, ddof=1) / 2
    assert standard_error(values, "abcd") == pytest.approx(expected)


def test_of_equal_clusters_it_is_that_of_their_means():
    values = [1.0, 3.0, 4.0, 6.0, 0.0, 10.0]
    means = [2.0, 5.0, 5.0]
    expected = np.std(means, ddof=1) / np.sqrt(3)
    assert standard_error(values, "aabbcc") == pytest.approx(expected)


def test_it_covers_the_truth_as_often_as_it_should():
    draws = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 4)
    inside = 0
    for _ in range(400):
        values = np.repeat(draws.normal(size=60), 4) + draws.normal(size=240)
        inside += abs(values.mean()) < 1.96 * standard_error(values, clusters)
    assert 0.92 < inside / 400 < 0.98


def test_one_cluster_says_nothing():
    assert standard_error([1.0, 2.0], "aa") is None
