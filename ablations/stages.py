"""Stages and trials: what is run, once for each seed and whatever arms and studies share it.

A **stage** is the unit of work and of identity. What all seeds of an arm share of it is its `Work`
(`ablations.workload`), which is kept once. A **trial** is one (arm, seed): a stage for each role
of its workload's graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ablations import identity
from ablations.workload import Graph, Work

NO_SEED = 0  # of stages that draw nothing


@dataclass(frozen=True, slots=True)
class Stage:
    """One unit of work; `id` is its identity."""

    id: str
    work: Work
    seed: int
    inputs: Mapping[str, str]  # name → identity of the stage whose output it reads
    origin: str = ""  # the arm that asked for it first, for people

    @property
    def kind(self) -> str:
        """What kind of work it is, as its workload calls it."""
        return self.work.kind

    @property
    def run(self) -> str:
        """Import path of its runner, "package.module:function"."""
        return self.work.run

    @property
    def config(self) -> dict[str, Any]:
        """What its runner is given."""
        return self.work.config

    @property
    def compile_class(self) -> str:
        """Stages of one class share compiled functions."""
        return self.work.compile_class

    @property
    def seconds(self) -> float:
        """Planned, of work on one core, without compilation."""
        return self.work.seconds

    @property
    def compile_seconds(self) -> float:
        """Planned, for the first stage of its class that a worker runs."""
        return self.work.compile_seconds

    @property
    def flops(self) -> float | None:
        """Planned; None where nobody knows."""
        return self.work.flops

    @property
    def steps(self) -> int:
        """That it will report, 0 where that is not known."""
        return self.work.steps

    @property
    def data_fingerprint(self) -> str:
        """Of the data that it reads."""
        return self.work.data_fingerprint

    @property
    def code_fingerprint(self) -> str:
        """Of the code that decides its result."""
        return self.work.code_fingerprint

    @property
    def label(self) -> str:
        """For people: "base seed 1: train"; never read by a program."""
        whose = self.origin if self.work.pinned else f"{self.origin} seed {self.seed}"
        return f"{whose}: {self.work.what or self.kind}"

    def record(self) -> dict[str, Any]:
        """The stage as it is kept beside its results: all of it, in one mapping."""
        return {
            "id": self.id,
            "seed": self.seed,
            "inputs": dict(self.inputs),
            "origin": self.origin,
            "work": self.work.model_dump(mode="json"),
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """What `record` gave. Raises `ValueError` (pydantic's too), `TypeError` or `KeyError`."""
        if not isinstance(record["id"], str) or not isinstance(record["seed"], int):
            raise ValueError("a stage has an identity and a seed")
        return cls(
            record["id"],
            Work.model_validate(record["work"]),
            record["seed"],
            {str(name): str(source) for name, source in record["inputs"].items()},
            str(record["origin"]),
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One arm with one seed: role → identity of the stage that has it, inputs first."""

    arm: str
    seed: int
    stages: Mapping[str, str]


def stages_of(arm: str, graph: Graph, seed: int) -> dict[str, Stage]:
    """Role → stage of a trial, inputs first."""
    made: dict[str, Stage] = {}
    for role, work in graph.works.items():
        own = NO_SEED if work.pinned else seed
        inputs = {name: made[source].id for name, source in work.inputs.items()}
        made[role] = Stage(identity.stage_id(work.decides, own, inputs), work, own, inputs, arm)
    return made
