"""Running one stage in this process, for `mm1 train` and `mm1 evaluate`: no Ray, no MLflow."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mm1_jax.errors import UserError
from mm1_jax.stage import ResultRow


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


ROWS = "results.jsonl"


def save_rows(folder: Path, rows: list[ResultRow]) -> None:
    """Write a stage's rows, one JSON object per line."""
    (folder / ROWS).write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def load_rows(folder: Path) -> list[ResultRow]:
    """Read what `save_rows` wrote."""
    lines = (folder / ROWS).read_text().splitlines()
    return [ResultRow(**json.loads(line)) for line in lines]


def find_run(run: str, store: str) -> Path:
    """The folder of a trained model: a folder of `mm1 train`, or a stage (prefix) in the store.

    Raises `UserError` where there is none.
    """
    folder = Path(run)
    if (folder / "config.json").is_file() and (folder / "checkpoint").is_dir():
        return folder
    if folder.is_dir():
        raise UserError(f"{run} holds no trained model (no config.json beside a checkpoint folder)")
    from sweeps.store import Store

    matches = [s for s in Store(store).stages() if s.startswith(run)]
    if len(matches) == 1:
        return Store(store).stage_folder(matches[0])
    raise UserError(
        f"{run!r} is neither a folder of `mm1 train` nor one finished stage of store {store} "
        f"({len(matches)} stages begin with it)"
    )
