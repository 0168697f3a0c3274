"""The recipe as a workload: what a study of our own model varies, trains and asks.

    encoder ─────────┬─► multimodal ─(─► sft ─)─► easy_vqa, held_out_text, …
    language_model ──┘
    encoder ───────────► emoji_retrieval, emoji_probe
    language_model ────► pretrained_text

A recipe without a pre-training of a part has no stage for it: the part starts from random weights.
A part that starts from a folder of weights has the stage `weights` in the place of its
pre-training; it has no seed, so all trials share it. Every other stage carries the trial's seed.
Where the whole model is tuned on instructions (`sft`), what is scored is the tuned model.

`make code` prints the fingerprints of the code of each kind of stage, which
`ablations/code_equivalences.yaml` names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ablations import identity
from ablations.errors import UserError, nearest
from ablations.fingerprints import canonical
from ablations.resources import Resources
from ablations.sections import affecting as affecting_of
from ablations.sections import affecting_text, once_a_section, plain
from ablations.settings import ModelSchema
from ablations.workload import INTACT, Answer, Asked, Code, Graph, Tasks, Work
from mm1_jax.config.data import DataConfig, MixtureConfig
from mm1_jax.config.encoder_pretraining import EncoderPretrainingConfig, EncoderStageConfig
from mm1_jax.config.instruction_tuning import InstructionTuningConfig
from mm1_jax.config.language_model_pretraining import (
    LanguageModelPretrainingConfig,
    LanguageModelStageConfig,
)
from mm1_jax.config.official import OfficialSettings, OfficialStage
from mm1_jax.config.recipe import (
    PRETRAINED_PARTS,
    EvaluationConfig,
    Recipe,
    TaskConfig,
    data_lacking,
)
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.config.weights import WeightsStageConfig
from mm1_jax.data.own.manifest import data_identity, read_manifest
from mm1_jax.data.own.suitability import check_sources
from mm1_jax.evaluation import by_name
from mm1_jax.evaluation.official.catalogue import OFFICIAL, module_of
from mm1_jax.evaluation.official.task_folder import open_official
from mm1_jax.evaluation.task_records import (
    MEASURED,
    MULTIMODAL,
    TASKS,
    check_form,
    check_task_metric,
    part_of,
    reads_captions,
)
from mm1_jax.scale import costs
from mm1_jax.stage_kinds import EVALUATIONS, KINDS, OF_FOLDER, SFT, WEIGHTS, is_ours
from mm1_jax.weights import weights_folder

TEXT_ITEM_TOKENS = 150  # of one held-out text, about
EVALUATION_COMPILES = 0.6  # of what its training does: the forward pass alone, or generation
# Arms whose planned cost differs by less are called equally expensive.
COST_TOLERANCE = 1.1
CHECKPOINTS = "these checkpoints"  # where weights are read from a folder
# Key of a recipe's `seeds` → what all seeds have in common where it is a number.
FIXED = {"initialisation": "these first weights", "data_order": "this data order"}

SCHEMA = ModelSchema(
    Recipe,
    mixtures={
        "data.mixture": {},
        "data.kinds": {},
        "encoder_pretraining.mixture": EncoderPretrainingConfig().mixture.model_dump(),
        "language_model_pretraining.mixture": LanguageModelPretrainingConfig().mixture.model_dump(),
        "sft.mixture": InstructionTuningConfig().mixture.model_dump(),
    },
    shares=MixtureConfig,
    own=lambda tree: (tree.get("data") or {}).get("sources") or {},
)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe. Raises `UserError` for whatever is wrong with the file."""
    return SCHEMA.load(Path(path))


