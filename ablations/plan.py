"""What a study comes to: arms, trials and the stages they share.

A **trial** is one (arm, seed): a small DAG of stages that ends in its evaluations. Two arms, or
two studies, that come to the same stage run it once, because a stage's identity is the hash of
what decides its result and of nothing else (`ablations.identity`).

Nothing heavy is imported here: `mm1 plan` answers in about a second.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import Field, SkipValidation, model_serializer, model_validator

from ablations import claims, identity
from ablations.adaptive_seeds import AdaptiveSeeds, Replication
from ablations.averages import AVERAGE, average_shots, known_metric
from ablations.conditions import Condition, quantities
from ablations.config_parts import ConfigParts
from ablations.contrasts import Contrast
from ablations.designs import Cell, Factor, count_arms, expand
from ablations.errors import UserError, nearest, shown
from ablations.exclusions import Exclusion, excluded
from ablations.few import few
from ablations.no_collection import no_collection
from ablations.schema import Config
from ablations.stages import Stage, Trial, stages_of
from ablations.workload import TRAINING, Answer, Asked, Graph, Metric, Task, Tasks, Work

if TYPE_CHECKING:
    from ablations.study import Study
    from ablations.workload import AnyConfig, Workload

MANY_TRIALS = 10_000
MOST_TRIALS = 200_000
MOST_NAMED = 5  # arms, in a warning
FEW_SEEDS = 3  # below, hardly any effect can be told from chance


class Arm(Config):
    """One cell of the design, resolved."""

    name: str  # "base", else "factor=level", joined by "," in design order
    levels: dict[str, str]  # factor → level name, every factor of the design
    label: str  # for display
    config: dict[str, Any]  # complete and resolved
    dropped: tuple[str, ...]  # fields that a change of kind removed
    roles: tuple[str, ...]  # of the stages of its trials, inputs first
    answers: tuple[Answer, ...]  # which of them answers what
    main: str  # role of the last training, whose curves are shown
    shared: tuple[str, ...] = ()  # what all seeds have in common, in words of a verdict's scope
    parameters: dict[str, int] = Field({})  # part → count
    flops_per_trial: float | None  # of its trainings, those of the parts included; None: unknown
    memory_bytes: int | None = None
    figures: dict[str, float] = Field({})  # name → what else is worth showing
    warnings: tuple[str, ...]

    def answer(self, asked: Asked) -> Answer | None:
        """Which stage answers a form of a task; None where none does."""
        return self._by_form.get(asked)

    @cached_property
    def _by_form(self) -> dict[Asked, Answer]:
        return {one.asked: one for one in self.answers}


class Plan(Config):
    """A study in resolved form; its JSON is the snapshot that running registers.

    In JSON, what the stages of all seeds share is written once, in `works`, and what configs share
    in `parts` (`ablations.config_parts`).
    """

    schema_version: int = 2
    study: str  # name
    workload: str  # name of what is varied
    hash: str  # of everything that defines the study's meaning and can mislead (not the path)
    path: str
    source: str  # the YAML text as it was
    question: str
    primary_metric: tuple[str, str]  # task, metric
    alpha: float
    seeds: tuple[int, ...]
    fresh_set: int = 0  # of seeds that were drawn: how many sets were on record before
    replication: Replication | None = None  # how seeds are added; None: all trials are run
    factors: dict[str, tuple[str, ...]]  # factor → level names, base level first
    arms: tuple[Arm, ...] = Field(exclude=True)  # base first
    tasks: dict[str, Task]  # what could be asked, and what its numbers mean
    is_own: bool = False  # whether what is trained is the user's own (`Workload.is_own`)
    average: tuple[str, ...] = ()  # tasks that `average` is the mean of
    mixtures: tuple[str, ...] = ()  # paths of a config's groups of shares
    free: tuple[str, ...] = ()  # paths of a config that decide no result; `*` is any name
    untrained: tuple[str, ...] = ()  # groups of a config that say how seeds act, or what is asked
    # Seed-major; where seeds are added, all that may come.
    trials: SkipValidation[tuple[Trial, ...]] = Field(exclude=True)
    stages: SkipValidation[dict[str, Stage]] = Field(exclude=True)
    claims: dict[str, str]  # name → text, as written
    min_effects: dict[str, float] = Field({})  # claim → what its effect must exceed, if not 0
    null_arms: tuple[str, ...] = ()  # copies of the base with other first weights
    excluded: tuple[Exclusion, ...] = ()  # trials that are not run and do not count
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"<Plan {self.study}: {len(self.arms)} arms × {len(self.seeds)} seeds = "
            f"{len(self.trials)} trials, {len(self.stages)} stages, {len(self.claims)} claims>"
        )

    __str__ = __repr__  # all of it: model_dump_json()

    def only(self, trials: Iterable[tuple[str, int]]) -> Plan:
        """The plan of some of its trials (arm, seed) and of their stages."""
        wanted = set(trials)
        kept = tuple(one for one in self.trials if (one.arm, one.seed) in wanted)
        used = {stage for one in kept for stage in one.stages.values()}
        stages = {name: stage for name, stage in self.stages.items() if name in used}
        return self.model_copy(update={"trials": kept, "stages": stages})

    @property
    def beginning(self) -> Plan:
        """What is run before any seed is added; all of it, where none will be."""
        if self.replication is None:
            return self
        first = self.seeds[: self.replication.initial]
        return self.only([(one.arm, one.seed) for one in self.trials if one.seed in first])

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return self._arms[name]

    @cached_property
    def left_out(self) -> frozenset[tuple[str, int]]:
        """(arm, seed) of the trials that are excluded."""
        return frozenset((one.arm, one.seed) for one in self.excluded)

    @cached_property
    def _arms(self) -> dict[str, Arm]:
        return {arm.name: arm for arm in self.arms}

    def main(self, trial: Trial) -> str:
        """The stage of a trial whose curves are the trial's own."""
        return trial.stages[self._arms[trial.arm].main]

    def answers(self, trial: Trial) -> dict[Asked, str]:
        """Form of a task → the stage of a trial that answers it."""
        return {one.asked: trial.stages[one.role] for one in self._arms[trial.arm].answers}

    def trainings(self, trial: Trial) -> dict[str, str]:
        """Role → stage, of those stages of a trial that are not only asked something."""
        arm = self._arms[trial.arm]
        asked = {one.role for one in arm.answers} - {arm.main}
        return {role: stage for role, stage in trial.stages.items() if role not in asked}

    def metric(self, task: str, name: str) -> Metric:
        """What a number of this name is; of what nobody has declared, nothing is known."""
        return known_metric(self.tasks, self.average, task, name)

    def is_declared(self, task: str, name: str) -> bool:
        """Whether a task has a metric of this name."""
        return task in self.tasks and self.tasks[task].metric(name) is not None

    @model_serializer(mode="wrap")
    def _once(self, rest: Any) -> dict[str, Any]:
        """Stages as [identity, work, seed, inputs, origin], trials as [arm, seed, roles]: all but
        identity and seed are numbers of what is listed beside.
        """
        parts = ConfigParts()
        arms = [
            {**arm.model_dump(mode="json", exclude={"config"}), "config": parts.number(arm.config)}
            for arm in self.arms
        ]
        numbers: dict[int, int] = {}  # by object: stages of one work share it
        works = []
        number_of = {stage: number for number, stage in enumerate(self.stages)}
        origins: dict[str, int] = {}
        stages = []
        for stage in self.stages.values():
            work = stage.work
            number = numbers.get(id(work))
            if number is None:
                number = numbers[id(work)] = len(works)
                said = work.model_dump(mode="json", exclude={"config"})
                works.append({**said, "config": parts.number(work.config)})
            inputs = {name: number_of[source] for name, source in stage.inputs.items()}
            origin = origins.setdefault(stage.origin, len(origins))
            stages.append([stage.id, number, stage.seed, inputs, origin])
        arm_number = {arm.name: number for number, arm in enumerate(self.arms)}
        trials = [
            [arm_number[t.arm], t.seed, {role: number_of[one] for role, one in t.stages.items()}]
            for t in self.trials
        ]
        shared = {"parts": parts.written, "arms": arms, "works": works, "origins": [*origins]}
        return {**rest(self), **shared, "stages": stages, "trials": trials}

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "parts" not in values:
            return values
        values = dict(values)
        try:
            parts = ConfigParts.read(values.pop("parts"))
            values["arms"] = tuple(
                {**arm, "config": parts[arm["config"]]} for arm in values["arms"]
            )
            works = [
                Work.model_validate({**work, "config": parts[work["config"]]})
                for work in values.pop("works")
            ]
            names = [arm["name"] for arm in values["arms"]]
            ids = [stage[0] for stage in values["stages"]]
            values["trials"] = tuple(
                Trial(names[arm], seed, {role: ids[number] for role, number in roles.items()})
                for arm, seed, roles in values["trials"]
            )
            origins = values.pop("origins")
            values["stages"] = {
                stage: Stage(
                    stage,
                    works[number],
                    int(seed),
                    {name: ids[source] for name, source in inputs.items()},
                    origins[origin],
                )
                for stage, number, seed, inputs, origin in values["stages"]
            }
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"its stages cannot be read: {error!r}") from None
        return values


