"""A stage that is stopped after its first step, saved, and gone on with: for trying one out.

`run` is what runs such a stage: its config names the runner that is tried, and has its config.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.stage import Context, ResultRow, StageStopped, resolve
from ablations.stages import Stage

RUN = "ablations.short_run:run"
RESTORED = "saved_and_restored"  # fact of the execution record


def tried(stage: Stage) -> dict[str, Any]:
    """What to change of a stage's work so that it is run like this."""
    return {"run": RUN, "config": {"run": stage.run, "config": stage.config}}


class _StopsOnce:
    """A context that asks its stage to stop as soon as it asks."""

    def __init__(self, inner: Context):
        self._inner = inner
        self.last = 0  # step that was reported

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.last = step
        self._inner.report(step, metrics)

    def stop_requested(self) -> bool:
        return True


class _GoesOn:
    """A context of what was stopped after a step; it notices a beginning from scratch."""

    def __init__(self, inner: Context, after: int):
        self._inner, self._after = inner, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        if step <= self._after:
            raise RuntimeError(
                f"it was stopped after step {self._after}, saved itself, and began anew with step "
                f"{step}: nothing was restored"
            )
        self._inner.report(step, metrics)


def run(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Run a stage to its end, with a stop after its first step if it asks for one."""
    runner, own = resolve(config["run"]), config["config"]
    first = _StopsOnce(context)
    try:
        return list(runner(own, seed, inputs, first))
    except StageStopped:
        if context.stop_requested():
            raise
    rows = list(runner(own, seed, inputs, _GoesOn(context, first.last)))
    context.record({RESTORED: True})
    return rows
