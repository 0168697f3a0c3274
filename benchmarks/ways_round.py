"""Ten ways round a registration: how often each gives a registered verdict that is false.

Nothing is trained: every arm is as good as every other, so that one is better is never true, and an
honest study supports it in 5 of 100 cases at an alpha of 0.05. Each way is walked many times with
new luck; beside today's rule (`analysis.registry`) stands the one that looked at a study's own
earlier results alone.

    python benchmarks/ways_round.py [--studies 400]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ablations.contrasts import ScoreKey
from ablations.deciding import claim_stages, claims_of, decide
from ablations.metrics import records
from ablations.plan import Plan, make_plan
from ablations.study import load_study
from ablations.verdicts import Verdict
from analysis.registry import Registered, Registry
from sweeps.store import Registration

SIZES = {"one_at_a_time": {"encoder.image_size": [32, 16]}}
BETTER = "effect(encoder.image_size, 16 -> 32) > 0"
RECIPE = {"training": {"steps": 100, "batch_size": 4}, "evaluation": {"easy_vqa": {}}}
MANY = 6  # arms to pick the best of


class World:
    """One history of a store under the null: registrations, results and their times."""

    def __init__(self, plans: Plans, seed: int):
        self.plans, self._luck = plans, np.random.default_rng(seed)
        self._values: dict[tuple[str, int], float] = {}
        self._clock = 0
        self.finished: dict[str, str] = {}
        self.registered: list[Registered] = []

    def _now(self) -> str:
        self._clock += 1
        return f"{self._clock:08d}"

    def register(self, plan: Plan) -> Registered:
        """As the store does: what was registered before stands."""
        for one in self.registered:
            if (one.plan.study, one.plan.hash) == (plan.study, plan.hash):
                return one
        known = tuple(stage for stage in plan.stages if stage in self.finished)
        previous = tuple(o.plan.hash for o in self.registered if o.plan.study == plan.study)
        made = Registration(
            study=plan.study,
            hash=plan.hash,
            registered_at=self._now(),
            known_stages=known,
            previous=previous,
        )
        self.registered.append(Registered(plan, made))
        return self.registered[-1]

    def run(self, plan: Plan) -> Registered:
        """Register a study and finish what is missing of it."""
        registered = self.register(plan)
        for stage in plan.stages:
            self.finished.setdefault(stage, self._now())
        return registered

    def verdicts(self, plan: Plan) -> list[Verdict]:
        """What the claims come to; a config that hardly differs scores alike with the same seed."""
        scores: dict[ScoreKey, dict[int, float]] = {}
        for trial in plan.trials:
            key = ScoreKey(trial.arm, "easy_vqa", "accuracy", 0, "intact")
            place = (trial.arm, trial.seed)
            if place not in self._values:
                self._values[place] = 50 + self._luck.normal()
            scores.setdefault(key, {})[trial.seed] = self._values[place]
        return decide(
            claims_of(plan),
            scores,
            seeds=plan.seeds,
            alpha=plan.alpha,
            tasks=records([plan.primary_metric]),
        )

    def is_false(self, one: Registered) -> bool:
        """Whether any claim is supported."""
        return any(verdict.verdict == "supported" for verdict in self.verdicts(one.plan))

    def standings(self, one: Registered) -> dict[str, str]:
        """Claim → standing by today's rule."""
        registry = Registry(self.registered, self.finished.get)
        return {name: history.standing for name, history in registry.histories(one).items()}

    def standings_before(self, one: Registered) -> dict[str, str]:
        """Claim → standing by the rule that looked at the study's own results alone."""
        found = {}
        for name, own in claim_stages(one.plan).items():
            known = own & set(one.registration.known_stages)
            found[name] = "registered" if not known else "known"
        return found


