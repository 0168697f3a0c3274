"""What a study comes to: arms, trials and the stages they share.

A **trial** is one (arm, seed): a small DAG of stages that ends in its evaluations. Two arms, or
two studies, that come to the same stage run it once, because a stage's identity is the hash of
what decides its result and of nothing else (`ablations.identity`).

Nothing heavy is imported here: `mm1 plan` answers in about a second.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ablations import claims, identity
from ablations.averages import AVERAGE, average_shots
from ablations.conditions import Condition, quantities
from ablations.contrasts import Contrast, ScoreKey
from ablations.designs import Cell, Factor, count_arms, expand
from ablations.errors import UserError, nearest, shown
from ablations.metrics import check_form, check_metric, first_metric, goal_of
from ablations.runners import check_runner
from ablations.schema import Config
from ablations.scope import FIXED, WEIGHTS
from ablations.stages import (
    EVALUATIONS,
    MULTIMODAL,
    ArmStages,
    Stage,
    Trial,
    stage_code,
)
from ablations.study import FreshSeeds
from mm1_jax.config.recipe import SCORED_PART, EvaluationConfig, Recipe
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.runner import RUNNERS
from mm1_jax.scale import costs

if TYPE_CHECKING:
    from ablations.study import Study

MANY_TRIALS = 10_000
MOST_TRIALS = 200_000
FEW_SEEDS = 3  # below, hardly any effect can be told from chance
# Arms whose planned cost differs by less are called equally expensive.
COST_TOLERANCE = 1.1


class Arm(Config):
    """One cell of the design, resolved."""

    name: str  # "base", else "factor=level", joined by "," in design order
    levels: dict[str, str]  # factor → level name, every factor of the design
    label: str  # for display
    config: dict[str, Any]  # the complete resolved recipe
    dropped: tuple[str, ...]  # fields that a change of kind removed
    parameters: dict[str, int]  # part → count
    peak_lr: float
    flops_per_trial: float  # of its trainings, those of the parts included
    memory_bytes: int
    warnings: tuple[str, ...]

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the language model's sequence, in the last training."""
        recipe = Recipe.model_validate(self.config)
        return (recipe.instruction_tuning_stage() or recipe).image_tokens


class Plan(Config):
    """A study in resolved form; its JSON is the snapshot that running registers."""

    schema_version: int = 1
    study: str  # name
    hash: str  # of everything that defines the study's meaning and can mislead (not the path)
    path: str
    source: str  # the YAML text as it was
    question: str
    primary_metric: tuple[str, str]  # task, metric
    alpha: float
    seeds: tuple[int, ...]
    fresh_set: int = 0  # of seeds that were drawn: how many sets were on record before
    factors: dict[str, tuple[str, ...]]  # factor → level names, base level first
    arms: tuple[Arm, ...]  # base first
    trials: tuple[Trial, ...]  # seed-major
    stages: dict[str, Stage]
    claims: dict[str, str]  # name → text, as written
    min_effects: dict[str, float] = Field({})  # claim → what its effect must exceed, if not 0
    null_arms: tuple[str, ...] = ()  # copies of the base with other first weights
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"<Plan {self.study}: {len(self.arms)} arms × {len(self.seeds)} seeds = "
            f"{len(self.trials)} trials, {len(self.stages)} stages, {len(self.claims)} claims>"
        )

    __str__ = __repr__  # all of it: model_dump_json()