@dataclass(frozen=True)
class RecipeWorkload:
    """`ablations.workload.Workload` of recipes."""

    name: str = "recipe"
    means: Any = "recipe"
    schema: ModelSchema = SCHEMA
    kinds: Collection[str] = tuple(KINDS)
    is_own: bool = False
    untrained: tuple[str, ...] = ("seeds", "evaluation")

    def tasks(self, base: Recipe) -> Tasks:
        """All tasks there are."""
        return MEASURED

    def metric_of(self, written: str, base: Recipe) -> tuple[str, str]:
        """`easy_vqa.accuracy` is the metric `accuracy` of the task `easy_vqa`."""
        task, _, metric = written.partition(".")
        if not metric:
            raise UserError(f"{written!r} is no task.metric{nearest(task, TASKS)}")
        return task, metric

    def asked(self, base: Recipe) -> list[Asked]:
        """The forms that a recipe has evaluated."""
        return [
            Asked(task, shots, condition)
            for task, settings in base.evaluation.tasks.items()
            for shots in settings.shots
            for condition in settings.conditions
        ]

    def averaged(self, base: Recipe) -> tuple[str, ...]:
        """The recipe's `evaluation.average`."""
        return base.evaluation.average

    def check_metric(self, task: str, metric: str, runners: Mapping[str, str]) -> None:
        """Raise `UserError` if there is none; a user's own evaluation may measure others."""
        if EVALUATIONS[part_of(task)] not in runners:
            check_task_metric(task, metric)

    def check_form(self, asked: Asked) -> None:
        """Raise `UserError` for a form of a task that the task cannot have."""
        check_form(asked)

    def graph(self, config: Recipe, needed: Iterable[Asked], runners: Mapping[str, str]) -> Graph:
        """The stages of one recipe.

        `UserError` where a task scores a part that has no stage or asks what the data does not
        hold, or where a checkpoint of ours is of another config than the recipe's.
        """
        works = trainings(config, runners)
        answers: list[Answer] = []
        trained = dict(works)
        for role, asked, work in evaluations(config, trained, runners, needed):
            works[role] = work
            answers.append(
                Answer(
                    role=role,
                    task=asked.task,
                    shots=asked.shots,
                    condition=asked.condition,
                    drawn=tuple(_drawn(work, asked)),
                )
            )
        last = config.instruction_tuning_stage() or config
        parameters = costs.parameters(config)
        seeds = config.seeds
        return Graph(
            works=works,
            answers=answers,
            main=SFT if SFT in trained else MULTIMODAL,
            shared=[
                *([CHECKPOINTS] if any(work.pinned for work in works.values()) else []),
                *(what for key, what in FIXED.items() if getattr(seeds, key) is not None),
            ],
            parameters=parameters,
            memory_bytes=max(costs.memory_bytes(config), costs.memory_bytes(last)),
            figures={
                # N, weights without embeddings, is what the paper's rate follows from.
                "N": parameters["language_model"],
                "image_tokens": last.image_tokens,
                "peak_lr": costs.peak_lr(config),
                # Of the last training, whose curves are shown.
                "tokens_per_step": last.training.batch_size * last.sequence_length,
            },
        )

    def salted(self, base: Recipe, salt: int) -> Recipe:
        """Other first weights, the same data order."""
        salted = base.seeds.model_copy(update={"initialisation_salt": salt})
        return base.model_copy(update={"seeds": salted})

    def warnings(self, base: Recipe) -> Iterator[str]:
        """What is fixed for all seeds, and packing that depends on the arm."""
        for key, what in FIXED.items():
            if getattr(base.seeds, key) is not None:
                yield f"seeds.{key} is fixed: claims hold for {what} only"
        if base.data.packing == "total":
            yield "packing: total: which documents an arm sees depends on its tokens per image"

    def unfairness(
        self, arm: Recipe, base: Recipe, varied: Collection[str], flops_ratio: float | None
    ) -> Iterator[str]:
        """Learning rate, FLOPs, text and documents that differ though they were not varied."""
        rate, usual = costs.peak_lr(arm), costs.peak_lr(base)
        if rate != usual and "optimizer.peak_lr" not in varied:
            yield f"peak learning rate {rate:.3g} instead of the base's {usual:.3g}"
        text_tokens = _text_tokens(arm) / _text_tokens(base)
        for what, ratio in (("training FLOPs", flops_ratio), ("text tokens", text_tokens)):
            if ratio is not None and not 1 / COST_TOLERANCE <= ratio <= COST_TOLERANCE:
                yield f"{ratio:.2g} times the base's {what}"
        if arm.data.packing == "total" and arm.image_tokens != base.image_tokens:
            yield (
                "packing: total: with other tokens per image it sees other documents than the base"
            )
        if arm.data.embedded.captions.rich and "captions" not in arm.data.mixture.weights:
            yield "data.embedded.captions.rich does nothing: captions are not in the mixture"
        if arm.data.kinds is not None:
            shares = arm.data.kinds.weights
            for name in arm.data.mixture.weights:
                if (kind := arm.data.kind_of[name]) not in shares:
                    yield f"data.mixture.{name} is not read: data.kinds has no share for {kind}"


RECIPE = RecipeWorkload()


def _text_tokens(config: TrainConfig) -> float:
    per_sequence = config.data.text_tokens
    return float(config.training.steps * config.training.batch_size * per_sequence)


