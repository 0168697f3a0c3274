"""Score tables of arms and numbers that a test gives; simulations are metrics of one table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas
import pytest

from ablations.contrasts import Design
from ablations.workload import Metric, Task
from analysis.score_table import ScoreTable, score_table


def made(
    factors: Mapping[str, Sequence[str]],
    scores: Mapping[tuple[str, ...], Sequence[float] | np.ndarray],
    goal: str | None = "maximise",
) -> ScoreTable:
    """A table of arms, levels → a score per seed; or → `[simulation, seed]`, a metric for each."""
    names = list(factors)
    base = tuple(levels[0] for levels in factors.values())
    arms = {cell: name_of(names, base, cell) for cell in scores}
    design = Design(
        factors,
        {arms[cell]: dict(zip(names, cell, strict=True)) for cell in sorted_base(arms, base)},
    )
    frames = []
    count = 1
    for cell, values in scores.items():
        values = np.atleast_2d(np.asarray(values, dtype=float))
        count = len(values)
        simulation, seed = np.indices(values.shape)
        frames.append(
            pandas.DataFrame(
                {
                    "arm": arms[cell],
                    "seed": seed.ravel() + 1,
                    "task": "test",
                    "metric": [f"score{n}" for n in simulation.ravel()],
                    "value": values.ravel(),
                }
            )
        )
    metrics = tuple(
        Metric(name=f"score{n}", goal=goal, worst=0, unit="%")  # ty: ignore[invalid-argument-type]
        for n in range(count)
    )
    frame = pandas.concat(frames, ignore_index=True)
    return score_table(frame, design, ("test", "score0", 0), {"test": Task(metrics=metrics)})


def name_of(names: Sequence[str], base: tuple[str, ...], cell: tuple[str, ...]) -> str:
    changed = [f"{n}={v}" for n, v, b in zip(names, cell, base, strict=True) if v != b]
    return ",".join(changed) or "base"


def sorted_base(cells: Mapping[tuple[str, ...], str], base: tuple[str, ...]) -> list:
    return sorted(cells, key=lambda cell: cell != base)


@pytest.fixture(scope="session")
def table_of() -> Callable[..., ScoreTable]:
    return made


# Two factors, three seeds: the worked example whose sums of squares are known.
FACTORIAL = {
    ("224", "64"): (40.1, 41.0, 40.4),
    ("224", "144"): (41.2, 41.9, 41.5),
    ("336", "64"): (43.0, 43.8, 43.5),
    ("336", "144"): (45.9, 46.4, 46.0),
}


@pytest.fixture
def factorial() -> ScoreTable:
    return made({"resolution": ("224", "336"), "tokens": ("64", "144")}, FACTORIAL)


@pytest.fixture
def factorial_numbers() -> dict[tuple[str, ...], tuple[float, ...]]:
    return dict(FACTORIAL)


@pytest.fixture(scope="session")
def forms() -> Callable[[ScoreTable], list]:
    """The form of each simulation of a table, in their order."""
    return lambda table: [
        ("test", f"score{n}", 0, "intact") for n in range(len(table.tasks["test"].metrics))
    ]


@pytest.fixture(scope="session")
def within() -> Callable[[float, float, int], bool]:
    """Whether a rate of so many simulations is what it should be, to three standard errors."""

    def near(rate: float, expected: float, simulations: int) -> bool:
        return abs(rate - expected) <= 3 * (expected * (1 - expected) / simulations) ** 0.5

    return near


@pytest.fixture(scope="session")
def drawn() -> Callable[..., dict]:
    """Scores of cells, `[simulation, seed]`: their means, the luck of a seed, their own noise."""

    def draw(means, seeds, simulations, noise=1.0, luck=2.0, number=0):
        random = np.random.default_rng(number)
        shared = random.normal(0, luck, (simulations, seeds))
        return {
            cell: mean + shared + random.normal(0, noise, (simulations, seeds))
            for cell, mean in means.items()
        }

    return draw


@pytest.fixture(scope="session")
def cells() -> Callable[..., list]:
    return lambda *levels: list(itertools.product(*levels))
