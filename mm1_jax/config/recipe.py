"""A recipe: one training run and how its checkpoint is evaluated. A study's base is a recipe.

Kept apart from `config.py` so that a new task or another prompt changes nothing that training
reads: evaluation never retrains anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from ablations.errors import nearest
from ablations.schema import NOT_IDENTITY, Config
from mm1_jax.config.data import DataConfig, chosen_sources
from mm1_jax.config.embedded_sources import CaptionsConfig
from mm1_jax.config.encoder import at_image_size
from mm1_jax.config.encoder_pretraining import EncoderPretrainingConfig, EncoderStageConfig
from mm1_jax.config.instruction_tuning import InstructionTuningConfig
from mm1_jax.config.language_model_pretraining import (
    LanguageModelPretrainingConfig,
    LanguageModelStageConfig,
)
from mm1_jax.config.official import OfficialSettings
from mm1_jax.config.questions import MOST_ASKED_AT_ONCE, MOST_ITEMS, MOST_SHOTS, Condition
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig, OptimizerConfig
from mm1_jax.evaluation.official.catalogue import OFFICIAL
from mm1_jax.evaluation.task_records import OF_OUR_DATA, TASKS

# The parts that may come from a stage of their own: the stage's kind is the part's name.
PretrainedPart = Literal["encoder", "language_model"]
PRETRAINED_PARTS: tuple[PretrainedPart, ...] = ("encoder", "language_model")


def data_lacking(task: str, data: DataConfig) -> str | None:
    """What `data` must say and does not for a task to have questions; None if nothing."""
    groups = TASKS[task].asks if task in TASKS else ()
    return next(filter(None, map(data.embedded.lacking, groups)), None)


class TaskConfig(Config):
    """Which variants of one task are run."""

    shots: tuple[Annotated[int, Field(ge=0, le=MOST_SHOTS)], ...] = Field(
        (0,), min_length=1, max_length=MOST_SHOTS, description="demonstrations in the prompt"
    )
    conditions: tuple[Condition, ...] = Field(
        ("intact",),
        min_length=1,
        description="shuffled: every question gets another item's image; no_image: words alone; "
        "wrong_demonstrations: they show another task",
    )
    items: int | None = Field(
        None,
        ge=1,
        le=MOST_ITEMS,
        description="a fixed random subset of this size; null takes the whole test split",
    )

    @field_validator("shots", "conditions")
    @classmethod
    def _distinct(cls, values: tuple) -> tuple:
        return tuple(dict.fromkeys(values))


class OfficialTaskConfig(TaskConfig, OfficialSettings):
    """An official task in a folder of the user's, and which variants of it are run."""


# A field for each of the tasks; `Any`, because no type checker can know them.
_FIELDS: dict[str, Any] = dict.fromkeys(OF_OUR_DATA, (TaskConfig | None, None))
_OfOurData: Any = create_model("_OfOurData", __base__=Config, **_FIELDS)


class EvaluationConfig(_OfOurData):
    """Tasks on which a checkpoint is scored; a task that is absent (null) is not run.

    Those that are asked in the data of the packages have a field each, by `task_records`; some
    score a part as its own pre-training (or a folder of weights) left it. `official` maps the
    names of official tasks to their folders.
    """

    official: dict[str, OfficialTaskConfig] = Field({})
    average: tuple[str, ...] = Field(
        (), description="tasks whose first metrics `average.8_shot` is the mean of"
    )
    seed: NonNegativeInt = Field(
        0, description="of subsets, shuffles and demonstrations; equal in all arms"
    )
    sharp_images: NonNegativeInt | None = Field(
        None,
        description="how many of a prompt's last images are shown with their sub-images, those "
        "before as an overview; null: all",
    )
    batch_size: int = Field(256, ge=1, le=MOST_ASKED_AT_ONCE, json_schema_extra=NOT_IDENTITY)
    mesh: MeshConfig | None = Field(
        None,
        json_schema_extra=NOT_IDENTITY,
        description="how weights and questions are cut over the devices of a process; null: a copy "
        "on each device if half a device holds one, else as in training or along fsdp",
    )

    @property
    def tasks(self) -> dict[str, TaskConfig]:
        """Task name → its settings, for the tasks that are run."""
        named = {name: getattr(self, name) for name in OF_OUR_DATA}
        return {name: task for name, task in named.items() if task is not None} | self.official

    @field_validator("official")
    @classmethod
    def _known(cls, official: dict[str, OfficialTaskConfig]) -> dict[str, OfficialTaskConfig]:
        for name in official:
            if name not in OFFICIAL:
                raise ValueError(f"no official task {name!r}{nearest(name, OFFICIAL)}")
        return official

    @model_validator(mode="after")
    def _averaged(self) -> EvaluationConfig:
        for name in self.average:
            if self.average.count(name) > 1:
                raise ValueError(f"average: task {name!r} is named twice")
            if name not in self.tasks:
                raise ValueError(
                    f"average: task {name!r} is not evaluated{nearest(name, self.tasks)}"
                )
        return self


class InitialWeights(Config):
    """Folders that parts take their first weights from, relative to the working directory.

    A folder of Hugging Face safetensors, or a checkpoint of ours.
    """

    encoder: str | None = None
    language_model: str | None = None


