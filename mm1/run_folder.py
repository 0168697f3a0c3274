"""The folder of `mm1 train`: a store whose only study is one arm with one seed.

    RUN/format.json, stages/, studies/, …       `sweeps.store`
    RUN/config.json, checkpoint/, best/, …      links to what its last training wrote, so that RUN
                                                is a checkpoint wherever a folder of one is taken
    RUN/pretrained/ROLE                         links to what was trained before
    RUN/evaluations/easy_vqa-0-intact           links to what was asked last in this form

The links are for people and for commands that take a folder; nothing is decided by them.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ablations.errors import UserError

if TYPE_CHECKING:
    from ablations.plan import Plan
    from mm1_jax.config.recipe import Recipe
    from sweeps.store import Store

PRETRAINED, EVALUATIONS = "pretrained", "evaluations"


def plan_of(recipe: Recipe, name: str, seed: int, source: str) -> Plan:
    """The trainings of a recipe, which asks nothing then: what `mm1 train` runs."""
    from ablations.plan import plan_of_one
    from mm1_jax.config.recipe import EvaluationConfig
    from mm1_jax.workload import RECIPE

    silent = recipe.model_copy(update={"evaluation": EvaluationConfig()})
    return plan_of_one(name, RECIPE, silent, seed, source)


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, whatever was run in it."""
    return (folder / "format.json").is_file()


def open_run(folder: Path) -> tuple[Store, Plan] | None:
    """The store and the plan of a folder of `mm1 train`; None where there is nothing yet.

    Raises:
        UserError: the folder holds something else.
    """
    from sweeps.store import Store

    if not is_store(folder):
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        if any(not name.startswith(".") for name in names):
            raise UserError(f"{folder} is not empty and holds no run; choose another --out")
        return None
    store = Store(folder)
    studies = store.studies()
    if not studies:
        return None
    plan = store.snapshot(studies[0])[0] if len(studies) == 1 else None
    if plan is None or len(plan.trials) != 1 or plan.arms[0].answers:
        raise UserError(
            f"{folder} is the store of {', '.join(studies[:3])}, not a folder of `mm1 train`"
        )
    return store, plan


def check_same(folder: Path, there: Plan, here: Plan) -> None:
    """Raise `UserError` that shows the first difference between two runs."""
    theirs, mine = (
        {"seed": plan.seeds[0], "recipe": plan.arms[0].config} for plan in (there, here)
    )
    if theirs != mine:
        raise UserError(
            f"{folder} holds another run ({_first_difference(theirs, mine)}); "
            "choose another --out or remove the folder"
        )


def _first_difference(a: object, b: object, path: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} is {a!r} there and {b!r} here"


def show_trained(store: Store, plan: Plan) -> None:
    """Link what was trained to where people look for it."""
    (trial,) = plan.trials
    main = plan.main(trial)
    for path in store.stage_folder(main).iterdir():
        link(store.local / path.name, path)
    for role, stage in plan.trainings(trial).items():
        if stage != main:
            link(store.local / PRETRAINED / role, store.stage_folder(stage))


class StagePlace(NamedTuple):
    """Where a folder lies: in the output of a stage of a store."""

    store: Path
    stage: str


def stage_at(folder: Path) -> StagePlace | None:
    """The stage whose output a folder is, or is in, links followed; None where it is none's."""
    from sweeps.finished import STAGE_ID

    place = folder.resolve()
    for above in (place, *place.parents):
        if above.name == "output" and len(above.parts) > 5:
            stage, store = above.parent.parent, above.parents[4]
            known = STAGE_ID.fullmatch(stage.name) and stage.parent.parent.name == "stages"
            if known and is_store(store):
                return StagePlace(store, stage.name)
    return None


def link(place: Path, target: Path) -> None:
    """Make `place` a link to a file or folder below the same store, in the place of another."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{uuid.uuid4().hex[:12]}")
    temporary.symlink_to(os.path.relpath(target, place.parent))
    temporary.replace(place)