def make_plan(study: Study, *, many: bool = False, fresh_set: int = 0) -> Plan:
    """Expand a study: its arms, trials and stages, with their identities and planned costs.

    `many` allows more than 10,000 trials. `fresh_set` is how many sets of seeds for these arms are
    on record, where the study asks for fresh ones.

    Raises:
        UserError: an impossible model, an unknown path, a claim that cannot be read or names what
            is not there; with file and line.
    """
    file, document = study.file, study.document
    _check_size(study, many)
    primary = _primary_metric(study)
    factors, cells = expand(file.design, study.base, document)
    null_cells = tuple(_null_cell(cells[0], salt) for salt in range(1, file.null_arms + 1))
    conditions = _conditions(study, factors, cells, primary)
    needed = claims.keys_of(conditions.values())
    run = {**RUNNERS, **file.runners}
    code = _Code(study, run)
    for kind, runner in file.runners.items():
        try:
            check_runner(runner)
        except UserError as error:
            document.fail(f"runners.{kind}: {error}", ("runners", kind))
    builders = [_stages(study, cell, run, code, needed) for cell in (*cells, *null_cells)]
    arms = tuple(
        _arm(cell, cells[0], made, builders[0], file.labels)
        for cell, made in zip((*cells, *null_cells), builders, strict=True)
    )
    _check_labels(study, arms)

    texts = {name: claim.text for name, claim in file.claims.items()}
    least = {name: claim.min_effect for name, claim in file.claims.items() if claim.min_effect}
    means: dict[str, Any] = {
        "question": " ".join(file.question.split()),
        "labels": file.labels,
        "primary_metric": primary,
        "alpha": file.alpha,
        "arms": {
            arm.name: [
                arm.levels,
                identity.affecting(Recipe.model_validate(arm.config)),
                builder.pinned,
            ]
            for arm, builder in zip(arms, builders, strict=True)
        },
        "runners": file.runners,
        "claims": {name: " ".join(text.split()) for name, text in texts.items()},
        "min_effects": least,
    }
    seeds = file.seeds
    if isinstance(seeds, FreshSeeds):
        seeds = _drawn(identity.fingerprint([file.study, fresh_set, means]), seeds.count)
    else:
        fresh_set = 0

    stages: dict[str, Stage] = {}
    trials: list[Trial] = []
    for seed in seeds:
        for builder in builders:
            trial, made = builder.trial(seed)
            trials.append(trial)
            for stage in made:
                stages.setdefault(stage.id, stage)

    return Plan(
        study=file.study,
        hash=identity.fingerprint({**means, "seeds": seeds}),
        path=document.path,
        source=document.text,
        question=file.question,
        primary_metric=primary,
        alpha=file.alpha,
        seeds=seeds,
        fresh_set=fresh_set,
        factors={f.name: tuple(level.name for level in f.levels) for f in factors},
        arms=arms,
        trials=tuple(trials),
        stages=stages,
        claims=texts,
        min_effects=least,
        null_arms=tuple(cell.name for cell in null_cells),
        warnings=tuple(_warnings(study, seeds, conditions, trials, stages)),
    )


def _drawn(origin: str, count: int) -> tuple[int, ...]:
    """Fresh seeds, from everything that a study means and how many sets were on record before.

    So they are the same whenever the study is resumed, no other study has them, and a study that
    was changed after looking gets seeds that nobody has seen, and that are counted.
    """

    def draw(index: int) -> int:
        digest = hashlib.sha256(f"{origin} {index}".encode()).digest()
        return 1_000_000 + int.from_bytes(digest[:4]) % 1_000_000_000

    drawn: dict[int, None] = {}  # in order, each once
    for index in itertools.count():
        drawn[draw(index)] = None
        if len(drawn) == count:
            break
    return tuple(drawn)


def _check_size(study: Study, many: bool) -> None:
    named = study.file.seeds
    seeds = named.count if isinstance(named, FreshSeeds) else len(named)
    trials = (count_arms(study.file.design) + study.file.null_arms) * seeds
    number = f"about {trials:,}" if trials < 10**15 else "more than 10¹⁵"
    if trials > MOST_TRIALS:
        study.document.fail(
            f"this design has {number} trials, and a study at most {MOST_TRIALS:,}", ("design",)
        )
    if trials > MANY_TRIALS and not many:
        study.document.fail(
            f"this design has {number} trials, more than {MANY_TRIALS:,}; say --yes if that is "
            "meant",
            ("design",),
        )


