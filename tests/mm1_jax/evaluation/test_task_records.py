"""The table of what tasks measure."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from ablations.averages import average_shots
from ablations.errors import UserError
from ablations.workload import Asked, with_goal
from mm1_jax.config.recipe import EvaluationConfig, TaskConfig
from mm1_jax.evaluation.by_name import task_module
from mm1_jax.evaluation.task_records import (
    MEASURED,
    OF_OUR_DATA,
    TASKS,
    check_form,
    check_task_metric,
)


def test_a_recipe_asks_what_has_a_record_and_finds_its_module():
    settings = {"seed", "sharp_images", "batch_size", "mesh", "official", "average"}
    assert set(OF_OUR_DATA) == set(EvaluationConfig.model_fields) - settings
    for task in OF_OUR_DATA:
        asked = EvaluationConfig.model_validate({task: {"shots": [0, 0]}}).tasks
        assert asked == {task: TaskConfig(shots=(0,))}
        if TASKS[task].measured.most_shots:
            assert task_module(task).TASK.name == task
        else:
            assert task == task_module(task).NAME
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        EvaluationConfig.model_validate({"vqav2": {}})


def test_a_share_of_right_answers_has_a_worst_value_and_a_perplexity_none():
    assert MEASURED["easy_vqa"].metric("accuracy").worst == 0.0
    assert MEASURED["emoji_caption"].metric("cider").worst == 0.0
    assert MEASURED["held_out_text"].metric("perplexity").worst is None
    assert MEASURED["held_out_text"].metric("their_own") is None


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        ("easy_vqaa", "accuracy", "no task 'easy_vqaa'; did you mean 'easy_vqa'"),
        ("easy_vqa", "acuracy", "no metric 'acuracy'; did you mean 'accuracy'"),
    ],
)
def test_unknown_names_are_told_with_the_nearest(task, metric, message):
    with pytest.raises(UserError, match=message):
        check_task_metric(task, metric)


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
        check_form(Asked("easy_vqa", 100_000))
    for metric in ("accuracy", "100000_shot", "9" * 5_000 + "_shot"):
        with pytest.raises(UserError, match=r"average has no metric .* it is called 0_shot"):
            average_shots(metric)


def test_every_metric_of_every_task_has_a_direction():
    for name, record in TASKS.items():
        for metric in record.measured.metrics:
            assert metric.goal in ("maximise", "minimise"), (name, metric)


@pytest.mark.parametrize(
    ("task", "metric", "goal", "worst"),
    [
        ("easy_vqa", "accuracy", "maximise", 0.0),
        ("easy_vqa", "accuracy/category:50% colour", "maximise", 0.0),
        ("easy_vqa", "blind_accuracy", "maximise", None),
        ("emoji_retrieval", "chance_at_5", "maximise", None),
        ("pretrained_text", "ngram_bits_per_byte", "minimise", None),
        ("mme", "strict_f1/split:random", "maximise", None),
        ("training", "loss.captions", "minimise", None),
        ("mmmu", "unparsed", "minimise", None),
        ("pope", "yes_ratio", None, None),
    ],
)
def test_a_metric_of_a_task_is_known_by_its_name_and_a_part_by_the_whole(task, metric, goal, worst):
    known = MEASURED[task].metric(metric)
    assert known is not None
    assert (known.goal, known.worst) == (goal, worst)


def test_lower_is_better_stands_beside_the_name():
    perplexity = MEASURED["held_out_text"].metric("perplexity")
    shown = "held_out_text.perplexity (lower is better)"
    assert with_goal("held_out_text.perplexity", perplexity.goal) == shown
    assert with_goal("score", MEASURED["easy_vqa"].metric("accuracy").goal) == "score"
    assert with_goal("their_own", None) == "their_own"


def test_answerers_without_the_model_are_baselines_of_what_they_are_compared_with():
    roles = {m.name: (m.role, m.of) for m in MEASURED["emoji_probe"].metrics}
    assert roles == {
        "accuracy": ("score", ""),
        "untrained_accuracy": ("control", "accuracy"),
        "majority_accuracy": ("baseline", "accuracy"),
    }
