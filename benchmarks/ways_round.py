"""Ways round a registration: how often each gives a registered verdict that is false.

Nothing is trained: every arm is as good as every other, so that one is better is never true, and an
honest study supports it in 5 of 100 cases at an alpha of 0.05. Each way is walked many times with
new luck. Beside today's rule (`analysis.registry`) stands the one that looked at a study's own
earlier results alone; "untold" are verdicts beside which nothing stands at all: registered, and
neither the same contrast on another config nor a gap in the record is told.

    python benchmarks/ways_round.py [--studies 400]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ablations.contrasts import ScoreKey
from ablations.deciding import claim_stages, claims_of, decide
from ablations.plan import Plan, make_plan
from ablations.verdicts import Verdict
from analysis.registry import Registered, Registry, turned_back
from mm1.studies import load_study
from sweeps.records import Look, Registration
from sweeps.store import registration_mark, registration_name

SIZES = {"one_at_a_time": {"encoder.image_size": [32, 16]}}
BETTER = "effect(encoder.image_size, 16 -> 32) > 0"
RECIPE = {"training": {"steps": 100, "batch_size": 4}, "evaluation": {"easy_vqa": {}}}
MANY = 6  # arms to pick the best of


class World:
    """One history of a store under the null: registrations, results, looks and their times."""

    def __init__(self, plans: Plans, seed: int):
        self.plans, self._luck = plans, np.random.default_rng(seed)
        self._values: dict[tuple[int, int, int], float] = {}  # image size, seed, shots → score
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self.finished: dict[str, str] = {}
        self.registered: list[Registered] = []
        self.looks: dict[tuple[str, str], Look] = {}

    def _now(self) -> str:
        self.clock += timedelta(minutes=1)
        return self.clock.isoformat(timespec="milliseconds")

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
            before=tuple(map(_mark, self.registered)),
        )
        self.registered.append(Registered(plan, made))
        return self.registered[-1]

    def run(self, plan: Plan) -> Registered:
        """Register a study and finish what is missing of it."""
        registered = self.register(plan)
        for stage in plan.stages:
            self.finished.setdefault(stage, self._now())
        return registered

    def look(self, plan: Plan) -> None:
        """What `mm1 compare` leaves when it shows all results of a study."""
        newest = max(self.finished[stage] for stage in plan.stages)
        look = Look(at=self._now(), done=len(plan.stages), newest=newest, by="mm1 compare")
        self.looks.setdefault((plan.study, plan.hash), look)

    def draw_again(self) -> None:
        """Other luck for all that has no result any more."""
        self._values.clear()

    def verdicts(self, plan: Plan) -> list[Verdict]:
        """What the claims come to."""
        return decide(
            claims_of(plan),
            self.scores(plan),
            seeds=plan.seeds,
            alpha=plan.alpha,
            tasks=plan.tasks,
        )

    def scores(self, plan: Plan) -> dict[ScoreKey, dict[int, float]]:
        """What is measured; a config that hardly differs scores alike with the same seed."""
        sizes = {arm.name: arm.config["encoder"]["image_size"] for arm in plan.arms}
        scores: dict[ScoreKey, dict[int, float]] = {}
        for trial in plan.trials:
            for one in plan.answers(trial):
                key = ScoreKey(trial.arm, one.task, "accuracy", one.shots, one.condition)
                place = (sizes[trial.arm], trial.seed, one.shots)
                if place not in self._values:
                    self._values[place] = 50 + self._luck.normal()
                scores.setdefault(key, {})[trial.seed] = self._values[place]
        return scores

    def is_false(self, one: Registered) -> bool:
        """Whether any claim is supported."""
        return any(verdict.verdict == "supported" for verdict in self.verdicts(one.plan))

    def registry(self) -> Registry:
        """The store as it is now, for today's rule."""
        return Registry(
            self.registered,
            self.finished.get,
            lambda plan: self.looks.get((plan.study, plan.hash)),
            lambda one: self.scores(one.plan),
        )

    def decided(self, one: Registered) -> dict[str, Verdict]:
        """The verdicts that are shown of a registration, each in the family that counts for it."""
        found = {}
        for name, history in self.registry().histories(one).items():
            plan = history.counts.plan
            meant = {claim: plan.claims[claim] for claim in history.family}
            there = plan.model_copy(update={"claims": meant})
            found[name] = next(v for v in self.verdicts(there) if v.name == history.name)
        return found

    def standings(self, one: Registered) -> dict[str, str]:
        """Claim → standing by today's rule, "told" where more stands beside the verdict."""
        registry = self.registry()
        there = set(map(_mark, self.registered))
        gone = any(set(other.registration.before) - there for other in self.registered)
        related = registry.related(one.plan)
        gap = gone or any(
            turned_back(other, one)
            or (other.plan.study == one.plan.study and registry.replaced(other))
            for other in related
        )
        found = {}
        for name, history in registry.histories(one).items():
            told = history.standing == "registered" and (history.elsewhere or history.since or gap)
            found[name] = "registered, told" if told else history.standing
        return found

    def standings_before(self, one: Registered) -> dict[str, str]:
        """Claim → standing by the rule that looked at the study's own results alone."""
        found = {}
        for name, own in claim_stages(one.plan).items():
            known = own & set(one.registration.known_stages)
            found[name] = "registered" if not known else "known"
        return found


