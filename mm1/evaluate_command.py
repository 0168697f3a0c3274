"""`mm1 evaluate`: scores of a trained model, of ours or of anybody's."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ablations import strict_json
from ablations.errors import UserError, nearest
from ablations.stage import ResultRow, StageStopped
from mm1.options import mesh_of
from mm1.terminal import say
from mm1.utf8_mode import typed
from mm1_jax.config.questions import MOST_ASKED_AT_ONCE, MOST_ITEMS, MOST_SHOTS, Condition

if TYPE_CHECKING:
    from mm1_jax.config.recipe import EvaluationConfig

SCORES_FILE = "scores.json"


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
@click.option("--out", type=click.Path(path_type=Path), default=None, help="[RUN/evaluations]")
@click.option("--store", default=None, help="Store in which RUN is a stage. [$MM1_STORE, .mm1]")
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
    Prompts, answers and scores of all items are kept in --out; interrupted, the same command goes
    on after the last batch.

    \b
    Example: mm1 evaluate runs/mini --task easy_vqa --condition shuffled
    Example: mm1 evaluate runs/mini --task vqav2 --folder /data/vqav2 --shots 0 --shots 4
    """
    from mm1 import api
    from mm1_jax.workload import load_recipe

    if official["prompt"] is not None:
        official["prompt"] = typed(official["prompt"], "--prompt")
    model = scored_model(run, store or api.default_store())
    if model.imported and not tasks and recipe is None:
        raise UserError(f"{run} was trained elsewhere: say --task and --folder of an official task")
    how = {"batch_size": batch_size} | ({"mesh": mesh_of(mesh)} if mesh else {})
    if recipe is not None:
        if tasks or shots or conditions or items or any(official.values()):
            raise UserError("--recipe says which tasks, variants and folders; give it alone")
        asked = load_recipe(recipe).evaluation
    else:
        asked = evaluation_of(tasks, shots or (0,), conditions or ("intact",), items, official)
    asked = asked.model_copy(update=how)
    data = data or Path(store or api.default_store()) / "data"
    rows: list[ResultRow] = []
    try:
        for config, affecting in _configs(asked, model, must=bool(tasks or recipe)):
            rows += _scored(config, affecting, model, out, data)
    except StageStopped as stopped:
        click.echo(f"stopped {stopped}; the same command goes on from there", err=True)
        return 130
    rows += averages(asked, rows)
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


@dataclass(frozen=True)
class ScoredModel:
    """What is scored: a folder, or the parts of a run's; and where its scores are kept."""

    name: str
    folders: Mapping[str, Path]  # part, or "multimodal" → the folder that holds it
    seed: int
    output: Path | None  # None: nothing is kept

    @property
    def imported(self) -> bool:
        """Whether it is a whole model that was trained elsewhere."""
        from mm1_jax.evaluation.task_records import MULTIMODAL
        from mm1_jax.weights.weights_folder import is_imported

        return MULTIMODAL in self.folders and is_imported(self.folders[MULTIMODAL])

    def part_of(self, task: str) -> str | None:
        """The part that a task scores, if it is there: official texts score what there is."""
        from mm1_jax.config.encoder_pretraining import EncoderStageConfig
        from mm1_jax.evaluation.official.catalogue import OFFICIAL
        from mm1_jax.evaluation.task_records import TASKS, part_of
        from mm1_jax.training.checkpoints import load_config

        part = part_of(task)
        if part not in self.folders and task in OFFICIAL:
            part = "language_model"
        if part not in self.folders:
            return None
        if task in TASKS and TASKS[task].captions:
            config = load_config(self.folders[part])
            if isinstance(config, EncoderStageConfig) and not config.objective.reads_captions:
                return None
        return part

    def cannot_be_asked(self, task: str) -> str | None:
        """Why a task does not score this model; None if it does."""
        from mm1_jax.config.recipe import data_lacking
        from mm1_jax.evaluation.official.catalogue import OFFICIAL
        from mm1_jax.evaluation.task_records import MULTIMODAL, TASKS, part_of
        from mm1_jax.training.checkpoints import load_config

        part = self.part_of(task)
        if part == MULTIMODAL and task not in OFFICIAL and self.imported:
            return (
                f"it is asked in the data that a model was trained on, and {self.name} was trained "
                "elsewhere; valid: official tasks with --folder"
            )
        if part is None:
            return f"{self.name} holds no {part_of(task)} that it scores"
        if TASKS[task].asks:
            lacking = data_lacking(task, load_config(self.folders[part]).data)
            return lacking and f"it has no questions for {self.name}: {lacking}"
        return None


