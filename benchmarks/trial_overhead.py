"""Time per trial that does nothing: ours against Ray Tune with reused actors, in one run.

    python benchmarks/trial_overhead.py --trials 300

A trial of ours is two stages, a training and an evaluation, whose results are in the store with
checksums when it ends. Starting the workers costs both sides the same few seconds; what counts is
what a further trial adds: the time that passes, and the seconds of the processor in all processes,
which other load on the machine hardly lengthens (with C cores at least processor / C passes).
Planning and registering the study are in ours.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from processor_time import Processor

ROOT = Path(__file__).resolve().parent.parent
CORES = 2
FEW = 4
STAGES = 2  # of a trial

STUDY = """\
study: noop
question: What does a trial cost that does nothing?
base: {base}
overrides: {{optimizer.peak_lr: 0.001}}
design:
  one_at_a_time:
    optimizer.peak_lr: [{levels}]
seeds: 1
primary_metric: easy_vqa.accuracy
runners:
  multimodal: noop:train
  evaluation: noop:evaluate
"""


def ours(trials: int, folder: Path) -> float:
    """Seconds for a study of `trials` trials, from its file to its last result."""
    from ablations.plan import make_plan
    from mm1.studies import load_study
    from sweeps.run import run_plan

    recipe = yaml.safe_load((ROOT / "ablations" / "recipes" / "mini.yaml").read_text("utf-8"))
    recipe["evaluation"] = {"easy_vqa": {"shots": [0], "conditions": ["intact"], "items": None}}
    base = folder / "base.yaml"
    base.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    rates = ", ".join(f"{0.001 * (1 + number):.3f}" for number in range(trials))
    study = folder / "noop.yaml"
    study.write_text(STUDY.format(base=base, levels=rates), encoding="utf-8")
    start = time.perf_counter()
    plan = make_plan(load_study(study))
    code = run_plan(
        plan, folder / "store", data=folder, workers=CORES, mlflow_uri="off", quiet=True
    )
    seconds = time.perf_counter() - start
    if code or len(plan.trials) != trials or len(plan.stages) != STAGES * trials:
        raise RuntimeError(f"{len(plan.trials)} trials, {len(plan.stages)} stages, code {code}")
    return seconds


def tune_function(trials: int, folder: Path) -> float:
    """Seconds for the same number of trials in Ray Tune, each a function that reports once."""
    from ray import tune

    def noop(config):
        tune.report({"accuracy": 50.0})

    return _fit(noop, trials, folder)


def tune_class(trials: int, folder: Path) -> float:
    """The same with a class that can be reset, the cheapest that Tune offers."""
    from ray import tune

    class Noop(tune.Trainable):
        def setup(self, config):
            pass

        def step(self):
            return {"accuracy": 50.0, "done": True}

        def reset_config(self, new_config):
            return True

        def save_checkpoint(self, checkpoint_dir):
            pass

        def load_checkpoint(self, checkpoint):
            pass

    return _fit(Noop, trials, folder)


def _fit(trainable: Any, trials: int, folder: Path) -> float:
    from ray import tune

    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"rate": tune.grid_search([0.001 * (1 + n) for n in range(trials)])},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    )
    start = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - start
    if results.num_errors or len(results) != trials:
        raise RuntimeError(f"{len(results)} trials, {results.num_errors} errors")
    return seconds


def measured(
    way: Callable[[int, Path], float], trials: int, processor: Processor
) -> tuple[float, float]:
    """Seconds that pass, and those of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        before = processor.seconds()
        return way(trials, Path(folder)), processor.seconds() - before


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    if trials <= FEW:
        parser.error(f"--trials must be above {FEW}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune prints no table per trial
    sys.path.insert(0, str(ROOT))
    import ray

    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    print(f"{trials} no-op trials on {CORES} cores: all of it, start of workers included, and")
    print(f"what each trial beyond the first {FEW} adds")
    processor = Processor()
    first: list[float] = []
    ways = {"mm1": ours, "Tune, function": tune_function, "Tune, class": tune_class}
    for name, way in ways.items():
        measured(way, FEW, processor)  # imports, and workers' first start
        few, many = (measured(way, number, processor) for number in (FEW, trials))
        each = [(end - start) / (trials - FEW) for start, end in zip(few, many, strict=True)]
        first = first or each
        passed, worked = (
            f"{1000 * one:6.1f} ms (ratio {one / ours:4.1f})"
            for one, ours in zip(each, first, strict=True)
        )
        print(f"  {name:15} {many[0]:6.1f} s; each {passed}, processor {worked}")


if __name__ == "__main__":
    main()
