"""Stages that do almost nothing, and plans of them. Imported by path in workers too."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import time
from pathlib import Path

from whole_files import write_whole

from ablations.identity import code_fingerprint
from ablations.plan import Arm, Plan
from ablations.stage import ResultRow, StageStopped
from ablations.stages import Stage, Trial
from ablations.workload import Answer, Code, Work
from mm1_jax.config.recipe import Recipe
from mm1_jax.evaluation.task_records import MEASURED

HERE = str(Path(__file__).parent)


def train(config, seed, inputs, context):
    """`steps` steps of `seconds` each, resumed from scratch; fails or dies as it is told."""
    state = context.scratch / "step"
    first = int(state.read_text(encoding="utf-8")) if state.exists() else 0
    _misbehave(config, context)
    context.record(config.get("facts", {}))
    for step in range(first, config.get("steps", 0)):
        time.sleep(config.get("seconds", 0))
        context.report(step + 1, {"loss": 1.0 / (step + 1)})
        write_whole(state, str(step + 1))
        if context.stop_requested():
            raise StageStopped
    (context.output / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
    (context.output / "first_step").write_text(str(first), encoding="utf-8")
    rows = [ResultRow("training", "loss", 1.0, step=step + 1) for step in range(3)]
    if config.get("diverges"):
        rows.append(ResultRow("training", "diverged", 1.0))
    return rows


def evaluate(config, seed, inputs, context):
    """A score that follows from the trained config and the seed."""
    trained = json.loads((inputs["model"] / "config.json").read_text(encoding="utf-8"))
    score = float(trained.get("score", 50)) + seed
    score += random.Random(f"{trained['arm']} {seed}").gauss(0, trained.get("noise", 0))
    return [ResultRow("easy_vqa", "accuracy", score, split="test", n_items=10)]


def _misbehave(config, context):
    if not config.get("fails") and not config.get("dies"):
        return
    times = context.scratch / "failures"
    count = int(times.read_text(encoding="utf-8")) if times.exists() else 0
    write_whole(times, str(count + 1))
    if count < config.get("fails", 0):
        raise ValueError(f"told to fail ({count + 1})")
    if count < config.get("dies", 0):
        os._exit(3)


def a_stage(run, config, seed, inputs=None, *, label="", seconds=0.01, compile_class=None) -> Stage:
    """A stage whose identity follows from its arguments."""
    inputs = inputs or {}
    identity = json.dumps([run, config, seed, inputs], sort_keys=True).encode()
    work = Work(
        kind="evaluation" if inputs else "multimodal",
        run=f"noop_stage:{run}",
        config=config,
        decides=hashlib.sha256(json.dumps([run, config]).encode()).hexdigest(),
        data_fingerprint="data",
        code=Code(module="noop_stage", function=run),
        code_fingerprint=code_fingerprint("noop_stage", run),
        compile_class=compile_class or run,
        seconds=seconds,
        what=run,
    )
    return Stage(hashlib.sha256(identity).hexdigest(), work, seed, inputs, label or run)


def having(stage: Stage, **changes) -> Stage:
    """The stage with other work."""
    return dataclasses.replace(stage, work=stage.work.model_copy(update=changes))


def a_plan(
    study: str, arms: dict[str, dict], seeds=(1, 2), claims=None, replication=None, **stage
) -> Plan:
    """A study with one training and one evaluation per (arm, seed)."""
    stages: dict[str, Stage] = {}
    trials = []
    for seed in seeds:
        for name, config in arms.items():
            config = {"arm": name, **config}
            training = a_stage("train", config, seed, label=name, **stage)
            evaluation = a_stage(
                "evaluate", {"task": "easy_vqa"}, seed, {"model": training.id}, label=name
            )
            stages |= {training.id: training, evaluation.id: evaluation}
            roles = {"multimodal": training.id, "easy_vqa": evaluation.id}
            trials.append(Trial(name, seed, roles))
    return Plan(
        study=study,
        workload="recipe",
        tasks=dict(MEASURED),
        hash=hashlib.sha256(json.dumps([study, arms, list(seeds)]).encode()).hexdigest(),
        path=f"{study}.yaml",
        source=f"study: {study}",
        question="Does it run?",
        primary_metric=("easy_vqa", "accuracy"),
        alpha=0.05,
        seeds=tuple(seeds),
        factors={"arm": tuple(arms)},
        arms=tuple(
            Arm(
                name=name,
                levels={"arm": name},
                label=name,
                config=Recipe().model_dump(mode="json"),
                dropped=(),
                roles=("multimodal", "easy_vqa"),
                answers=(Answer(role="easy_vqa", task="easy_vqa"),),
                main="multimodal",
                parameters={"all": 1},
                flops_per_trial=1.0,
                memory_bytes=1,
                warnings=(),
            )
            for name, config in arms.items()
        ),
        trials=tuple(trials),
        stages=stages,
        claims=claims or {},
        replication=replication,
        warnings=(),
    )