def scored_model(run: str, store: str) -> ScoredModel:
    """A folder of `mm1 train`, a Hugging Face folder, or a training stage by a prefix.

    Of a training with `keep_best` also RUN/best, and PREFIX/best of a stage.
    """
    from mm1.local import PRETRAINED, RECIPE
    from mm1_jax.weights import weights_folder

    folder = Path(run)
    if (folder / "config.json").is_file() and weights_folder.is_checkpoint(folder):
        at = folder.absolute()
        at = at.parent if at.name == weights_folder.BEST_FOLDER else at
        notes = [place / RECIPE for place in (at, at.parent.parent)]
        seeds = [
            json.loads(note.read_text(encoding="utf-8"))["seed"] for note in notes if note.is_file()
        ]
        inner = [p for p in (folder / PRETRAINED).glob("*") if weights_folder.is_checkpoint(p)]
        folders = {weights_folder.stated(place).kind: place for place in (*inner, folder)}
        return ScoredModel(run, folders, seeds[0] if seeds else 0, folder / "evaluations")
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors*")):
        kept = Path("runs") / folder.absolute().name / "evaluations"
        part = "multimodal" if weights_folder.is_multimodal(folder) else "language_model"
        return ScoredModel(run, {part: folder}, 0, kept)
    if folder.is_dir():
        raise UserError(f"{run} holds no trained model (no config.json beside a checkpoint folder)")
    from sweeps.store import Store

    prefix = run.removesuffix(f"/{weights_folder.BEST_FOLDER}")
    matches = Store(store).matching(prefix)
    if len(matches) != 1:
        raise UserError(
            f"{run!r} is neither a folder of `mm1 train` nor one finished stage of store {store} "
            f"({len(matches)} stages begin with it)"
        )
    found = Store(store).stage_folder(matches[0])
    if not weights_folder.is_checkpoint(found):
        raise UserError(f"stage {matches[0]} of store {store} is not a training")
    found = found / weights_folder.BEST_FOLDER if prefix != run else found
    if not weights_folder.is_checkpoint(found):
        raise UserError(f"stage {matches[0]} has no {found.name}/ (training.keep_best was false)")
    # A stage of the store is written once and stays as it is.
    kind = weights_folder.stated(found).kind
    return ScoredModel(run, {kind: found}, Store(store).stage(matches[0]).seed, None)


def evaluation_of(
    tasks: Sequence[str],
    shots: Sequence[int],
    conditions: Sequence[str],
    items: int | None,
    official: Mapping[str, str | None],
) -> EvaluationConfig:
    """What the options ask for; without a task, every one that lies in no folder of the user's."""
    from mm1_jax.config.official import unknown_in_prompt
    from mm1_jax.config.recipe import EvaluationConfig, TaskConfig
    from mm1_jax.evaluation.official.catalogue import OFFICIAL
    from mm1_jax.evaluation.task_records import TASKS

    fields = EvaluationConfig.model_fields.items()
    known = [name for name, field in fields if field.annotation == TaskConfig | None]
    if items is not None and not tasks:
        raise UserError("--items goes with --task: the test splits of the tasks differ in size")
    for task in tasks:
        if task not in known and task not in OFFICIAL:
            raise UserError(f"--task {task}: no such task{nearest(task, [*known, *OFFICIAL])}")
    given = {key: value for key, value in official.items() if value is not None}
    named = [task for task in tasks if task in OFFICIAL]
    if given and (len(tasks) != 1 or not named):
        raise UserError(f"--{next(iter(given))} goes with one official --task; or say --recipe")
    if named and "folder" not in given:
        raise UserError(f"--task {named[0]} lies in a folder of yours: say --folder")
    if "prompt" in given and (wrong := unknown_in_prompt(str(given["prompt"]))) is not None:
        raise UserError(f"--prompt {wrong}")
    plain = tuple(shots) == (0,) and tuple(conditions) == ("intact",)
    chosen = [t for t in known if t in tasks or (not tasks and (plain or not TASKS[t].one_form))]
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


