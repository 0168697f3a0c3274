"""Running stages in this process, for `mm1 train` and `mm1 evaluate`: no Ray, no MLflow.

A stage is run as a worker runs it, into a store, so that leases, checksums, resuming and failures
are the same. What it reports is told on stderr, and Ctrl-C asks it to save itself and stop.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import UserError
from ablations.stage import Context, Gang, ResultRow, Run, StageStopped
from mm1 import processes
from mm1_jax.config.data import DataConfig

if TYPE_CHECKING:
    from ablations.stages import Stage
    from sweeps.store import Store

FAILED, STOPPED = 1, 130  # exit codes


class NotDoneError(Exception):
    """A stage came to no result, which was told; `code` is what the command exits with."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


def in_words(metrics: Mapping[str, float]) -> str:
    """One line; what is by part or by source (`grad_norm.encoder`) is left to the rows."""
    shown = {name: value for name, value in metrics.items() if "." not in name}
    return "  ".join(f"{name} {value:.4g}" for name, value in shown.items())


@dataclass
class ToldContext:
    """A stage's context whose reports are also told on stderr."""

    inner: Context
    scratch: Path = field(init=False)
    output: Path = field(init=False)
    data: Path = field(init=False)
    gang: Gang | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.scratch, self.output = self.inner.scratch, self.inner.output
        self.data, self.gang = self.inner.data, self.inner.gang

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print one line of progress, and hand it on."""
        seconds = time.monotonic() - self.started
        line = f"{seconds:7.1f} s  step {step:>6}  {in_words(metrics)}"
        print(line, file=sys.stderr, flush=True)
        self.inner.report(step, metrics)

    def record(self, facts: Mapping[str, Any]) -> None:
        """Hand facts on."""
        self.inner.record(facts)

    def stop_requested(self) -> bool:
        """Whether the stage should save itself and raise `StageStopped`."""
        return self.inner.stop_requested()


@contextlib.contextmanager
def stopping() -> Generator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, in the place of what they do otherwise."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run_stage(store: Store, stage: Stage, data: Path, stop: threading.Event) -> None:
    """Run a stage into a store in this process, unless its result is there.

    Of several processes that train one model, the first one has the store and tells the others
    where to write.

    Raises:
        NotDoneError: it was stopped, or failed for no fault of the user's; which was told.
        UserError: it was the user's mistake, or another process works on it.
    """
    from sweeps.shipping import git_revision
    from sweeps.worker import execute, resolve

    run = resolve(stage.run)
    if not processes.is_first():
        _join_in(store, stage, run, data, stop)
        return
    begun = False

    def told(
        config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
    ) -> list[ResultRow]:
        nonlocal begun
        begun = True
        print(stage.label, file=sys.stderr)
        folders = {name: str(folder) for name, folder in inputs.items()}
        processes.tell({"output": str(context.output), "inputs": folders})
        try:
            return run(config, seed, inputs, ToldContext(context))
        except StageStopped:
            if processes.are_several():
                stop.set()  # it may be another that was asked to: all stop together
            raise

    outcome = execute(store, stage, data, stop, git_revision(), run=told)
    if not begun:
        processes.tell({"state": outcome.state})
    _check(store, stage, outcome.state, outcome.error, mistake=not outcome.again)


def _join_in(store: Store, stage: Stage, run: Run, data: Path, stop: threading.Event) -> None:
    """Train along with the first process, which says where."""
    from sweeps.gang_member import FollowerContext

    said = processes.hear()
    if "output" in said:
        inputs = {name: Path(folder) for name, folder in said["inputs"].items()}
        output = Path(said["output"])
        context = FollowerContext(store.scratch(stage.id), output, data, stop.is_set)
        try:
            run(stage.config, stage.seed, inputs, ToldContext(context))
        except StageStopped:
            raise NotDoneError(STOPPED) from None
    elif said["state"] != "done":
        raise NotDoneError(STOPPED if said["state"] == "stopped" else FAILED)


def _check(store: Store, stage: Stage, state: str, error: str, *, mistake: bool) -> None:
    from sweeps import leases

    match state:
        case "done":
            return
        case "stopped":
            raise NotDoneError(STOPPED)
        case "elsewhere":
            held = leases.holder(store.objects, store.lease_folder(stage.id))
            who = f"process {held['pid']} on {held['host']}" if held else "another process"
            raise UserError(f"{stage.label}: {who} is at work on it in the store {store.root}")
        case "disk full":
            raise UserError(f"{stage.label}: {error}; what was finished is kept, free some room")
    if mistake:
        raise UserError(error)
    failures = store.failures(stage.id)
    if failures:
        print(str(failures[-1].get("traceback", "")).rstrip(), file=sys.stderr)
    print(f"mm1: {stage.label} failed: {error}", file=sys.stderr)
    raise NotDoneError(FAILED)


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
