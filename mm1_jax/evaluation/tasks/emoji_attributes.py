"""The attribute of a drawing that the demonstrations tell of theirs."""

from __future__ import annotations

from mm1_jax.evaluation.tasks import task_recognition
from mm1_jax.evaluation.tasks.generation_task import GenerationTask

TASK = GenerationTask(
    "emoji_attributes",
    task_recognition.attributes,
    task_recognition.demonstrations,
    task_recognition.score,
)
