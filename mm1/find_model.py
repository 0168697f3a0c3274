"""Which trained model a user means, and which store keeps what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ablations.errors import UserError
from mm1 import run_folder
from mm1_jax.evaluation.scored_model import ScoredModel
from mm1_jax.weights import weights_folder
from sweeps.store import Store


@dataclass(frozen=True)
class Found:
    """A model that is scored, and the store that its scores are kept in.

    A part that a stage of that store trained is asked as that stage, another as what its folder
    holds, wherever that is.
    """

    model: ScoredModel
    store: str | Path
    stages: Mapping[str, str] = field(default_factory=dict)  # part → stage
    seed: int = 0  # of the stages' trial
    shown: Path | None = None  # where links to what was asked last are kept


def find_model(run: str, store: str, out: Path | None = None) -> Found:
    """A folder of `mm1 train`, a training stage by its folder or a prefix, or a folder of weights.

    Of a training with `keep_best` also RUN/best, and PREFIX/best of a stage. With `out` scores are
    kept in that store. Raises `UserError` for what is none of these.
    """
    found = _find(run, store)
    if out is None or Path(found.store).absolute() == out.absolute():
        return found
    return Found(found.model, out, shown=out / run_folder.EVALUATIONS)


def _find(run: str, store: str) -> Found:
    folder = Path(run)
    if run_folder.is_store(folder):
        return _of_run(run, folder)
    if (place := run_folder.stage_at(folder)) is not None:
        return _of_stage(run, Store(place.store), place.stage, folder)
    if (folder / "config.json").is_file() and (
        weights_folder.is_checkpoint(folder) or any(folder.glob("*.safetensors*"))
    ):
        if weights_folder.is_checkpoint(folder):
            part = weights_folder.stated(folder).kind
        else:
            part = "multimodal" if weights_folder.is_multimodal(folder) else "language_model"
        return Found(ScoredModel(run, {part: folder}), store)
    if folder.is_dir():
        raise UserError(f"{run} holds no trained model (no config.json beside a checkpoint folder)")

    prefix = run.removesuffix(f"/{weights_folder.BEST_FOLDER}")
    matches = Store(store).matching(prefix)
    if len(matches) != 1:
        raise UserError(
            f"{run!r} is neither a folder of `mm1 train` nor one finished stage of store {store} "
            f"({len(matches)} stages begin with it)"
        )
    output = Store(store).stage_folder(matches[0])
    if not weights_folder.is_checkpoint(output):
        raise UserError(f"stage {matches[0]} of store {store} is not a training")
    output = output / weights_folder.BEST_FOLDER if prefix != run else output
    if not weights_folder.is_checkpoint(output):
        raise UserError(f"stage {matches[0]} has no {output.name}/ (training.keep_best was false)")
    return _of_stage(run, Store(store), matches[0], output)


def _of_run(run: str, folder: Path) -> Found:
    """All parts of a run: what is asked of a part is asked of what trained it last."""
    there = run_folder.open_run(folder)
    if there is None or not there[0].is_done(there[1].main(there[1].trials[0])):
        raise UserError(f"{run} holds no trained model yet; mm1 train goes on with it")
    store, plan = there
    folders, stages = {}, {}
    for stage in plan.trainings(plan.trials[0]).values():
        output = store.stage_folder(stage)
        kind = weights_folder.stated(output).kind
        folders[kind], stages[kind] = output, stage
    shown = folder / run_folder.EVALUATIONS
    return Found(ScoredModel(run, folders), folder, stages, plan.seeds[0], shown)


def _of_stage(run: str, store: Store, stage: str, folder: Path) -> Found:
    """What a stage left in `folder`: all of its output, or the best checkpoint in it."""
    if not weights_folder.is_checkpoint(folder):
        raise UserError(f"{run} holds no trained model (no config.json beside a checkpoint folder)")
    output = store.stage_folder(stage)  # which is checked
    kind = weights_folder.stated(folder).kind
    stages = {kind: stage} if folder.resolve() == output.resolve() else {}
    return Found(ScoredModel(run, {kind: folder}), store.root, stages, store.stage(stage).seed)
