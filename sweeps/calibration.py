"""What stages take, by what has been measured: the estimates of a plan, put right as it runs.

A plan's seconds come from formulas, or from what a study says. Of each stage that is measured the
ratio of what it took to what was planned is kept: for its compile class, for its kind of work (a
training is off by another factor than an evaluation, and that than another task's), and over all.
The nearest of these that there is corrects the plan of every other stage. Compilation has a ratio
of its own. No clock, no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ablations.stages import Stage

Basis = Literal["class", "kind", "study", "plan"]


@dataclass
class Ratio:
    """Seconds that stages took, and those planned of them."""

    took: float = 0.0
    planned: float = 0.0
    count: int = 0

    def add(self, took: float, planned: float) -> None:
        """One more stage."""
        self.took += took
        self.planned += planned
        self.count += 1


def kind_of(stage: Stage) -> str:
    """The kind of work, whose planned times are off alike."""
    return stage.work.alike or stage.kind


@dataclass
class Calibration:
    """Ratios of measured to planned seconds; work and compilation apart."""

    _of_class: dict[str, Ratio] = field(default_factory=dict)
    _of_kind: dict[str, Ratio] = field(default_factory=dict)
    _of_all: Ratio = field(default_factory=Ratio)
    _of_compilation: Ratio = field(default_factory=Ratio)

    def measure(self, stage: Stage, seconds: float) -> None:
        """A stage's work took so long, without imports and compilation.

        Where nobody had said how long, that tells something of its class alone.
        """
        self._of_class.setdefault(stage.compile_class, Ratio()).add(seconds, stage.seconds)
        if stage.work.seconds_said:
            self._of_kind.setdefault(kind_of(stage), Ratio()).add(seconds, stage.seconds)
            self._of_all.add(seconds, stage.seconds)

    def measure_compilation(self, stage: Stage, seconds: float) -> None:
        """The first stage of its class in a worker took so long to compile."""
        self._of_compilation.add(seconds, stage.compile_seconds)

    def basis(self, stage: Stage) -> Basis:
        """What its estimate rests on: stages of its class, of its kind, any, or the plan alone."""
        if stage.compile_class in self._of_class:
            return "class"
        if kind_of(stage) in self._of_kind:
            return "kind"
        return "study" if self._of_all.count else "plan"

    def slowness(self, stage: Stage, projected: Mapping[str, tuple[float, float]] | None) -> float:
        """Measured over planned seconds of what is nearest to a stage.

        `projected` gives, by kind of work, what stages that still run will have taken and what
        was planned of them.
        """
        own = self._of_class.get(stage.compile_class)
        if own is not None and own.planned:
            return own.took / own.planned
        kind = self._of_kind.get(kind_of(stage), Ratio())
        took, planned = (projected or {}).get(kind_of(stage), (0.0, 0.0))
        if kind.planned + planned:
            return (kind.took + took) / (kind.planned + planned)
        running = (projected or {}).values()
        took = self._of_all.took + sum(one for one, _ in running)
        planned = self._of_all.planned + sum(one for _, one in running)
        return took / planned if planned else 1.0

    def seconds(self, stage: Stage) -> float:
        """Of a stage's work, estimated."""
        return stage.seconds * self.slowness(stage, None)

    @property
    def compilations(self) -> Ratio | None:
        """Those that were measured; None where none was."""
        return self._of_compilation if self._of_compilation.count else None

    @property
    def of_compilation(self) -> float | None:
        """Measured over planned seconds of compilations; None where none was measured."""
        ratio = self._of_compilation
        return ratio.took / ratio.planned if ratio.planned else None
