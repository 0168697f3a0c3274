"""Running stages in this process, for `mm1 train` and `mm1 evaluate`: no Ray, no MLflow."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ablations import strict_json
from ablations.errors import UserError
from ablations.stage import StageStopped
from mm1_jax.config.data import DataConfig

if TYPE_CHECKING:
    from ablations.stages import Stage


def _in_words(metrics: Mapping[str, float]) -> str:
    """One line; what is by part or by source (`grad_norm.encoder`) is left to the rows."""
    shown = {name: value for name, value in metrics.items() if "." not in name}
    return "  ".join(f"{name} {value:.4g}" for name, value in shown.items())


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
        numbers = _in_words(metrics)
        seconds = time.monotonic() - self.started
        print(f"{seconds:7.1f} s  step {step:>6}  {numbers}", file=sys.stderr, flush=True)

    def record(self, facts: Mapping[str, object]) -> None:
        """Nothing: a run that is not in a store has no execution record."""

    def stop_requested(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.stopping


def prepare_data(configs: Iterable[DataConfig], root: Path) -> Path:
    """Prepare what is not there yet, with a progress bar on stderr; return the root."""
    from mm1_jax.data.sources.package_preparation import is_prepared, prepare
    from sweeps.objects import make_private

    missing = [config for config in dict.fromkeys(configs) if not is_prepared(config, root)]
    if not missing:
        return root
    make_private(root.parent)  # which is a new store, unless --data says otherwise
    with progress_bars() as progress:
        for config in missing:
            prepare(config, root, progress)
    return root


@contextlib.contextmanager
def progress_bars() -> Generator[Callable[[str, int, int], None]]:
    """A function (what, done, total) that draws a bar on stderr for each `what`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

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

        yield progress


def join_processes() -> None:
    """Join the processes of the other hosts, before JAX does anything else.

    Where JAX cannot tell them by itself, as it can on TPU pods, SLURM and Kubernetes, the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID do. `UserError` if nothing does.
    """
    import jax

    def stated(variable: str) -> int | None:
        return int(os.environ[variable]) if variable in os.environ else None

    try:
        jax.distributed.initialize(
            num_processes=stated("JAX_NUM_PROCESSES"), process_id=stated("JAX_PROCESS_ID")
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: no other processes found ({error}); set JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def is_first_process() -> bool:
    """Whether this process writes what is written once; JAX is not imported for it."""
    return "jax" not in sys.modules or sys.modules["jax"].process_index() == 0


ROWS = "results.jsonl"
RECIPE = "recipe.json"
PRETRAINED = "pretrained"  # folder of a run in which lies what was trained before its last stage


def train(config: str, seed: int, folder: Path, data: Path, as_json: bool) -> int:
    """Run all trainings of one recipe into `folder`; a finished one answers from what is stored.

    Raises `UserError` where the folder holds another recipe or seed.
    """
    from ablations.stages import stages_of
    from ablations.workload import Graph
    from mm1_jax.workload import data_of, load_recipe, trainings

    recipe = load_recipe(config)
    mine = {"seed": seed, "recipe": recipe.model_dump(mode="json")}
    note = folder / RECIPE
    if note.is_file():
        theirs = json.loads(note.read_text(encoding="utf-8"))
        if theirs != mine:
            raise UserError(
                f"{folder} holds another run ({_first_difference(theirs, mine)}); "
                "choose another --out or remove the folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run; choose another --out")
    works = trainings(recipe, {})
    stages = stages_of("recipe", Graph(works, (), main=list(works)[-1]), seed)
    if is_first_process():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(mine, indent=2), encoding="utf-8")
    folders = {part: folder / PRETRAINED / part for part in stages} | {list(stages)[-1]: folder}
    for part, stage in stages.items():
        if (folders[part] / ROWS).is_file():
            continue
        prepare_data(filter(None, [data_of(stage.work)]), data)
        try:
            inputs = {name: folders[read] for name, read in works[part].inputs.items()}
            _run(stage, inputs, folders[part], data)
        except StageStopped:
            print(f"stopped; the same command goes on from {folder}", file=sys.stderr)
            return 130
    if not is_first_process():
        return 0
    lines = (folder / ROWS).read_text(encoding="utf-8").splitlines()
    final = {row["metric"]: row["value"] for row in map(json.loads, lines)}
    if as_json:
        print(strict_json.dumps({"run": str(folder), "seed": seed, **final}))
    else:
        print(_in_words({name: math.nan if v is None else v for name, v in final.items()}))
        print(f"trained: {folder}; score it with: mm1 evaluate {shlex.quote(str(folder))}")
    return 0


def _run(stage: Stage, inputs: Mapping[str, Path], output: Path, data: Path) -> None:
    """Run a stage into its folder; it is finished when its rows are there."""
    from mm1_jax import runner

    print(stage.label, file=sys.stderr)
    context = LocalContext(output=output, scratch=output / "scratch", data=data)
    run = getattr(runner, stage.run.partition(":")[2])
    rows = run(stage.config, stage.seed, inputs, context)
    if is_first_process():
        (output / ROWS).write_text(
            "".join(strict_json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8"
        )
        shutil.rmtree(context.scratch)


def _first_difference(a: object, b: object, path: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} is {a!r} there and {b!r} here"
