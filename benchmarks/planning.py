"""Seconds and memory that planning takes, beside Ray Tune's grid search and plain Python.

    .venv/bin/python benchmarks/planning.py                     10,000 and 100,000 trials, the demo
    .venv/bin/python benchmarks/planning.py --arms 1000         10,000 trials alone
    .venv/bin/python benchmarks/planning.py --imports           what the demo's plan imports

The study is a factorial design of our recipe with ten seeds. A trial is a training and four
evaluations; a claim takes the mean over half of the arms. Written and read is the plan as the store
keeps it, with its seal. Every line is a new process. Seconds are the clock's and, in brackets, the
processor's, which other load on the machine does not lengthen; memory is the most that was held.

Beside it, for the same trials: Ray Tune's variants of the same search space, each a config of four
numbers that is neither checked nor known by what decides it; and plain Python that copies the whole
config of each arm, sets the levels and hashes its JSON once a trial.

The demonstration is planned from the shell: `mm1 plan`, from the start of Python to its end. The
modules were compiled by a call before, as they are wherever Python may write.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "ablations" / "studies" / "demo.yaml"
RECIPE = ROOT / "ablations" / "recipes" / "mini.yaml"
SEEDS, SHOWN_IMPORTS = 10, 25
# Arms → most seconds and MB of planning them; of writing and of reading 1,000 arms.
GOALS = {1_000: (2.0, 300), 10_000: (15.0, 1_000)}
READING_GOAL, SHELL_GOAL = 1.0, 0.6
STUDY = f"""\
study: planned
question: How long is planned?
base: {RECIPE}
design:
  factorial:
    optimizer.peak_lr: {{peak_lr}}
    language_model.mlp_width: {{mlp_width}}
    data.mixture.easy_vqa: {{share}}
    training.steps: {{steps}}
seeds: {SEEDS}
primary_metric: easy_vqa.accuracy
claims:
  faster-is-better: effect(optimizer.peak_lr, 0.002 -> 0.004) > 0
  sees: score(base) > score(base, condition=shuffled)
"""
PLAN = """
from pathlib import Path
from ablations.plan import make_plan
from mm1.studies import load_study
from sweeps.records import sealed
made = make_plan(load_study(%(study)r), many=True)
print(len(made.stages), "stages, a stage's identity", next(iter(made.stages)))
"""
WRITE = """
Path(%(file)r).write_bytes(sealed(made))
"""
READ = """
from pathlib import Path
from ablations.plan import Plan
from sweeps.records import record_of
record_of(Path(%(file)r).read_bytes(), "plan.json", Plan)
"""
TUNE = """
from ray import tune
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.variant_generator import generate_variants
import time
started = time.process_time(), time.perf_counter()
space = {name: tune.grid_search(levels) for name, levels in %(levels)r.items()}
space["seed"] = tune.grid_search(list(range(%(seeds)d)))
made = [config for _, config in generate_variants(space)]
print(len(made), "trials")
"""
PLAIN = """
import copy, hashlib, itertools, json, time
from mm1_jax.workload import load_recipe
base = load_recipe(%(recipe)r).model_dump(mode="json")
started = time.process_time(), time.perf_counter()
made = {}
for values in itertools.product(*%(levels)r.values()):
    config = copy.deepcopy(base)
    for path, value in zip(%(levels)r, values):
        *groups, last = path.split(".")
        place = config
        for group in groups:
            place = place[group]
        place[last] = value
    for seed in range(%(seeds)d):
        text = json.dumps([config, seed], sort_keys=True)
        made[hashlib.sha256(text.encode()).hexdigest()] = config
