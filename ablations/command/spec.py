"""The `workload:` of a study whose training is a command.

    workload:
      command: python train.py --config {config} --seed {seed} --out {output}
      metrics: {val.accuracy: {goal: maximize, worst: 0, unit: "%"}}

or several steps, of which those that read the same part of the config run once:

    workload:
      steps:
        pretrain: {command: …, reads: [model, pretraining]}
        finetune: {command: … --init {input:pretrain}, metrics: {…}}

What stands beside `steps` holds for every step that does not say otherwise. `docs/own-trainer.md`
has every key.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from ablations import own_workload
from ablations.averages import AVERAGE
from ablations.command import placeholders
from ablations.command.placeholders import Placeholder
from ablations.errors import shown
from ablations.own_workload import LONGEST_NAME, ONLY
from ablations.workload import TRAINING

GRACE_SECONDS = 30.0


def _text(value: Any) -> Any:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if plain else value


class StepSpec(own_workload.StepSpec):
    """One command."""

    command: str | tuple[str, ...] = ""
    needs: tuple[str, ...] = Field((), description="steps before it, beside those in {input:…}")
    reads: tuple[str, ...] | None = Field(
        None, description="keys of the config that decide it, globs allowed; else all"
    )
    code: tuple[str, ...] | None = Field(
        None, description="files and globs that decide results; else what git tracks"
    )
    results: str = Field("", description="file below {output}, a glob, or stdout")
    step_key: str = Field("step", description="name of the step in the results")
    seed_key: str = Field("", description="key of the config that is set to the seed")
    examples: str = Field("examples.jsonl", description="file below {output}")
    timeout: PositiveFloat | None = Field(None, description="seconds")
    grace: PositiveFloat = Field(GRACE_SECONDS, description="seconds from SIGTERM to SIGKILL")
    resumable: bool = Field(False, description="whether it goes on in the same output folder")
    environment: dict[str, Annotated[str, BeforeValidator(_text)]] = Field({})
    working_folder: str = Field(".", description="relative to the study file")

    @field_validator("command")
    @classmethod
    def _words(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if value:
            placeholders.words(value)
        return value

    @field_validator("environment")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(f"{shown(name)} is no name of a variable")
            if f"{{{placeholders.OVERRIDES}}}" in text:
                raise ValueError(f"{name}: {{overrides}} is for arguments; use {{config}}")
            placeholders.words(["-", text])
        return value

    @field_validator("results", "examples")
    @classmethod
    def _below(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError(f"{shown(value)} is not below {{output}}")
        return value

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The command's words, placeholders still in them."""
        return placeholders.words(self.command)

    @cached_property
    def braces(self) -> tuple[Placeholder, ...]:
        """All that stands in braces in the command and its variables."""
        texts = (*self.words, *self.environment.values())
        return tuple(dict.fromkeys(p for text in texts for p in placeholders.placeholders(text)))


# What a step says for itself alone.
_OWN = frozenset({"command", "needs", "reads", "metrics"})


class CommandSpec(StepSpec):
    """A command, or several steps of commands."""

    steps: dict[str, StepSpec] = Field({}, description="name → step")

    @field_validator("steps")
    @classmethod
    def _named_steps(cls, value: dict[str, StepSpec]) -> dict[str, StepSpec]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z]\w*", name) or len(name) > LONGEST_NAME:
                raise ValueError(f"{shown(name)} is not a name of letters, digits and _")
            if name in (TRAINING, AVERAGE):
                raise ValueError(f"{name!r} has a meaning of its own")
        return value

    @model_validator(mode="after")
    def _one_form(self) -> CommandSpec:
        if bool(self.command) == bool(self.steps):
            raise ValueError("give a command, or steps that have one each")
        if self.steps:
            for name in sorted(_OWN & self.model_fields_set):
                raise ValueError(f"{name} belongs to a step where there are steps")
        return self

    def all_steps(self) -> dict[str, StepSpec]:
        """Name → step as it is meant: with what stands beside `steps` filled in."""
        if not self.steps:
            return {ONLY: self}
        return {name: self._filled(step) for name, step in self.steps.items()}

    def _filled(self, step: StepSpec) -> StepSpec:
        shared = {
            name: getattr(self, name)
            for name in StepSpec.model_fields.keys() - _OWN - step.model_fields_set
            if name in self.model_fields_set
        }
        environment = {**self.environment, **step.environment}
        return step.model_copy(update={**shared, "environment": environment})
