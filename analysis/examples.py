"""What arms answered to the same question: every arm and seed side by side, and what flips.

Numbers of a page, not of a verdict: an item is no replicate of a recipe, so nothing here says more
than which checkpoint answered what. `sweeps.example_index` has the examples; a million of them are
looked through at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pandas

from ablations.conditions import Condition, quantities
from ablations.contrasts import Contrast
from ablations.deciding import conditions
from ablations.errors import UserError, nearest, shown
from ablations.workload import INTACT, Asked
from analysis.results import StudyResults
from sweeps.example_index import SEPARATOR, Examples, Read, lines_of

if TYPE_CHECKING:
    import pyarrow

ALIKE = 1e-9  # scores that are closer than this part of the largest are the same
FULL_SCORES = (1.0, 100.0)  # of an item that is right, where it is right or wrong

MOST_ALIKE = 13  # unlike answers to a question that are told apart
Show = Literal["all", "disagree", "right", "wrong", "flips", "a-better", "b-better"]
SHOWS: dict[Show, str] = {
    "all": "all questions",
    "disagree": "where arms disagree",
    "right": "everybody right",
    "wrong": "nobody right",
    "flips": "where A and B differ",
    "a-better": "A better than B",
    "b-better": "B better than A",
}
Order = Literal["drawn", "disagreement", "hardest", "easiest", "id"]
ORDERS: dict[Order, str] = {
    "drawn": "drawn by hash, not picked",
    "disagreement": "most disagreement first",
    "hardest": "hardest first",
    "easiest": "easiest first",
    "id": "by id",
}
Where = Literal["anywhere", "question", "answer", "reference"]
_FIELDS: dict[Where, tuple[str, ...]] = {
    "anywhere": ("prompt", "references", "prediction", "item_id"),
    "question": ("prompt",),
    "answer": ("prediction",),
    "reference": ("references",),
}
assert set(SHOWS) == set(get_args(Show))
assert set(ORDERS) == set(get_args(Order))


class Item(NamedTuple):
    """One question, and how it was answered."""

    item_id: str
    prompt: str
    references: tuple[str, ...]
    answers: int  # that have a score
    mean: float  # their mean score, in the task's own unit
    lowest: float  # mean over its seeds of the arm that did worst
    highest: float
    prompts: int  # texts that it was asked with: more than one where arms or seeds are asked others


class Given(NamedTuple):
    """One answer to a question, by one arm in one seed."""

    arm: str
    label: str
    seed: int
    prediction: str
    score: float  # NaN: it has none
    prompt: str


class Alike(NamedTuple):
    """One answer to a question, by whoever gave it."""

    prediction: str
    score: float  # NaN: it has none
    times: int
    labels: tuple[str, ...]  # of the first arms that gave it
    arms: int  # that gave it in some seed


class Picture(NamedTuple):
    """Where the image of an item is: of what a stage was shown."""

    stage: str
    image_id: int
    image_file: str
    is_kept: bool  # its bytes are beside the example


@dataclass(frozen=True, eq=False)
class StudyExamples:
    """All examples of one form of a task in a study.

    `rows` are those of the index; the other arrays have a line for each of them, sorted by item,
    arm and seed.
    """

    asked: Asked
    arms: tuple[str, ...]  # names, in the plan's order
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    lower_is_better: bool
    rows: pyarrow.Table
    line: np.ndarray  # of `rows`
    item: np.ndarray  # number of the item: of its first row
    arm: np.ndarray  # number of the arm
    seed: np.ndarray  # number of the seed
    stages: Mapping[tuple[str, int], str]  # (arm, seed) → the stage that answered
    kept_images: frozenset[str]
    missing: tuple[tuple[str, int], ...]  # (arm, seed) that are not there yet, or keep none
    damaged: tuple[str, ...]  # a line for each stage that is left out
    _flips: dict[tuple[int, int], Any] = field(default_factory=dict, init=False, repr=False)
    _columns: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.first)

    # -- by item -----------------------------------------------------------------------------

    @cached_property
    def score(self) -> np.ndarray:
        """Of each line, in the task's own unit."""
        return self.rows["score"].to_numpy()[self.line]

    @cached_property
    def first(self) -> np.ndarray:
        """Of each item its first line."""
        return np.flatnonzero(np.diff(self.item, prepend=-1))

    @cached_property
    def is_exact(self) -> bool:
        """Whether every answer is right or wrong, and nothing between."""
        found = np.unique(self.score[np.isfinite(self.score)])
        return not self.lower_is_better and any(
            set(found.tolist()) <= {0.0, full} for full in FULL_SCORES
        )

    @cached_property
    def ids(self) -> list[str]:
        """Of each item."""
        return self._texts("item_id", self.first)

    @cached_property
    def _by_arm(self) -> tuple[np.ndarray, np.ndarray]:
        """Item, and mean score over its seeds, of each (item, arm) that has one."""
        known = np.isfinite(self.score)
        item, arm, score = self.item[known], self.arm[known], self.score[known]
        if not len(item):
            return item, score
        starts = np.flatnonzero((np.diff(item, prepend=-1) != 0) | (np.diff(arm, prepend=-1) != 0))
        counts = np.diff(starts, append=len(item))
        return item[starts], np.add.reduceat(score, starts) / counts

    @cached_property
    def summary(self) -> pandas.DataFrame:
        """By number of the item: answers, mean, lowest, highest, spread (SD between arms)."""
        size = len(self)
        known = np.isfinite(self.score)
        answers = np.bincount(self.item[known], minlength=size)
        total = np.bincount(self.item[known], self.score[known], minlength=size)
        item, mean = self._by_arm
        arms = np.bincount(item, minlength=size)
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = np.bincount(item, mean, minlength=size) / arms
            square = np.bincount(item, (mean - centre[item]) ** 2, minlength=size)
            spread = np.sqrt(square / arms)
            low, high = np.full(size, np.inf), np.full(size, -np.inf)
            np.minimum.at(low, item, mean)
            np.maximum.at(high, item, mean)
            frame = {
                "answers": answers,
                "mean": total / answers,
                "lowest": np.where(arms > 0, low, np.nan),
                "highest": np.where(arms > 0, high, np.nan),
                "spread": spread,
            }
        return pandas.DataFrame(frame)

    @cached_property
    def drawn(self) -> np.ndarray:
        """Items in the order of their ids' hashes: a draw that nobody chose."""
        digests = [hashlib.sha256(one.encode()).digest() for one in self.ids]
        return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)

    # -- finding -----------------------------------------------------------------------------

    def pick(
        self,
        *,
        text: str = "",
        where: Where = "anywhere",
        show: Show = "all",
        order: Order = "drawn",
        a: str = "",
        b: str = "",
    ) -> np.ndarray:
        """Numbers of the items that are meant, in the order that is asked for.

        `text` is looked for as it stands, whatever its case. `a` and `b` are names of arms, which
        what shows differences between them needs.

        Raises `UserError` for an arm that is not there.
        """
        summary = self.summary
        keep = np.ones(len(self), dtype=bool)
        if text:
            keep &= self._with(text, where)
        mean, full = summary["mean"].to_numpy(), self.full
        if show == "disagree":
            keep &= summary["spread"].to_numpy() > ALIKE * max(1.0, abs(full))
        elif show == "right":
            keep &= mean >= full * (1 - ALIKE) if not self.lower_is_better else mean <= full
        elif show == "wrong":
            keep &= mean <= 0 if not self.lower_is_better else np.zeros(len(self), dtype=bool)
        elif show != "all":
            better = self.changes(a, b)
            wanted = {"a-better": (-1,), "b-better": (1,), "flips": (-1, 1)}[show]
            flipped = better.loc[better["change"].isin(wanted), "item"].to_numpy()
            keep &= np.bincount(flipped, minlength=len(self)) > 0
        return self._ordered(order, keep)

    def _ordered(self, order: Order, keep: np.ndarray) -> np.ndarray:
        mean, spread = (self.summary[name].to_numpy() for name in ("mean", "spread"))
        if order == "id":
            ranked = np.array(sorted(range(len(self)), key=self.ids.__getitem__), dtype=np.int64)
        else:
            ranked = self.drawn  # what is equal stays drawn
            hard = mean if self.lower_is_better else -mean
            keys = {"disagreement": -spread, "hardest": -hard, "easiest": hard}
            if order in keys:
                key = np.where(np.isfinite(keys[order]), keys[order], np.inf)
                ranked = ranked[np.argsort(key[ranked], kind="stable")]
        return ranked[keep[ranked]]

    @cached_property
    def full(self) -> float:
        """The best score that an answer has: where answers are right or wrong, that of a right
        one, unless none is."""
        known = self.score[np.isfinite(self.score)]
        if not len(known):
            return math.nan
        return float(known.min() if self.lower_is_better else known.max())

    def _with(self, text: str, where: Where) -> np.ndarray:
        """Which items have a text somewhere."""
        import pyarrow.compute as compute

        found = np.zeros(len(self), dtype=bool)
        asked = compute.MatchSubstringOptions(text, ignore_case=True)
        for name in _FIELDS[where]:
            codes, texts = self._column(name)
            if not len(codes):
                continue
            matches = compute.call_function("match_substring", [texts], asked)
            hit = matches.to_numpy(zero_copy_only=False).astype(bool)
            if hit.any():
                found[self.item[hit[codes[self.line]]]] = True
        return found

    # -- two arms ----------------------------------------------------------------------------

    def number(self, arm: str) -> int:
        """Of an arm, by its name. Raises `UserError` for one that is not there."""
        if arm not in self.arms:
            raise UserError(f"no arm {shown(arm)} has examples here{nearest(arm, self.arms)}")
        return self.arms.index(arm)

    def changes(self, a: str, b: str) -> pandas.DataFrame:
        """Columns item, seed (its number), gain, change: 1 where B is better, -1 where A is.

        A line for each item and seed that both have a score of; `gain` is the difference of the
        scores, 0 where they are alike.
        """
        return self._pair(a, b).drop(columns=["line"])

    def _pair(self, a: str, b: str) -> pandas.DataFrame:
        pair = self.number(a), self.number(b)
        if pair not in self._flips:
            mine, other = (self._lines_of(one) for one in pair)
            keys = [self.item[x] * len(self.seeds) + self.seed[x] for x in (mine, other)]
            both, left, right = np.intersect1d(*keys, assume_unique=True, return_indices=True)
            first, second = self.score[mine[left]], self.score[other[right]]
            size = max(float(np.abs(x).max(initial=0.0)) for x in (first, second))
            gain = np.where(np.abs(second - first) <= ALIKE * size, 0.0, second - first)
            change = np.sign(gain).astype(int)
            self._flips[pair] = pandas.DataFrame(
                {
                    "item": both // len(self.seeds),
                    "seed": both % len(self.seeds),
                    "gain": gain,
                    "change": -change if self.lower_is_better else change,
                    "line": mine[left],
                }
            )
        return self._flips[pair]

    def _lines_of(self, arm: int) -> np.ndarray:
        return np.flatnonzero((self.arm == arm) & np.isfinite(self.score))

    def mcnemar(self, a: str, b: str) -> pandas.DataFrame:
        """A line for each seed that both have: `seed` and the columns of `items.mcnemar`.

        Each says something of two checkpoints, and together they say nothing of the recipes. The
        same numbers as that function's, of all seeds at once.
        """
        from analysis.statistics.items import SCOPE, exact_p

        pairs = self._pair(a, b)
        first, second = (
            np.bincount(self.seed[self.arm == self.number(one)], minlength=len(self.seeds))
            for one in (a, b)
        )
        image, weight = self._images(pairs["line"].to_numpy())
        weighted = pairs["gain"].abs().to_numpy() * weight
        lines = []
        for number, seed in enumerate(self.seeds):
            own = (pairs["seed"] == number).to_numpy()
            if not own.any():
                continue
            change = pairs["change"].to_numpy()[own]
            _, image_of = np.unique(image[own], return_inverse=True)
            size = np.bincount(image_of, weighted[own] * (change != 0))
            total = np.bincount(image_of, weighted[own] * change)
            total = np.where(np.abs(total) <= ALIKE * size, 0.0, total)
            for_a, for_b = int((total < 0).sum()), int((total > 0).sum())
            lines.append(
                {
                    "seed": seed,
                    "items": len(change),
                    "unmatched": int(first[number] + second[number]) - 2 * len(change),
                    "first_better": int((change < 0).sum()),
                    "second_better": int((change > 0).sum()),
                    "alike": int((change == 0).sum()),
                    "images": len(total),
                    "images_first_better": for_a,
                    "images_second_better": for_b,
                    "p_value": exact_p(for_a, for_b),
                    "scope": SCOPE,
                }
            )
        return pandas.DataFrame(lines)

    def _images(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What items share (as `items.images_of`), numbered, and their weights; of some lines."""
        names = ["image_id", "image_file", "weight"]
        rows = self.rows.select(names).take(self.line[lines])
        number = rows["image_id"].to_numpy()
        file, item = (
            self._column(name)[0][self.line[lines]].astype(np.int64)
            for name in ("image_file", "item_id")
        )
        has_file = np.array(rows["image_file"].to_pylist(), dtype=object) != ""
        found = np.where(number >= 0, 3 * number, np.where(has_file, 3 * file + 1, 3 * item + 2))
        return found, rows["weight"].to_numpy()

    # -- one item ----------------------------------------------------------------------------

    def find(self, item_id: str) -> int | None:
        """Number of an item; None where there is none."""
        return self._numbers.get(item_id)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {one: number for number, one in enumerate(self.ids)}

    def _texts(self, name: str, lines: np.ndarray) -> list[str]:
        return self.rows[name].take(self.line[lines]).to_pylist()

    def items(self, numbers: Sequence[int]) -> list[Item]:
        """What is told of some items in a list."""
        first = self.first[list(numbers)]
        texts = [self._texts(name, first) for name in ("item_id", "prompt", "references")]
        table = self.summary.iloc[list(numbers)]
        numbered = zip(
            *texts, *(table[name] for name in ("answers", "mean", "lowest", "highest")), strict=True
        )
        codes = self._column("prompt")[0]
        prompts = [_number_of_kinds(codes[self.line[self.lines(one)]]) for one in numbers]
        return [
            Item(item, prompt, _references(joined), int(answers), mean, low, high, several)
            for (item, prompt, joined, answers, mean, low, high), several in zip(
                numbered, prompts, strict=True
            )
        ]

    def _column(self, name: str) -> tuple[np.ndarray, Any]:
        """Of a text: its number on each of `rows`, and the texts by number."""
        if name not in self._columns:
            column = self.rows[name].combine_chunks()
            codes = column.indices.to_numpy(zero_copy_only=False)
            self._columns[name] = codes, column.dictionary
        return self._columns[name]

    def alike(self, number: int) -> list[Alike]:
        """The unlike answers to an item, the most frequent first."""
        lines = self.lines(number)
        codes, texts = self._column("prediction")
        given = codes[self.line[lines]].astype(np.int64)
        score = np.where(np.isfinite(self.score[lines]), self.score[lines], np.inf)
        scores, score_codes = np.unique(score, return_inverse=True)
        # Of a text and a score one number, which is sorted many times as fast as pairs are.
        kinds, first, kind, counts = np.unique(
            given * len(scores) + score_codes,
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        found = []
        for one in np.lexsort((first, -counts)):
            arms = np.unique(self.arm[lines[kind == one]])
            text, score_code = divmod(int(kinds[one]), len(scores))
            value = float(scores[score_code])
            found.append(
                Alike(
                    texts[text].as_py(),
                    math.nan if math.isinf(value) else value,
                    int(counts[one]),
                    tuple(self.labels[arm] for arm in arms[:3]),
                    len(arms),
                )
            )
            if len(found) == MOST_ALIKE:
                break
        return found

    def lines(self, number: int) -> np.ndarray:
        """The lines of an item."""
        start, end = np.searchsorted(self.item, [number, number + 1])
        return np.arange(start, end)

    def given(self, number: int, arms: Iterable[str] | None = None) -> list[Given]:
        """All answers to an item, or those of some arms; by arm and seed."""
        lines = self.lines(number)
        if arms is not None:
            wanted = [self.arms.index(one) for one in arms if one in self.arms]
            lines = lines[np.isin(self.arm[lines], wanted)]
        texts = [self._texts(name, lines) for name in ("prediction", "prompt")]
        return [
            Given(
                *(self.arms[arm], self.labels[arm], self.seeds[seed]),
                prediction,
                float(score),
                prompt,
            )
            for arm, seed, score, prediction, prompt in zip(
                self.arm[lines], self.seed[lines], self.score[lines], *texts, strict=True
            )
        ]

    def picture(self, number: int) -> Picture | None:
        """The image of an item, of the first that was asked; None where it has none."""
        line = int(self.first[number])
        one = self.rows.slice(int(self.line[line]), 1).to_pylist()[0]
        if one["image_id"] < 0:
            return None
        place = self.arms[self.arm[line]], self.seeds[self.seed[line]]
        stage = self.stages[place]
        return Picture(stage, one["image_id"], one["image_file"], stage in self.kept_images)

    def only(self, seed: int) -> StudyExamples:
        """The same of one seed alone. Raises `UserError` for one that is not there."""
        if seed not in self.seeds:
            raise UserError(f"no seed {seed} here; valid: {', '.join(map(str, self.seeds))}")
        kept = self.seed == self.seeds.index(seed)
        _, item = np.unique(self.item[kept], return_inverse=True)
        return replace(
            self,
            line=self.line[kept],
            item=item,
            arm=self.arm[kept],
            seed=self.seed[kept],
        )


def _number_of_kinds(codes: np.ndarray) -> int:
    """How many values there are; of an item's prompt nearly always one."""
    return 1 if (codes == codes[0]).all() else len(np.unique(codes))


def _references(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(SEPARATOR)) if joined else ()


def askings(results: StudyResults) -> list[Asked]:
    """The forms of tasks that a study asks, the primary one first.

    A stage that answers several tasks has one set of examples, so it is there once.
    """
    found: dict[str, Asked] = {}
    for trial in results.plan.trials:
        if trial.seed != results.plan.trials[0].seed:
            break
        for asked, stage in results.plan.answers(trial).items():
            found.setdefault(stage, asked)
    task, _, shots = results.primary
    forms = dict.fromkeys(found.values())
    return sorted(
        forms,
        key=lambda one: (one[:2] != (task, shots), one.task != task, one.condition != INTACT, *one),
    )


def study_examples(
    results: StudyResults, asked: Asked, told: Read = lambda read, of: None
) -> StudyExamples:
    """The examples of one form of a task; `told` how far reading is where no index has them."""
    plan = results.plan
    places: dict[tuple[str, int], str] = {}
    for trial in plan.trials:
        stage = plan.answers(trial).get(asked)
        if stage is not None and (trial.arm, trial.seed) not in plan.left_out:
            places[trial.arm, trial.seed] = stage
    found = results.store.many_examples(results.found, dict.fromkeys(places.values()), told)
    there = {place: stage for place, stage in places.items() if stage in found.places}
    known = dict.fromkeys(arm for arm, _ in there)
    arms = tuple(arm.name for arm in plan.arms if arm.name in known)
    seeds = tuple(seed for seed in plan.seeds if any(seed == one for _, one in there))
    line, arm, seed = _lines(found, there, arms, seeds)
    item = _items(found, line)
    order = np.lexsort((seed, arm, item))
    task = plan.tasks.get(asked.task)
    damaged = [f"{_place(places, stage)}: {text}" for stage, text in found.damaged.items()]
    return StudyExamples(
        asked=asked,
        arms=arms,
        labels=tuple(plan.arm(one).label for one in arms),
        seeds=seeds,
        lower_is_better=task is not None and task.first.goal == "minimise",
        rows=found.rows,
        line=line[order],
        item=item[order],
        arm=arm[order],
        seed=seed[order],
        stages=there,
        kept_images=found.images,
        missing=tuple(
            place
            for place, stage in places.items()
            if stage not in found.places and stage not in found.damaged
        ),
        damaged=tuple(damaged),
    )


def _place(places: Mapping[tuple[str, int], str], stage: str) -> str:
    arm, seed = next(place for place, one in places.items() if one == stage)
    return f"{arm} seed {seed}"


def _lines(
    found: Examples,
    places: Mapping[tuple[str, int], str],
    arms: Sequence[str],
    seeds: Sequence[int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Line of the rows, number of arm and of seed: of each example of each trial.

    A stage that arms share is there for each of them.
    """
    runs = [found.places[stage] for stage in places.values()]
    firsts, counts = (np.array([run[n] for run in runs], dtype=np.int64) for n in (0, 1))
    arm_of, seed_of = ({one: n for n, one in enumerate(names)} for names in (arms, seeds))
    arm = np.repeat(np.array([arm_of[a] for a, _ in places], dtype=np.int64), counts)
    seed = np.repeat(np.array([seed_of[s] for _, s in places], dtype=np.int64), counts)
    return lines_of(firsts, counts), arm, seed


def _items(found: Examples, line: np.ndarray) -> np.ndarray:
    """Of each line the number of its item: numbered as they come."""
    if not len(line):
        return line
    column = found.rows["item_id"].combine_chunks()
    codes = column.indices.to_numpy(zero_copy_only=False)[line]
    numbers, _ = pandas.factorize(codes)
    return numbers


# -- pictures ----------------------------------------------------------------------------------


def picture_of(results: StudyResults, picture: Picture, item_id: str) -> bytes | None:
    """The bytes of an image; None where they are not on this machine, or cannot be read.

    Raises `MissingFileError` where prepared data is not here; its message is the folder.
    """
    if picture.is_kept:
        table = results.store.examples(picture.stage)
        if table is None or "image" not in table:
            return None
        kept = table.loc[table["item_id"] == item_id, "image"]
        return None if kept.empty or kept.iloc[0] is None else bytes(kept.iloc[0])
    return results.prepared_picture(picture.image_id)


# -- from a verdict ----------------------------------------------------------------------------


class Pair(NamedTuple):
    """Which examples a claim is about: a form of a task, and the two arms that it compares."""

    asked: Asked
    a: str
    b: str  # "": it compares one arm with a number


def pairs_of(results: StudyResults) -> dict[str, Pair]:
    """Claim → the examples behind it; without those that no stored form of a task is behind."""
    found = {name: _pair(results, one) for name, one in conditions(results.plan).items()}
    return {name: pair for name, pair in found.items() if pair is not None}


def _pair(results: StudyResults, claim: Condition[Contrast]) -> Pair | None:
    contrast = next(iter(quantities(claim)), None)
    if contrast is None:
        return None
    forms = set(askings(results))
    weights = {
        key: weight
        for key, weight in contrast.weights.items()
        if Asked(key.task, key.shots, key.condition) in forms
    }
    if not weights:
        return None
    first = next((key for key, weight in weights.items() if weight > 0), next(iter(weights)))
    others = [
        key.arm
        for key, weight in weights.items()
        if weight * weights[first] < 0 and key[1:] == first[1:] and key.arm != first.arm
    ]
    levels = results.plan.arm(first.arm).levels
    others.sort(key=lambda arm: _unlike(levels, results.plan.arm(arm).levels))  # is stable
    return Pair(
        Asked(first.task, first.shots, first.condition), first.arm, others[0] if others else ""
    )


def _unlike(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    return sum(one.get(key) != other.get(key) for key in {*one, *other})
