"""Core seconds of a study of a small model: ours beside three ways to run its trials without us.

    python benchmarks/sweep_time.py                                   # 8 trials, 2 architectures
    python benchmarks/sweep_time.py --trials 100 --classes 10 --peers # ours alone

The same trials, a training and its evaluations, two at a time on one thread each, from nothing
compiled:

mm1 run          workers that stay, and one cache of compiled programs for all of them
shell loop       `mm1 train` and then `mm1 evaluate`, as anybody would call them, with that cache
Ray Tune         actors that are used again, which keep what they compiled in memory
process a trial  as a W&B agent starts a script: nothing is kept from one trial to the next

All train and evaluate with the same functions, and all must find the same scores, bit for bit.
Counted are seconds of the processor in all processes, which other load on the machine hardly
lengthens. For ours, the share of its core time that was training steps and evaluation batches is
what `mm1 timeline` says.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from processor_time import Processor

if TYPE_CHECKING:
    from ablations.plan import Plan
    from ablations.stages import Stage

ROOT = Path(__file__).resolve().parent.parent
CORES = 2
GOAL_SHARE, GOAL_RATIO = 0.95, 1.5
MM1 = [sys.executable, "-m", "mm1"]

STUDY = """\
study: sweep-time
question: What does a trial cost beyond its steps?
base: {base}
overrides: {{training.steps: {steps}}}
design:
  one_at_a_time:
    language_model.mlp_width: [{widths}]
seeds: {seeds}
primary_metric: easy_vqa.accuracy
"""

# The rows of each trial's evaluations, in a fixed order.
Scores = dict[tuple[str, int], list[tuple[Any, ...]]]


class Trials:
    """The trials of the study, each with what a way to run it takes."""

    def __init__(self, folder: Path, trials: int, classes: int, steps: int):
        from ablations.plan import make_plan
        from mm1.local import prepare_data
        from mm1.studies import load_study
        from mm1_jax.config.data import DataConfig

        base = ROOT / "ablations" / "recipes" / "mini.yaml"
        widths = ", ".join(str(192 + 32 * number) for number in range(1, classes))
        self.study = folder / "sweep-time.yaml"
        self.study.write_text(
            STUDY.format(base=base, steps=steps, widths=widths, seeds=trials // classes),
            encoding="utf-8",
        )
        self.data = prepare_data([DataConfig()], folder / "data")
        self.plan: Plan = make_plan(load_study(self.study))
        self.recipes: list[Path] = []
        self.stages: list[list[Stage]] = []
        configs = {arm.name: arm.config for arm in self.plan.arms}
        for number, trial in enumerate(self.plan.trials):
            recipe = folder / f"recipe-{number}.yaml"
            recipe.write_text(yaml.safe_dump(configs[trial.arm]), encoding="utf-8")
            self.recipes.append(recipe)
            self.stages.append([self.plan.stages[stage] for stage in trial.stages.values()])

    def scores(self, store_of: Callable[[int], Path]) -> Scores:
        """What a way has found, from the store of each trial."""
        from sweeps.store import Store

        found: Scores = {}
        for number, trial in enumerate(self.plan.trials):
            main = self.plan.main(trial)
            asked = [stage.id for stage in self.stages[number] if stage.id != main]
            rows = Store(store_of(number)).rows(asked)
            told = rows.astype(str).itertuples(index=False, name=None)
            found[trial.arm, trial.seed] = sorted(told)
            if not found[trial.arm, trial.seed]:
                raise RuntimeError(f"no scores of {trial.arm}, seed {trial.seed}")
        return found


def one_thread() -> dict[str, str]:
    """The environment of a worker of ours on one core, without its cache of compiled programs."""
    from ablations.resources import Shape
    from mm1_jax.scale.compilation_cache import cache_variables
    from mm1_jax.scale.execution import environment
    from sweeps.isolation import isolated

    made = {**os.environ, **isolated(Shape()), **environment(Shape(), "")}
    for name in cache_variables(""):
        del made[name]
    return made | {"RAY_USAGE_STATS_ENABLED": "0"}


def call(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a program to its end; what it said is told when it failed."""
    ended = subprocess.run(
        [str(one) for one in command],
        cwd=folder,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if ended.returncode:
        raise RuntimeError(f"{command}: exit code {ended.returncode}\n{ended.stdout[-3000:]}")


def ours(trials: Trials, folder: Path) -> Scores:
    """`mm1 run` of the study."""
    store = folder / "store"
    run = [*MM1, "run", trials.study, "--store", store, "--data", trials.data]
    call([*run, "--workers", str(CORES), "--mlflow", "off"], folder, os.environ)
    return trials.scores(lambda number: store)


def shell_loop(trials: Trials, folder: Path) -> Scores:
    """For each trial `mm1 train` and `mm1 evaluate`; what was compiled is kept in their store."""
    where = ["--store", folder / "store", "--data", trials.data]
    variables = one_thread()

    def one(number: int) -> None:
        recipe, run = trials.recipes[number], folder / f"run-{number}"
        seed = str(trials.plan.trials[number].seed)
        call([*MM1, "train", recipe, "--seed", seed, "--out", run, *where], folder, variables)
        call([*MM1, "evaluate", run, "--recipe", recipe, *where], folder, variables)

    with ThreadPoolExecutor(CORES) as lanes:
        list(lanes.map(one, range(len(trials.recipes))))
    return trials.scores(lambda number: folder / f"run-{number}")


def process_a_trial(trials: Trials, folder: Path) -> Scores:
    """For each trial a process that trains and evaluates."""

    def one(number: int) -> None:
        given = folder / f"{number}.pickle"
        given.write_bytes(pickle.dumps(trials.stages[number]))
        command = [sys.executable, __file__, "--one", given, folder / str(number), trials.data]
        call(command, folder, one_thread())

    with ThreadPoolExecutor(CORES) as lanes:
        list(lanes.map(one, range(len(trials.stages))))
    return trials.scores(lambda number: folder / str(number))


def ray_tune(trials: Trials, folder: Path) -> Scores:
    """A grid search over the trials, with actors that are used again."""
    given = folder / "trials.pickle"
    given.write_bytes(pickle.dumps(trials.stages))
    call([sys.executable, __file__, "--tune", given, folder, trials.data], folder, one_thread())
    return trials.scores(lambda number: folder / str(number))


def train_and_evaluate(stages: Sequence[Stage], store: Path, data: Path) -> None:
    """The training function of the other ways: that of ours, in this process."""
    from mm1.local import run_stage
    from sweeps.store import Store

    for stage in stages:
        run_stage(Store(store), stage, data, threading.Event())


def tune(stages: Sequence[Sequence[Stage]], folder: Path, data: Path) -> None:
    """In the process of its own that is Ray Tune's driver."""
    import ray
    from ray import tune

    ray.init(address="local", num_cpus=CORES, include_dashboard=False, _node_ip_address="127.0.0.1")

    def trial(config: dict[str, int]) -> None:
        number = config["number"]
        train_and_evaluate(stages[number], folder / str(number), data)
        tune.report({"done": 1})

    results = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(len(stages))))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} of {len(results)} trials failed")