class Recipe(TrainConfig):
    """A complete model + data + training + evaluation config.

    A part starts from its own pre-training, from a folder of weights, or from random weights. With
    `sft` the whole model is then tuned on instructions, and what is scored is the tuned model.
    """

    encoder_pretraining: EncoderPretrainingConfig | None = None
    language_model_pretraining: LanguageModelPretrainingConfig | None = None
    # Paths mean nothing to another machine: what the folders hold enters the identity.
    initial_weights: InitialWeights = Field(InitialWeights(), json_schema_extra=NOT_IDENTITY)
    sft: InstructionTuningConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig(easy_vqa=TaskConfig())

    def train_config(self) -> TrainConfig:
        """The part that decides the multimodal checkpoint, but for its parts' first weights."""
        # Checked already, as what a recipe has beyond it is beside it.
        fields = {name: getattr(self, name) for name in TrainConfig.model_fields}
        return TrainConfig.model_construct(**fields)

    def encoder_stage(self) -> EncoderStageConfig | None:
        """The encoder's own pre-training; null if it has none."""
        if self.encoder_pretraining is None:
            return None
        fields = dict(self.encoder_pretraining)
        sources = chosen_sources(self.encoder_pretraining.mixture, self.data.sources)
        if sources:
            # How own images are shown and own captions tokenised is said of the data as a whole.
            shared = ["fit", "background"]
            if self.encoder_pretraining.objective.reads_captions:
                shared += ["tokenizer", "special_tokens"]
            fields |= {"sources": sources} | {name: getattr(self.data, name) for name in shared}
        return EncoderStageConfig(
            **fields, encoder=self.encoder, workers=self.data.workers, seeds=self.seeds
        )

    def language_model_stage(self) -> LanguageModelStageConfig | None:
        """The language model's own pre-training; null if it has none."""
        if self.language_model_pretraining is None:
            return None
        model = self.language_model
        if model.kind == "moe" and model.from_dense:
            model = model.dense()
        pretraining = self.language_model_pretraining
        shared = ("vocabulary", "tokenizer", "special_tokens", "workers")
        return LanguageModelStageConfig(
            **dict(pretraining),
            **{name: getattr(self.data, name) for name in shared},
            language_model=model,
            sources=chosen_sources(pretraining.mixture, self.data.sources),
            seeds=self.seeds,
        )

    def instruction_tuning_stage(self) -> TrainConfig | None:
        """The instruction tuning of the whole model; null if it has none."""
        if self.sft is None:
            return None
        read = ("mixture", "template", "text_tokens", "images", "sub_images")
        # How sources are mixed and packed is said anew: what is left out is as if not written.
        kept = (
            *("sources", "fit", "vocabulary", "tokenizer", "special_tokens", "background"),
            "workers",
        )
        data = {name: getattr(self.data, name) for name in kept}
        data |= {name: getattr(self.sft, name) for name in read}
        data["embedded"] = self.data.embedded.model_copy(update={"captions": CaptionsConfig()})
        return TrainConfig(
            encoder=at_image_size(self.encoder, self.sft.image_size),
            connector=self.connector,
            language_model=self.language_model,
            data=DataConfig.model_validate(data),
            training=self.sft.training,
            optimizer=OptimizerConfig(**dict(self.sft.optimizer)),
            seeds=self.seeds,
        )

    @model_validator(mode="after")
    def _tunable(self) -> Recipe:
        try:
            self.instruction_tuning_stage()
        except ValidationError as error:
            raise ValueError(
                f"sft: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
            ) from None
        return self

    @model_validator(mode="after")
    def _cut_evenly_when_evaluated(self) -> Recipe:
        if self.evaluation.mesh is not None:
            try:
                self.encoder.check_mesh(self.evaluation.mesh)
                self.language_model.check_mesh(self.evaluation.mesh, self.data.vocabulary)
            except ValueError as error:
                raise ValueError(f"evaluation.{error}") from None
        return self

    @model_validator(mode="after")
    def _trainable_encoder(self) -> Recipe:
        if self.encoder_pretraining is not None:
            self.encoder_pretraining.check_encoder(self.encoder)
        return self

    @model_validator(mode="after")
    def _readable_sources(self) -> Recipe:
        for part in PRETRAINED_PARTS:
            pretraining = getattr(self, f"{part}_pretraining")
            try:
                if pretraining is not None:
                    pretraining.check_sources(self.data.sources)
            except ValueError as error:
                raise ValueError(f"{part}_pretraining.{error}") from None
        return self

    @model_validator(mode="after")
    def _dense_origin(self) -> Recipe:
        model = self.language_model
        pretrained = self.language_model_pretraining or self.initial_weights.language_model
        if model.kind == "moe" and model.from_dense and not pretrained:
            raise ValueError(
                "language_model.from_dense copies a dense model that was trained before: give "
                "language_model_pretraining or initial_weights.language_model"
            )
        return self

    @model_validator(mode="after")
    def _pretrainable_parts(self) -> Recipe:
        for part, stage in (
            ("encoder", self.encoder_stage),
            ("language_model", self.language_model_stage),
        ):
            try:
                stage()
            except ValidationError as error:
                said = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"{part}_pretraining: {said}") from None
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> Recipe:
        for part in PRETRAINED_PARTS:
            folder = getattr(self.initial_weights, part)
            if folder is not None and getattr(self, f"{part}_pretraining") is not None:
                raise ValueError(
                    f"initial_weights.{part} and {part}_pretraining both give the {part} its "
                    f"first weights; write null for one of them"
                )
        return self