def _mark(one: Registered) -> str:
    return registration_mark(one.plan.study, registration_name(one.plan))


class Plans:
    """Plans of small studies, each made once."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._made: dict[str, Plan] = {}

    def __call__(
        self, study: str = "s", overrides: dict[str, Any] | None = None, **keys: Any
    ) -> Plan:
        """The plan of the standard study with some keys changed."""
        file = {
            "study": study,
            "question": "Is it better?",
            "base": "recipe.yaml",
            "design": SIZES,
            "seeds": [0, 1, 2, 3, 4],
            "primary_metric": "easy_vqa.accuracy",
            "claims": {"better": BETTER},
            "overrides": overrides or {},
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


def best_of_many(world: World, overrides: dict[str, Any] | None = None) -> Registered:
    """Look at many arms, pick the pair that differs most, register it with another epsilon."""
    sizes = [16 * (n + 1) for n in range(MANY)]
    many = {"one_at_a_time": {"encoder.image_size": sizes}}
    pairs = [(a, b) for a in sizes for b in sizes if a != b]
    claims = {f"{a}-{b}": f"effect(encoder.image_size, {a} -> {b}) > 0" for a, b in pairs}
    world.run(world.plans("many", design=many, claims={}))
    seen = world.verdicts(world.plans("many", design=many, claims=claims))
    best = min(seen, key=lambda verdict: verdict.p_value if (verdict.effect or 0) > 0 else 1)
    near = overrides or {"optimizer.eps": 1.0001e-8}
    return world.run(world.plans("picked", near, design=many, claims={"picked": claims[best.name]}))


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


def setting_that_does_nothing(world: World) -> Registered:
    """The same, registered with a head width written out that is the default: the same model."""
    return best_of_many(world, {"language_model.head_width": 16})


def does_nothing_other_seeds(world: World) -> Registered:
    """Other seeds, each time with another value of a setting that does nothing."""
    for number in range(5):
        setting = {"training.divergence.most": 10 + 3 * number}
        one = world.run(world.plans(f"s{number}", setting, seeds=seeds_from(10 * number)))
        if world.is_false(one):
            break
    return one


def in_pieces(world: World) -> Registered:
    """Look at each arm in a study of its own, then register the pair that differs most."""
    sizes = [16 * (n + 1) for n in range(MANY)]
    near = {"optimizer.eps": 1.0001e-8, "encoder.image_size": 160}
    means = {}
    for size in sizes:
        arms = {"arms": {"one": {"encoder.image_size": size}}}
        plan = world.run(world.plans(f"piece{size}", near, design=arms, claims={})).plan
        score = world.plans(f"piece{size}", near, design=arms, claims={"is": "score(one) > 0"})
        (seen,) = world.verdicts(score)
        assert plan.stages.keys() == score.stages.keys()
        means[size] = seen.effect or 0.0
    worst, best = min(sizes, key=means.__getitem__), max(sizes, key=means.__getitem__)
    arms = {"arms": {"a": {"encoder.image_size": best}, "b": {"encoder.image_size": worst}}}
    return world.run(world.plans("whole", design=arms, claims={"better": "score(a) > score(b)"}))


def other_shots(world: World) -> Registered:
    """Other seeds and another number of examples in the prompt, until there is a verdict."""
    for number, shots in enumerate((4, 2, 1, 8, 0)):
        one = world.run(
            world.plans(
                f"shots{shots}",
                {"evaluation.easy_vqa.shots": [shots]},
                seeds=seeds_from(10 * number),
            )
        )
        if world.is_false(one):
            break
    return one


def family_made_smaller(world: World) -> Registered:
    """Nine claims in one study, each registered once more by itself, so that none is corrected."""
    sizes = [16 * (n + 1) for n in range(18)]
    pairs = list(zip(sizes[::2], sizes[1::2], strict=True))
    claims = {f"c{a}": f"effect(encoder.image_size, {a} -> {b}) > 0" for a, b in pairs}

    def design(*levels: int) -> dict[str, Any]:
        base = [32] if 32 not in levels else []
        return {"one_at_a_time": {"encoder.image_size": [*base, *levels]}}

    whole = world.plans("whole", design=design(*sizes), claims=claims)
    world.register(whole)
    for a, b in pairs:
        world.register(
            world.plans(f"single{a}", design=design(a, b), claims={f"c{a}": claims[f"c{a}"]})
        )
    return world.run(whole)


def brought_in(world: World) -> Registered:
    """Five sets of seeds in another store; one is registered here, then its results are copied."""
    for number in range(5):
        one = world.run(world.plans(seeds=seeds_from(10 * number)))
        if world.is_false(one):
            break
    results = {stage: world.finished[stage] for stage in one.plan.stages}
    world.registered.clear()
    world.finished.clear()
    one = world.register(one.plan)
    world.finished |= results
    return one


def registrations_removed(world: World) -> Registered:
    """Five sets of seeds; the registrations of those without a verdict are removed at the end."""
    one = other_seeds(world)
    world.registered = [one]
    return one


def results_removed(world: World) -> Registered:
    """The results of sets without a verdict are removed, after `mm1 compare` has shown them."""
    for number in range(5):
        one = world.run(world.plans(f"s{number}", seeds=seeds_from(10 * number)))
        if world.is_false(one):
            break
        world.look(one.plan)
        for stage in one.plan.stages:
            del world.finished[stage]
    return one


def made_anew(world: World) -> Registered:
    """A trainer that is never the same twice: results are removed and made anew, up to five times.

    `mm1 compare` has shown each.
    """
    plan = world.plans()
    for _ in range(5):
        world.finished.clear()
        world.draw_again()
        one = world.run(plan)
        world.look(plan)
        if world.is_false(one):
            break
    return one


def clock_turned_back(world: World) -> Registered:
    """Other seeds with the clock a year ahead; the last set with the clock as it should be."""
    world.clock += timedelta(days=365)
    for number in range(5):
        one = world.run(world.plans(f"s{number}", seeds=seeds_from(10 * number)))
        if world.is_false(one):
            break
    # Its results are made once more, the same: whatever decides them is the same.
    for stage in one.plan.stages:
        del world.finished[stage]
    world.clock -= timedelta(days=365)
    return world.run(one.plan.model_copy(update={"study": "last"}))


def later_one_hidden(world: World) -> Registered:
    """Two sets of seeds; the first is reported, whatever the second says."""
    one = world.run(world.plans())
    world.run(world.plans("again", seeds=seeds_from(10)))
    return one


def one_arm_a_study(world: World) -> Registered:
    """Nine studies of one arm each beside the same base; the one with a verdict is reported."""
    for number in range(1, 10):
        size = 32 + 16 * number
        design = {"one_at_a_time": {"encoder.image_size": [32, size]}}
        claim = {"better": f"effect(encoder.image_size, 32 -> {size}) > 0"}
        one = world.run(world.plans(f"arm{size}", design=design, claims=claim))
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
    "setting that does nothing": setting_that_does_nothing,
    "and other seeds": does_nothing_other_seeds,
    "in pieces": in_pieces,
    "other shots": other_shots,
    "family made smaller": family_made_smaller,
    "brought in": brought_in,
    "registrations removed": registrations_removed,
    "results removed": results_removed,
    "made anew": made_anew,
    "clock turned back": clock_turned_back,
    "later one hidden": later_one_hidden,
    "one arm a study": one_arm_a_study,
    "another store": another_store,
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=400, help="histories a way")
    studies = parser.parse_args().studies
    print(f"{'way':<28}{'false':>8}{'before':>9}{'registered':>12}{'untold':>9}")
    with tempfile.TemporaryDirectory() as folder:
        plans = Plans(Path(folder))
        for name, way in WAYS.items():
            counts = np.zeros(4)
            for number in range(studies):
                world = World(plans, number)
                one = way(world)
                wrong = {v.name for v in world.verdicts(one.plan) if v.verdict == "supported"}
                shown = {k for k, v in world.decided(one).items() if v.verdict == "supported"}
                before, now = world.standings_before(one), world.standings(one)
                counts += [
                    bool(wrong | shown),
                    any(before[claim] == "registered" for claim in wrong),
                    any(now[claim].startswith("registered") for claim in shown),
                    any(now[claim] == "registered" for claim in shown),
                ]
            shares = counts / studies
            print(
                f"{name:<28}{shares[0]:>8.3f}{shares[1]:>9.3f}{shares[2]:>12.3f}{shares[3]:>9.3f}"
            )


if __name__ == "__main__":
    main()