@no_collection()
def make_plan(
    study: Study, *, many: bool = False, fresh_set: int = 0, first_seed_alone: bool = False
) -> Plan:
    """Expand a study: its arms, trials and stages, with their identities and planned costs.

    `many` allows more than 10,000 trials. `fresh_set` is how many sets of seeds for these arms are
    on record, where the study asks for fresh ones. `first_seed_alone` leaves the trials of all
    other seeds away, in a fraction of the time: enough to know whether the stages are those of
    another plan of the same hash, where no trial is left out and no seeds are added.

    Raises:
        UserError: an impossible model, an unknown path, a claim that cannot be read or names what
            is not there; with file and line.
    """
    file, document, workload = study.file, study.document, study.workload
    schema = workload.schema
    _check_size(study, many)
    tasks = dict(workload.tasks(study.base))
    primary = _primary_metric(study)
    factors, cells = expand(file.design, study.base, schema, document)
    conditions = _conditions(study, factors, cells, primary)
    null_cells = tuple(_null_cell(study, cells[0], salt) for salt in range(1, file.null_arms + 1))
    cells += null_cells
    needed: dict[str, list[Asked]] = {}  # arm → what claims ask of it
    for key in claims.keys_of(conditions.values()):
        needed.setdefault(key.arm, []).append(Asked(key.task, key.shots, key.condition))
    graphs = [_graph(study, cell, needed.get(cell.name, ())) for cell in cells]
    arms = tuple(
        _arm(study, cell, cells[0], graph, graphs[0])
        for cell, graph in zip(cells, graphs, strict=True)
    )
    _check_labels(study, arms)

    texts = {name: claim.text for name, claim in file.claims.items()}
    least = {name: claim.min_effect for name, claim in file.claims.items() if claim.min_effect}
    means: dict[str, Any] = {
        "question": " ".join(file.question.split()),
        "labels": file.labels,
        "primary_metric": primary,
        "alpha": file.alpha,
        "workload": workload.means,
        "arms": {
            cell.name: [
                dict(cell.levels),
                schema.affecting(cell.config),
                {role: work.decides for role, work in graph.works.items() if work.pinned},
            ]
            for cell, graph in zip(cells, graphs, strict=True)
        },
        "runners": file.runners,
        "claims": {name: " ".join(text.split()) for name, text in texts.items()},
        "min_effects": least,
    }
    adaptive = file.seeds if isinstance(file.seeds, AdaptiveSeeds) else None
    if adaptive is not None:
        means["replication"] = adaptive.means
    if file.has_fresh_seeds:
        origin = identity.fingerprint([file.study, fresh_set, means])
        seeds = _drawn(origin, file.seed_count)
    else:
        fresh_set = 0
        seeds = file.seeds if isinstance(file.seeds, tuple) else tuple(range(file.seed_count))
    if file.exclude:
        means["exclude"] = file.exclude
    meaning = identity.fingerprint({**means, "seeds": seeds})
    del cells, means  # half of all memory, which the stages need

    stages: dict[str, Stage] = {}
    trials: list[Trial] = []
    added = needed.keys()  # arms that get seeds where a verdict is open; others none needs
    for position, seed in enumerate(seeds[:1] if first_seed_alone else seeds):
        for arm, graph in zip(arms, graphs, strict=True):
            if adaptive is not None and position >= adaptive.initial and arm.name not in added:
                continue
            made = stages_of(arm.name, graph, seed)
            roles = {role: stage.id for role, stage in made.items()}
            trials.append(Trial(arm.name, seed, roles))
            for stage in made.values():
                stages.setdefault(stage.id, stage)
    exclusions = excluded(study, trials)
    gone = {(one.arm, one.seed) for one in exclusions}
    counted = [trial for trial in trials if (trial.arm, trial.seed) not in gone]
    if gone:
        needed_stages = {stage for trial in counted for stage in trial.stages.values()}
        stages = {id_: stage for id_, stage in stages.items() if id_ in needed_stages}
    replication = None
    if adaptive is not None:
        from ablations import budgets  # machines, which few plans need

        replication = budgets.replication(study, adaptive, len(arms), trials, stages)

    return Plan(
        study=file.study,
        workload=workload.name,
        hash=meaning,
        path=document.path,
        source=document.text,
        question=file.question,
        primary_metric=primary,
        alpha=file.alpha,
        seeds=seeds,
        fresh_set=fresh_set,
        replication=replication,
        factors={f.name: tuple(level.name for level in f.levels) for f in factors},
        arms=arms,
        tasks=tasks,
        is_own=workload.is_own,
        average=workload.averaged(study.base),
        mixtures=tuple(schema.mixtures),
        free=tuple(sorted(schema.free)),
        untrained=workload.untrained,
        trials=tuple(counted),
        stages=stages,
        claims=texts,
        min_effects=least,
        null_arms=tuple(cell.name for cell in null_cells),
        excluded=exclusions,
        warnings=tuple(_warnings(study, seeds, conditions, arms, graphs, trials)),
    )