def _primary_metric(study: Study) -> tuple[str, str]:
    task, _, metric = study.file.primary_metric.partition(".")
    try:
        _check_metric(study)(task, metric)
        _check_average(study.base.evaluation.average)
        if task == AVERAGE:
            _check_averaged(study.base.evaluation, average_shots(metric))
        elif task not in study.base.evaluation.tasks:
            known = nearest(task, study.base.evaluation.tasks)
            raise UserError(f"the base does not evaluate task {task!r}{known}")
        for name, settings in study.base.evaluation.tasks.items():
            for shots in settings.shots:
                for condition in settings.conditions:
                    check_form(name, shots, condition)
    except UserError as error:
        study.document.fail(f"primary_metric: {error.message}", ("primary_metric",))
    return task, metric


def _check_average(tasks: Sequence[str]) -> None:
    """Raise `UserError` for a mean of tasks that would not be better where it is higher."""
    for name in tasks:
        if goal_of(metric := first_metric(name)) != "maximise":
            raise UserError(f"evaluation.average: of {name}.{metric} more is not better")


def _check_averaged(evaluation: EvaluationConfig, shots: int) -> None:
    if not evaluation.average:
        raise UserError("evaluation.average of the base names no tasks")
    for name in evaluation.average:
        if shots not in evaluation.tasks[name].shots:
            raise UserError(f"the base does not ask task {name!r} with {shots} shots")


def _check_metric(study: Study) -> Callable[[str, str], None]:
    """Check of a task's metric; a user's own evaluation may measure something else."""

    def check(task: str, metric: str) -> None:
        if EVALUATIONS[SCORED_PART.get(task, MULTIMODAL)] not in study.file.runners:
            check_metric(task, metric)

    return check


def _null_cell(base: Cell, salt: int) -> Cell:
    """The base with other first weights and the same data order."""
    salted = base.recipe.seeds.model_copy(update={"initialisation_salt": salt})
    recipe = base.recipe.model_copy(update={"seeds": salted})
    return Cell(f"null={salt}", base.levels, recipe, (), ("seeds.initialisation_salt",))


def _conditions(
    study: Study, factors: Sequence[Factor], cells: Sequence[Cell], primary: tuple[str, str]
) -> dict[str, Condition[Contrast]]:
    names = claims.Vocabulary(
        factors={f.name: [level.name for level in f.levels] for f in factors},
        arms={cell.name: cell.levels for cell in cells},
        primary_metric=primary,
        shots=claims.first_shots(study.base.evaluation.model_dump()),
        average=study.base.evaluation.average,
        check=_check_metric(study),
    )
    found = {}
    for name, claim in study.file.claims.items():
        try:
            found[name] = claims.meaning(claim.text, claim.min_effect, names)
        except UserError as error:
            study.document.fail(f"claim {name}: {error.message}", ("claims", name))
    return found


def _arm(
    cell: Cell, base: Cell, made: ArmStages, base_made: ArmStages, labels: Mapping[str, str]
) -> Arm:
    recipe = cell.recipe
    pieces = [labels.get(piece, piece) for piece in cell.name.split(",")]
    trained = filter(None, (recipe.train_config(), recipe.instruction_tuning_stage()))
    return Arm(
        name=cell.name,
        levels=dict(cell.levels),
        label=labels.get(cell.name, ", ".join(pieces)),
        config=recipe.model_dump(mode="json"),
        dropped=cell.dropped,
        parameters=costs.parameters(recipe),
        peak_lr=costs.peak_lr(recipe),
        flops_per_trial=made.flops,
        memory_bytes=max(costs.memory_bytes(model) for model in trained),
        warnings=tuple(_unfairness(cell, base, made.flops / base_made.flops)),
    )


def _check_labels(study: Study, arms: Sequence[Arm]) -> None:
    pieces = {piece for arm in arms for piece in (arm.name, *arm.name.split(","))}
    for key in study.file.labels:
        if key not in pieces:
            study.document.fail(
                f"labels: no arm or level {shown(key)}{nearest(key, pieces)}", ("labels", key)
            )
    for key, label in study.file.labels.items():
        if label != key and label in pieces:
            study.document.fail(
                f"labels: {shown(key)} cannot be called {shown(label)}, the name of another",
                ("labels", key),
            )
    named: dict[str, str] = {}  # label → arm
    for arm in arms:
        other = named.setdefault(arm.label, arm.name)
        if other != arm.name:
            study.document.fail(
                f"labels: {shown(other)} and {shown(arm.name)} are both called {shown(arm.label)}",
                ("labels",),
            )


