"""A workload that is a Python function of a user's own, named by its import path.

    workload:
      function: my_package.training:run       # run(config, seed, inputs, context), ablations.stage
      config: my_package.training:Config      # pydantic model of the base; absent: any YAML or JSON
      metrics: {val.accuracy: {goal: maximize, worst: 0, unit: "%"}}

The function is called in a worker, which keeps its process from run to run. It returns rows of the
result table, or a mapping from names of metrics to numbers. Its code is known as that of any
runner: its module with what it imports from its own package, comments left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from ablations import identity
from ablations.command import files
from ablations.errors import UserError, nearest, shown
from ablations.fingerprints import canonical
from ablations.own_workload import (
    ONLY,
    Fail,
    MetricSpec,
    OwnWorkload,
    StepSpec,
    fail_below,
    metric_parts,
)
from ablations.runners import check_runner
from ablations.settings import MappingSchema, ModelSchema, check_model
from ablations.stage import DIVERGED, Context, ResultRow, resolve
from ablations.workload import TRAINING, Asked, Code, Graph, Schema, Work
from ablations.yaml_files import YamlDocument, as_model, load_yaml, models_at

RUN = "ablations.function_workload:run"


class FunctionSpec(StepSpec):
    """The `workload:` of a study whose training is a function."""

    function: str
    config: str = ""

    @field_validator("function", "config")
    @classmethod
    def _path(cls, value: str) -> str:
        module, _, name = value.partition(":")
        if value and not all(part.isidentifier() for part in [*module.split("."), name]):
            raise ValueError(f"{shown(value)} is not package.module:name")
        return value

    @field_validator("metrics")
    @classmethod
    def _plain(cls, value: dict[str, MetricSpec]) -> dict[str, MetricSpec]:
        for name, metric in value.items():
            if metric.key or metric.value != "last":
                raise ValueError(f"{name}: key and value are for commands; a function says both")
        return value


class OwnModelSchema(ModelSchema):
    """Configs of a pydantic model that was not written for studies."""

    def load(self, path: Path) -> BaseModel:
        """Read a config file.

        Raises:
            UserError: it is none of the model's, has a key that the model drops in silence, or does
                not come back from being written down, so that no level of it could be set.
        """
        document = load_yaml(path, read_by_others=True)
        config = as_model(document, self.model)
        _refuse_dropped(document, document.value, self.model, ())
        try:
            again = self.model.model_validate_json(json.dumps(self.dump(config)), strict=True)
        except ValidationError as error:
            again = str(error.errors()[0]["msg"])
        if again != config:
            document.fail(
                f"{self.model.__name__}, written down by its fields' names, is not read as what it "
                f"was ({shown(str(again))}); a field with an alias needs populate_by_name=True"
            )
        return config


def _refuse_dropped(
    document: YamlDocument, value: Any, model: type[BaseModel], at: tuple[str, ...]
) -> None:
    """Fail for a key that a model neither has nor keeps, which pydantic's default is to ignore."""
    members = models_at(model, at)
    if not members or not isinstance(value, dict):
        return
    known = {name for one in members for name in _names(one)}
    keeps = any(one.model_config.get("extra") == "allow" for one in members)
    for key, inner in value.items():
        if key not in known and not keeps:
            document.fail(
                f"unknown key {shown('.'.join((*at, key)))}{nearest(key, known)}", (*at, key)
            )
        _refuse_dropped(document, inner, model, (*at, key))


def _names(model: type[BaseModel]) -> Iterator[str]:
    """All that a key of a model may be called."""
    for name, field in model.model_fields.items():
        yield name
        yield from (one for one in (field.alias, field.validation_alias) if isinstance(one, str))


