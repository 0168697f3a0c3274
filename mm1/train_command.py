"""`mm1 train`: one model from a recipe, as a plan of one arm that is run in this process."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path

import click

from ablations import strict_json
from mm1 import api
from mm1.options import data_option, json_option, store_option


@click.command()
@click.argument("config")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    show_default="runs/CONFIG-seedSEED",
    help="Folder of the run, a store; interrupted, the same command goes on from it.",
)
@click.option(
    "--distributed",
    is_flag=True,
    help="One of several processes that share `training.mesh`; called alike on every host.",
)
@store_option
@data_option
@json_option
def train(
    config: str,
    seed: int,
    out: Path | None,
    distributed: bool,
    store: str,
    data: Path | None,
    as_json: bool,
) -> int:
    """Train one model from a recipe, pre-trainings first, in this process: no Ray, no MLflow.

    --out is a store, so `mm1 logs`, `mm1 status` and `mm1 fsck` say what became of it, with
    --store RUN; --store says where compiled programs and prepared data are.

    \b
    Example: mm1 train ablations/recipes/mini.yaml --seed 1 --out runs/mini
    """
    from mm1 import processes
    from mm1_jax.scale.compilation_cache import cache_variables

    for name, value in cache_variables(api.compilation_cache(store)).items():
        os.environ.setdefault(name, value)
    if distributed:
        processes.join()
    folder = out or Path("runs") / f"{Path(config).stem}-seed{seed}"
    return train_into(folder, Path(config), seed, api.data_folder(store, data), as_json)


def train_into(folder: Path, config: Path, seed: int, data: Path, as_json: bool) -> int:
    """Run all trainings of one recipe into `folder`; a finished one answers from what is stored.

    Raises `UserError` where the folder holds another recipe or seed.
    """
    from mm1 import processes, run_folder
    from mm1.local import STOPPED, NotDoneError, in_words, prepare_data, run_stage, stopping
    from mm1_jax.workload import data_of, load_recipe
    from sweeps.store import Store

    recipe = load_recipe(config)
    found = run_folder.open_run(folder)
    name = found[1].study if found is not None else config.stem
    plan = run_folder.plan_of(recipe, name, seed, config.read_text(encoding="utf-8"))
    if found is not None:
        run_folder.check_same(folder, found[1], plan)
    store = Store(folder)
    if processes.is_first():
        store.register(plan)
    (trial,) = plan.trials
    with stopping() as stop:
        for stage_id in plan.trainings(trial).values():
            stage = plan.stages[stage_id]
            if not store.is_done(stage_id):
                prepare_data(filter(None, [data_of(stage.work)]), data)
            try:
                run_stage(store, stage, data, stop)
            except NotDoneError as error:
                if error.code == STOPPED:
                    print(f"stopped; the same command goes on from {folder}", file=sys.stderr)
                return error.code
    if not processes.is_first():
        return 0
    run_folder.show_trained(store, plan)
    rows = store.rows([plan.main(trial)])
    final = dict(zip(rows["metric"], rows["value"], strict=True))  # by step, so the last stands
    if as_json:
        print(strict_json.dumps({"run": str(folder), "seed": seed, **final}))
    else:
        print(in_words({name: math.nan if v is None else v for name, v in final.items()}))
        print(f"trained: {folder}; score it with: mm1 evaluate {shlex.quote(str(folder))}")
    return 0