class _Code(Mapping[str, str]):
    """Kind of stage → fingerprint of its code; worked out when first asked for."""

    def __init__(self, study: Study, run: Mapping[str, str]):
        self._study, self._run = study, run
        self._known: dict[str, str] = {}

    def __getitem__(self, kind: str) -> str:
        if kind not in self._known:
            try:
                self._known[kind] = stage_code(kind, self._run[kind])
            except UserError as error:
                self._study.document.fail(f"runners.{kind}: {error}", ("runners", kind))
        return self._known[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._run)

    def __len__(self) -> int:
        return len(self._run)


def _stages(
    study: Study,
    cell: Cell,
    run: Mapping[str, str],
    code: Mapping[str, str],
    needed: Sequence[ScoreKey],
) -> ArmStages:
    try:
        return ArmStages(cell.name, cell.recipe, run, code, needed)
    except UserError as error:
        study.document.fail(f"{cell.name}: {error.message}", ("design",))


def _unfairness(cell: Cell, base: Cell, flops: float) -> Iterator[str]:
    """What differs from the base beside what was meant to be varied.

    `flops` of all trainings, those of the parts included, relative to the base's.
    """
    arm, reference = cell.recipe, base.recipe
    rate, usual = costs.peak_lr(arm), costs.peak_lr(reference)
    if rate != usual and "optimizer.peak_lr" not in cell.varied:
        yield f"peak learning rate {rate:.3g} instead of the base's {usual:.3g}"
    text_tokens = _text_tokens(arm) / _text_tokens(reference)
    for what, ratio in (("training FLOPs", flops), ("text tokens", text_tokens)):
        if not 1 / COST_TOLERANCE <= ratio <= COST_TOLERANCE:
            yield f"{ratio:.2g} times the base's {what}"
    if arm.data.packing == "total" and arm.image_tokens != reference.image_tokens:
        yield "packing: total: with other tokens per image it sees other documents than the base"
    if arm.data.rich_captions and "captions" not in arm.data.mixture.weights:
        yield "data.rich_captions does nothing: captions are not in the mixture"
    if arm.data.kinds is not None:
        shares = arm.data.kinds.weights
        for name in arm.data.mixture.weights:
            if (kind := arm.data.kind_of[name]) not in shares:
                yield f"data.mixture.{name} is not read: data.kinds has no share for {kind}"


def _text_tokens(config: TrainConfig) -> float:
    per_sequence = config.data.text_tokens
    return float(config.training.steps * config.training.batch_size * per_sequence)


def _warnings(
    study: Study,
    seeds: Sequence[int],
    conditions: Mapping[str, Condition[Contrast]],
    trials: Sequence[Trial],
    stages: Mapping[str, Stage],
) -> Iterator[str]:
    if len(seeds) < FEW_SEEDS and conditions:
        count = "1 seed gives" if len(seeds) == 1 else f"{len(seeds)} seeds give"
        yield (f"{count} next to no evidence: take at least {FEW_SEEDS}, or claims stay undecided")
    for field in study.dropped:
        yield f"overrides dropped {field}"
    for key, what in FIXED.items():
        if getattr(study.base.seeds, key) is not None:
            yield f"seeds.{key} is fixed: claims hold for {what} only"
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
    pinned = {
        trial.arm: {one for one in trial.pretrained.values() if stages[one].kind == WEIGHTS}
        for trial in trials
        if trial.seed == seeds[0]
    }
    for name, condition in conditions.items():
        for contrast in quantities(condition):
            compared = [pinned[key.arm] for key, weight in contrast.weights.items() if weight]
            if any(one != compared[0] for one in compared):
                yield (
                    f"claim {name} compares weights that were read from folders: it holds for "
                    "these checkpoints only, whatever the seeds say"
                )
                break