class FunctionWorkload(OwnWorkload):
    """`ablations.workload.Workload` of a function; `home` is the folder of the study file.

    Raises:
        UserError, or what `fail` raises: no such function, one that takes other arguments, data
            that is not there, a config that is no pydantic model.
    """

    name = "function"

    def __init__(self, spec: FunctionSpec, home: Path, fail: Fail = fail_below):
        super().__init__({ONLY: spec}, lambda step: (), fail)
        self.spec, self.home = spec, home.absolute()
        try:
            check_runner(spec.function)
        except UserError as error:
            fail(("function",), str(error))
        for index, path in enumerate(spec.data):
            try:
                files.data_files(self.home, path)
            except UserError as error:
                fail(("data", index), error.message)
        self.schema: Schema = MappingSchema()
        if spec.config:
            try:
                self.schema = OwnModelSchema(_model(spec.config))
            except UserError as error:
                fail(("config",), error.message)

    @property
    def means(self) -> Any:
        """The function and the metrics as they are declared."""
        metrics = {name: one.model_dump() for name, one in self.spec.metrics.items()}
        return {"function": self.spec.function, "metrics": metrics}

    def graph(self, config: Any, needed: Iterable[Asked], runners: Mapping[str, str]) -> Graph:
        """The one stage of a config."""
        module, _, function = self.spec.function.partition(":")
        code = Code(module=module, function=function)
        fingerprint = identity.code_fingerprint(module, function)
        data = files.data_fingerprint(self.home, self.spec.data)
        said = {"function": self.spec.function, "config": self.schema.affecting(config)}
        work = Work(
            kind=ONLY,
            run=RUN,
            config={
                "function": self.spec.function,
                "config": self.schema.dump(config),
                "metrics": list(self.spec.metrics),
                "home": str(self.home),
                "data": list(self.spec.data),
                "data_fingerprint": data,
            },
            decides=identity.decides(
                kind=ONLY, config=canonical(said), data=data, code=fingerprint
            ),
            data_fingerprint=data,
            code_fingerprint=fingerprint,
            code=code,
            compile_class=self.spec.function,
            seconds=self.spec.seconds,
            seconds_said="seconds" in self.spec.model_fields_set,
            resources=self.spec.resources.record(),
            what=function,
        )
        return Graph(works={ONLY: work}, answers=self.answers(), main=ONLY)


def _model(path: str) -> type[BaseModel]:
    """The pydantic model that an import path names. Raises `UserError`."""
    found = resolve(path)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise UserError(f"{path} is {shown(found)}, not a pydantic model")
    check_model(found)
    return found


def run(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Call the function, and check that it measured what the study declares.

    Raises:
        UserError: the data is another, or what it returned is not of the form.
    """
    if files.data_fingerprint(Path(config["home"]), config["data"]) != config["data_fingerprint"]:
        raise UserError(
            f"the data here ({', '.join(config['data'])}) is not what the study was planned with; "
            "plan it anew"
        )
    function = resolve(config["function"])
    rows = _rows(config["function"], function(config["config"], seed, inputs, context))
    there = {(row.task, row.metric) for row in rows if row.task != TRAINING}
    for name in config["metrics"]:
        task, metric = metric_parts(name)
        key = task or ONLY, metric
        if key not in there:
            known = [".".join(one) for one in there]
            raise UserError(
                f"{config['function']} returned no row of the metric {name}"
                f"{nearest('.'.join(key), known)}"
            )
    if not any(row.metric == DIVERGED for row in rows) and not all(map(math.isfinite, _ends(rows))):
        rows.append(ResultRow(TRAINING, DIVERGED, 1.0, step=max(row.step for row in rows)))
    return rows


def _ends(rows: Iterable[ResultRow]) -> Iterable[float]:
    """The last value of each number, declared or not: what diverged is not the study's to say."""
    last: dict[tuple[object, ...], ResultRow] = {}
    for row in rows:
        what = row.task, row.metric, row.split, row.shots, row.condition
        if what not in last or row.step >= last[what].step:
            last[what] = row
    return [row.value for row in last.values()]


def _rows(function: str, returned: Any) -> list[ResultRow]:
    """What a function returned, as rows."""
    if isinstance(returned, Mapping):
        rows = []
        for name, value in returned.items():
            try:
                task, metric = metric_parts(str(name))
                rows.append(ResultRow(task or ONLY, metric, float(value), split="test"))
            except (TypeError, ValueError) as error:
                raise UserError(f"{function} returned {shown(name)}: {error}") from None
        return rows
    rows = list(returned) if isinstance(returned, Iterable) else [returned]
    for row in rows:
        if not isinstance(row, ResultRow):
            raise UserError(
                f"{function} returned {shown(row)}, not rows (ablations.stage.ResultRow) or "
                "metrics by name"
            )
    return rows
