"""A recipe with two steps of each training and one batch of questions of each task.

All that decides what is compiled, what is read and how much memory it takes is as it was: shapes,
batches, data, mesh.
"""

from __future__ import annotations

from typing import Any

from ablations.schema import Config
from mm1_jax.config.recipe import Recipe

STEPS = 2


def shortened(recipe: Recipe) -> Recipe:
    """The recipe, with less to do."""
    short: dict[str, Any] = _training(recipe)
    for part in ("encoder_pretraining", "language_model_pretraining", "sft"):
        stage = getattr(recipe, part)
        if stage is not None:
            short[part] = stage.model_copy(update=_training(stage))
    evaluation, most = recipe.evaluation, recipe.evaluation.batch_size

    def fewer(task: Any) -> Any:
        return task.model_copy(update={"items": min(task.items or most, most)})

    of_data = {name: fewer(task) for name, task in evaluation.tasks.items()}
    official = {name: of_data.pop(name) for name in evaluation.official}
    short["evaluation"] = evaluation.model_copy(update={**of_data, "official": official})
    return Recipe.model_validate(recipe.model_copy(update=short).model_dump(mode="json"))


def _training(stage: Config | Recipe) -> dict[str, Any]:
    """Steps, and a warm-up that fits into them."""
    training, optimizer = getattr(stage, "training"), getattr(stage, "optimizer")  # noqa: B009
    steps = min(STEPS, training.steps)
    return {
        "training": training.model_copy(
            update={"steps": steps, "log_every": 1, "checkpoint_every": steps}
        ),
        "optimizer": optimizer.model_copy(
            update={"warmup_steps": min(optimizer.warmup_steps, steps)}
        ),
    }