class Plans:
    """Plans of small studies, each made once."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._made: dict[str, Plan] = {}

    def __call__(self, study: str = "s", eps: float = 1e-8, **keys: Any) -> Plan:
        """The plan of the standard study with some keys changed."""
        file = {
            "study": study,
            "question": "Is it better?",
            "base": "recipe.yaml",
            "design": SIZES,
            "seeds": [0, 1, 2, 3, 4],
            "primary_metric": "easy_vqa.accuracy",
            "claims": {"better": BETTER},
            "overrides": {"optimizer.eps": eps},
            **keys,
        }
        text = yaml.safe_dump(file)
        if text not in self._made:
            recipe = self._folder / "recipe.yaml"
            recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
            path = self._folder / "study.yaml"
            path.write_text(text, encoding="utf-8")
            self._made[text] = make_plan(load_study(path))
        return self._made[text]


def seeds_from(first: int, count: int = 5) -> list[int]:
    """Some seeds in a row."""
    return list(range(first, first + count))


# Each way returns the study that is reported in the end.


def honest(world: World) -> Registered:
    """One study, registered, run, reported."""
    return world.run(world.plans())


def other_seeds(world: World) -> Registered:
    """Other seeds under the same name, until one set gives a verdict; at most five."""
    for number in range(5):
        one = world.run(world.plans(seeds=seeds_from(10 * number)))
        if world.is_false(one):
            break
    return one


def renamed(world: World) -> Registered:
    """Other seeds under another name, as fresh ones are drawn anew."""
    for number in range(5):
        one = world.run(world.plans(f"s{number}", seeds=seeds_from(10 * number)))
        if world.is_false(one):
            break
    return one


def hardly_another_claim(world: World) -> Registered:
    """Other seeds with a claim that is changed by next to nothing."""
    for number in range(5):
        claim = f"{BETTER} by {number}e-9" if number else BETTER
        seeds = seeds_from(10 * number)
        one = world.run(world.plans(f"s{number}", claims={"better": claim}, seeds=seeds))
        if world.is_false(one):
            break
    return one


def best_of_many(world: World) -> Registered:
    """Look at many arms, pick the pair that differs most, register it with another epsilon."""
    sizes = [16 * (n + 1) for n in range(MANY)]
    many = {"one_at_a_time": {"encoder.image_size": sizes}}
    pairs = [(a, b) for a in sizes for b in sizes if a != b]
    claims = {f"{a}-{b}": f"effect(encoder.image_size, {a} -> {b}) > 0" for a, b in pairs}
    world.run(world.plans("many", design=many, claims={}))
    seen = world.verdicts(world.plans("many", design=many, claims=claims))
    best = min(seen, key=lambda verdict: verdict.p_value if (verdict.effect or 0) > 0 else 1)
    return world.run(
        world.plans("picked", eps=1.0001e-8, design=many, claims={"picked": claims[best.name]})
    )


def ladder(world: World) -> Registered:
    """Studies of 3, 4, … 12 seeds, all registered before a result; the first with a verdict."""
    rungs = [world.plans(f"rung{size}", seeds=seeds_from(0, size)) for size in range(3, 13)]
    for plan in rungs:
        world.register(plan)
    for plan in rungs:
        one = world.run(plan)
        if world.is_false(one):
            break
    return one


def many_claim_sets(world: World) -> Registered:
    """Claims in both directions on ten pairs of arms, each set its own study; one is reported."""
    return _one_of(world, "sizes", 10)


def one_study_a_claim(world: World) -> Registered:
    """The same claims under one name, registered one after the other."""
    return _one_of(world, None, 10)


def _one_of(world: World, name: str | None, count: int) -> Registered:
    sizes = [16 * (n + 1) for n in range(MANY)]
    many = {"one_at_a_time": {"encoder.image_size": sizes}}
    pairs = [(a, b) for a in sizes for b in sizes if a < b][:count]
    plans = [
        world.plans(
            name or f"s{number}",
            design=many,
            claims={"better": f"effect(encoder.image_size, {a} -> {b}) > 0"},
        )
        for number, (a, b) in enumerate(pairs)
    ]
    registered = [world.register(plan) for plan in plans]
    for plan in plans:
        world.run(plan)
    return next((one for one in registered if world.is_false(one)), registered[-1])


def softly_more_seeds(world: World) -> Registered:
    """Seeds are added, each time under another name, until there is a verdict."""
    for size in range(3, 13):
        one = world.run(world.plans(f"with{size}", seeds=seeds_from(0, size)))
        if world.is_false(one):
            break
    return one


def another_store(world: World) -> Registered:
    """Five sets of seeds in five stores; the one with a verdict is shown. Nothing here can know."""
    for number in range(5):
        world.registered.clear()
        world.finished.clear()
        one = world.run(world.plans(seeds=seeds_from(10 * number)))
        if world.is_false(one):
            break
    return one


WAYS: dict[str, Callable[[World], Registered]] = {
    "honest": honest,
    "other seeds": other_seeds,
    "renamed": renamed,
    "hardly another claim": hardly_another_claim,
    "best of many": best_of_many,
    "ladder": ladder,
    "many claim sets": many_claim_sets,
    "one study a claim": one_study_a_claim,
    "softly more seeds": softly_more_seeds,
    "another store": another_store,
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=400, help="histories a way")
    studies = parser.parse_args().studies
    print(f"{'way':<22}{'false verdict':>15}{'registered, before':>20}{'registered, now':>17}")
    with tempfile.TemporaryDirectory() as folder:
        plans = Plans(Path(folder))
        for name, way in WAYS.items():
            counts = np.zeros(3)
            for number in range(studies):
                world = World(plans, number)
                one = way(world)
                false = {v.name for v in world.verdicts(one.plan) if v.verdict == "supported"}
                before, now = world.standings_before(one), world.standings(one)
                counts += [
                    bool(false),
                    any(before[claim] == "registered" for claim in false),
                    any(now[claim] == "registered" for claim in false),
                ]
            shares = counts / studies
            print(f"{name:<22}{shares[0]:>15.3f}{shares[1]:>20.3f}{shares[2]:>17.3f}")


if __name__ == "__main__":
    main()
