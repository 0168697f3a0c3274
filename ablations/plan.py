"""What a study comes to: arms, trials and the stages they share.

A **trial** is one (arm, seed): a small DAG of stages that ends in its evaluations. Two arms, or
two studies, that come to the same stage run it once, because a stage's identity is the hash of
what decides its result and of nothing else (`ablations.identity`).

Nothing heavy is imported here: `mm1 plan` answers in under a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ablations import claims, identity
from ablations.conditions import Condition, quantities
from ablations.designs import Cell, Factor, count_arms, expand
from ablations.metrics import TEXT_ONLY, check_metric
from mm1_jax import costs
from mm1_jax.config import Config, TrainConfig
from mm1_jax.data.fingerprint import data_fingerprint
from mm1_jax.errors import UserError, nearest
from mm1_jax.recipe import EvaluationConfig, Recipe, TaskConfig
from mm1_jax.runner import STAGE_MODULES

if TYPE_CHECKING:
    from ablations.study import Study

TRAINING, EVALUATION = "multimodal", "evaluation"
RUNNERS = {TRAINING: "mm1_jax.runner:train", EVALUATION: "mm1_jax.runner:evaluate"}
MANY_TRIALS = 10_000
FEW_SEEDS = 3  # below, hardly any effect can be told from chance
# Test items of a task that is run whole; for the planned cost only.
TEST_ITEMS = {"easy_vqa": 9_673, "emoji_caption": 214, "held_out_text": 311}
# Arms whose planned cost differs by less are called equally expensive.
COST_TOLERANCE = 1.1


class Stage(Config):
    """One unit of work. `id` is its identity; everything above `cost` enters it."""

    id: str
    kind: str  # "multimodal" | "evaluation" | a user's own
    run: str  # import path "package.module:function"
    config: dict[str, Any]
    seed: int
    inputs: dict[str, str]  # name → identity of the stage whose output it reads
    data_fingerprint: str
    code_fingerprint: str
    # Beside the identity: what the scheduler needs to know.
    compile_class: str  # stages of one class share compiled functions
    flops: float
    seconds: float  # planned, on one core of the planning machine
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
    train: str
    evaluations: tuple[Evaluation, ...]


class Arm(Config):
    """One cell of the design, resolved."""

    name: str  # "base", else "factor=level", joined by "," in design order
    levels: dict[str, str]  # factor → level name, every factor of the design
    label: str  # for display
    config: dict[str, Any]  # the complete resolved recipe
    dropped: tuple[str, ...]  # fields that a change of kind removed
    parameters: dict[str, int]  # part → count
    peak_lr: float
    flops_per_trial: float
    memory_bytes: int
    warnings: tuple[str, ...]

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the language model's sequence."""
        return Recipe.model_validate(self.config).image_tokens


class Plan(Config):
    """A study in resolved form; its JSON is the snapshot that running registers."""

    schema_version: int = 1
    study: str  # name
    hash: str  # of everything that defines the study's meaning (not labels, not the path)
    path: str
    source: str  # the YAML text as it was
    question: str
    primary_metric: tuple[str, str]  # task, metric
    alpha: float
    seeds: tuple[int, ...]
    factors: dict[str, tuple[str, ...]]  # factor → level names, base level first
    arms: tuple[Arm, ...]  # base first
    trials: tuple[Trial, ...]  # seed-major
    stages: dict[str, Stage]
    claims: dict[str, str]  # name → text, as written
    min_effects: dict[str, float] = Field({})  # claim → what its effect must exceed, if not 0
    null_arms: tuple[str, ...] = ()  # copies of the base with other first weights
    warnings: tuple[str, ...]


