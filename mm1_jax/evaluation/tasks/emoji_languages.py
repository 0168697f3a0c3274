"""What a drawing is called, in the language that the demonstrations are in."""

from __future__ import annotations

from mm1_jax.evaluation.tasks import task_recognition
from mm1_jax.evaluation.tasks.generation_task import GenerationTask

TASK = GenerationTask(
    "emoji_languages",
    task_recognition.names,
    task_recognition.demonstrations,
    task_recognition.score,
)
