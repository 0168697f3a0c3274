"""Time per trial that does nothing: ours against Ray Tune with reused actors, on one Ray.

    python benchmarks/trial_overhead.py --trials 32

A trial of ours is two stages, a training and an evaluation, whose results are in the store with
checksums when it ends. Both sides start their workers within the measured time.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORES = 2

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
    from ablations.study import load_study
    from sweeps.run import run_plan

    base = ROOT / "ablations" / "recipes" / "mini.yaml"
    rates = ", ".join(f"{0.001 * (1 + number):.3f}" for number in range(trials))
    study = folder / "noop.yaml"
    study.write_text(STUDY.format(base=base, levels=rates))
    start = time.perf_counter()
    plan = make_plan(load_study(study))
    code = run_plan(
        plan, folder / "store", data=folder, workers=CORES, mlflow_uri="off", quiet=True
    )
    seconds = time.perf_counter() - start
    if code or len(plan.trials) != trials:
        raise RuntimeError(f"{len(plan.trials)} trials, exit code {code}")
    return seconds


def tune(trials: int, folder: Path) -> float:
    """Seconds for the same number of trials in Ray Tune."""
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

    tuner = tune.Tuner(
        tune.with_resources(Noop, {"cpu": 1}),
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
    parser.add_argument("--trials", type=int, default=32)
    trials = parser.parse_args().trials
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
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(trials, Path(folder)) / trials
        theirs = tune(trials, Path(folder)) / trials
    print(f"{trials} no-op trials on {CORES} cores, start of workers included")
    print(f"  mm1       {1000 * mine:8.1f} ms per trial (2 stages)")
    print(f"  Ray Tune  {1000 * theirs:8.1f} ms per trial (actors reused)")
    print(f"  ratio     {theirs / mine:8.1f}")


if __name__ == "__main__":
    main()