def make_plan(study: Study, *, many: bool = False) -> Plan:
    """Expand a study: its arms, trials and stages, with their identities and planned costs.

    `many` allows more than 10,000 trials.

    Raises:
        UserError: an impossible model, an unknown path, a claim that cannot be read or names what
            is not there; with file and line.
    """
    file, document = study.file, study.document
    seeds = _seeds(study)
    _check_size(study, len(seeds), many)
    primary = _primary_metric(study)
    factors, cells = expand(file.design, study.base, document)
    null_cells = tuple(_null_cell(cells[0], salt) for salt in range(1, file.null_arms + 1))
    conditions = _conditions(study, factors, cells, primary)
    needed = claims.keys_of(conditions.values())
    arms = tuple(_arm(cell, cells[0], file.labels) for cell in (*cells, *null_cells))
    _check_labels(study, arms)

    stages: dict[str, Stage] = {}
    trials: list[Trial] = []
    run = {**RUNNERS, **file.runners}
    code = {kind: _code(study, kind, path) for kind, path in run.items()}
    builders = [_Stages(cell, run, code, needed) for cell in (*cells, *null_cells)]
    for seed in seeds:
        for builder in builders:
            trial, made = builder.trial(seed)
            trials.append(trial)
            for stage in made:
                stages.setdefault(stage.id, stage)

    texts = {name: claim.text for name, claim in file.claims.items()}
    least = {name: claim.min_effect for name, claim in file.claims.items() if claim.min_effect}
    means = {
        "primary_metric": primary,
        "alpha": file.alpha,
        "seeds": seeds,
        "arms": {
            arm.name: [arm.levels, identity.affecting(Recipe.model_validate(arm.config))]
            for arm in arms
        },
        "runners": file.runners,
        "claims": {name: " ".join(text.split()) for name, text in texts.items()},
        "min_effects": least,
    }
    return Plan(
        study=file.study,
        hash=identity.fingerprint(means),
        path=document.path,
        source=document.text,
        question=file.question,
        primary_metric=primary,
        alpha=file.alpha,
        seeds=seeds,
        factors={f.name: tuple(level.name for level in f.levels) for f in factors},
        arms=arms,
        trials=tuple(trials),
        stages=stages,
        claims=texts,
        min_effects=least,
        null_arms=tuple(cell.name for cell in null_cells),
        warnings=tuple(_warnings(study, seeds, conditions, trials)),
    )


def _seeds(study: Study) -> tuple[int, ...]:
    """The registered seeds. Fresh ones are drawn from what the study claims.

    So they are the same whenever the study is resumed, no other study has them, and a claim that
    was changed after looking gets seeds that nobody has seen.
    """
    seeds = study.file.seeds
    if isinstance(seeds, tuple):
        return seeds
    file = study.file
    said = {n: [" ".join(c.text.split()), c.min_effect] for n, c in file.claims.items()}
    design = file.design.model_dump(mode="json")
    origin = identity.fingerprint([file.study, file.primary_metric, said, file.alpha, design])

    def draw(index: int) -> int:
        digest = hashlib.sha256(f"{origin} {index}".encode()).digest()
        return 1_000_000 + int.from_bytes(digest[:4]) % 1_000_000_000

    return tuple(draw(index) for index in range(seeds.count))


def _check_size(study: Study, seeds: int, many: bool) -> None:
    trials = (count_arms(study.file.design) + study.file.null_arms) * seeds
    if trials > MANY_TRIALS and not many:
        study.document.fail(
            f"this design has about {trials:,} trials, more than {MANY_TRIALS:,}; "
            "say --yes if that is meant",
            ("design",),
        )


def _primary_metric(study: Study) -> tuple[str, str]:
    task, _, metric = study.file.primary_metric.partition(".")
    try:
        if EVALUATION not in study.file.runners:  # a user's own may measure something else
            check_metric(task, metric)
        if task not in study.base.evaluation.tasks:
            known = nearest(task, study.base.evaluation.tasks)
            raise UserError(f"the base does not evaluate task {task!r}{known}")
        for name, settings in study.base.evaluation.tasks.items():
            if name in TEXT_ONLY and (settings.shots, settings.conditions) != ((0,), ("intact",)):
                raise UserError(f"{name} has no images to shuffle and takes no demonstrations")
    except UserError as error:
        study.document.fail(f"primary_metric: {error.message}", ("primary_metric",))
    return task, metric


def _null_cell(base: Cell, salt: int) -> Cell:
    """The base with other first weights and the same data order."""
    salted = base.recipe.seeds.model_copy(update={"initialisation_salt": salt})
    recipe = base.recipe.model_copy(update={"seeds": salted})
    return Cell(f"null={salt}", base.levels, recipe, (), ("seeds.initialisation_salt",))


def _conditions(
    study: Study, factors: Sequence[Factor], cells: Sequence[Cell], primary: tuple[str, str]
) -> dict[str, Condition[claims.Contrast]]:
    names = claims.Vocabulary(
        factors={f.name: [level.name for level in f.levels] for f in factors},
        arms={cell.name: cell.levels for cell in cells},
        primary_metric=primary,
        shots=claims.first_shots(study.base.evaluation.model_dump()),
        check=check_metric if EVALUATION not in study.file.runners else lambda task, metric: None,
    )
    found = {}
    for name, claim in study.file.claims.items():
        try:
            found[name] = claims.meaning(claim.text, claim.min_effect, names)
        except UserError as error:
            study.document.fail(f"claim {name}: {error.message}", ("claims", name))
    return found