def averages(evaluation: EvaluationConfig, rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The means over the evaluation's `average` tasks, for each variant that all of them have."""
    from ablations.averages import AVERAGE, average, average_metric
    from ablations.contrasts import ScoreKey
    from mm1_jax.evaluation.task_records import TASKS

    if not evaluation.average:
        return []
    first = {task: TASKS[task].measured.first.name for task in evaluation.average}
    found = {ScoreKey("", r.task, r.metric, r.shots, r.condition): r for r in rows}
    result = []
    for shots, condition in dict.fromkeys((row.shots, row.condition) for row in rows):
        mean = average("", shots, condition, first)
        if not mean.weights.keys() <= found.keys():
            continue
        parts = {key: found[key] for key in mean.weights}
        errors = {key: e for key, part in parts.items() if (e := part.standard_error) is not None}
        result.append(
            ResultRow(
                task=AVERAGE,
                metric=average_metric(shots),
                value=mean.value({key: part.value for key, part in parts.items()}),
                split="test",
                shots=shots,
                condition=condition,
                step=next(iter(parts.values())).step,
                n_items=sum(part.n_items for part in parts.values()),
                standard_error=mean.error(errors) if errors.keys() == parts.keys() else None,
            )
        )
    return result


def _configs(
    evaluation: EvaluationConfig, model: ScoredModel, *, must: bool
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Those whose part is there; `must`: all of them, or UserError."""
    from ablations.workload import Asked
    from mm1_jax.evaluation.task_records import check_form
    from mm1_jax.workload import asked_of

    for config, affecting in asked_of(evaluation):
        task = config["task"]
        check_form(Asked(task, config["shots"], config["condition"]))
        reason = model.cannot_be_asked(task)
        if reason is None:
            yield config, affecting
        elif must:
            raise UserError(f"--task {task}: {reason}")


def _scored(
    config: dict[str, Any],
    affecting: dict[str, Any],
    model: ScoredModel,
    out: Path | None,
    data: Path,
) -> list[ResultRow]:
    """Run one evaluation into its folder; an interrupted one of the same model goes on."""
    from ablations import identity
    from mm1.local import LocalContext, prepare_data
    from mm1_jax import runner
    from mm1_jax.stage_kinds import EVALUATIONS, KINDS
    from mm1_jax.training.checkpoints import load_config
    from mm1_jax.weights import weights_folder

    part = model.part_of(config["task"])
    assert part is not None
    folder = model.folders[part]
    if not weights_folder.is_imported(folder):
        prepare_data([load_config(folder).data], data)
    run_task = getattr(runner, KINDS[EVALUATIONS[part]].run.partition(":")[2])
    with tempfile.TemporaryDirectory() as temporary:
        output = out or model.output or Path(temporary)
        output = output / "-".join(str(config[key]) for key in ("task", "shots", "condition"))
        said = identity.fingerprint([affecting, weights_folder.content_of(folder)])
        scratch = output / f"unfinished-{said[:12]}"
        made = [place for place in (scratch, *scratch.parents) if not place.exists()]
        context = LocalContext(output=output, scratch=scratch, data=data)
        try:
            rows = run_task(config, model.seed, {"model": folder}, context)
        except UserError:
            _remove_empty(made)
            raise
        (output / SCORES_FILE).write_text(
            strict_json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8"
        )
        shutil.rmtree(context.scratch)
    return rows


def _remove_empty(folders: Sequence[Path]) -> None:
    """Those that hold nothing, innermost first: batches that were answered stay for a next try."""
    for folder in folders:
        if any(folder.iterdir()):
            return
        folder.rmdir()
