"""`mm1 evaluate`: scores of a trained model, of ours or of anybody's.

Each question is a stage of a store, so a repeated one is answered from there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ablations import strict_json
from ablations.errors import UserError, nearest
from ablations.stage import ResultRow
from mm1.options import mesh_of
from mm1.terminal import say
from mm1.utf8_mode import typed
from mm1_jax.config.questions import MOST_ASKED_AT_ONCE, MOST_ITEMS, MOST_SHOTS, Condition

if TYPE_CHECKING:
    from ablations.stages import Stage
    from mm1.find_model import Found
    from mm1_jax.config.recipe import EvaluationConfig
    from sweeps.store import Store


@click.command()
@click.argument("run")
@click.option("--task", "tasks", multiple=True, help="A task; again for more. [all]")
@click.option(
    "--shots",
    type=click.IntRange(0, MOST_SHOTS),
    multiple=True,
    help="Demonstrations; again for more. [0]",
)
@click.option(
    "--condition",
    "conditions",
    type=click.Choice(get_args(Condition)),
    multiple=True,
    help="Again for more. [intact]",
)
@click.option(
    "--items",
    type=click.IntRange(1, MOST_ITEMS),
    default=None,
    help="A fixed subset, with --task. [all]",
)
@click.option("--folder", default=None, help="Where the official --task lies.")
@click.option("--annotations", default=None, help="What is asked, in --folder. [test, else all]")
@click.option("--train", default=None, help="What demonstrations are drawn from. [train]")
@click.option("--images", default=None, help="The images, in --folder. [images, else all]")
@click.option("--prompt", default=None, help="Words after the images. [the paper's]")
@click.option("--recipe", default=None, help="Take tasks, variants and folders from this recipe.")
@click.option(
    "--batch-size", type=click.IntRange(1, MOST_ASKED_AT_ONCE), default=256, show_default=True
)
@click.option(
    "--mesh",
    default=None,
    help="Cut the weights over devices: fsdp=4,tensor=2. [a copy on each, if they fit]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="Another store to keep answers in. [the one that RUN is in, else --store]",
)
@click.option(
    "--store",
    default=None,
    help="Store in which RUN is a stage, or that keeps what a folder answers. [$MM1_STORE, .mm1]",
)
@click.option("--data", type=click.Path(path_type=Path), default=None, help="[STORE/data]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def evaluate(
    run: str,
    tasks: tuple[str, ...],
    shots: tuple[int, ...],
    conditions: tuple[str, ...],
    items: int | None,
    recipe: str | None,
    batch_size: int,
    mesh: str | None,
    out: Path | None,
    store: str | None,
    data: Path | None,
    as_json: bool,
    **official: str | None,
) -> int:
    """Score a trained model and print one line a metric, with its standard error over items.

    RUN is a folder of `mm1 train` (or RUN/best with training.keep_best), a stage of the store, or a
    Hugging Face folder of a language model (tasks of text) or of LLaVA-1.5 (all official tasks).
    Prompts, answers and scores of all items are kept as stages of a store, and what was asked
    before is answered from there; interrupted, the same command goes on after the last batch.

    \b
    Example: mm1 evaluate runs/mini --task easy_vqa --condition shuffled
    Example: mm1 evaluate runs/mini --task vqav2 --folder /data/vqav2 --shots 0 --shots 4
    """
    from ablations.averages import average_rows
    from mm1 import api
    from mm1.find_model import find_model
    from mm1.local import STOPPED, NotDoneError
    from mm1_jax.evaluation.task_records import TASKS
    from mm1_jax.workload import load_recipe

    if official["prompt"] is not None:
        official["prompt"] = typed(official["prompt"], "--prompt")
    store = store or api.default_store()
    found = find_model(run, store, out)
    if found.model.imported and not tasks and recipe is None:
        raise UserError(f"{run} was trained elsewhere: say --task and --folder of an official task")
    how = {"batch_size": batch_size} | ({"mesh": mesh_of(mesh)} if mesh else {})
    if recipe is not None:
        if tasks or shots or conditions or items or any(official.values()):
            raise UserError("--recipe says which tasks, variants and folders; give it alone")
        asked = load_recipe(recipe).evaluation
    else:
        asked = evaluation_of(tasks, shots or (0,), conditions or ("intact",), items, official)
    asked = asked.model_copy(update=how)
    try:
        rows = ask(found, asked, api.data_folder(store, data), must=bool(tasks or recipe))
    except NotDoneError as error:
        if error.code == STOPPED:
            click.echo("stopped; the same command goes on from there", err=True)
        return error.code
    first = {task: TASKS[task].measured.first.name for task in asked.average}
    rows += average_rows(rows, first)
    if as_json:
        click.echo(strict_json.dumps([asdict(row) for row in rows]))
        return 0
    names = [told(row) for row in rows]
    width = max(map(len, names), default=0)
    for name, row in zip(names, rows, strict=True):
        error = "" if row.standard_error is None else f"± {row.standard_error:.3f}"
        say(
            f"{name:<{width}} {row.value:10.3f} {error:<9} "
            f"({row.n_items} items, {row.shots}-shot, {row.condition})"
        )
    return 0


def evaluation_of(
    tasks: Sequence[str],
    shots: Sequence[int],
    conditions: Sequence[str],
    items: int | None,
    official: Mapping[str, str | None],
) -> EvaluationConfig:
    """What the options ask for; without a task, every one that lies in no folder of the user's."""
    from mm1_jax.config.official import unknown_in_prompt
    from mm1_jax.config.recipe import EvaluationConfig
    from mm1_jax.evaluation.official.catalogue import OFFICIAL
    from mm1_jax.evaluation.task_records import OF_OUR_DATA, TASKS

    if items is not None and not tasks:
        raise UserError("--items goes with --task: the test splits of the tasks differ in size")
    for task in tasks:
        if task not in OF_OUR_DATA and task not in OFFICIAL:
            raise UserError(
                f"--task {task}: no such task{nearest(task, [*OF_OUR_DATA, *OFFICIAL])}"
            )
    given = {key: value for key, value in official.items() if value is not None}
    named = [task for task in tasks if task in OFFICIAL]
    if given and (len(tasks) != 1 or not named):
        raise UserError(f"--{next(iter(given))} goes with one official --task; or say --recipe")
    if named and "folder" not in given:
        raise UserError(f"--task {named[0]} lies in a folder of yours: say --folder")
    if "prompt" in given and (wrong := unknown_in_prompt(str(given["prompt"]))) is not None:
        raise UserError(f"--prompt {wrong}")
    plain = tuple(shots) == (0,) and tuple(conditions) == ("intact",)
    chosen = [
        task
        for task in OF_OUR_DATA
        if task in tasks or (not tasks and (plain or not TASKS[task].one_form))
    ]
    variants = {"shots": tuple(shots), "conditions": tuple(conditions), "items": items}
    return EvaluationConfig.model_validate(
        dict.fromkeys(chosen, variants) | {"official": dict.fromkeys(named, variants | given)}
    )


