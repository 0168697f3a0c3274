"""The table of what tasks measure."""

from __future__ import annotations

import json

import pytest

from ablations.errors import UserError
from ablations.metrics import (
    TASKS,
    check_form,
    check_metric,
    goal_of,
    metric_called,
    records,
    with_goal,
    worst_value,
)
from mm1_jax.config.recipe import EvaluationConfig
from mm1_jax.evaluation.official.catalogue import OFFICIAL


def test_every_task_of_a_recipe_is_in_the_table():
    settings = {"seed", "sharp_images", "batch_size", "mesh", "official", "average"}
    assert set(TASKS) == (set(EvaluationConfig.model_fields) - settings) | set(OFFICIAL)


def test_a_share_of_right_answers_has_a_worst_value_and_a_perplexity_none():
    assert worst_value("easy_vqa", "accuracy") == 0.0
    assert worst_value("emoji_caption", "cider") == 0.0
    assert worst_value("held_out_text", "perplexity") is None
    assert worst_value("of_a_user", "their_own") is None


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        ("easy_vqaa", "accuracy", "no task 'easy_vqaa'; did you mean 'easy_vqa'"),
        ("average", "accuracy", "no metric 'accuracy'; it is called 0_shot"),
        ("easy_vqa", "acuracy", "no metric 'acuracy'; did you mean 'accuracy'"),
    ],
)
def test_unknown_names_are_told_with_the_nearest(task, metric, message):
    with pytest.raises(UserError, match=message):
        check_metric(task, metric)


@pytest.mark.parametrize(
    "setting",
    [
        {"easy_vqa": {"shots": [100_000]}},
        {"easy_vqa": {"items": 10**12}},
        {"batch_size": 10**8},
        {"official": {"vqav2": {"folder": "x", "longest_answer": 10**7}}},
    ],
)
def test_what_fits_no_context_or_memory_is_refused_by_the_recipe(setting):
    with pytest.raises(ValueError, match="less than or equal"):
        EvaluationConfig.model_validate_json(json.dumps(setting), strict=True)


def test_what_fits_no_context_is_refused_in_a_claim():
    with pytest.raises(UserError, match="100,000 shots of easy_vqa: at most 1,024"):
        check_form("easy_vqa", 100_000, "intact")
    for digits in ("100000", "9" * 5_000):
        with pytest.raises(UserError, match="average has no metric"):
            check_metric("average", f"{digits}_shot")


def test_every_metric_of_every_task_has_a_direction():
    for task, metrics in TASKS.items():
        for metric in metrics:
            assert goal_of(metric) in ("maximise", "minimise"), (task, metric)


@pytest.mark.parametrize(
    ("metric", "goal", "worst"),
    [
        ("accuracy", "maximise", 0.0),
        ("accuracy/category:50% colour", "maximise", 0.0),
        ("blind_accuracy", "maximise", None),
        ("chance_at_5", "maximise", None),
        ("ngram_bits_per_byte", "minimise", None),
        ("strict_f1/split:random", "maximise", None),
        ("loss.captions", "minimise", None),
        ("unparsed", "minimise", None),
        ("8_shot", "maximise", None),
        ("yes_ratio", None, None),
    ],
)
def test_a_metric_is_known_by_its_name(metric, goal, worst):
    known = metric_called(metric)
    assert known is not None
    assert (known.goal, known.worst) == (goal, worst)


def test_lower_is_better_stands_beside_the_name():
    assert with_goal("held_out_text.perplexity", "perplexity") == (
        "held_out_text.perplexity (lower is better)"
    )
    assert with_goal("easy_vqa.accuracy", "accuracy") == "easy_vqa.accuracy"
    assert with_goal("of_a_user.their_own", "their_own") == "of_a_user.their_own"
    assert goal_of("their_own") is None


@pytest.mark.parametrize(
    ("control", "of"),
    [
        ("chance_at_5", "recall_at_5"),
        ("blind_accuracy", "accuracy"),
        ("blind_their_own", "their_own"),
        ("oracle_accuracy", "accuracy"),
    ],
)
def test_a_control_is_of_the_metric_that_it_is_named_after(control, of):
    task = records([("of_a_user", of), ("of_a_user", control)])["of_a_user"]
    record = task.metric(control)
    assert record is not None
    assert (record.of, record.role) == (of, "baseline")
    assert record.beaten == (not control.startswith("oracle"))
