"""The kinds of stage of a recipe: a record each, from which planning, running and checking read.

What runs a kind is a function of `mm1_jax.runner`; which kinds a recipe has, and what each reads of
the others, is said in `mm1_jax.workload`. No JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ablations.schema import Config
from mm1_jax.config.data import DataConfig
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.weights import WeightsStageConfig
from mm1_jax.evaluation.task_records import ENCODER, LANGUAGE_MODEL, MULTIMODAL
from mm1_jax.scale import costs

SFT, WEIGHTS = "sft", "weights"


@dataclass(frozen=True)
class Costs:
    """What one training is planned to cost, each a function of its config.

    compile_class        equal where two trainings run the same compiled program
    flops, seconds       of one step
    compile_seconds      of the first training of a class
    memory_bytes         of a training, of all of it on a CPU
    device_memory_bytes  of it, on each accelerator of its mesh
    """

    compile_class: Callable[[Any], str]
    flops: Callable[[Any], float]
    seconds: Callable[[Any], float]
    compile_seconds: Callable[[Any], float]
    memory_bytes: Callable[[Any], int | None] = lambda config: None
    device_memory_bytes: Callable[[Any], int | None] = lambda config: None


class StageConfig(Protocol):
    """The config of a stage that reads prepared data."""

    @property
    def data(self) -> DataConfig:
        """The data that is read."""
        ...


@dataclass(frozen=True)
class StageKind:
    """What there is to know of a kind before a stage of it is planned.

    run      import path of what runs it, unless a study names its own
    code     module whose source, with all it imports, is the stage's code
    what     it does, for people; "" where each stage says it
    config   class of its config, a `StageConfig`; None of an evaluation: it reads others' data
    costs    of a training; other stages are planned by what they read
    scores   part whose checkpoint an evaluation asks
    """

    run: str
    code: str
    what: str = ""
    config: type[Config] | None = None
    costs: Costs | None = None
    scores: str = ""

    def data(self, config: Mapping[str, Any]) -> DataConfig | None:
        """The data that a stage with this config, as plain values, reads."""
        if self.config is None:
            return None
        return cast("StageConfig", self.config.model_validate(config)).data


_OF_MODEL = Costs(
    compile_class=costs.compile_class,
    flops=lambda config: sum(costs.flops_per_step(config).values()),
    seconds=costs.seconds_per_step,
    compile_seconds=lambda config: costs.seconds_to_compile(config.encoder, config.language_model),
    memory_bytes=costs.memory_bytes,
    device_memory_bytes=lambda config: round(sum(costs.memory_per_chip(config).values())),
)
KINDS: dict[str, StageKind] = {
    ENCODER: StageKind(
        "mm1_jax.runner:pretrain_encoder",
        "mm1_jax.training.encoder_pretraining",
        "pre-train the encoder",
        config=EncoderStageConfig,
        costs=Costs(
            compile_class=costs.pretraining_compile_class,
            flops=costs.encoder_stage_flops,
            seconds=costs.pretraining_seconds_per_step,
            compile_seconds=lambda config: costs.seconds_to_compile(config.encoder),
        ),
    ),
    LANGUAGE_MODEL: StageKind(
        "mm1_jax.runner:pretrain_language_model",
        "mm1_jax.training.language_model_pretraining",
        "pre-train the language model",
        config=LanguageModelStageConfig,
        costs=Costs(
            compile_class=costs.pretraining_compile_class,
            flops=costs.language_model_stage_flops,
            seconds=costs.pretraining_seconds_per_step,
            compile_seconds=lambda config: costs.seconds_to_compile(config.language_model),
        ),
    ),
    WEIGHTS: StageKind(
        "mm1_jax.runner:read_weights",
        "mm1_jax.weights.weights_stage",
        config=WeightsStageConfig,
    ),
    MULTIMODAL: StageKind(
        "mm1_jax.runner:train",
        "mm1_jax.training.multimodal_training",
        "train",
        config=TrainConfig,
        costs=_OF_MODEL,
    ),
    SFT: StageKind(
        "mm1_jax.runner:tune",
        "mm1_jax.training.instruction_tuning",
        "tune on instructions",
        config=TrainConfig,
        costs=_OF_MODEL,
    ),
    "evaluation": StageKind(
        "mm1_jax.runner:evaluate",
        "mm1_jax.evaluation.multimodal_evaluation",
        scores=MULTIMODAL,
    ),
    "encoder_evaluation": StageKind(
        "mm1_jax.runner:evaluate_encoder",
        "mm1_jax.evaluation.encoder_evaluation",
        scores=ENCODER,
    ),
    "language_model_evaluation": StageKind(
        "mm1_jax.runner:evaluate_language_model",
        "mm1_jax.evaluation.language_model_evaluation",
        scores=LANGUAGE_MODEL,
    ),
}
# Part that a task scores → kind of stage that scores it.
EVALUATIONS = {kind.scores: name for name, kind in KINDS.items() if kind.scores}
# What runs an evaluation of weights that no stage made, with the code of its kind.
OF_FOLDER = "mm1_jax.runner:evaluate_folder"


def is_ours(kind: str, run: str) -> bool:
    """Whether a stage is run by ours and not by a study's own runner."""
    return kind in KINDS and run == KINDS[kind].run
