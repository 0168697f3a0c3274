"""The stages of one arm: what is trained and scored, and what decides each of them.

    encoder ─────────┬─► multimodal ─(─► sft ─)─► evaluation (easy_vqa, held_out_text, …)
    language_model ──┘
    encoder ───────────► encoder_evaluation (emoji_retrieval, emoji_probe)
    language_model ────► language_model_evaluation (pretrained_text)

A recipe without a pre-training of a part has no stage for it: the part starts from random weights.
A part that starts from a folder of weights has the stage `weights` in the place of its
pre-training; it has no seed, so all trials share it. Every other stage carries the trial's seed.
Where the whole model is tuned on instructions (`sft`), what is scored is the tuned model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from ablations import identity
from ablations.contrasts import ScoreKey
from ablations.errors import UserError
from ablations.schema import Config
from ablations.scope import WEIGHTS
from mm1_jax.config.data import DataConfig
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.recipe import (
    PRETRAINED_PARTS,
    SCORED_PART,
    EvaluationConfig,
    Recipe,
    TaskConfig,
    data_lacking,
)
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.own.manifest import check_sources, data_identity, read_manifest
from mm1_jax.evaluation.official.catalogue import OFFICIAL, module_of
from mm1_jax.evaluation.official.task_folder import OfficialSettings, OfficialStage, open_official
from mm1_jax.runner import RUNNERS, STAGE_MODULES
from mm1_jax.scale import costs
from mm1_jax.weights import weights_folder

MULTIMODAL, SFT = "multimodal", "sft"
# Part that a task scores → kind of stage that scores it.
EVALUATIONS = {
    MULTIMODAL: "evaluation",
    "encoder": "encoder_evaluation",
    "language_model": "language_model_evaluation",
}
# Test items of a task that is run whole; for the planned cost only.
TEST_ITEMS = {
    "easy_vqa": 9_673,
    "emoji_caption": 214,
    "emoji_languages": 2_928,  # in four languages
    "emoji_attributes": 242,
    "fast_binding": 500,
    "emoji_glossary": 500,
    "emoji_questions": 856,
    "held_out_text": 311,
    "pretrained_text": 311,
    "emoji_retrieval": 214,
    "emoji_probe": 214,
}
TEXT_ITEM_TOKENS = 150  # of one held-out text, about
NGRAM_SECONDS = 10.0  # to count the training texts, which pretrained_text does beside
EVALUATION_COMPILES = 0.6  # of what its training does: the forward pass alone, or generation
NO_SEED = 0  # of stages that draw nothing


class Stage(Config):
    """One unit of work. `id` is its identity; everything above `cost` enters it."""

    id: str
    kind: str  # a key of `RUNNERS`, or a user's own
    run: str  # import path "package.module:function"
    config: dict[str, Any]
    seed: int
    inputs: dict[str, str]  # name → identity of the stage whose output it reads
    data_fingerprint: str
    code_fingerprint: str
    # Beside the identity: what the scheduler needs to know.
    compile_class: str  # stages of one class share compiled functions
    flops: float
    seconds: float  # planned, of work on one core, without compilation
    compile_seconds: float = 0.0  # planned, for the first stage of its class that a worker runs
    steps: int = 0  # that it will report, where that is known
    epochs: dict[str, float] = Field({})  # own source → how often a pre-training reads it, about
    label: str  # for people: "base seed 1: train", never read by a program


class Evaluation(Config):
    """Which stage answers one question about a trial."""

    stage: str
    task: str
    shots: int
    condition: str


class Trial(Config):
    """One arm with one seed."""

    arm: str
    seed: int
    train: str  # the last training of the whole model, whose checkpoint is scored
    evaluations: tuple[Evaluation, ...]
    pretrained: dict[str, str] = Field({})  # part → training before it that gives first weights

    @property
    def stages(self) -> tuple[str, ...]:
        """Identities of its stages, each once, inputs first."""
        scored = (one.stage for one in self.evaluations)
        return tuple(dict.fromkeys([*self.pretrained.values(), self.train, *scored]))


@dataclass(frozen=True)
class Work:
    """A stage but for its seed and its inputs."""

    kind: str
    config: dict[str, Any]
    affecting: dict[str, Any]  # the config as it enters the identity
    data: str  # fingerprint
    compile_class: str
    flops: float
    seconds: float
    compile_seconds: float
    what: str  # for the label
    epochs: Mapping[str, float] = field(default_factory=dict)  # own source → planned, of a part
    inputs: Mapping[str, str] = field(default_factory=dict)  # name → part whose stage it reads
    steps: int = 0

    @property
    def pinned(self) -> bool:
        """Whether all seeds share it."""
        return self.kind == WEIGHTS


class ArmStages:
    """The stages of one arm; what is equal for all its seeds is worked out once.

    `run` and `code` map kinds of stages to runners and code fingerprints; `needed` are scores that
    claims ask for. `UserError` where a task scores a part that has no stage or asks what the data
    does not hold, or where a checkpoint of ours is of another config than the recipe's.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        run: Mapping[str, str],
        code: Mapping[str, str],
        needed: Sequence[ScoreKey],
    ):
        self.name, self.run, self.code = name, run, code
        self.trainings: dict[str, Work] = {}  # part or kind → its work, inputs first
        for part in PRETRAINED_PARTS:
            work = _pretraining(recipe, part)
            if work is not None:
                self.trainings[part] = work
        parts = {part: part for part in self.trainings}
        self.trainings[MULTIMODAL] = _whole_model(MULTIMODAL, recipe.train_config(), "train", parts)
        tuned = recipe.instruction_tuning_stage()
        if tuned is not None:
            self.trainings[SFT] = _whole_model(
                SFT, tuned, "tune on instructions", {"model": MULTIMODAL}
            )
        own = [(key.task, key.shots, key.condition) for key in needed if key.arm == name]
        self.evaluations = [
            _evaluation(recipe, config, affecting, self.trainings)
            for config, affecting in asked_of(recipe.evaluation, own)
        ]

    @property
    def flops(self) -> float:
        """Of all trainings of one trial."""
        return sum(work.flops for work in self.trainings.values())

    @property
    def pinned(self) -> dict[str, dict[str, Any]]:
        """Part → what enters the identity of the weights it is pinned to."""
        return {part: work.affecting for part, work in self.trainings.items() if work.pinned}

    def trial(self, seed: int) -> tuple[Trial, list[Stage]]:
        """One trial and its stages, inputs first."""
        made: dict[str, Stage] = {}
        for part, work in self.trainings.items():
            made[part] = self.stage(work, seed, made)
        stages, evaluations, last = list(made.values()), [], list(made)[-1]
        for work in self.evaluations:
            stage = self.stage(work, seed, made)
            stages.append(stage)
            task, shots, condition = (work.config[key] for key in ("task", "shots", "condition"))
            evaluations.append(
                Evaluation(stage=stage.id, task=task, shots=shots, condition=condition)
            )
        trial = Trial(
            arm=self.name,
            seed=seed,
            train=made[last].id,
            evaluations=tuple(evaluations),
            pretrained={part: stage.id for part, stage in made.items() if part != last},
        )
        return trial, stages

    def stage(self, work: Work, seed: int, made: Mapping[str, Stage]) -> Stage:
        """The stage of a work; `made` has the stages it reads, by part."""
        seed = NO_SEED if work.pinned else seed
        inputs = {name: made[part].id for name, part in work.inputs.items()}
        origin = f"{self.name}: " if work.pinned else f"{self.name} seed {seed}: "
        return Stage(
            id=identity.stage_id(
                kind=work.kind,
                config=work.affecting,
                seed=seed,
                inputs=inputs,
                data=work.data,
                code=self.code[work.kind],
            ),
            kind=work.kind,
            run=self.run[work.kind],
            config=work.config,
            seed=seed,
            inputs=inputs,
            data_fingerprint=work.data,
            code_fingerprint=self.code[work.kind],
            compile_class=work.compile_class,
            flops=work.flops,
            seconds=work.seconds,
            compile_seconds=work.compile_seconds,
            steps=work.steps,
            epochs=dict(work.epochs),
            label=origin + work.what,
        )