def useful_share(store: Path) -> float:
    """Of the core time of our run, what was training steps and evaluation batches."""
    from analysis import timeline
    from sweeps.store import Store

    return timeline.useful_share(timeline.load_timeline(Store(store), "sweep-time").core_seconds())


def main() -> None:
    """Run the study in each way and print what each took."""
    if sys.argv[1:2] in (["--one"], ["--tune"]):
        sys.path.insert(0, str(ROOT))
        given, folder, data = map(Path, sys.argv[2:])
        does: Callable[..., None] = train_and_evaluate if sys.argv[1] == "--one" else tune
        does(pickle.loads(given.read_bytes()), folder, data)
        return
    ways = {
        "mm1 run": ours,
        "shell loop": shell_loop,
        "Ray Tune": ray_tune,
        "process a trial": process_a_trial,
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--classes", type=int, default=2, help="architectures among them")
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    parser.add_argument("--peers", nargs="*", choices=list(ways)[1:], default=list(ways)[1:])
    asked = parser.parse_args()
    if asked.classes < 2 or asked.trials % asked.classes:
        parser.error("--trials must be some seeds of --classes, which are two or more")
    sys.path.insert(0, str(ROOT))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    processor = Processor()
    with tempfile.TemporaryDirectory() as place:
        trials = Trials(Path(place), asked.trials, asked.classes, asked.steps)
        print(f"{asked.trials} trials of {asked.steps} steps in {asked.classes} architectures")
        first, expected = 0.0, {}
        for name in ["mm1 run", *asked.peers]:
            folder = Path(place) / name.replace(" ", "-")
            folder.mkdir()
            at, before = time.perf_counter(), processor.seconds()
            scores = ways[name](trials, folder)
            passed, spent = time.perf_counter() - at, processor.seconds() - before
            first, expected = first or spent, expected or scores
            if scores != expected:
                raise RuntimeError(f"{name} has other scores than mm1 run")
            line = f"  {name:<16}{spent:8.1f} core seconds, {spent / asked.trials:6.1f} a trial, "
            line += f"{spent / first:5.2f} x ours, {passed:7.1f} s passed"
            if name == "mm1 run":
                share = useful_share(folder / "store")
                line += f", {100 * share:.1f} % of it steps and evaluation"
                line += f" (goal {100 * GOAL_SHARE:.0f} %)"
            else:
                line += f" (goal {GOAL_RATIO} x)"
            print(line, flush=True)


if __name__ == "__main__":
    main()
