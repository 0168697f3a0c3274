"""Seeds where the verdict is open: simulated studies, their errors, their cost, and who wins.

Nothing is trained. Scores are normal, the paired difference of two arms has an SD of 1 between
seeds, d is a claim's true effect in that unit, and a claim says that an arm is better than the
base, which all claims share. Decisions are those of the public functions: `ablations.paths`
(sequential p values, chances), `ablations.replication` (which trial is next), `ablations.verdicts`
(Holm).

    python benchmarks/adaptive.py [errors] [one] [many] [boundaries] [--studies 2000]

errors      any wrong verdict in a study at alpha 0.05, with controls that must fail the same check
one         one claim: power and seeds by effect, against fixed numbers of seeds
many        eight claims: decided claims by trials, against uniform seeds and fixed seeds
boundaries  the constants of `ablations.sequential` found anew (--paths 4000000: minutes)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.conditions import Above, Condition, negated
from ablations.paths import chances, p_path
from ablations.replication import Allocation, Rule
from ablations.sequential import FUTILE, FUTILE_FROM, LEVELS, Array, weight, z_of
from ablations.verdicts import Values, holm, p_above

ALPHA, FIRST, MOST = 0.05, 3, 12
LOOKS = range(FIRST, MOST + 1)
CHUNK = 500  # studies whose chances are in memory at once
EFFECTS = (0.0, 0.25, 0.5, 1.0, 1.0, 1.5, 2.0, 3.0)
SPARSE = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.5, 2.0)
BUDGETS = (27, 36, 45, 54, 63, 72, 81, 90, 99, 108)


def bound(studies: int) -> float:
    """What a rate of 0.05 may come to by chance: three standard errors more."""
    return float(ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / studies))


# -- simulated claims ------------------------------------------------------------------------------


def differences(
    rng: np.random.Generator, effects: Sequence[float], studies: int, *, shared: bool = True
) -> Array:
    """`[studies, claims, seeds]` of arms against a base, which all share or each has its own."""
    noise = rng.normal(0, np.sqrt(0.5), (studies, len(effects), MOST))
    base = rng.normal(0, np.sqrt(0.5), (studies, 1 if shared else len(effects), MOST))
    return noise - base + np.reshape(effects, (1, -1, 1))


def sides(values: Array) -> tuple[Condition[Values], Condition[Values]]:
    """The claim that a difference is above 0, and its negation."""
    claim = Above(Values.given(values), 0.0)
    return claim, negated(claim)


@dataclass
class Known:
    """Evidence of one study of which everything is known beforehand."""

    p_path: Array  # [claims, looks, 2]
    chance: dict[int, dict[int, Array]]  # claims still open → seeds → [claims, later]
    alpha: float = ALPHA

    def problem(self, claim: str, n: int) -> str:
        """Nothing is wrong with any number."""
        return ""

    def p(self, claim: str, n: int) -> tuple[float, float]:
        """Sequential p values after n seeds."""
        p_sup, p_ref = self.p_path[int(claim), n - FIRST]
        return float(p_sup), float(p_ref)

    def chances(self, claim: str, n: int, level: float) -> Sequence[float]:
        """Chance of a verdict at more seeds."""
        return self.chance[round(self.alpha / level)][n][int(claim)]


def studies_of(values: Array) -> Iterator[Known]:
    """Evidence of each study; `values` are `[studies, claims, seeds]`."""
    claims = values.shape[1]
    for start in range(0, len(values), CHUNK):
        some = sides(values[start : start + CHUNK])
        paths = np.stack([p_path(one, LOOKS, MOST) for one in some], axis=-1)
        found = {
            left: {
                n: np.minimum(
                    1.0,
                    sum(
                        chances(one, n, range(n + 1, MOST + 1), ALPHA / left, MOST) for one in some
                    ),
                )
                for n in range(FIRST, MOST)
            }
            for left in range(1, claims + 1)
        }
        for study in range(len(paths)):
            yield Known(
                paths[study],
                {left: {n: one[study] for n, one in at.items()} for left, at in found.items()},
            )


def allocated(known: Known, lookahead: int = 1) -> Allocation:
    """A study to its end: its first seeds, then seeds where the verdict is open."""
    claims = [str(number) for number in range(len(known.p_path))]
    rule = Rule(FIRST, MOST, ALPHA, lookahead)
    arms = {claim: ("base", claim) for claim in claims}
    made = Allocation(rule, ["base", *claims], arms, {}, known)
    made.advance(lambda trial: "there")
    return made


def courses(made: Allocation) -> tuple[Array, Array]:
    """Of each claim: +1 supported, -1 refuted, 0 undecided; and after how many trials."""
    signs = {"supported": 1, "refuted": -1, "undecided": 0}
    of = made.courses.values()
    return (
        np.array([signs[one.verdict] for one in of]),
        np.array([one.decided_after or len(made.trials) for one in of]),
    )


def wrong(found: Array, effects: Sequence[float]) -> float:
    """Share of studies with a wrong verdict; a true 0 makes "above 0" false."""
    true = np.asarray(effects) > 0
    return float((((found == 1) & ~true) | ((found == -1) & true)).any(axis=-1).mean())


# -- ways to run a study ---------------------------------------------------------------------------


def fixed(values: Array, n: int, correct: bool = True) -> Array:
    """Verdicts `[studies, claims]` of n seeds that were fixed before."""
    return _verdicts([p_above(v, 0.0, r) for v, r in _both(values, n)], correct)


def naive(values: Array) -> Array:
    """The t test after every seed, until it says something. Wrong, to be seen to be."""
    found = np.zeros(values.shape[:2])
    for n in LOOKS:
        found = np.where(found == 0, fixed(values, n), found)
    return found


def uniform(values: Array, correct: bool = True) -> Array:
    """Verdicts `[looks, studies, claims]` where all arms get the same seeds, one by one."""
    some = [p_path(one, LOOKS, MOST) for one in sides(values)]
    return np.stack(
        [_verdicts([p[..., look] for p in some], correct) for look in range(len(LOOKS))]
    )


def _both(values: Array, n: int) -> list[tuple[Values, bool]]:
    seen = Values.given(values).only(n)
    return [(seen, False), (seen, True)]


def _verdicts(p: Sequence[Array], correct: bool) -> Array:
    least = np.minimum(*p)
    decided = (holm(least) if correct else least) <= ALPHA
    return np.where(decided, np.where(p[0] <= p[1], 1, -1), 0)


def by_rule(values: Array, lookahead: int = 1) -> tuple[Array, Array, Array]:
    """Verdicts and after how many trials, `[studies, claims]`, and all trials, `[studies]`."""
    made = [allocated(known, lookahead) for known in studies_of(values)]
    found = [courses(one) for one in made]
    return (
        np.array([verdict for verdict, _ in found]),
        np.array([after for _, after in found]),
        np.array([len(one.trials) for one in made]),
    )


# -- tables ----------------------------------------------------------------------------------------

SCENES: dict[str, tuple[Sequence[float], bool]] = {
    "1 claim, d = 0": ([0.0], True),
    "1 claim, d = −0.3": ([-0.3], True),
    "10 claims, all d = 0": ([0.0] * 10, True),
    "10 claims, half d = 3": ([0.0, 3.0] * 5, True),
    "10 claims, all d = −0.3": ([-0.3] * 10, True),
    "10 claims, all d = 0, a base each": ([0.0] * 10, False),
}
CONTROLS: dict[str, Callable[[Array], Array]] = {
    "control: t test after every seed, Holm": naive,
    "control: sequential p values, no Holm": lambda values: uniform(values, correct=False)[-1],
}


def error_rates(studies: int, scenes: Sequence[str] = tuple(SCENES)) -> dict[str, dict[str, float]]:
    """Scene → way → share of studies with any wrong verdict."""
    found: dict[str, dict[str, float]] = {}
    for number, scene in enumerate(scenes):
        effects, shared = SCENES[scene]
        values = differences(np.random.default_rng([1, number]), effects, studies, shared=shared)
        found[scene] = {
            "fixed, 12 seeds": wrong(fixed(values, MOST), effects),
            "adaptive, uniform seeds": wrong(uniform(values)[-1], effects),
            "adaptive, the rule with futility": wrong(by_rule(values)[0], effects),
            **{name: wrong(way(values), effects) for name, way in CONTROLS.items()},
        }
    return found


def one_claim(d: float, studies: int, most: int = MOST) -> dict[str, tuple[float, float, float]]:
    """Way → P(supported), P(refuted), mean seeds, of one claim."""
    rng = np.random.default_rng([2, round(100 * d)])
    values = rng.normal(d, 1, (studies, 1, MOST))
    found = {f"fixed, {n} seeds": _rates(fixed(values, n), float(n)) for n in (3, 5, 8, 12)}
    ends, seen = np.full((studies, 1), MOST), naive(values)
    for n in reversed(LOOKS):
        ends = np.where(fixed(values, n) != 0, n, ends)
    found["control: t test after every seed"] = _rates(seen, float(ends.mean()))
    paths = [p_path(one, range(FIRST, most + 1), most)[:, 0] for one in sides(values)]
    crossed = np.minimum(*paths) <= ALPHA
    end = np.where(crossed.any(axis=1), FIRST + crossed.argmax(axis=1), most)
    place = np.arange(studies), end - FIRST
    signs = np.where(paths[0][place] <= paths[1][place], 1, -1) * crossed.any(axis=1)
    found[f"adaptive, at most {most}"] = _rates(signs, float(end.mean()))
    futile = np.full(studies, most)
    for n in reversed(range(FUTILE_FROM, most)):
        chance = sum(chances(one, n, [most], ALPHA, most)[:, 0, 0] for one in sides(values))
        futile = np.where(chance < FUTILE, n, futile)
    kept = signs * (end <= futile)
    found[f"adaptive, at most {most}, futility"] = _rates(
        kept, float(np.minimum(end, futile).mean())
    )
    return found


def _rates(found: Array, seeds: float) -> tuple[float, float, float]:
    return float((found == 1).mean()), float((found == -1).mean()), seeds


def by_trials(
    effects: Sequence[float], studies: int, lookaheads: Sequence[int] = (1, 4, 8)
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Way → claims decided rightly by each of `BUDGETS`, and → any wrong verdict."""
    values = differences(np.random.default_rng([3, len(set(effects))]), effects, studies)
    arms, true = len(effects) + 1, np.asarray(effects) > 0
    curves: dict[str, list[float]] = {}
    errors: dict[str, float] = {}

    def told(way: str, at: Callable[[int], Array]) -> None:
        found = {budget: at(budget) for budget in BUDGETS}
        right = {b: ((f == 1) & true) | ((f == -1) & ~true) for b, f in found.items()}
        curves[way] = [float(one.sum(axis=-1).mean()) for one in right.values()]
        errors[way] = max(wrong(one, effects) for one in found.values())

    told("fixed seeds", lambda trials: fixed(values, trials // arms))
    looked = uniform(values)
    told("uniform seeds, looked at", lambda trials: looked[trials // arms - FIRST])
    cost = np.cumsum(
        [np.full(studies, FIRST * arms), *((looked[:-1] == 0).sum(axis=-1) + 1)], axis=0
    )  # what is decided gets no further seeds
    told(
        "uniform, decided ones left out",
        lambda trials: looked[np.maximum((cost <= trials).sum(axis=0) - 1, 0), np.arange(studies)],
    )
    for lookahead in lookaheads:
        verdicts, after, trials = by_rule(values, lookahead)
        told(
            f"the rule, lookahead {lookahead} (ends at {trials.mean():.0f})",
            lambda trials, v=verdicts, a=after: np.where(a <= trials, v, 0),
        )
    return curves, errors


def trials_for(decided: float, curve: Sequence[float]) -> float:
    """Trials after which so many claims are decided, between the budgets by a straight line."""
    return float(np.interp(decided, np.maximum.accumulate(curve), BUDGETS, right=np.nan))


def boundaries(most: int, paths: int, seed: int = 0) -> list[float]:
    """The constants C of `LEVELS`, from null paths."""
    rng, highest = np.random.default_rng([4, most, seed]), []
    for start in range(0, paths, 100_000):
        values = rng.normal(0, 1, (min(100_000, paths - start), most))
        total, reached = None, None
        for n in range(FIRST, most + 1):
            z = z_of(p_above(Values.given(values[:, :n]))) * weight(n, most)
            total = z if reached is None else np.maximum(reached, z)
            reached = total
        highest.append(total)
    return [float(one) for one in np.quantile(np.concatenate(highest), 1 - np.array(LEVELS))]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def _errors(studies: int) -> None:
    print(f"\nAny wrong verdict, {studies} studies each; {bound(studies):.4f} is allowed\n")
    found = error_rates(studies)
    ways = list(next(iter(found.values())))
    rows = [[scene, *(f"{rates[way]:.4f}" for way in ways)] for scene, rates in found.items()]
    _table(["study", *ways], rows)


def _one(studies: int) -> None:
    studies *= 10
    effects = (0.0, 0.5, 1.0, 2.0, 3.0)
    print(f"\nOne claim: supported (refuted) / seeds, {studies} studies each\n")
    found = {d: one_claim(d, studies) for d in effects}
    rows = []
    for way in found[0.0]:
        cells = [found[d][way] for d in effects]
        rows.append([way, *(f"{sup:.3f} ({ref:.3f}) / {n:.1f}" for sup, ref, n in cells)])
    _table(["way", *(f"d = {d:g}" for d in effects)], rows)


def _many(studies: int) -> None:
    for effects in (EFFECTS, SPARSE):
        curves, errors = by_trials(effects, studies)
        named = ", ".join(f"{d:g}" for d in effects)
        print(f"\nClaims decided rightly by trials, d = {named}; {studies} studies\n")
        rows = [
            [way, *(f"{one:.2f}" for one in curve), f"{errors[way]:.3f}"]
            for way, curve in curves.items()
        ]
        _table(["way", *map(str, BUDGETS), "any wrong"], rows)
        uniform_ = curves["uniform seeds, looked at"]
        rule = next(curve for way, curve in curves.items() if way.startswith("the rule"))
        at = BUDGETS.index(54)
        print(f"\nat 54 trials: {rule[at] / uniform_[at]:.1f} times as many decided as uniform")
        for budget, decided in zip(BUDGETS[1:], rule[1:], strict=True):
            needed = trials_for(decided, uniform_)
            print(
                f"what the rule decides in {budget}, uniform seeds need {needed:.0f}: "
                f"{budget / needed:.2f} of the trials"
            )


def main() -> None:
    """Print the tables that were asked for."""
    parts = {"errors": _errors, "one": _one, "many": _many}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[*parts], choices=[*parts, "boundaries"])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--paths", type=int, default=400_000)
    parser.add_argument("--most", type=int, nargs="*", default=[3, 4, 5, 6, 8, 10, 12])
    said = parser.parse_args()
    for part in said.parts:
        if part != "boundaries":
            parts[part](said.studies)
            continue
        print(f"\nC by the most seeds and the level in one direction, {said.paths} paths\n")
        rows = [
            [str(most), *(f"{one:.3f}" for one in boundaries(most, said.paths))]
            for most in said.most
        ]
        _table(["most", *map(str, LEVELS)], rows)


if __name__ == "__main__":
    main()