def told(row: ResultRow) -> str:
    """What a number is called, and whether lower is better."""
    from ablations.averages import AVERAGE
    from ablations.workload import with_goal
    from mm1_jax.evaluation.task_records import MEASURED

    name = f"{row.task}.{row.metric}"
    known = None if row.task == AVERAGE else MEASURED[row.task].metric(row.metric)
    return with_goal(name, known.goal) if known else name


@dataclass(frozen=True)
class Question:
    """One evaluation stage with what it asks (`EvaluationStage`)."""

    stage: Stage
    config: dict[str, Any]
    folder: Path  # of the part that is asked
    trained_here: bool  # and not elsewhere


def ask(found: Found, evaluation: EvaluationConfig, data: Path, *, must: bool) -> list[ResultRow]:
    """Ask what was not asked yet, and give all rows in order.

    Where not all of it `must` be asked, what does not score the model is left out.

    Raises:
        NotDoneError: a question was stopped, or failed; which was told.
        UserError: something cannot be asked; of what can be known before, nothing is written.
    """
    from mm1.local import prepare_data, run_stage, stopping
    from mm1.run_folder import link
    from mm1_jax.training.checkpoints import load_config
    from sweeps.store import Store

    wanted = list(questions(found, evaluation, must=must))
    store = Store(found.store)
    asked = store.done({one.stage.id for one in wanted})
    _check(wanted, asked, store)
    rows: list[ResultRow] = []
    with stopping() as stop:
        for one in wanted:
            if one.stage.id not in asked and one.trained_here:
                prepare_data([load_config(one.folder).data], data)
            run_stage(store, one.stage, data, stop)
            answers = store.stage_folder(one.stage.id)
            rows += _rows(store, one.stage.id)
            if found.shown is not None:
                form = "-".join(str(one.config[key]) for key in ("task", "shots", "condition"))
                link(found.shown / form, answers)
            click.echo(f"answers: {answers}", err=True)
    return rows