print(len(made), "trials")
"""
# What a program adds to its own end: seconds of the clock and of the processor, memory in MB.
MEASURED = """
import json, resource, time
since = globals().get("started") or (0.0, %(clock)r)
print(json.dumps({
    "wall": (time.perf_counter() if "started" in globals() else time.time()) - since[1],
    "cpu": time.process_time() - since[0],
    "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def levels_of(arms: int) -> dict[str, list[float]]:
    """Path → levels whose combinations are 1,000 arms, or ten times as many."""
    return {
        "optimizer.peak_lr": [round(0.002 * (1 + i / 10), 6) for i in range(11) if i != 9],
        "language_model.mlp_width": [192 + 16 * i for i in range(10)],
        "data.mixture.easy_vqa": [round(0.85 - 0.02 * i, 4) for i in range(10)],
        "training.steps": [1000 + 100 * i for i in range(max(1, arms // 1000))],
    }


def measured(program: str, **values: object) -> dict[str, float]:
    """Run a program in a new process; what it took."""
    text = (program + MEASURED) % {**values, "clock": time.time()}
    ran = subprocess.run(
        [sys.executable, "-c", text],
        cwd=ROOT,
        env=compiled_in(Path(str(values["file"])).parent),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def say(what: str, took: dict[str, float], goal: tuple[float, float] | None = None) -> None:
    """One line."""
    line = f"{what:<44} {took['wall']:7.2f} s ({took['cpu']:6.2f} s) {took['mb']:6.0f} MB"
    print(line + (f"   goal {goal[0]:g} s, {goal[1]:g} MB" if goal else ""), flush=True)


def plan_of(arms: int, folder: Path) -> None:
    """Planning, writing and reading so many arms, and what stands beside it."""
    levels = levels_of(arms)
    study, file = folder / f"{arms}.yaml", folder / f"{arms}.json"
    names = {path.rpartition(".")[2].replace("easy_vqa", "share"): v for path, v in levels.items()}
    text = STUDY.format(**names)
    if len(levels["training.steps"]) == 1:
        text = text.replace(f"    training.steps: {levels['training.steps']}\n", "")
    study.write_text(text, encoding="utf-8")
    values = {
        "study": str(study),
        "file": str(file),
        "levels": levels,
        "seeds": SEEDS,
        "recipe": str(RECIPE),
    }
    print(f"{arms * SEEDS:,} trials: {arms:,} arms × {SEEDS} seeds, {5 * arms * SEEDS:,} stages")
    measured(PLAN, **values)  # compiles
    planned = measured(PLAN, **values)
    say("  mm1: plan", planned, GOALS[arms])
    say("  mm1: plan and write", measured(PLAN + WRITE, **values))
    read = measured(READ, **values)
    say(f"  mm1: read ({file.stat().st_size / 2**20:.1f} MiB)", read)
    for what, program in (
        ("Ray Tune: variants of the grid", TUNE),
        ("plain Python: product, JSON, SHA-256", PLAIN),
    ):
        beside = measured(program, **values)
        say(f"  {what}", beside)
        print(f"    mm1's plan takes {planned['cpu'] / beside['cpu']:.2f} times as much processor")


def demo(times: int) -> None:
    """`mm1 plan` of the demonstration, from the shell."""
    with tempfile.TemporaryDirectory() as folder:
        command = [Path(sys.executable).with_name("mm1"), "plan", DEMO, "--store", f"{folder}/none"]
        environment = compiled_in(folder)
        clock, processor = [], []
        for _ in range(times + 1):  # the first compiles
            started, before = time.perf_counter(), os.times()
            subprocess.run(
                command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
            )
            after = os.times()
            clock.append(time.perf_counter() - started)
            processor.append(sum(after[2:4]) - sum(before[2:4]))
    print(
        f"mm1 plan of the demonstration: {statistics.median(clock[1:]):.2f} s "
        f"({statistics.median(processor[1:]):.2f} s)   goal {SHELL_GOAL:g} s"
    )


def compiled_in(folder: str | Path) -> dict[str, str]:
    """An environment in which Python writes its compiled modules below a folder."""
    own = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
    return {**os.environ, **own}


def imports() -> None:
    """What the demonstration's plan imports, the longest first."""
    program = "import sys; sys.argv = ['mm1', 'plan', %r]; from mm1.__main__ import main; main()"
    command = [sys.executable, "-X", "importtime", "-c", program % str(DEMO)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):  # the first compiles
            ran = subprocess.run(
                command,
                cwd=ROOT,
                env=compiled_in(folder),
                capture_output=True,
                encoding="utf-8",
                check=True,
            )
    rows = []
    for line in ran.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            rows.append((int(own), name.strip()))
    print(f"{len(rows)} modules, {sum(own for own, _ in rows) / 1e6:.2f} s; by top package:")
    packages: dict[str, int] = {}
    for own, name in rows:
        top = name.partition(".")[0]
        packages[top] = packages.get(top, 0) + own
    for name, own in sorted(packages.items(), key=lambda one: -one[1])[:SHOWN_IMPORTS]:
        print(f"  {own / 1e3:7.1f} ms  {name}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, choices=list(GOALS), nargs="*", default=list(GOALS))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    asked = parser.parse_args()
    if asked.imports:
        imports()
        return
    print(f"{'':<44} {'clock':>9} (processor)   memory")
    with tempfile.TemporaryDirectory() as folder:
        for arms in asked.arms:
            plan_of(arms, Path(folder))
    demo(asked.times)


if __name__ == "__main__":
    main()
