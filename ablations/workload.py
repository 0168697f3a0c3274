"""What stands between the study language and what is trained: a workload.

A study varies a config, pairs seeds and decides claims; none of that needs to know what is
trained. A workload answers, for one resolved config:

    schema    which paths there are, what setting them means, and which decide results
    tasks     what is measured: each metric with its direction, worst value, unit and role
    graph     the stages that a trial consists of, by role, and which of them answers what

    encoder ─────────┬─► multimodal ─(─► sft ─)─► easy_vqa, held_out_text, …     a recipe of ours
    language_model ──┘
    pretrain ──► finetune ──► test                                               a command's steps

Everything here is plain data or a protocol: no model, no JAX, no Ray.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

from pydantic import Field

from ablations.errors import UserError, nearest
from ablations.resources import Resources
from ablations.schema import Config

TRAINING = "training"  # task of the rows that are curves, by step
INTACT = "intact"  # condition of a question that nothing was done to

# -- what is measured ----------------------------------------------------------------------------

Goal = Literal["maximise", "minimise"]
# score: of the model that was trained. baseline: of an answerer without it, such as one that
# never sees the image. control: of the model where it should not do well, or had learnt nothing.
Role = Literal["score", "control", "baseline"]
LOWER = "lower is better"


class Metric(Config):
    """What a number of this name is, within its task.

    goal   which way is better; None where neither is
    worst  value of a diverged trial; None where there is no worst value
    of     metric of the task that a control or baseline is to be compared with
    by     who is measured by a control or baseline, in a word: blind, chance, oracle, untrained
    beaten whether a model that has learnt something does better than it; an oracle need not be
    """

    name: str
    goal: Goal | None = None
    worst: float | None = None
    unit: str = ""
    role: Role = "score"
    of: str = ""
    by: str = ""
    beaten: bool = True


def with_goal(name: str, goal: Goal | None) -> str:
    """`held_out_text.perplexity (lower is better)`: a metric's name, and its goal where low is."""
    return f"{name} ({LOWER})" if goal == "minimise" else name


class Task(Config):
    """What is asked of a trained model: its metrics, the one it is known by first, and its forms.

    beside       numbers that may be reported as well, which no claim is about
    conditions   what may be done to the questions; the first is nothing
    most_shots   demonstrations in the prompt
    """

    metrics: tuple[Metric, ...] = Field(min_length=1)
    beside: tuple[Metric, ...] = ()
    conditions: tuple[str, ...] = (INTACT,)
    most_shots: int = 0

    @property
    def first(self) -> Metric:
        """The metric that the task is known by."""
        return self.metrics[0]

    def metric(self, name: str) -> Metric | None:
        """The record of a metric; of a part (`accuracy/colour`, `loss.captions`) of the whole."""
        known = self._known
        return known.get(name) or known.get(re.split(r"[/.]", name)[0])

    @cached_property
    def _known(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in (*self.beside, *self.metrics)}


Tasks = Mapping[str, Task]


class Asked(NamedTuple):
    """One form of a task."""

    task: str
    shots: int = 0
    condition: str = INTACT


# -- the graph of stages -------------------------------------------------------------------------


class Code(Config):
    """Where the code that decides a stage's result stands, so that anybody can hash it again.

    Either a Python module with what it imports from its own package, or files of a folder.
    """

    module: str = ""
    function: str = ""  # tells apart several runners in one module
    also: tuple[str, ...] = ()  # modules that are found by name while it runs
    folder: str = ""  # the files' names are relative to it; it is no part of the fingerprint
    files: tuple[str, ...] = ()  # globs; none: what git tracks in the folder
    commit: str = ""  # of the repository around the folder; none: the files as they are


class Work(Config):
    """A stage but for its seed: a node of an arm's graph. What all seeds share is said once."""

    kind: str
    run: str  # import path "package.module:function", `ablations.stage`
    config: dict[str, Any]
    decides: str  # what decides the result but for seed and inputs (`identity.decides`)
    inputs: dict[str, str] = Field({})  # name → role whose output it reads
    pinned: bool = False  # draws nothing: all seeds share it
    data_fingerprint: str = ""
    code_fingerprint: str = ""
    code: Code = Code()
    # Beside the identity: what planning and scheduling need to know.
    compile_class: str = ""  # stages of one class share compiled functions
    alike: str = ""  # a name for its kind of work, whose planned times are off alike; "": its kind
    flops: float | None = None  # planned; None: nobody knows
    seconds: float = 1.0  # planned, of work on one core, without compilation
    seconds_said: bool = True  # by a formula or by the user; else they only stand for something
    compile_seconds: float = 0.0  # planned, for the first stage of its class that a worker runs
    steps: int = 0  # that it will report, where that is known
    epochs: dict[str, float] = Field({})  # own source → how often a training reads it, about
    resources: Resources = Resources()
    memory_bytes: int | None = None  # of a training on one CPU; None: nobody knows
    device_memory_bytes: int | None = None  # of it, on each accelerator of its mesh
    dtype: str = "float32"  # of its products: which of an accelerator's peaks counts
    what: str = ""  # for people


class Answer(Config):
    """Which stage of a trial answers a form of a task."""

    role: str
    task: str
    shots: int = 0
    condition: str = INTACT
    drawn: tuple[str, ...] = ()  # what was drawn once for all arms and seeds: a verdict's scope

    @property
    def asked(self) -> Asked:
        """The form that is answered."""
        return Asked(self.task, self.shots, self.condition)