def _arm(cell: Cell, base: Cell, labels: Mapping[str, str]) -> Arm:
    recipe = cell.recipe
    pieces = [labels.get(piece, piece) for piece in cell.name.split(",")]
    flops = sum(costs.flops_per_step(recipe).values()) * recipe.training.steps
    return Arm(
        name=cell.name,
        levels=dict(cell.levels),
        label=labels.get(cell.name, ", ".join(pieces)),
        config=recipe.model_dump(mode="json"),
        dropped=cell.dropped,
        parameters=costs.parameters(recipe),
        peak_lr=costs.peak_lr(recipe),
        flops_per_trial=flops,
        memory_bytes=costs.memory_bytes(recipe),
        warnings=tuple(_unfairness(cell, base)),
    )


def _check_labels(study: Study, arms: Sequence[Arm]) -> None:
    pieces = {piece for arm in arms for piece in (arm.name, *arm.name.split(","))}
    for key in study.file.labels:
        if key not in pieces:
            study.document.fail(
                f"labels: no arm or level {key!r}{nearest(key, pieces)}", ("labels", key)
            )


class _Stages:
    """The stages of one arm; what is equal for all its seeds is worked out once."""

    def __init__(
        self,
        cell: Cell,
        run: Mapping[str, str],
        code: Mapping[str, str],
        needed: Sequence[claims.ScoreKey],
    ):
        recipe, self.cell = cell.recipe, cell
        self.run, self.code = run, code
        # The rate that the law gives is part of what was trained, so it is written down.
        rate = recipe.optimizer.model_copy(update={"peak_lr": costs.peak_lr(recipe)})
        config = recipe.train_config().model_copy(update={"optimizer": rate})
        self.config = config.model_dump(mode="json")
        self.affecting = identity.affecting(config)
        self.data = data_fingerprint(config.data)
        self.compile_class = costs.compile_class(config)
        self.flops = sum(costs.flops_per_step(config).values()) * config.training.steps
        self.seconds = costs.seconds_per_step(config) * config.training.steps
        self.evaluations = list(_evaluations(cell, needed))

    def trial(self, seed: int) -> tuple[Trial, list[Stage]]:
        """One trial and its stages, training first."""
        train = self.stage(TRAINING, seed, self.config, self.affecting, {}, "train")
        stages, evaluations = [train], []
        for config, affecting in self.evaluations:
            task, shots, condition = config["task"], config["shots"], config["condition"]
            what = f"{task}, {shots}-shot, {condition}"
            inputs = {"model": train.id}
            stage = self.stage(EVALUATION, seed, config, affecting, inputs, what)
            stages.append(stage)
            evaluations.append(
                Evaluation(stage=stage.id, task=task, shots=shots, condition=condition)
            )
        trial = Trial(arm=self.cell.name, seed=seed, train=train.id, evaluations=tuple(evaluations))
        return trial, stages

    def stage(
        self,
        kind: str,
        seed: int,
        config: dict[str, Any],
        affecting: dict[str, Any],
        inputs: dict[str, str],
        what: str,
    ) -> Stage:
        flops, seconds, compile_class = self.flops, self.seconds, self.compile_class
        if kind == EVALUATION:
            share = _evaluation_share(self.cell.recipe, config)
            flops, seconds = flops * share, seconds * share
            compile_class = f"{compile_class}-{config['task']}-{config['shots']}"
        return Stage(
            id=identity.stage_id(
                kind=kind,
                config=affecting,
                seed=seed,
                inputs=inputs,
                data=self.data,
                code=self.code[kind],
            ),
            kind=kind,
            run=self.run[kind],
            config=config,
            seed=seed,
            inputs=inputs,
            data_fingerprint=self.data,
            code_fingerprint=self.code[kind],
            compile_class=compile_class,
            flops=flops,
            seconds=seconds,
            label=f"{self.cell.name} seed {seed}: {what}",
        )


def _code(study: Study, kind: str, run: str) -> str:
    try:
        return stage_code(kind, run)
    except UserError as error:
        study.document.fail(f"runners.{kind}: {error.message}", ("runners", kind))


