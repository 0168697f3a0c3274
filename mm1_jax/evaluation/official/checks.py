"""Official tasks before a study runs: is everything there that will be asked, and as it was?

A mistake in a folder would otherwise be told after hours of training. No JAX here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from mm1_jax.evaluation.evaluation_stage import EvaluationStage
from mm1_jax.evaluation.official.few_shot_prompts import check_shots, questions_of
from mm1_jax.evaluation.official.image_record import other_sizes
from mm1_jax.evaluation.official.task_folder import open_official


def check_questions(configs: Iterable[Mapping[str, Any]]) -> None:
    """Read what the official tasks of some evaluations (`EvaluationStage` dumps) ask.

    Raises `UserError` for a folder of another format, or too few training examples.
    """
    wanted: dict[tuple[str, str], EvaluationStage] = {}
    for config in configs:
        own = EvaluationStage.model_validate(config)
        assert own.official is not None
        known = wanted.setdefault((own.task, own.official.content), own)
        if own.shots > known.shots:
            wanted[own.task, own.official.content] = own
    for own in wanted.values():
        assert own.official is not None
        _, training = questions_of(own.official.module, open_official(own.task, own.official))
        check_shots(own.task, own.shots, len(training))


def check_images(config: Mapping[str, Any], evaluated: Path) -> None:
    """Look whether a finished evaluation, in its folder, saw the image files that are there now.

    Raises `UserError` that names a file whose size is another one: the answers are about other
    images. Files that are not there are left alone.
    """
    own = EvaluationStage.model_validate(config)
    assert own.official is not None
    others = other_sizes(evaluated, open_official(own.task, own.official))
    if others:
        raise UserError(
            f"{own.task}: {len(others)} images are not those that a finished evaluation saw: "
            f"{others[0]}; put them back, or ask anew: evaluation.official.{own.task}.edition: "
            "another name"
        )
