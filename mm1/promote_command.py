"""`mm1 promote`: an arm that has run, as a recipe to train again and a folder of weights to use."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import click

from ablations import strict_json
from ablations.errors import UserError, nearest, shown
from mm1 import api
from mm1.options import json_option, store_option
from mm1.terminal import say

if TYPE_CHECKING:
    from analysis.results import StudyResults

RECIPE_FILE, CARD_FILE, TRAINED = "recipe.yaml", "README.md", "trained"
PUBLIC = ("encoder", "language_model")  # parts that Hugging Face has classes for


class Promoted(NamedTuple):
    """What was written."""

    study: str
    arm: str
    seed: int
    folder: str
    parts: Mapping[str, int]  # part that is in Hugging Face's files → its tensors
    left_out: Mapping[str, str]  # part that is not → why


@click.command()
@click.argument("arm")
@click.option("--study", default=None, help="Name of the study. [the only one with such an arm]")
@store_option
@click.option("--seed", type=int, default=None, help="[the first registered one that is there]")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="[STUDY-ARM-seed-SEED]")
@click.option(
    "--dtype", type=click.Choice(["F32", "F16", "BF16"]), default=None, help="Of weights. [F32]"
)
@json_option
def promote(
    arm: str,
    study: str | None,
    store: str,
    seed: int | None,
    out: Path | None,
    dtype: str | None,
    as_json: bool,
) -> None:
    """Make of an ARM that has run a recipe and a folder of weights as Hugging Face has them.

    OUT gets `recipe.yaml`, which `mm1 train` takes; a folder for each part (`encoder`, `connector`,
    `language_model`) with `config.json` and `model.safetensors`; `trained`, which `mm1 generate`
    and `mm1 play` take; and `README.md`, with the scores of this seed beside those of all.

    \b
    Example: mm1 promote encoder.image_size=32 --study demo --out best
    """
    made = promoted(arm, study=study, store=store, seed=seed, out=out, dtype=dtype)
    if as_json:
        click.echo(strict_json.dumps(made._asdict(), indent=2))
        return
    say(f"{made.folder}: {made.arm}, seed {made.seed} of {made.study}")
    for part, tensors in made.parts.items():
        say(f"  {part}: {tensors} tensors")
    for part, why in made.left_out.items():
        say(f"  without {part}: {why}")


def promoted(
    arm: str,
    *,
    study: str | None = None,
    store: str | None = None,
    seed: int | None = None,
    out: Path | None = None,
    dtype: str | None = None,
) -> Promoted:
    """Write the folder of an arm, all or nothing.

    Raises:
        UserError: no such arm, study or seed; its trial is not there, or diverged; `out` is there.
    """
    root = store or api.default_store()
    name = study or _study_with(arm, root)
    results = api.results(name, store=root, by="mm1 promote")
    found = next((one for one in results.plan.arms if arm in (one.name, one.label)), None)
    if found is None:
        names = [one.name for one in results.plan.arms]
        raise UserError(f"study {results.plan.study} has no arm {shown(arm)}{nearest(arm, names)}")
    chosen = _seed(results, found.name, seed)
    folder = out or Path(quote(f"{results.plan.study}-{found.name}-seed-{chosen}", safe=" =,.+@()"))
    if folder.exists():
        raise UserError(f"--out {folder} is there already; choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".promote-", dir=folder.parent) as place:
        made = _written(results, found.name, chosen, Path(place) / "made", dtype)
        (Path(place) / "made").replace(folder)
    return made._replace(folder=str(folder))


def _study_with(arm: str, root: str) -> str:
    from sweeps.store import Store

    opened = Store(root)
    snapshots, _ = opened.snapshots()
    plans = [plan for plan, _ in snapshots.values()]
    having = [
        plan.study for plan in plans if any(arm in (one.name, one.label) for one in plan.arms)
    ]
    if len(having) == 1:
        return having[0]
    if having:
        raise UserError(
            f"several studies have an arm {shown(arm)}: say with --study which of "
            f"{', '.join(having)}"
        )
    names = [one.name for plan in plans for one in plan.arms]
    raise UserError(f"no study of store {root} has an arm {shown(arm)}{nearest(arm, names)}")


def _seed(results: StudyResults, arm: str, asked: int | None) -> int:
    """The seed that was asked for, or the first registered one: nobody picks the luckiest."""
    lacking = {seed: why for (name, seed), why in results.problems.items() if name == arm}
    lacking |= {seed: "diverged" for name, seed in results.diverged if name == arm}
    planned = [trial.seed for trial in results.plan.trials if trial.arm == arm]
    there = [seed for seed in planned if seed not in lacking]
    told = f"there are: {', '.join(map(str, there)) or 'none'}"
    if asked is None:
        if not there:
            raise UserError(f"no seed of arm {arm} is there yet ({next(iter(lacking.values()))})")
        return there[0]
    if asked not in planned:
        raise UserError(f"arm {arm} has no seed {asked}; {told}")
    if asked in lacking:
        raise UserError(f"seed {asked} of arm {arm}: {lacking[asked]}; {told}")
    return asked


def _written(
    results: StudyResults, arm: str, seed: int, folder: Path, dtype: str | None
) -> Promoted:
    from ablations.yaml_files import dump_yaml

    plan = results.plan
    trial = results.trial(arm, seed)
    output = results.store.stage_folder(plan.main(trial))
    folder.mkdir()
    head = f"# arm {arm} of study {plan.study}, registered as {plan.hash}\n"
    (folder / RECIPE_FILE).write_text(head + dump_yaml(plan.arm(arm).config), encoding="utf-8")
    shutil.copytree(output, folder / TRAINED)
    parts: dict[str, int] = {}
    left_out: dict[str, str] = {}
    if plan.is_own:
        left_out["weights"] = f"what a trainer of one's own left is in {TRAINED}/ as it is"
    else:
        parts, left_out = _export(folder, dtype)
    made = Promoted(plan.study, arm, seed, str(folder), parts, left_out)
    (folder / CARD_FILE).write_text(_card(results, made), encoding="utf-8")
    return made


def _export(folder: Path, dtype: str | None) -> tuple[dict[str, int], dict[str, str]]:
    """Each part of the checkpoint in files of its own; those that no public format has, why."""
    from mm1_jax.training.checkpoints import load_subtree
    from mm1_jax.weights.public_weights import export_folder, parts_of
    from mm1_jax.weights.safetensors_folder import write_folder

    checkpoint = folder / TRAINED
    parts: dict[str, int] = {}
    left_out: dict[str, str] = {}
    for part in parts_of(checkpoint):
        try:
            if part in PUBLIC:
                parts[part] = len(export_folder(checkpoint, folder / part, part, dtype))
                continue
        except UserError as error:
            shutil.rmtree(folder / part, ignore_errors=True)
            left_out[part] = f"{str(error).replace(str(checkpoint), TRAINED)}; as our names have it"
        # Nobody else has a class for it: our names, and the config that says what they mean.
        stated, tree = load_subtree(checkpoint, part)
        tensors = dict(_flat(tree))
        write_folder(folder / part, getattr(stated, part).model_dump(mode="json"), tensors)
        if part not in left_out:
            parts[part] = len(tensors)
    return parts, left_out


def _flat(tree: Mapping[Any, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{above}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return found


def _card(results: StudyResults, made: Promoted) -> str:
    """The model card: what it is, how it scored, and what that does not say."""
    from analysis.escaping import in_markdown as text

    plan, arm = results.plan, results.plan.arm(made.arm)
    stage = plan.main(results.trial(made.arm, made.seed))
    changed = ", ".join(f"{factor} = {level}" for factor, level in arm.levels.items())
    lines = [
        "---",
        "library_name: mm1",
        f"tags: [mm1, {json.dumps(plan.study)}]",
        "---",
        "",
        f"# {text(arm.label)} of {text(plan.study)}, seed {made.seed}",
        "",
        text(plan.question),
        "",
        f"- levels: {text(changed) or 'the base'}",
        f"- study registered as `{plan.hash}`, stage `{stage}`",
        *(
            [f"- {text(f'{count:,} parameters in {part}')}" for part, count in parts.items()]
            if (parts := arm.parameters)
            else []
        ),
        *(f"- {part}: {text(why)}" for part, why in made.left_out.items()),
        "",
        "| metric | this seed | mean ± SD of all seeds | seeds |",
        "|---|---|---|---|",
        *_scores(results, made),
        "",
        "Differences between arms are differences between recipes only over seeds: "
        f"`mm1 compare {plan.study}` has the verdicts. This folder is one seed, "
        + ("" if results.interim is False else "of a study that is not finished, ")
        + "not picked by its score unless somebody did with `--seed`.",
        "",
        "```bash",
        *(
            [f"# what was trained is in {TRAINED}/"]
            if plan.is_own
            else [
                f'mm1 generate {TRAINED} --image photo.png --prompt "what is it?"',
                f"mm1 play {TRAINED}",
                f"mm1 train {RECIPE_FILE} --seed {made.seed} --out again",
            ]
        ),
        "```",
        "",
    ]
    return "\n".join(lines)


def _scores(results: StudyResults, made: Promoted) -> list[str]:
    from analysis import words
    from analysis.escaping import in_markdown as text

    lines = []
    for form in results.table.scored:
        values = results.score(made.arm, *form)
        if made.seed not in values:
            continue
        known = [value for value in values.values() if math.isfinite(value)]
        spread = statistics.stdev(known) if len(known) > 1 else math.nan
        places = words.decimals([spread], known)
        mean = words.mean_sd(math.fsum(known) / len(known), spread, places) if known else "none"
        own = words.number(values[made.seed], places)
        lines.append(f"| {text(words.metric_name(*form))} | {own} | {mean} | {len(known)} |")
    return lines
