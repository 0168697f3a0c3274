"""What planning knows of the official tasks, against the tasks themselves."""

from __future__ import annotations

import pkgutil

import pytest
from official_folders import FOLDERS, TEXT_FOLDERS

from mm1_jax.evaluation import benchmarks
from mm1_jax.evaluation.official.catalogue import OFFICIAL, official_task
from mm1_jax.evaluation.task_records import MEASURED


def test_planning_knows_every_task():
    assert set(OFFICIAL) == {module.name for module in pkgutil.iter_modules(benchmarks.__path__)}
    assert all(official_task(name).name == name for name in OFFICIAL)


@pytest.mark.parametrize("name", [*FOLDERS, *TEXT_FOLDERS])
def test_planning_knows_what_a_task_measures_and_asks(name, tmp_path):
    known, task = OFFICIAL[name], official_task(name)
    {**FOLDERS, **TEXT_FOLDERS}[name](tmp_path)
    questions = task.read(tmp_path)
    assert known.text == (not any(question.images for question in questions))
    assert "{question}" not in known.prompt or all("question" in q.facts for q in questions)
    if not task.by_likelihood:
        metrics = task.score(questions, [task.answer(q.references[0]) for q in questions]).metrics
        assert next(iter(metrics)) == next(iter(known.metrics))
        assert set(known.metrics) <= set(metrics)
        assert all(MEASURED[name].metric(metric) is not None for metric in metrics), metrics