def questions(found: Found, evaluation: EvaluationConfig, *, must: bool) -> Iterator[Question]:
    """What an evaluation asks of a model, as stages; `must`: all of it, or `UserError`."""
    from ablations import identity
    from ablations.stages import NO_SEED, Stage
    from ablations.workload import Asked
    from mm1_jax.evaluation.task_records import check_form
    from mm1_jax.training.checkpoints import load_config
    from mm1_jax.weights import weights_folder
    from mm1_jax.workload import asked_alone, asked_of

    model = found.model
    content_of = functools.cache(weights_folder.content_of)  # a large model is read once
    for config, affecting in asked_of(evaluation):
        task = config["task"]
        check_form(Asked(task, config["shots"], config["condition"]))
        reason = model.cannot_be_asked(task)
        if reason is not None:
            if must:
                raise UserError(f"--task {task}: {reason}")
            continue
        part = model.part_of(task)
        assert part is not None
        folder = model.folders[part]
        here = not weights_folder.is_imported(folder)
        inputs = {"model": found.stages[part]} if part in found.stages else {}
        weights = None if inputs else (folder, content_of(folder))
        own = load_config(folder).data if here else None
        work = asked_alone(part, config, affecting, own, weights)
        seed = NO_SEED if work.pinned else found.seed
        stage = Stage(identity.stage_id(work.decides, seed, inputs), work, seed, inputs, model.name)
        yield Question(stage, config, folder, here)


def _check(questions: Sequence[Question], asked: set[str], store: Store) -> None:
    """Raise `UserError` for what would fail, or for answers about other images than are there."""
    from mm1_jax.config.training import MeshConfig
    from mm1_jax.evaluation.evaluation_mesh import mesh_of_checkpoint
    from mm1_jax.evaluation.official import checks

    official = [one for one in questions if one.config.get("official")]
    for one in official:
        if one.stage.id in asked and store.execution(one.stage.id).get("images") is not None:
            checks.check_images(one.config, store.stage_folder(one.stage.id))
    checks.check_questions(one.config for one in official if one.stage.id not in asked)
    for one in questions:
        if one.config["mesh"] is not None and one.trained_here and one.stage.id not in asked:
            mesh_of_checkpoint(one.folder, MeshConfig.model_validate(one.config["mesh"]))


def _rows(store: Store, stage: str) -> list[ResultRow]:
    known = [one.name for one in fields(ResultRow)]
    found = []
    for row in store.rows([stage])[known].to_dict("records"):
        error = row["standard_error"]
        values: dict[str, Any] = {**row, "standard_error": None if error != error else error}
        found.append(ResultRow(**values))
    return found
