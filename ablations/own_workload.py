"""What workloads of a user's own have in common: the metrics they declare, and their one form.

metrics:
  val.accuracy: {goal: maximize, worst: 0, unit: "%"}      task val, metric accuracy
  loss: {goal: minimize}                                   of the task named after its step
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from ablations.averages import AVERAGE
from ablations.byte_sizes import ByteSize
from ablations.errors import UserError, nearest, shown
from ablations.resources import Resources, Slice
from ablations.schema import Config
from ablations.workload import (
    INTACT,
    TRAINING,
    Answer,
    Asked,
    Goal,
    Metric,
    Role,
    Task,
    Tasks,
    check_metric,
)
from ablations.yaml_files import KeyPath

ONLY = "run"  # step of a workload that has no names for steps
SECONDS = 60.0  # planned, where nothing is said
LONGEST_NAME = 100
_METRIC = re.compile(r"(?:(?P<task>[A-Za-z_]\w*)\.)?(?P<name>[A-Za-z_]\w*)")

Fail = Callable[[KeyPath, str], NoReturn]  # (place below `workload`, message)


def _goal(value: Any) -> Any:
    return f"{value[:-3]}ise" if value in ("maximize", "minimize") else value


class MetricSpec(Config):
    """What a number of the results is, and which of its values is the score."""

    goal: Annotated[Goal | None, BeforeValidator(_goal)] = Field(
        None, description="maximize or minimize; none where neither is better"
    )
    worst: float | None = Field(None, description="value of a diverged trial")
    unit: str = ""
    role: Role = "score"
    of: str = Field("", description="of a control or baseline: the metric to compare it with")
    key: str = Field("", description="its name in the results, where that is another")
    value: Literal["last", "best"] = Field("last", description="which of its values is the score")

    @model_validator(mode="after")
    def _best_of(self) -> MetricSpec:
        if self.value == "best" and self.goal is None:
            raise ValueError("value: best, and no goal says which is better")
        return self

    def record(self, name: str) -> Metric:
        """What the study knows of it."""
        said = {key: getattr(self, key) for key in ("goal", "worst", "unit", "role", "of")}
        return Metric(name=name, **said)


def _slice(value: Any) -> Any:
    try:
        return Slice.of(value) if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(error.message) from None


class ResourcesSpec(Config):
    """What a step needs while it runs: `hosts` processes, each with all but `devices` and `tpu`."""

    cpu: float | None = Field(None, gt=0, description="cores")
    gpu: float | None = Field(None, ge=0, description="whole GPUs, or a share of one")
    per_gpu: int | None = Field(None, ge=1, description="runs that share a GPU: gpu is 1/per_gpu")
    memory: ByteSize = Field(0, description="such as 16 GB")
    hosts: int = Field(1, ge=1, description="processes that run it together, a node each")
    devices: int = Field(1, ge=1, description="in all; without accelerators JAX simulates them")
    tpu: Annotated[Slice | None, BeforeValidator(_slice)] = Field(
        None, description="a slice such as v5e-16 or v5e:4x4"
    )

    @model_validator(mode="after")
    def _possible(self) -> ResourcesSpec:
        if self.per_gpu is not None and self.gpu is not None:
            raise ValueError("gpu and per_gpu say the same in two ways: give one of them")
        self.record()
        return self

    def record(self) -> Resources:
        """As a plan has it."""
        return Resources(
            cpu=self.cpu,
            gpu=self.gpu if self.per_gpu is None else 1 / self.per_gpu,
            memory_bytes=self.memory,
            hosts=self.hosts,
            devices=self.devices,
            tpu=self.tpu,
        )


def metric_parts(name: str) -> tuple[str, str]:
    """The task, "" where none is named, and the metric of `val.accuracy`.

    Raises `ValueError` for what is no such name.
    """
    found = _METRIC.fullmatch(name) if len(name) <= LONGEST_NAME else None
    if found is None:
        raise ValueError(
            f"{shown(name)} is not TASK.METRIC or METRIC of letters, digits and _; what the "
            "results call it goes into its key"
        )
    if found["task"] in (TRAINING, AVERAGE):
        raise ValueError(f"{shown(name)}: the task {found['task']!r} has a meaning of its own")
    return found["task"] or "", found["name"]


class StepSpec(Config):
    """What a step of whatever kind says of its data, results and costs."""

    metrics: dict[str, MetricSpec] = Field({}, description="TASK.METRIC → what it is")
    data: tuple[str, ...] = Field((), description="files and folders, known by their content")
    resources: ResourcesSpec = ResourcesSpec()
    seconds: PositiveFloat = Field(SECONDS, description="planned, of one run")

    @field_validator("metrics")
    @classmethod
    def _named(cls, value: dict[str, MetricSpec]) -> dict[str, MetricSpec]:
        for name in value:
            metric_parts(name)
        return value


def fail_below(at: KeyPath, message: str) -> NoReturn:
    """Raise `UserError` for a mistake below `workload`, where no file is known."""
    raise UserError(f"{'.'.join(map(str, ('workload', *at)))}: {message}")


class OwnWorkload:
    """The part of `ablations.workload.Workload` that declared metrics answer.

    `steps` are those of the workload by name; `at` says where the keys of one stand below
    `workload`.
    """

    kinds: Collection[str] = ()
    is_own = True
    untrained: tuple[str, ...] = ()

    def __init__(self, steps: Mapping[str, StepSpec], at: Callable[[str], KeyPath], fail: Fail):
        self._measuring = steps
        self._tasks = dict(_declared(steps, at, fail))

    def tasks(self, base: Any) -> Tasks:
        """The declared metrics by task; curves have the names that the results have."""
        curves = {
            (key := (one.key or name).replace("/", ".")): one.record(key)
            for step in self._measuring.values()
            for name, one in step.metrics.items()
        }
        return {**self._tasks, TRAINING: Task(metrics=tuple(curves.values()))}

    def metric_of(self, written: str, base: Any) -> tuple[str, str]:
        """`val.accuracy`, or `accuracy` of the step that declares it."""
        for name, step in self._measuring.items():
            for declared in step.metrics:
                task, metric = metric_parts(declared)
                if written in (declared, f"{task or name}.{metric}"):
                    return task or name, metric
        known = [name for step in self._measuring.values() for name in step.metrics]
        raise UserError(f"the workload has no metric {shown(written)}{nearest(written, known)}")

    def asked(self, base: Any) -> list[Asked]:
        """Every task in its one form."""
        return [Asked(task) for task in self._tasks]

    def averaged(self, base: Any) -> tuple[str, ...]:
        """None: a mean over tasks is a metric of the workload's own."""
        return ()

    def check_metric(self, task: str, metric: str, runners: Mapping[str, str]) -> None:
        """Raise `UserError` if there is no such metric."""
        check_metric(self._tasks, task, metric)

    def check_form(self, asked: Asked) -> None:
        """Raise `UserError` for anything but the one form."""
        if asked.shots or asked.condition != INTACT:
            raise UserError(
                f"{asked.task} is measured in one form: no shots, no conditions; another form is "
                "another metric"
            )

    def salted(self, base: Any, salt: int) -> Any:
        """Raise `UserError`: nobody knows where the first weights come from."""
        raise UserError(
            "a training of your own has no first weights that could be drawn anew with "
            "the same data order; how far seeds differ is in every comparison"
        )

    def unfairness(
        self, arm: Any, base: Any, varied: Collection[str], flops_ratio: float | None
    ) -> Iterable[str]:
        """Nothing: what a key means is its training's business."""
        return ()

    def warnings(self, base: Any) -> Iterable[str]:
        """Nothing."""
        return ()

    def answers(self) -> list[Answer]:
        """Which step measures which task."""
        return [
            Answer(role=name, task=task)
            for name, step in self._measuring.items()
            for task in dict.fromkeys(metric_parts(one)[0] or name for one in step.metrics)
        ]


def _declared(
    steps: Mapping[str, StepSpec], at: Callable[[str], KeyPath], fail: Fail
) -> Iterator[tuple[str, Task]]:
    """Task → its record. A task belongs to one step."""
    owner: dict[str, str] = {}
    found: dict[str, dict[str, str]] = {}  # task → metric → as it is written
    for name, step in steps.items():
        for written in step.metrics:
            task, metric = metric_parts(written)
            task = task or name
            place = (*at(name), "metrics", written)
            if owner.setdefault(task, name) != name:
                fail(place, f"the task {task} is step {owner[task]}'s; call it another name here")
            if metric in found.get(task, {}):
                fail(place, f"{task}.{metric} is named twice")
            found.setdefault(task, {})[metric] = written
    if not found:
        fail((), "there are no metrics, so there is nothing to compare")
    for task, names in found.items():
        specs = steps[owner[task]].metrics
        for written in names.values():
            if (of := specs[written].of) and of not in names:
                place = (*at(owner[task]), "metrics", written, "of")
                fail(place, f"task {task} has no metric {shown(of)}{nearest(of, names)}")
        yield task, Task(metrics=tuple(specs[w].record(name) for name, w in names.items()))
