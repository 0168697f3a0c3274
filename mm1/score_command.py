"""`mm1 score`: the official score of anybody's result file, without a model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations import strict_json
from ablations.errors import UserError
from mm1.terminal import say

if TYPE_CHECKING:
    from mm1_jax.evaluation.official.task import OfficialTask, Question
    from mm1_jax.evaluation.tasks.generation_task import Score

_path = click.Path(path_type=Path)
_SHOWN = 5  # ids in an error message


@click.command()
@click.option(
    "--task", "name", required=True, help="coco_caption, vqav2, … (docs/tasks.md has all)."
)
@click.option("--annotations", type=_path, required=True, help="The published file, or its folder.")
@click.option("--predictions", type=_path, required=True, help="The result file.")
@click.option("--subset", is_flag=True, help="Score only what is predicted, as a split of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def score(name: str, annotations: Path, predictions: Path, subset: bool, as_json: bool) -> None:
    """Score a result file in a task's official form against the official annotations.

    Every item needs one prediction and every prediction an item. Scores are on the scale of the
    official script: captions' CIDEr-D from 0 to 10, VQA's accuracy in per cent.

    \b
    Example: mm1 score --task coco_caption --annotations dataset_coco.json \\
                 --predictions captions.json --json
    """
    from mm1_jax.evaluation.official.catalogue import official_task
    from mm1_jax.evaluation.official.task import questions_in, standard_errors

    task = official_task(name)
    items = questions_in(task, annotations)
    aside = task.left_out(annotations)
    predicted = task.predictions(predictions).items()
    given = {item_id: text for item_id, text in predicted if item_id not in aside}
    if subset:
        items = [item for item in items if item.item_id in given]
    _check_match(items, given, annotations, predictions, subset)
    scored = _official(task.score(items, [given[item.item_id] for item in items]), task)
    figures: dict[str, Any] = {
        "task": name,
        "items": len(items),
        **_nested(scored.metrics),
        "standard_errors": standard_errors(items, scored),
        "variant": inspect.cleandoc(task.score.__doc__ or "").partition("\n")[0],
    }
    if as_json:
        click.echo(strict_json.dumps(figures, indent=2))
    else:
        _show(figures, scored)


def _official(scored: Score, task: OfficialTask) -> Score:
    """The same scores on the scale of the official script."""
    unit = task.official_unit
    if unit == 1:
        return scored
    return type(scored)(
        [unit * value for value in scored.items],
        {name: unit * value for name, value in scored.metrics.items()},
        {name: [unit * value for value in column] for name, column in scored.also.items()},
    )


def _check_match(
    items: Sequence[Question],
    given: dict[str, str],
    annotations: Path,
    predictions: Path,
    subset: bool,
) -> None:
    """UserError if items and predictions are not of the same ids."""
    known = {item.item_id for item in items}
    missing = [item.item_id for item in items if item.item_id not in given]
    extra = [item_id for item_id in given if item_id not in known]
    told = []
    if missing:
        told.append(f"{len(missing)} of {len(items)} items are not predicted ({_first(missing)})")
    if extra:
        told.append(f"{len(extra)} predictions are of no item ({_first(extra)})")
    if not told and not items:
        told.append("nothing to score")
    if told:
        hint = "" if subset or extra else "; --subset scores the others"
        raise UserError(f"{'; '.join(told)} in {annotations}{hint}", file=str(predictions))


def _first(ids: Sequence[str]) -> str:
    from mm1_jax.evaluation.official.published_rows import short

    return ", ".join(map(short, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")


def _nested(metrics: dict[str, float]) -> dict[str, Any]:
    """`accuracy/answer_type:number` → `by_answer_type` → `number` → `accuracy`."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        metric, _, members = name.partition("/")
        group, _, member = members.partition(":")
        if group:
            found.setdefault(f"by_{group}", {}).setdefault(member, {})[metric] = value
        else:
            found[metric] = value
    return found


def _show(figures: dict[str, Any], scored: Score) -> None:
    errors = figures["standard_errors"]
    from ablations.workload import with_goal
    from mm1_jax.evaluation.task_records import MEASURED

    known = MEASURED[figures["task"]]
    names = {n: with_goal(n, m.goal) if (m := known.metric(n)) else n for n in scored.metrics}
    width = max(map(len, names.values()))
    click.echo(f"{figures['task']}, {figures['items']:,} items")
    for name, value in scored.metrics.items():
        error = f" ± {errors[name]:.3f}" if name in errors else ""
        say(f"{names[name]:<{width}} {value:10.3f}{error}")
    if errors:
        click.echo("±: standard error over images, for these predictions only")
    click.echo(figures["variant"])