@dataclass(frozen=True)
class Graph:
    """What a trial of one config consists of, and what the plan tells of it."""

    works: Mapping[str, Work]  # role → work, inputs first
    answers: Sequence[Answer]
    main: str  # role whose curves and first checkpoint are the trial's own
    shared: Sequence[str] = ()  # what all seeds have in common, in words of a verdict's scope
    parameters: Mapping[str, int] = field(default_factory=dict)  # part → count
    memory_bytes: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)  # name → what else the plan shows

    @property
    def flops(self) -> float | None:
        """Of all trainings of one trial: of what answers nothing, and of the main stage."""
        answering = {answer.role for answer in self.answers} - {self.main}
        return total(work.flops for role, work in self.works.items() if role not in answering)


def total(amounts: Iterable[float | None]) -> float | None:
    """The sum; None where one of them is not known."""
    known = list(amounts)
    return None if None in known else sum(one or 0.0 for one in known)


# -- the protocol --------------------------------------------------------------------------------

Fail = Callable[[str, str], NoReturn]  # (path, message)
AnyConfig = Any  # what a schema reads: a pydantic model, or a plain mapping


class Schema(Protocol):
    """Configs of one kind: reading one, setting paths of it, and what of it decides results."""

    @property
    def mixtures(self) -> Mapping[str, Mapping[str, float]]:
        """Paths of groups of shares of a whole → what they are where they are left out."""
        ...

    @property
    def free(self) -> frozenset[str]:
        """Paths that decide no result; `*` stands for names of one's own."""
        ...

    def load(self, path: Path) -> AnyConfig:
        """Read a config file. Raises `UserError` for whatever is wrong with it."""
        ...

    def assign(
        self, base: AnyConfig, written: Mapping[str, Any], fail: Fail
    ) -> tuple[AnyConfig, tuple[str, ...]]:
        """The base with some paths set, and the fields that a change of kind dropped."""
        ...

    def as_paths(self, written: Mapping[str, Any], fail: Fail) -> dict[str, Any]:
        """What was written as one value a path."""
        ...

    def level_of(self, base: AnyConfig, path: str) -> str | None:
        """What the base has at a path, as the name of a level; None where it keeps no value."""
        ...

    def dump(self, config: AnyConfig) -> dict[str, Any]:
        """The whole config as plain values."""
        ...

    def affecting(self, config: AnyConfig) -> dict[str, Any]:
        """The config as plain values, without what does not affect results."""
        ...


class Workload(Protocol):
    """What a study varies and compares."""

    @property
    def name(self) -> str:
        """As a plan records it."""
        ...

    @property
    def means(self) -> Any:
        """Plain values: what of the workload itself a study's meaning depends on."""
        ...

    @property
    def schema(self) -> Schema:
        """Of its configs."""
        ...

    @property
    def kinds(self) -> Collection[str]:
        """Of stage, whose runner a study may replace."""
        ...

    @property
    def is_own(self) -> bool:
        """Whether what is trained is the user's own: roles are their words, curves those of the
        declared metrics, and numbers that are not declared are kept and not shown.
        """
        ...

    @property
    def untrained(self) -> tuple[str, ...]:
        """Groups of a config that say how seeds act, or what is asked."""
        ...

    def metric_of(self, written: str, base: AnyConfig) -> tuple[str, str]:
        """Task and metric of a name as a study writes it. Raises `UserError`."""
        ...

    def tasks(self, base: AnyConfig) -> Tasks:
        """Everything that could be asked, and the record of `training`, if there are curves."""
        ...

    def asked(self, base: AnyConfig) -> list[Asked]:
        """The forms of tasks that a config has evaluated, in its order."""
        ...

    def averaged(self, base: AnyConfig) -> tuple[str, ...]:
        """Tasks whose first metrics the metrics of `average` are the mean of."""
        ...

    def check_metric(self, task: str, metric: str, runners: Mapping[str, str]) -> None:
        """Raise `UserError` if a task has no such metric, of our runners or a user's own."""
        ...

    def check_form(self, asked: Asked) -> None:
        """Raise `UserError` for a form of a task that the task cannot have."""
        ...

    def graph(
        self, config: AnyConfig, needed: Iterable[Asked], runners: Mapping[str, str]
    ) -> Graph:
        """The stages of one arm, those included that claims need; `runners` by kind of stage.

        Raises `UserError` for what cannot be trained or asked.
        """
        ...

    def salted(self, base: AnyConfig, salt: int) -> AnyConfig:
        """The base with other first weights and the same data order: a null arm."""
        ...

    def warnings(self, base: AnyConfig) -> Iterable[str]:
        """What a user should know of the base before running anything."""
        ...

    def unfairness(
        self, arm: AnyConfig, base: AnyConfig, varied: Collection[str], flops_ratio: float | None
    ) -> Iterable[str]:
        """What differs from the base beside what was meant to be varied.

        `flops_ratio` is the arm's training FLOPs over the base's, None where they are not known.
        """
        ...


def check_metric(tasks: Tasks, task: str, metric: str) -> None:
    """Raise `UserError` if there is no such task or metric."""
    if task not in tasks:
        raise UserError(f"no task {task!r}{nearest(task, tasks)}")
    known = [one.name for one in tasks[task].metrics]
    if metric not in known:
        raise UserError(f"task {task} has no metric {metric!r}{nearest(metric, known)}")


def record_of(tasks: Tasks, task: str, metric: str) -> Metric:
    """What is known of a metric; of one that nobody has described, its name."""
    known = tasks[task].metric(metric) if task in tasks else None
    return known or Metric(name=metric)
