from __future__ import annotations

import numpy as np

from mm1_jax.evaluation.tasks.emoji_probe import PENALTIES, most_frequent, ridge_probe


def refitted_without_each(rows: np.ndarray, targets: np.ndarray, penalty: float) -> float:
    """Leave-one-out error by fitting N times, with an intercept that is not penalised."""
    count, width = rows.shape
    errors = []
    for left_out in range(count):
        kept = np.arange(count) != left_out
        inputs = np.c_[rows[kept], np.ones(count - 1)]
        ridge = penalty * np.diag([1.0] * width + [0.0])
        weights = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets[kept])
        errors.append((targets[left_out] - np.r_[rows[left_out], 1] @ weights) ** 2)
    return float(np.mean(errors))


def test_the_penalty_is_the_one_that_leaving_each_out_favours():
    for seed, noise in [(0, 0.1), (1, 3.0)]:
        draws = np.random.default_rng(seed)
        features = draws.normal(size=(30, 12))
        noisy = features[:, 0] + noise * draws.normal(size=30)
        labels = np.where(noisy > 0, "a", "b").tolist()
        rows = (features - features.mean(0)) / (features.std(0) + 1e-6)
        targets = np.array([[label == "a", label == "b"] for label in labels], float)
        expected = min(PENALTIES, key=lambda p: refitted_without_each(rows, targets, p * 30))
        assert ridge_probe(features, labels, features)[1] == expected


def test_labels_that_a_line_separates_are_read_and_features_are_put_to_one_scale():
    draws = np.random.default_rng(0)
    features = draws.normal(size=(300, 5)) * [1, 1e3, 1e-3, 1, 1] + [0, 50, 0, 0, 7]
    labels = np.array(["cat", "dog"])[(features[:, 2] > 0).astype(int)].tolist()
    answers, _ = ridge_probe(features[:200], labels[:200], features[200:])
    assert np.mean([a == b for a, b in zip(answers, labels[200:], strict=True)]) > 0.9


def test_features_that_say_nothing_give_the_most_frequent_label():
    labels = ["a"] * 7 + ["b"] * 3
    answers, _ = ridge_probe(np.zeros((10, 4)), labels, np.zeros((5, 4)))
    assert answers == ["a"] * 5
    assert most_frequent(labels) == "a"
