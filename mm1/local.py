"""Running one stage in this process, for `mm1 train` and `mm1 evaluate`: no Ray, no MLflow."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mm1_jax.config import DataConfig
from mm1_jax.errors import UserError, nearest
from mm1_jax.stage import ResultRow, StageStopped


@dataclass
class LocalContext:
    """A stage's context on the local disk; progress goes to stderr, SIGINT asks it to stop."""

    output: Path
    scratch: Path
    data: Path
    started: float = field(default_factory=time.monotonic)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print one line of progress."""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        seconds = time.monotonic() - self.started
        print(f"{seconds:7.1f} s  step {step:>6}  {numbers}", file=sys.stderr, flush=True)

    def stop_requested(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.stopping


def prepare_data(configs: Iterable[DataConfig], root: Path) -> Path:
    """Prepare what is not there yet, with a progress bar on stderr; return the root."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mm1_jax.data.prepare import is_prepared, prepare

    missing = [config for config in dict.fromkeys(configs) if not is_prepared(config, root)]
    if not missing:
        return root
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def progress(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(f"data: {step}", total=total)
            bars.update(tasks[step], completed=done, total=total)  # ty: ignore[invalid-argument-type]

        for config in missing:
            prepare(config, root, progress)
    return root


ROWS = "results.jsonl"
RECIPE = "recipe.json"


def train(config: str, seed: int, folder: Path, data: Path, as_json: bool) -> int:
    """Train one recipe into `folder`; a finished folder answers from what is stored.

    Raises `UserError` where the folder holds another recipe or seed.
    """
    from ablations.study import load_recipe
    from mm1_jax import runner

    recipe = load_recipe(config)
    mine = {"seed": seed, "recipe": recipe.model_dump(mode="json")}
    note = folder / RECIPE
    if note.is_file():
        theirs = json.loads(note.read_text())
        if theirs != mine:
            raise UserError(
                f"{folder} holds another run ({_first_difference(theirs, mine)}); "
                "choose another --out or remove the folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(mine, indent=2))
    if not (folder / ROWS).is_file():
        prepare_data([recipe.data], data)
        context = LocalContext(output=folder, scratch=folder / "scratch", data=data)
        try:
            rows = runner.train(recipe.train_config().model_dump(mode="json"), seed, {}, context)
        except StageStopped:
            print(f"stopped; the same command goes on from {folder}", file=sys.stderr)
            return 130
        (folder / ROWS).write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
        shutil.rmtree(context.scratch)
    last = [ResultRow(**json.loads(line)) for line in (folder / ROWS).read_text().splitlines()]
    final = {row.metric: row.value for row in last}
    if as_json:
        print(json.dumps({"run": str(folder), "seed": seed, **final}))
    else:
        print("  ".join(f"{name} {value:.4g}" for name, value in final.items()))
        print(f"trained: {folder}; score it with: mm1 evaluate {folder}")
    return 0


def _first_difference(a: object, b: object, path: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} is {a!r} there and {b!r} here"


def evaluate(
    run: str,
    tasks: tuple[str, ...],
    shots: int,
    condition: str,
    items: int | None,
    store: str,
    data: Path,
    as_json: bool,
) -> None:
    """Score a trained model on some tasks and print one line a metric."""
    from mm1_jax import runner
    from mm1_jax.checkpoints import load_config
    from mm1_jax.recipe import EvaluationConfig

    folder = _trained_folder(run, store)
    known = [name for name in EvaluationConfig.model_fields if name not in ("seed", "batch_size")]
    if items is not None and not tasks:
        raise UserError("--items goes with --task: the test splits of the tasks differ in size")
    for task in tasks:
        if task not in known:
            raise UserError(f"--task {task}: no such task{nearest(task, known)}")
    prepare_data([load_config(folder).data], data)
    rows: list[ResultRow] = []
    for task in tasks or known:
        if not tasks and task == "held_out_text" and (condition != "intact" or shots):
            continue  # a text has no image to shuffle and no demonstrations
        config = {
            "task": task,
            "shots": shots,
            "condition": condition,
            "items": items,
            "seed": 0,
            "batch_size": EvaluationConfig().batch_size,
        }
        with tempfile.TemporaryDirectory() as scratch:
            output = folder / "evaluations" / f"{task}-{shots}-{condition}"
            if not Path(run).is_dir():  # a stage of the store is written once and stays as it is
                output = Path(scratch) / "output"
            context = LocalContext(output=output, scratch=Path(scratch), data=data)
            rows += runner.evaluate(config, 0, {"model": folder}, context)
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        print(
            f"{f'{row.task}.{row.metric}':<30} {row.value:10.3f}  "
            f"({row.n_items} items, {row.shots}-shot, {row.condition})"
        )


def _trained_folder(run: str, store: str) -> Path:
    """A folder of `mm1 train`, or a training stage of the store by a prefix of its identity."""
    folder = Path(run)
    if (folder / "config.json").is_file() and (folder / "checkpoint").is_dir():
        return folder
    if folder.is_dir():
        raise UserError(f"{run} holds no trained model (no config.json beside a checkpoint folder)")
    from sweeps.store import Store

    matches = Store(store).matching(run)
    if len(matches) != 1:
        raise UserError(
            f"{run!r} is neither a folder of `mm1 train` nor one finished stage of store {store} "
            f"({len(matches)} stages begin with it)"
        )
    found = Store(store).stage_folder(matches[0])
    if not (found / "checkpoint").is_dir():
        raise UserError(f"stage {matches[0]} of store {store} is not a training")
    return found