def plan_of_one(name: str, workload: Workload, config: AnyConfig, seed: int, source: str) -> Plan:
    """A config as it stands, with one seed: a plan of one arm that claims nothing.

    `source` is the text that the config was read from. Raises `UserError` for what cannot be
    trained or asked.
    """
    tasks = dict(workload.tasks(config))
    graph = workload.graph(config, (), {})
    task = graph.answers[0].task if graph.answers else TRAINING
    arm = _arm_of(graph, workload.schema.dump(config), name="base", label=name)
    made = stages_of(arm.name, graph, seed)
    decides = {role: work.decides for role, work in graph.works.items()}
    return Plan(
        study=name,
        workload=workload.name,
        hash=identity.fingerprint({"workload": workload.means, "decides": decides, "seed": seed}),
        path="",
        source=source,
        question="",
        primary_metric=(task, tasks[task].first.name),
        alpha=0.05,
        seeds=(seed,),
        factors={},
        arms=(arm,),
        tasks=tasks,
        average=workload.averaged(config),
        mixtures=tuple(workload.schema.mixtures),
        free=tuple(sorted(workload.schema.free)),
        untrained=workload.untrained,
        trials=(Trial(arm.name, seed, {role: stage.id for role, stage in made.items()}),),
        stages={stage.id: stage for stage in made.values()},
        claims={},
        warnings=tuple(workload.warnings(config)),
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
    seeds = study.file.seed_count
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
    workload, base, runners = study.workload, study.base, study.file.runners
    try:
        task, metric = workload.metric_of(study.file.primary_metric, base)
        asked = workload.asked(base)
        _check_average(workload.averaged(base), workload.tasks(base))
        if task == AVERAGE:
            _check_averaged(workload.averaged(base), asked, average_shots(metric))
        else:
            workload.check_metric(task, metric, runners)
            evaluated = dict.fromkeys(one.task for one in asked)
            if task not in evaluated:
                raise UserError(
                    f"the base does not evaluate task {task!r}{nearest(task, evaluated)}"
                )
        for one in asked:
            workload.check_form(one)
    except UserError as error:
        study.document.fail(f"primary_metric: {error.message}", ("primary_metric",))
    return task, metric


def _check_average(averaged: Sequence[str], tasks: Tasks) -> None:
    """Raise `UserError` for a mean of tasks that would not be better where it is higher."""
    for name in averaged:
        first = tasks[name].first
        if first.goal != "maximise":
            raise UserError(f"evaluation.average: of {name}.{first.name} more is not better")


def _check_averaged(averaged: Sequence[str], asked: Sequence[Asked], shots: int) -> None:
    if not averaged:
        raise UserError("evaluation.average of the base names no tasks")
    for name in averaged:
        if not any((one.task, one.shots) == (name, shots) for one in asked):
            raise UserError(f"the base does not ask task {name!r} with {shots} shots")


def _null_cell(study: Study, base: Cell, salt: int) -> Cell:
    """The base with other first weights and the same data order."""
    try:
        config = study.workload.salted(base.config, salt)
    except UserError as error:
        study.document.fail(f"null_arms: {error.message}", ("null_arms",))
    return Cell(f"null={salt}", base.levels, config, (), ())


def _conditions(
    study: Study, factors: Sequence[Factor], cells: Sequence[Cell], primary: tuple[str, str]
) -> dict[str, Condition[Contrast]]:
    workload, base, runners = study.workload, study.base, study.file.runners
    names = claims.Vocabulary(
        factors={f.name: [level.name for level in f.levels] for f in factors},
        arms={cell.name: cell.levels for cell in cells},
        primary_metric=primary,
        tasks=workload.tasks(base),
        shots=claims.first_shots(workload.asked(base)),
        average=workload.averaged(base),
        check=lambda task, metric: workload.check_metric(task, metric, runners),
        check_form=workload.check_form,
    )
    found = {}
    for name, claim in study.file.claims.items():
        try:
            found[name] = claims.meaning(claim.text, claim.min_effect, names)
        except UserError as error:
            study.document.fail(f"claim {name}: {error.message}", ("claims", name))
    return found


def _graph(study: Study, cell: Cell, needed: Sequence[Asked]) -> Graph:
    try:
        return study.workload.graph(cell.config, needed, study.file.runners)
    except UserError as error:
        study.document.fail(f"{cell.name}: {error.message}", ("design",))


def _arm(study: Study, cell: Cell, base: Cell, graph: Graph, base_graph: Graph) -> Arm:
    labels = study.file.labels
    pieces = [labels.get(piece, piece) for piece in cell.name.split(",")]
    usual = base_graph.flops
    ratio = graph.flops / usual if graph.flops is not None and usual else None
    odd = study.workload.unfairness(cell.config, base.config, cell.varied, ratio)
    return _arm_of(
        graph,
        study.workload.schema.dump(cell.config),
        name=cell.name,
        label=labels.get(cell.name, ", ".join(pieces)),
        levels=cell.levels,
        dropped=cell.dropped,
        warnings=tuple(odd),
    )


def _arm_of(
    graph: Graph,
    config: dict[str, Any],
    *,
    name: str,
    label: str,
    levels: Mapping[str, str] = MappingProxyType({}),
    dropped: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Arm:
    return Arm(
        name=name,
        levels=dict(levels),
        label=label,
        config=config,
        dropped=dropped,
        roles=tuple(graph.works),
        answers=tuple(graph.answers),
        main=graph.main,
        shared=tuple(graph.shared),
        parameters=dict(graph.parameters),
        flops_per_trial=graph.flops,
        memory_bytes=graph.memory_bytes,
        figures=dict(graph.figures),
        warnings=warnings,
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


def _warnings(
    study: Study,
    seeds: Sequence[int],
    conditions: Mapping[str, Condition[Contrast]],
    arms: Sequence[Arm],
    graphs: Sequence[Graph],
    trials: Sequence[Trial],
) -> Iterator[str]:
    if len(seeds) < FEW_SEEDS and conditions:
        count = "1 seed gives" if len(seeds) == 1 else f"{len(seeds)} seeds give"
        yield (f"{count} next to no evidence: take at least {FEW_SEEDS}, or claims stay undecided")
    for field in study.dropped:
        yield f"overrides dropped {field}"
    yield from study.workload.warnings(study.base)
    first = {trial.arm: trial for trial in trials[: len(arms)]}
    alike: dict[tuple[str, ...], list[str]] = {}  # stages of the first seed → arms
    for trial in first.values():
        alike.setdefault(tuple(trial.stages.values()), []).append(trial.arm)
    for same in alike.values():
        if len(same) > 1:
            yield (
                f"{few(same, MOST_NAMED)} come to the same stages: they differ in "
                "nothing that decides a result, so any difference between them is 0"
            )
    answers = {
        (arm.name, *one.asked): first[arm.name].stages[one.role]
        for arm in arms
        for one in arm.answers
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
        arm.name: {role: work.decides for role, work in graph.works.items() if work.pinned}
        for arm, graph in zip(arms, graphs, strict=True)
    }
    by_name = {arm.name: arm for arm in arms}
    for name, condition in conditions.items():
        for contrast in quantities(condition):
            compared = [key.arm for key, weight in contrast.weights.items() if weight]
            differing = {
                role: None
                for arm in compared
                for role in {**pinned[arm], **pinned[compared[0]]}
                if pinned[arm].get(role) != pinned[compared[0]].get(role)
            }
            if differing:
                alone = dict.fromkeys(what for arm in compared for what in by_name[arm].shared)
                yield (
                    f"claim {name} compares arms whose {', '.join(differing)} differ and are one "
                    f"for all seeds: it holds for {', '.join(alone)} only, whatever the seeds say"
                )
                break
