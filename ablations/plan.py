"""What a study comes to: arms, trials and the stages they share.

A **trial** is one (arm, seed): a small DAG of stages that ends in its evaluations. Two arms, or
two studies, that come to the same stage run it once, because a stage's identity is the hash of
what decides its result and of nothing else (`ablations.identity`).
"""

from __future__ import annotations

from typing import Any

from mm1_jax.config import Config


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
    warnings: tuple[str, ...]
