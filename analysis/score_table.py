"""What a study comes to in numbers: its design, and a score per arm, seed, task, metric and form.

Effects, verdicts, tables and figures are functions of this and of nothing else. A store gives one
(`analysis.results.StudyResults.table`); one of numbers from elsewhere is made by `score_table`:

    design = Design({"size": ("8", "16")}, {"base": {"size": "8"}, "size=16": {"size": "16"}})
    table = score_table(pandas.read_csv("scores.csv"), design, ("test", "accuracy", 0), tasks)
    claim = Claim.read("larger", "effect(size, 8 -> 16) > 0", table.names)
    table.verdicts([claim], alpha=0.05)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas

from ablations.averages import AVERAGE, average, average_metric, average_shots, known_metric
from ablations.claims import Vocabulary
from ablations.contrasts import Contrast, Design, Place, ScoreKey, Scores, by_seed
from ablations.deciding import Claim, decide
from ablations.errors import UserError, nearest, shown
from ablations.verdicts import Verdict
from ablations.workload import INTACT, Metric, Tasks, check_metric

Form = tuple[str, str, int, str]  # task, metric, shots, condition
COLUMNS = ("arm", "seed", "task", "metric", "shots", "condition", "value", "standard_error")
# Columns that a table from elsewhere may leave out.
DEFAULTS = {"shots": 0, "condition": INTACT, "standard_error": math.nan, "diverged": False}


@dataclass(frozen=True)
class ScoreTable:
    """A design and its numbers. What has not come in is not in `numbers`.

    numbers    columns `COLUMNS`; `standard_error` of a value if other items had been asked, or NaN
    diverged   where a model was asked whose training had diverged: its scores are the worst value
               of their metric, NaN where there is none; what was scored without it stands
    missing    (arm, seed) whose numbers are not all there yet
    excluded   (arm, seed) that are left out: their seeds are not among those of the arm's claims
    unscored   cell → seed that was tried → why it has no number; claims that read it are undecided
    is_as_found  nobody said which seeds there should be: each claim has those of all its arms
    """

    design: Design
    seeds: tuple[int, ...]  # that were registered
    primary: tuple[str, str, int]  # task, metric, shots: what claims mean that say nothing else
    tasks: Tasks
    numbers: pandas.DataFrame
    null_arms: tuple[str, ...] = ()  # copies of the base with other first weights
    averaged: tuple[str, ...] = ()  # tasks that the metrics of `average` are the mean of
    diverged: frozenset[Place] = frozenset()
    missing: frozenset[tuple[str, int]] = frozenset()
    excluded: frozenset[tuple[str, int]] = frozenset()
    unscored: Mapping[ScoreKey, Mapping[int, str]] = field(default_factory=dict)
    is_as_found: bool = False

    @property
    def base(self) -> str:
        """The arm that the others are compared with."""
        return next(iter(self.design.arms))

    @property
    def arms(self) -> tuple[str, ...]:
        """All of them, the base first and null arms last."""
        return (*self.design.arms, *self.null_arms)

    def record(self, task: str, metric: str) -> Metric:
        """What is known of a metric; of one that nobody has described, its name."""
        return known_metric(self.tasks, self.averaged, task, metric)

    @cached_property
    def scores(self) -> Scores:
        """Seed → value of each cell, those of `average` included."""
        found: dict[ScoreKey, dict[int, float]] = {}
        seeds, values = (self.numbers[name].to_numpy() for name in ("seed", "value"))
        for key, lines in _cells(self.numbers):
            own = dict(zip(seeds[lines].tolist(), values[lines].tolist(), strict=True))
            lost = [seed for seed in own if key.at(seed) in self.diverged] if self.diverged else []
            record = self.record(key.task, key.metric) if lost else None
            if record is not None and record.role == "score":
                own.update(dict.fromkeys(lost, math.nan if record.worst is None else record.worst))
            found[key] = own
        for key, mean in self._averages.items():
            if rows := by_seed(found, mean.weights):
                found[key] = {seed: mean.value(row) for seed, row in rows.items()}
        return found

    @cached_property
    def _averages(self) -> dict[ScoreKey, Contrast]:
        """The cells of `average`, each as the mean of others; some of those may not be in."""
        first = {name: self.tasks[name].first.name for name in self.averaged}
        asked = self.numbers[self.numbers["task"].isin(self.averaged)]
        forms = asked[["arm", "shots", "condition"]].drop_duplicates()
        return {
            ScoreKey(arm, AVERAGE, average_metric(shots), 0, condition): average(
                arm, shots, condition, first
            )
            for arm, shots, condition in forms.itertuples(index=False, name=None)
        }

    @cached_property
    def _item_errors(self) -> dict[ScoreKey, float]:
        """Root mean square over the seeds of the standard errors over items."""
        known = self.numbers[self.numbers["standard_error"].notna()]
        squares = known["standard_error"].to_numpy() ** 2
        found = {key: float(squares[lines].mean() ** 0.5) for key, lines in _cells(known)}
        for key, mean in self._averages.items():
            if mean.weights.keys() <= found.keys():  # its tasks ask different items
                found[key] = mean.error(found)
        return found

    def item_error(
        self, arm: str, task: str, metric: str, shots: int = 0, condition: str = INTACT
    ) -> float | None:
        """Standard error of one seed's score, if other items had been asked; None if not known.

        It does not become smaller with more seeds, and says nothing about other seeds.
        """
        return self._item_errors.get(ScoreKey(arm, task, metric, shots, condition))

    def score(
        self, arm: str, task: str, metric: str, shots: int = 0, condition: str = INTACT
    ) -> dict[int, float]:
        """Seed → score of one arm, in the order of the registered seeds; empty if there is none."""
        values = self.scores.get(ScoreKey(arm, task, metric, shots, condition), {})
        return {seed: values[seed] for seed in self.seeds if seed in values}

    @cached_property
    def metrics(self) -> list[Form]:
        """(task, metric, shots, condition) that were measured; the primary metric first.

        Parts of a metric, such as `accuracy/answer_type:number`, are in the numbers alone.
        """
        found = {key[1:] for key in self.scores if not self._is_part(key)}
        primary = self.primary
        return sorted(
            found,
            key=lambda one: (one[:3] != primary, one[:2] != primary[:2], one[3] != INTACT, *one),
        )

    def _is_part(self, key: ScoreKey) -> bool:
        """Whether a metric is a part of one; a table from elsewhere may call one `val/accuracy`."""
        if "/" not in key.metric:
            return False
        known = self.tasks.get(key.task)
        return known is None or all(one.name != key.metric for one in known.metrics)

    @property
    def scored(self) -> list[Form]:
        """Those of `metrics` that are of the trained model, asked what it should answer."""
        return [one for one in self.metrics if one[3] == INTACT and self.is_score(*one[:2])]

    @property
    def names(self) -> Vocabulary:
        """What claims on this table may name."""
        task, metric, shots = self.primary
        return Vocabulary(
            factors=self.design.factors,
            arms=self.design.arms,
            primary_metric=(task, metric),
            tasks=self.tasks,
            shots={task: shots},
            average=self.averaged,
            check=self._check,
        )

    def _check(self, task: str, metric: str) -> None:
        if task == AVERAGE:
            average_shots(metric)
        else:
            check_metric(self.tasks, task, metric)

    def verdicts(self, claims: Sequence[Claim], alpha: float) -> list[Verdict]:
        """The verdict of each claim, at a chance of `alpha` that any of them is wrong."""
        return decide(
            claims,
            self.scores,
            seeds=self.seeds,
            alpha=alpha,
            tasks=self.tasks,
            diverged=self.diverged,
            excluded=self.excluded,
            unscored=self.unscored,
            is_as_found=self.is_as_found,
        )

    def has_diverged(self, key: ScoreKey, seed: int) -> bool:
        """Whether a model that had diverged was asked; of an average, in one of its tasks."""
        if not self.diverged:
            return False
        parts = self._averages[key].weights if key in self._averages else (key,)
        return any(part.at(seed) in self.diverged for part in parts)

    def is_score(self, task: str, metric: str) -> bool:
        """Whether a metric is of the model that was trained."""
        return self.record(task, metric).role == "score"


def _cells(numbers: pandas.DataFrame) -> Iterator[tuple[ScoreKey, np.ndarray]]:
    """Each cell, with the lines of its numbers; both in the order of the numbers."""
    if numbers.empty:
        return
    names = list(ScoreKey._fields)
    groups = numbers.groupby(names, sort=False, observed=True, dropna=False).ngroup().to_numpy()
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    first = (numbers[name].iloc[order[starts]].tolist() for name in names)
    for cell, lines in zip(zip(*first, strict=True), np.split(order, starts[1:]), strict=True):
        yield ScoreKey(*cell), lines


def score_table(
    frame: pandas.DataFrame,
    design: Design,
    primary: tuple[str, str, int],
    tasks: Tasks,
    *,
    seeds: Iterable[int] = (),
    null_arms: Iterable[str] = (),
    averaged: Iterable[str] = (),
) -> ScoreTable:
    """A table of numbers from elsewhere, a row a number.

    `frame` has the columns arm, seed, task, metric and value, and may have shots, condition,
    standard_error and diverged. `seeds` are those that are to come in; those that have, by default.

    Raises:
        UserError: a column, arm or task that is not known, a value that is none, a cell that is
            there twice.
    """
    known = dict.fromkeys([*COLUMNS, *DEFAULTS])
    for name in map(str, frame.columns):
        if name not in known:
            raise UserError(f"no column {shown(name)}{nearest(name, known)}")
    for name in known:
        if name not in {*frame.columns, *DEFAULTS}:
            raise UserError(f"the scores have no column {name!r}")
    whole = frame.assign(**{n: d for n, d in DEFAULTS.items() if n not in frame.columns})
    null = tuple(null_arms)
    for what, names in (("arm", [*design.arms, *null]), ("task", list(tasks))):
        for name in whole[what].unique():
            if name not in names:
                raise UserError(f"no {what} {shown(str(name))}{nearest(str(name), names)}")
    for name in ("value", "standard_error"):
        if not pandas.api.types.is_numeric_dtype(whole[name]):
            raise UserError(f"column {name!r} of the scores holds what is no number")
    for name in ("seed", "shots"):
        if not pandas.api.types.is_integer_dtype(whole[name]):
            raise UserError(f"column {name!r} of the scores holds other than whole numbers")
    cells = [*ScoreKey._fields, "seed"]
    if len(twice := whole[whole.duplicated(cells)]):
        found = ", ".join(f"{name} {twice.iloc[0][name]}" for name in cells)
        raise UserError(f"a score is there twice: {found}")
    lost = whole[whole["diverged"].astype(bool)]
    wanted = tuple(seeds) or tuple(int(seed) for seed in whole["seed"].unique())
    there = set(whole[["arm", "seed"]].itertuples(index=False, name=None))
    return ScoreTable(
        design=design,
        seeds=wanted,
        primary=primary,
        tasks=tasks,
        numbers=whole[list(COLUMNS)],
        null_arms=null,
        averaged=tuple(averaged),
        diverged=frozenset(
            Place(*row) for row in lost[list(Place._fields)].itertuples(index=False, name=None)
        ),
        missing=frozenset(itertools.product([*design.arms, *null], wanted)) - there,
    )