def stage_code(kind: str, run: str) -> str:
    """Fingerprint of the source that a stage of this kind and runner executes, as it is here."""
    if run == RUNNERS.get(kind):
        return identity.code_fingerprint(STAGE_MODULES[kind])
    module, _, function = run.partition(":")
    return identity.code_fingerprint(module, function)


def data_of(stage: Stage) -> DataConfig | None:
    """The data that a training stage of ours reads, so that it can be prepared before."""
    if stage.run != RUNNERS.get(stage.kind):
        return None
    match stage.kind:
        case "multimodal" | "sft":
            return DataConfig.model_validate(stage.config["data"])
        case "encoder":
            return EncoderStageConfig.model_validate(stage.config).data
        case "language_model":
            return LanguageModelStageConfig.model_validate(stage.config).data
        case "weights":
            return DataConfig(vocabulary=stage.config["vocabulary"])
    return None


# -- trainings -----------------------------------------------------------------------------------


def _whole_model(kind: str, config: TrainConfig, what: str, inputs: Mapping[str, str]) -> Work:
    # The rate that the law gives is part of what was trained, so it is written down.
    rate = config.optimizer.model_copy(update={"peak_lr": costs.peak_lr(config)})
    config = config.model_copy(update={"optimizer": rate, "data": config.data.as_read()})
    check_sources(
        config.data, "data.vocabulary", "sft.template" if kind == SFT else "data.template"
    )
    if config.data.tokenizer is not None:
        _check_tokenizer(config.data.tokenizer, config.data.vocabulary)
    steps = config.training.steps
    return Work(
        kind=kind,
        config=config.model_dump(mode="json"),
        affecting=identity.affecting(config),
        data=data_identity(config.data),
        compile_class=costs.compile_class(config),
        flops=sum(costs.flops_per_step(config).values()) * steps,
        seconds=costs.seconds_per_step(config) * steps,
        compile_seconds=costs.seconds_to_compile(config.encoder, config.language_model),
        steps=steps,
        what=what,
        inputs=inputs,
    )


