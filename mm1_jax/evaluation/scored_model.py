"""What can be asked of a trained model, from what its folders hold. No JAX but for its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.recipe import data_lacking
from mm1_jax.evaluation.official.catalogue import OFFICIAL
from mm1_jax.evaluation.task_records import LANGUAGE_MODEL, MULTIMODAL, TASKS, part_of
from mm1_jax.weights import weights_folder


@dataclass(frozen=True)
class ScoredModel:
    """A model by the folders of its parts, each with its checkpoint; `name` is for messages."""

    name: str
    folders: Mapping[str, Path]  # part, or "multimodal" → the folder that holds it

    @property
    def imported(self) -> bool:
        """Whether it is a whole model that was trained elsewhere."""
        return MULTIMODAL in self.folders and weights_folder.is_imported(self.folders[MULTIMODAL])

    def part_of(self, task: str) -> str | None:
        """The part that a task scores, if it is there: official texts score what there is."""
        from mm1_jax.training.checkpoints import load_config

        part = part_of(task)
        if part not in self.folders and task in OFFICIAL:
            part = LANGUAGE_MODEL
        if part not in self.folders:
            return None
        if task in TASKS and TASKS[task].captions:
            config = load_config(self.folders[part])
            if isinstance(config, EncoderStageConfig) and not config.objective.reads_captions:
                return None
        return part

    def cannot_be_asked(self, task: str) -> str | None:
        """Why a task does not score this model; None if it does."""
        from mm1_jax.training.checkpoints import load_config

        part = self.part_of(task)
        if part == MULTIMODAL and task not in OFFICIAL and self.imported:
            return (
                f"it is asked in the data that a model was trained on, and {self.name} was trained "
                "elsewhere; valid: official tasks with --folder"
            )
        if part is None:
            return f"{self.name} holds no {part_of(task)} that it scores"
        if TASKS[task].asks:
            lacking = data_lacking(task, load_config(self.folders[part]).data)
            return lacking and f"it has no questions for {self.name}: {lacking}"
        return None
