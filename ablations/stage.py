"""What a stage is given and what it gives back.

A stage is the unit of work and of identity: one training, or one evaluation of one checkpoint.
What runs it is a function named by import path, `run(config, seed, inputs, context) -> rows`:

    config   the stage's own resolved config, a plain dict (as in the stage's identity)
    seed     the trial's seed
    inputs   name → folder of a finished stage it takes input from, {"model": /store/…}
    context  a scratch folder, an output folder, reporting, the stop signal, and the processes
             that run the stage together, if it is not one alone
    rows     the stage's part of the one long result table

Ours and a user's own trainer go through the same door.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ablations.errors import UserError, nearest

DIVERGED = "diverged"  # metric of a row that says, by any value but 0, that a training diverged
PRINTED = "printed.txt"  # in the scratch folder: what a stage in a worker has printed so far


@dataclass(frozen=True)
class ResultRow:
    """One number. The store adds the stage's identity, seed and status."""

    task: str  # "training" for curves, else the task's name
    metric: str
    value: float
    split: str = "train"
    shots: int = 0
    condition: str = "intact"
    step: int = 0  # training step the number belongs to
    n_items: int = 0  # 0 where items make no sense
    standard_error: float | None = None  # over items, for this seed; None where it has none


def resolve(path: str) -> Any:
    """What an import path `package.module:name` names, such as the function that runs a stage.

    Raises:
        UserError: there is no such module or name.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"cannot import {path!r}: {error}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise UserError(f"{module_name} has no {name!r}{nearest(name, vars(module))}") from None


class StageStopped(Exception):  # noqa: N818 - not an error
    """Raised by a stage that obeyed the stop signal after saving what it needs to go on."""


@dataclass(frozen=True)
class Gang:
    """Several processes that run one stage together, and which of them this one is.

    All run the same function, with the same arguments, on folders that they share. The rows of
    process 0 are the stage's; it alone writes what is not written together.
    """

    coordinator: str  # HOST:PORT, of process 0's host, where the processes may find each other
    count: int
    index: int


def own_folder(scratch: Path, gang: Gang | None) -> Path:
    """Where one process keeps what is its own: the scratch folder of the stage, or one in it."""
    return scratch / f"process-{gang.index}" if gang is not None and gang.index else scratch


class Context(Protocol):
    """What the caller offers to a running stage."""

    scratch: Path  # survives retries and restarts of this stage, gone when it is done
    output: Path  # what is written here is kept with the stage
    data: Path  # root of the prepared data
    gang: Gang | None  # None: this process runs the stage alone

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Progress for whoever watches; never part of the results."""
        ...

    def record(self, facts: Mapping[str, Any]) -> None:
        """Facts for the execution record, which decide no identity: what was read, to the byte."""
        ...

    def stop_requested(self) -> bool:
        """Whether the stage should save itself and raise `StageStopped`."""
        ...


Run = Callable[[Mapping[str, Any], int, Mapping[str, Path], Context], list[ResultRow]]