def stage_code(kind: str, run: str) -> str:
    """Fingerprint of the source that a stage of this kind and runner executes, as it is here."""
    if run == RUNNERS.get(kind):
        return identity.code_fingerprint(STAGE_MODULES[kind])
    module, _, function = run.partition(":")
    return identity.code_fingerprint(module, function)


def _evaluations(
    cell: Cell, needed: Sequence[claims.ScoreKey]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Config of each evaluation stage, whole and as it enters the identity.

    Those of the recipe, then those that only a claim asks for.
    """
    evaluation = cell.recipe.evaluation
    wanted: dict[tuple[str, int, str], None] = {
        (task, shots, condition): None
        for task, settings in evaluation.tasks.items()
        for shots in settings.shots
        for condition in settings.conditions
    }
    for key in needed:
        if key.arm == cell.name:
            wanted[key.task, key.shots, key.condition] = None
    shared = evaluation.model_dump(mode="json", include={"seed", "batch_size"})
    marked = identity.affecting(EvaluationConfig(seed=evaluation.seed))
    for task, shots, condition in wanted:
        items = evaluation.tasks.get(task, TaskConfig()).items
        config = {"task": task, "shots": shots, "condition": condition, "items": items, **shared}
        yield config, {k: v for k, v in config.items() if k not in shared or k in marked}


def _evaluation_share(recipe: Recipe, config: Mapping[str, Any]) -> float:
    """Planned cost of an evaluation as a share of the training's.

    An item costs about a document's forward pass, a third of its part of a training step; each
    demonstration is one more document.
    """
    items = config["items"] or TEST_ITEMS.get(config["task"], 1_000)
    documents = recipe.training.steps * recipe.training.batch_size * recipe.data.images
    return items * (1 + config["shots"]) / (3 * documents)


def _unfairness(cell: Cell, base: Cell) -> Iterator[str]:
    """What differs from the base beside what was meant to be varied."""
    arm, reference = cell.recipe, base.recipe
    rate, usual = costs.peak_lr(arm), costs.peak_lr(reference)
    if rate != usual and "optimizer.peak_lr" not in cell.varied:
        yield f"peak learning rate {rate:.3g} instead of the base's {usual:.3g}"
    for what, mine, theirs in (
        ("training FLOPs", _training_flops(arm), _training_flops(reference)),
        ("text tokens", _text_tokens(arm), _text_tokens(reference)),
    ):
        ratio = mine / theirs
        if not 1 / COST_TOLERANCE <= ratio <= COST_TOLERANCE:
            yield f"{ratio:.2g} times the base's {what}"
    if arm.data.packing == "total" and arm.image_tokens != reference.image_tokens:
        yield "packing: total: with other tokens per image it sees other documents than the base"


def _training_flops(config: TrainConfig) -> float:
    return sum(costs.flops_per_step(config).values()) * config.training.steps


def _text_tokens(config: TrainConfig) -> float:
    per_sequence = config.data.text_tokens
    return float(config.training.steps * config.training.batch_size * per_sequence)


def _warnings(
    study: Study,
    seeds: Sequence[int],
    conditions: Mapping[str, Condition[claims.Contrast]],
    trials: Sequence[Trial],
) -> Iterator[str]:
    if len(seeds) < FEW_SEEDS and conditions:
        count = "1 seed gives" if len(seeds) == 1 else f"{len(seeds)} seeds give"
        yield (f"{count} next to no evidence: take at least {FEW_SEEDS}, or claims stay undecided")
    for field in study.dropped:
        yield f"overrides dropped {field}"
    if study.base.seeds.initialisation is not None:
        yield "seeds.initialisation is fixed: claims hold for these first weights only"
    if study.base.data.packing == "total":
        yield "packing: total: which documents an arm sees depends on its tokens per image"
    answers = {
        (trial.arm, e.task, e.shots, e.condition): e.stage
        for trial in trials
        if trial.seed == seeds[0]
        for e in trial.evaluations
    }
    for name, condition in conditions.items():
        for contrast in quantities(condition):
            total: dict[tuple[str, str], float] = {}
            for key, weight in contrast.weights.items():
                place = (answers[key.arm, key.task, key.shots, key.condition], key.metric)
                total[place] = total.get(place, 0.0) + weight
            if all(abs(weight) < 1e-12 for weight in total.values()):
                yield f"claim {name} cannot be decided: its arms come to the same stage"
                break