def _drawn(work: Work, asked: Asked) -> Iterator[str]:
    """What of a question is drawn once, for all arms and seeds."""
    if work.config["items"] is not None:
        yield "this draw of the questions"
    if asked.shots:
        yield "this draw of the demonstrations"
    if asked.condition == "shuffled":
        yield "this shuffle of the images"


@cache
def _code(kind: str, run: str, also: tuple[str, ...]) -> tuple[Code, str]:
    """Where the code of a kind of stage stands, and its fingerprint."""
    if is_ours(kind, run):
        code = Code(module=KINDS[kind].code, also=also)
    else:
        module, _, function = run.partition(":")
        code = Code(module=module, function=function)
    try:
        return code, identity.fingerprint_of(code)
    except UserError as error:
        raise UserError(f"runners.{kind}: {error}") from None


def modules_for(task: str) -> tuple[str, ...]:
    """Import paths of what an evaluation of a task finds by name."""
    if task in OFFICIAL:
        return by_name.OFFICIAL_SCORING, module_of(task)
    return (by_name.module_of(task),)


def _work(
    kind: str,
    runners: Mapping[str, str],
    decided_by: str,
    data: str,
    also: tuple[str, ...] = (),
    **rest: Any,
) -> Work:
    run = runners.get(kind, KINDS[kind].run)
    code, fingerprint = _code(kind, run, also)
    return Work(
        kind=kind,
        run=run,
        decides=identity.decides(kind=kind, config=decided_by, data=data, code=fingerprint),
        data_fingerprint=data,
        code_fingerprint=fingerprint,
        code=code,
        **rest,
    )


# -- trainings -----------------------------------------------------------------------------------


def trainings(recipe: Recipe, runners: Mapping[str, str]) -> dict[str, Work]:
    """Role → work of everything that is trained, inputs first."""
    found: dict[str, Work] = {}
    for part in PRETRAINED_PARTS:
        work = _pretraining(recipe, part, runners)
        if work is not None:
            found[part] = work
    parts = {part: part for part in found}
    found[MULTIMODAL] = _whole_model(MULTIMODAL, recipe.train_config(), parts, runners)
    tuned = recipe.instruction_tuning_stage()
    if tuned is not None:
        found[SFT] = _whole_model(SFT, tuned, {"model": MULTIMODAL}, runners)
    return found


def _training(kind: str, config: Any, runners: Mapping[str, str], **rest: Any) -> Work:
    """The work of a training whose config is as it is to be kept."""
    record, steps = KINDS[kind], config.training.steps
    assert record.costs is not None
    return _work(
        kind,
        runners,
        affecting_text(config),
        _data_identity(config.data),
        config=plain(config),
        compile_class=record.costs.compile_class(config),
        flops=record.costs.flops(config) * steps,
        seconds=record.costs.seconds(config) * steps,
        compile_seconds=record.costs.compile_seconds(config),
        steps=steps,
        resources=Resources(devices=config.training.mesh.devices),
        memory_bytes=record.costs.memory_bytes(config),
        device_memory_bytes=record.costs.device_memory_bytes(config),
        dtype=config.training.compute_dtype,
        what=record.what,
        **rest,
    )


def _data_identity(data: DataConfig) -> str:
    # What lies in files of one's own may be other at the next plan.
    return data_identity(data) if data.own or data.tokenizer is not None else _installed(data)


_installed = once_a_section(data_identity)


def _with_rate(config: Any) -> Any:
    """With the rate that the law gives: it is part of what was trained, so it is written down."""
    rate = costs.peak_lr(config)
    if config.optimizer.peak_lr == rate:
        return config
    optimizer = config.optimizer.model_copy(update={"peak_lr": rate})
    return config.model_copy(update={"optimizer": optimizer})


def _whole_model(
    kind: str,
    config: TrainConfig,
    inputs: Mapping[str, str],
    runners: Mapping[str, str],
) -> Work:
    config = _with_rate(config)
    if config.data.sources:
        config = config.model_copy(update={"data": config.data.as_read()})
    check_sources(
        config.data, "data.vocabulary", "sft.template" if kind == SFT else "data.template"
    )
    if config.data.tokenizer is not None:
        _check_tokenizer(config.data.tokenizer, config.data.vocabulary)
    return _training(kind, config, runners, inputs=dict(inputs))