@cache
def _check_tokenizer(path: str, vocabulary: int) -> None:
    from mm1_jax.data import tokenizer  # for a recipe that names one alone

    try:
        tokenizer.check_vocabulary(tokenizer.load(Path(path)), vocabulary, path)
    except UserError as error:
        raise UserError(f"data.tokenizer: {error.message}") from None


def _pretraining(recipe: Recipe, part: str) -> Work | None:
    """What gives a part its first weights; None where they are random."""
    folder = getattr(recipe.initial_weights, part)
    if folder is not None:
        return _weights(recipe, part, Path(folder).absolute())
    config = recipe.encoder_stage() if part == "encoder" else recipe.language_model_stage()
    if config is None:
        return None
    placed = {name: source.placed() for name, source in config.sources.items()}
    config = config.model_copy(update={"sources": placed})
    if isinstance(config, LanguageModelStageConfig):
        check_sources(config.data, "data.vocabulary")
        rate = config.optimizer.model_copy(update={"peak_lr": costs.peak_lr(config)})
        config = config.model_copy(update={"optimizer": rate})
        flops = costs.language_model_stage_flops(config)
        compiling = costs.seconds_to_compile(config.language_model)
    else:
        captioned = config.objective.kind != "aim"
        check_sources(config.data, "encoder_pretraining.vocabulary" if captioned else None)
        flops = costs.encoder_stage_flops(config)
        compiling = costs.seconds_to_compile(config.encoder)
    steps = config.training.steps
    return Work(
        kind=part,
        config=config.model_dump(mode="json"),
        affecting=identity.affecting(config),
        data=data_identity(config.data),
        compile_class=costs.pretraining_compile_class(config),
        flops=flops * steps,
        seconds=costs.pretraining_seconds_per_step(config) * steps,
        compile_seconds=compiling,
        steps=steps,
        what=f"pre-train the {part.replace('_', ' ')}",
        epochs=_epochs(config),
    )


def _epochs(config: EncoderStageConfig | LanguageModelStageConfig) -> dict[str, float]:
    """Own source → how many times a pre-training reads it; of texts as if sequences were full."""
    examples = config.training.steps * config.training.batch_size
    found = {}
    for name, source in config.sources.items():
        manifest = read_manifest(source.folder)
        if isinstance(config, EncoderStageConfig):
            there, read = manifest.images, examples
        else:
            there, read = manifest.text_tokens, examples * config.text_tokens
        found[name] = config.mixture.weights[name] * read / max(1, there)
    return found


def _weights(recipe: Recipe, part: str, folder: Path) -> Work:
    content = weights_folder.content_of(folder)
    vocabulary = recipe.data.vocabulary
    if weights_folder.is_checkpoint(folder):
        stated = weights_folder.stated(folder)
        wanted = getattr(recipe, part).model_dump(mode="json")
        weights_folder.check_same(part, wanted, stated.part(part), folder)
        vocabulary = stated.vocabulary
    else:
        _check_public(recipe, part, folder)
    affecting = {"part": part, "content": content, "vocabulary": vocabulary}
    return Work(
        kind=WEIGHTS,
        config={**affecting, "folder": str(folder)},
        affecting=affecting,
        data=data_identity(DataConfig(vocabulary=vocabulary)),  # of what scores it
        compile_class=f"weights-{content[:12]}",
        flops=0.0,
        seconds=1.0,
        compile_seconds=0.0,
        what=f"read the {part.replace('_', ' ')}'s weights",
    )


def _check_public(recipe: Recipe, part: str, folder: Path) -> None:
    """Raise `UserError` where Hugging Face files hold another part than the recipe's."""
    from mm1_jax.weights.part_weights import (
        part_config,  # JAX, for a study that uses such files alone
    )

    config, vocabulary = part_config(folder, part)
    wanted = getattr(recipe, part).model_dump(mode="json")
    weights_folder.check_same(part, wanted, config.model_dump(mode="json"), folder)
    if vocabulary not in (None, recipe.data.vocabulary):
        raise UserError(
            f"data.vocabulary {recipe.data.vocabulary}: the language model in {folder} has "
            f"{vocabulary} tokens"
        )


# -- evaluations ---------------------------------------------------------------------------------


