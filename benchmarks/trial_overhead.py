"""Time per trial that does nothing: ours against Ray Tune with reused actors, in one run.

    python benchmarks/trial_overhead.py --trials 300

A trial of ours is two stages, a training and an evaluation, whose results are in the store with
checksums when it ends. Starting the workers costs both sides the same few seconds; what counts is
what a further trial adds.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CORES = 2
FEW = 4

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

    base = ROOT / "ablations" / "recipes" / "mini.yaml"
    rates = ", ".join(f"{0.001 * (1 + number):.3f}" for number in range(trials))
    study = folder / "noop.yaml"
    study.write_text(STUDY.format(base=base, levels=rates), encoding="utf-8")
    start = time.perf_counter()
    plan = make_plan(load_study(study))
    code = run_plan(
        plan, folder / "store", data=folder, workers=CORES, mlflow_uri="off", quiet=True
    )
    seconds = time.perf_counter() - start
    if code or len(plan.trials) != trials:
        raise RuntimeError(f"{len(plan.trials)} trials, exit code {code}")
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
    each = {}
    ways = {"mm1": ours, "Tune, function": tune_function, "Tune, class": tune_class}
    for name, measure in ways.items():
        with tempfile.TemporaryDirectory() as warm:
            measure(FEW, Path(warm))  # imports, and workers' first start
        with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
            start, whole = measure(FEW, Path(few)), measure(trials, Path(many))
        each[name] = (whole - start) / (trials - FEW)
        ratio = each[name] / each["mm1"]
        print(f"  {name:15} {whole:6.1f} s {1000 * each[name]:8.1f} ms  ratio {ratio:6.1f}")


if __name__ == "__main__":
    main()