@cache
def _check_tokenizer(path: str, vocabulary: int) -> None:
    from mm1_jax.data import tokenizer  # for a recipe that names one alone

    try:
        tokenizer.check_vocabulary(tokenizer.load(Path(path)), vocabulary, path)
    except UserError as error:
        raise UserError(f"data.tokenizer: {error.message}") from None


def _pretraining(recipe: Recipe, part: str, runners: Mapping[str, str]) -> Work | None:
    """What gives a part its first weights; None where they are random."""
    folder = getattr(recipe.initial_weights, part)
    if folder is not None:
        return _weights(recipe, part, Path(folder).absolute(), runners)
    config = recipe.encoder_stage() if part == "encoder" else recipe.language_model_stage()
    if config is None:
        return None
    placed = {name: source.placed() for name, source in config.sources.items()}
    config = config.model_copy(update={"sources": placed})
    if isinstance(config, LanguageModelStageConfig):
        check_sources(config.data, "data.vocabulary")
        config = _with_rate(config)
    else:
        captioned = config.objective.reads_captions
        check_sources(config.data, "encoder_pretraining.vocabulary" if captioned else None)
    return _training(part, config, runners, epochs=_epochs(config))


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


def _weights(recipe: Recipe, part: str, folder: Path, runners: Mapping[str, str]) -> Work:
    content = weights_folder.content_of(folder)
    vocabulary = recipe.data.vocabulary
    if weights_folder.is_checkpoint(folder):
        stated = weights_folder.stated(folder)
        wanted = getattr(recipe, part).model_dump(mode="json")
        weights_folder.check_same(part, wanted, stated.part(part), folder)
        vocabulary = stated.vocabulary
    else:
        _check_public(recipe, part, folder)
    config = WeightsStageConfig.model_validate(
        {"part": part, "content": content, "vocabulary": vocabulary, "folder": str(folder)}
    )
    return _work(
        WEIGHTS,
        runners,
        affecting_text(config),
        data_identity(config.data),
        config=config.model_dump(mode="json"),
        pinned=True,
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


def evaluations(
    recipe: Recipe,
    trained: Mapping[str, Work],
    runners: Mapping[str, str],
    needed: Iterable[Asked] = (),
) -> Iterator[tuple[str, Asked, Work]]:
    """Role, form and work of every question, those included that only a claim asks."""
    for config, affecting in asked_of(recipe.evaluation, needed):
        asked = Asked(config["task"], config["shots"], config["condition"])
        role = asked.task + (f" {asked.shots}-shot" if asked.shots else "")
        role += "" if asked.condition == INTACT else f" {asked.condition}"
        yield role, asked, _evaluation(recipe, config, affecting, trained, runners)


def asked_of(
    evaluation: EvaluationConfig, needed: Iterable[Asked] = ()
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Config of each evaluation stage, whole and as it enters the identity.

    Those of the recipe, then those (task, shots, condition) that only a claim asks for.
    """
    tasks = evaluation.tasks
    wanted: dict[Asked, None] = {
        Asked(task, shots, condition): None
        for task, settings in tasks.items()
        for shots in settings.shots
        for condition in settings.conditions
    }
    wanted |= dict.fromkeys(needed)
    shared = evaluation.model_dump(
        mode="json", include={"seed", "sharp_images", "batch_size", "mesh"}
    )
    for task, shots, condition in wanted:
        items = tasks[task].items if task in tasks else TaskConfig().items
        config = {"task": task, "shots": shots, "condition": condition, "items": items, **shared}
        affecting = {k: v for k, v in config.items() if f"evaluation.{k}" not in SCHEMA.free}
        if task in OFFICIAL:
            official = official_stage(task, evaluation)
            config["official"] = official.model_dump(mode="json")
            affecting["official"] = affecting_of(official)
        yield config, affecting


def official_stage(task: str, evaluation: EvaluationConfig) -> OfficialStage:
    """Where an official task lies and how it is asked, with what its files hold.

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
    )


def _evaluation(
    recipe: Recipe,
    config: dict[str, Any],
    affecting: dict[str, Any],
    trained: Mapping[str, Work],
    runners: Mapping[str, str],
) -> Work:
    task, shots = config["task"], config["shots"]
    part = part_of(task)
    source = SFT if part == MULTIMODAL and SFT in trained else part
    if source not in trained:
        raise UserError(
            f"task {task} scores the {part.replace('_', ' ')} as its pre-training left it, and "
            f"there is none: give {part}_pretraining or initial_weights.{part}"
        )
    lacking = data_lacking(task, recipe.data)
    if lacking:
        raise UserError(f"task {task} has no questions: {lacking}")
    pretraining = recipe.encoder_pretraining
    if pretraining and reads_captions(task) and not pretraining.objective.reads_captions:
        raise UserError(
            f"task {task} compares images with captions and encoder_pretraining.objective "
            f"{pretraining.objective.kind} reads none; nearest: task emoji_probe"
        )
    scored = trained[source]
    flops, seconds = _evaluation_cost(recipe, config, scored)
    return _work(
        EVALUATIONS[part],
        runners,
        canonical(affecting),
        scored.data_fingerprint,
        modules_for(task),
        config=config,
        compile_class=f"{scored.compile_class}-{task}-{shots}",
        alike=f"{task} {shots}-shot",
        flops=flops,
        seconds=seconds,
        compile_seconds=scored.compile_seconds * EVALUATION_COMPILES,
        resources=_evaluation_devices(config, scored),
        dtype=scored.dtype,
        what=_what(config),
        inputs={"model": source},
    )


def _evaluation_devices(config: Mapping[str, Any], scored: Work) -> Resources:
    """Those of its own mesh where one is stated, else of the training's."""
    if config["mesh"] is None:
        return scored.resources
    return Resources(devices=MeshConfig.model_validate(config["mesh"]).devices)


def asked_alone(
    part: str,
    config: dict[str, Any],
    affecting: dict[str, Any],
    data: DataConfig | None,
    weights: tuple[Path, str] | None = None,
) -> Work:
    """The work of a question about a part that no recipe asks (`asked_of`): it is planned free.

    The model is the input `model`, or the `weights` in a folder, with their content's hash. What
    is asked in the `data` that it was trained on is the same stage as in a study.
    """
    kind = EVALUATIONS[part]
    if weights is not None:
        folder, content = weights
        affecting = {**affecting, "model": content}
        model = {"kind": kind, "folder": str(folder.absolute()), "content": content}
        config = {**config, "model": model}
    work = _work(
        kind,
        {},
        canonical(affecting),
        "" if data is None else data_identity(data),
        modules_for(config["task"]),
        config=config,
        what=_what(config),
        inputs={"model": part} if weights is None else {},
        pinned=weights is not None,
    )
    return work if weights is None else work.model_copy(update={"run": OF_FOLDER})


def _what(config: Mapping[str, Any]) -> str:
    return f"{config['task']}, {config['shots']}-shot, {config['condition']}"


def _evaluation_cost(
    recipe: Recipe, config: Mapping[str, Any], scored: Work
) -> tuple[float, float]:
    """Planned FLOPs and seconds of an evaluation.

    Of the whole model, a share of its training: an item costs about a document's forward pass, a
    third of its part of a training step; each demonstration is one more document. Of a part, the
    forward pass of each item.
    """
    known = TASKS.get(config["task"])  # a user's own evaluation may ask others
    items = config["items"] or (known.items if known else 1_000)
    part = part_of(config["task"])
    seconds = costs.SECONDS_PER_EVALUATION + (known.seconds if known else 0.0)
    if part == MULTIMODAL:
        training = scored.config["training"]
        documents = training["steps"] * training["batch_size"] * scored.config["data"]["images"]
        share = items * (1 + config["shots"]) / (3 * documents)
        return scored.flops * share, seconds + scored.seconds * share
    if part == "encoder":
        flops = items * (recipe.encoder.patch_embedding_flops() + recipe.encoder.block_flops())
    else:
        model = recipe.language_model
        weights = model.parameters() + model.width * recipe.data.vocabulary
        flops = 2.0 * items * TEXT_ITEM_TOKENS * weights
    return flops, seconds + flops * costs.SECONDS_PER_FLOP


# -- what stages read ----------------------------------------------------------------------------


def data_of(work: Work) -> DataConfig | None:
    """The data that a training stage of ours reads, so that it can be prepared before."""
    return KINDS[work.kind].data(work.config) if is_ours(work.kind, work.run) else None


def code_fingerprints() -> dict[str, str]:
    """Kind of training, or task → the fingerprint of its code."""
    found = {name: _code(name, kind.run, ())[1] for name, kind in KINDS.items() if not kind.scores}
    for task in TASKS:
        kind = EVALUATIONS[part_of(task)]
        found[task] = _code(kind, KINDS[kind].run, modules_for(task))[1]
    return found


if __name__ == "__main__":
    for name, code in code_fingerprints().items():
        print(f"{code}  {name}")
