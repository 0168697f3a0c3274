"""`mm1 run --smoke`: every program of a study once, before the night.

Each compile class is run for two steps and one batch of questions, stopped after the first step,
saved and gone on with, by the same workers, on the same data and devices as the study. It has a
store of its own inside the study's, which is thrown away: no result of it is ever one of a study.
What was compiled stays in the cache.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablations.errors import UserError
from ablations.short_run import RESTORED, tried
from ablations.stages import Stage, Trial, stages_of

if TYPE_CHECKING:
    from ablations.plan import Arm, Plan
    from sweeps.store import Store


@dataclass(frozen=True)
class Tried:
    """What came of one compile class."""

    what: str  # the first stage of the class
    stages: int  # of the study that are of it
    ok: bool
    told: str


def short_plan(plan: Plan) -> tuple[Plan, list[Stage]]:
    """The plan of a try: the first stage of each compile class, and what those take input from.

    And the stages as they are without the stop, for what has to be prepared for them. Raises
    `UserError` where what is trained is the user's own: nobody but them knows how to shorten it.
    """
    from mm1_jax.config.recipe import Recipe
    from mm1_jax.config.shortened import shortened
    from mm1_jax.stage_kinds import is_ours
    from mm1_jax.workload import RECIPE

    if plan.is_own:
        raise UserError(
            "--smoke shortens recipes; what is trained here is your own: mm1 try (a command), or a "
            "study of few steps"
        )
    runners = {
        stage.kind: stage.run
        for stage in plan.stages.values()
        if not is_ours(stage.kind, stage.run)
    }
    stages: dict[str, Stage] = {}  # by identity, of all arms
    first: dict[str, tuple[Arm, str, Stage]] = {}  # by compile class
    for arm in plan.arms:
        recipe = shortened(Recipe.model_validate(arm.config))
        graph = RECIPE.graph(recipe, [answer.asked for answer in arm.answers], runners)
        for role, stage in stages_of(arm.name, graph, plan.seeds[0]).items():
            stages.setdefault(stage.id, stage)
            first.setdefault(stage.compile_class, (arm, role, stage))
    needed: dict[str, Stage] = {}

    def need(stage: Stage) -> None:
        for source in stage.inputs.values():
            need(stages[source])
        needed.setdefault(stage.id, stage)

    for _, _, stage in first.values():
        need(stage)
    arms, trials = [], []
    for arm, role, stage in first.values():
        name = f"{arm.name} {role}"
        arms.append(
            arm.model_copy(
                update={"name": name, "label": name, "roles": (role,), "answers": (), "main": role}
            )
        )
        trials.append(Trial(name, plan.seeds[0], {role: stage.id}))
    wrapped = {
        one.id: dataclasses.replace(one, work=one.work.model_copy(update=tried(one)))
        for one in needed.values()
    }
    changes: dict[str, Any] = {
        "study": f"{plan.study}-smoke",
        "arms": tuple(arms),
        "trials": tuple(trials),
        "stages": wrapped,
        "seeds": plan.seeds[:1],
        "claims": {},
        "min_effects": {},
        "null_arms": (),
        "excluded": (),
        "path": "",
    }
    return plan.model_copy(update=changes), list(needed.values())


def smoke(plan: Plan, store: str, run: Callable[[Plan, str], int]) -> list[Tried]:
    """Run every compile class of a plan once; `run` runs a plan in a store.

    Raises `UserError` as a run does.
    """
    from sweeps.store import Store

    short, _ = short_plan(plan)
    place = f"smoke/{secrets.token_hex(4)}"
    root = f"{store.rstrip('/')}/{place}"
    try:
        run(short, root)
        own = Store(root)
        classes: dict[str, int] = {}
        for stage in plan.stages.values():
            classes[stage.compile_class] = classes.get(stage.compile_class, 0) + 1
        return [_tried(short, own, trial, classes) for trial in short.trials]
    finally:
        Store(store).objects.remove("smoke")


def _tried(short: Plan, store: Store, trial: Trial, classes: Mapping[str, int]) -> Tried:
    (stage_id,) = trial.stages.values()
    stage = short.stages[stage_id]
    count = classes.get(stage.compile_class, 0)
    if not store.is_done(stage_id):
        failures = store.failures(stage_id)
        lacking = [one for one in stage.inputs.values() if not store.is_done(one)]
        if failures:
            told = " ".join(str(failures[-1].get("error", "unknown")).split())
        elif lacking:
            told = f"not tried: {short.stages[lacking[0]].label} came to nothing"
        else:
            told = "not tried: the run was ended before"
        return Tried(stage.label, count, False, told)
    execution = store.execution(stage_id)
    once = float(execution.get("compilation_seconds", 0.0))
    told = f"{execution['seconds']:.1f} s" + (f", {once:.1f} s of it compiling" if once else "")
    if execution.get(RESTORED):
        told += ", saved and restored"
    rows = store.rows([stage_id])
    odd = [
        f"{task}.{metric}"
        for task, metric, value in zip(rows["task"], rows["metric"], rows["value"], strict=True)
        if not math.isfinite(value)
    ]
    if store.status(stage_id) == "diverged":
        return Tried(stage.label, count, False, f"{told}; it diverged in its first steps")
    if odd:
        told += f"; not finite: {', '.join(dict.fromkeys(odd))}"
    return Tried(stage.label, count, True, told)