def asked_of(
    evaluation: EvaluationConfig, needed: Iterable[tuple[str, int, str]] = ()
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Config of each evaluation stage, whole and as it enters the identity.

    Those of the recipe, then those (task, shots, condition) that only a claim asks for.
    """
    wanted: dict[tuple[str, int, str], None] = {
        (task, shots, condition): None
        for task, settings in evaluation.tasks.items()
        for shots in settings.shots
        for condition in settings.conditions
    }
    wanted |= dict.fromkeys(needed)
    shared = evaluation.model_dump(
        mode="json", include={"seed", "sharp_images", "batch_size", "mesh"}
    )
    marked = identity.affecting(EvaluationConfig())
    for task, shots, condition in wanted:
        items = evaluation.tasks.get(task, TaskConfig()).items
        config = {"task": task, "shots": shots, "condition": condition, "items": items, **shared}
        affecting = {k: v for k, v in config.items() if k not in shared or k in marked}
        if task in OFFICIAL:
            official = official_stage(task, evaluation)
            config["official"] = official.model_dump(mode="json")
            affecting["official"] = identity.affecting(official)
        yield config, affecting


def official_stage(task: str, evaluation: EvaluationConfig) -> OfficialStage:
    """Where an official task lies and how it is asked, with what its files and its source hold.

    The task's module is read by name, so that a change of one task evaluates no other anew.
    `UserError` where the recipe names no folder, or the folder holds no annotations.
    """
    settings = evaluation.official.get(task)
    if settings is None:
        raise UserError(f"task {task} lies in a folder of yours: evaluation.official.{task}.folder")
    said = settings.model_dump(include=set(OfficialSettings.model_fields))
    said["folder"] = str(Path(settings.folder).absolute())
    if settings.prompt is None:
        said["prompt"] = OFFICIAL[task].prompt
    return OfficialStage(
        **said,
        module=module_of(task),
        content=open_official(task, settings).content,
        code=identity.code_fingerprint(module_of(task)),
    )


def _evaluation(
    recipe: Recipe,
    config: dict[str, Any],
    affecting: dict[str, Any],
    trainings: Mapping[str, Work],
) -> Work:
    task, shots, condition = config["task"], config["shots"], config["condition"]
    part = SCORED_PART.get(task, MULTIMODAL)
    trained = SFT if part == MULTIMODAL and SFT in trainings else part
    if trained not in trainings:
        raise UserError(
            f"task {task} scores the {part.replace('_', ' ')} as its pre-training left it, and "
            f"there is none: give {part}_pretraining or initial_weights.{part}"
        )
    lacking = data_lacking(task, recipe.data)
    if lacking:
        raise UserError(f"task {task} has no questions: {lacking}")
    pretraining = recipe.encoder_pretraining
    if task == "emoji_retrieval" and pretraining and pretraining.objective.kind == "aim":
        raise UserError(
            "task emoji_retrieval compares images with captions and encoder_pretraining.objective "
            "aim reads none; nearest: task emoji_probe"
        )
    scored = trainings[trained]
    flops, seconds = _evaluation_cost(recipe, config, scored)
    return Work(
        kind=EVALUATIONS[part],
        config=config,
        affecting=affecting,
        data=scored.data,
        compile_class=f"{scored.compile_class}-{task}-{shots}",
        flops=flops,
        seconds=seconds,
        compile_seconds=scored.compile_seconds * EVALUATION_COMPILES,
        what=f"{task}, {shots}-shot, {condition}",
        inputs={"model": trained},
    )


def _evaluation_cost(
    recipe: Recipe, config: Mapping[str, Any], scored: Work
) -> tuple[float, float]:
    """Planned FLOPs and seconds of an evaluation.

    Of the whole model, a share of its training: an item costs about a document's forward pass, a
    third of its part of a training step; each demonstration is one more document. Of a part, the
    forward pass of each item.
    """
    known = TEST_ITEMS | {name: official.items for name, official in OFFICIAL.items()}
    items = config["items"] or known.get(config["task"], 1_000)
    part = SCORED_PART.get(config["task"])
    if part is None:
        model = recipe.instruction_tuning_stage() or recipe
        documents = model.training.steps * model.training.batch_size * model.data.images
        share = items * (1 + config["shots"]) / (3 * documents)
        return scored.flops * share, costs.SECONDS_PER_EVALUATION + scored.seconds * share
    seconds = costs.SECONDS_PER_EVALUATION
    if part == "encoder":
        flops = items * (recipe.encoder.patch_embedding_flops() + recipe.encoder.block_flops())
    else:
        model = recipe.language_model
        weights = model.parameters() + model.width * recipe.data.vocabulary
        flops = 2.0 * items * TEXT_ITEM_TOKENS * weights
        seconds += NGRAM_SECONDS
    return flops, seconds + flops * costs.SECONDS_PER_FLOP
