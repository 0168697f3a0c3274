"""Seconds and memory that reading a large finished study takes, beside MLflow's reading of one.

    .venv/bin/python benchmarks/reading.py                      10,000 trials of 5 stages
    .venv/bin/python benchmarks/reading.py --arms 200           2,000 trials
    .venv/bin/python benchmarks/reading.py --store FOLDER       made once, measured again

The study is a factorial design with ten seeds. A trial is a training, which logged three metrics at
40 steps, and four evaluations; its records are written by the store's own functions, without
waiting for the disk. Every line is a new process; what the machine has read before is in its page
cache, as it is for whoever looks at a study again. Seconds of the processor are those that other
work on the machine hardly lengthens. `without index` is the first look at a store
whose index was removed. MLflow has the runs of a smaller study of the same kind in SQLite, one a
trial, with the last values of its metrics alone; ours beside it is of the same trials.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEEDS, STEPS, CORES = 10, 40, 2
STUDY = """\
study: {name}
question: How long is read?
base: {base}
overrides:
  optimizer.peak_lr: 0.001
  evaluation.easy_vqa.conditions: [intact, shuffled]
design:
  factorial:
    optimizer.peak_lr: {rates}
    optimizer.weight_decay: {decays}
    training.steps: {steps}
seeds: {seeds}
primary_metric: easy_vqa.accuracy
claims:
  sees: score(base) > score(base, condition=shuffled)
  faster-is-better: effect(optimizer.peak_lr, {first} -> {second}) > 0
"""
# Text of a program → what it is, and its goal in seconds.
READ = "from analysis.results import load_results; r = load_results({name!r}, {store!r})"
LOOK = """
import time
from analysis.dashboard.view import Views
from sweeps.store import Store
views, view, state = Views(Store({store!r})), None, None
for number in range(6):
    started = time.perf_counter()
    view, state = views.look({name!r}, view, state)
    view.comparison
    if number in (0, 5):
        print("first" if number == 0 else "again", time.perf_counter() - started)
"""
SEARCH = """
import mlflow
mlflow.set_tracking_uri({uri!r})
assert len(mlflow.search_runs(search_all_experiments=True, max_results=50_000)) == {runs}
"""


def make(folder: Path, name: str, arms: int) -> int:
    """A store with a finished study of `arms` arms; how many stages it has."""
    from ablations.plan import make_plan
    from mm1.studies import load_study
    from sweeps.store import Store

    sides = _sides(arms)
    rates = [round(0.001 * (1 + number / 10), 6) for number in range(sides[0])]
    text = STUDY.format(
        name=name,
        base=ROOT / "ablations" / "recipes" / "mini.yaml",
        rates=rates,
        decays=[round(0.01 * (1 + number), 4) for number in range(sides[1])],
        steps=[200 + 10 * number for number in range(sides[2])],
        seeds=SEEDS,
        first=rates[0],
        second=rates[1],
    )
    path = folder / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    plan = make_plan(load_study(path), many=True)
    Store(folder / "store").register(plan)
    stages = list(plan.stages.values())
    parts = [(str(folder / "store"), stages[start::CORES]) for start in range(CORES)]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        pool.starmap(_finish, parts)
    return len(stages)


def _sides(arms: int) -> tuple[int, int, int]:
    """Levels of three factors that make about so many arms."""
    side = max(2, round(arms ** (1 / 3)))
    return max(2, round(arms / side / side)), side, side


def _finish(root: str, stages: list[Any]) -> None:
    from sweeps import objects
    from sweeps.store import Store

    setattr(objects, "flush", lambda path: None)  # noqa: B010 - it need not outlive the power
    opened = Store(root)
    for stage in stages:
        execution = {
            "seconds": 40.0,
            "cpu_seconds": 39.0,
            "compilation_seconds": 3.0,
            "started_at": 1.7e9,
            "device_kind": "cpu",
            "device_count": 1,
            "threads": 1,
            "machine": "x86_64",
            "python": "3.11.7",
            "libraries": {f"library-{number}": f"1.{number}.0" for number in range(12)},
            "host": f"machine-{stage.seed}",
            "git_revision": "0" * 40,
        }
        opened.finish(opened.begin(stage), list(_rows(stage)), execution)


def _rows(stage: Any) -> Iterator[Any]:
    from ablations.stage import ResultRow

    draw = int(stage.id[:8], 16) / 2**32
    if "task" not in stage.config:
        for step in range(1, STEPS + 1):
            for metric in ("loss", "grad_norm", "tokens_per_second"):
                yield ResultRow("training", metric, draw + 5 / math.sqrt(step), step=5 * step)
        return
    task, shots, condition = (stage.config[key] for key in ("task", "shots", "condition"))
    names = ["perplexity"]
    if task == "easy_vqa":
        parts = ("color", "shape", "yes_no")
        names = ["accuracy", *(f"accuracy/answer_type:{part}" for part in parts)]
        names += ["blind_accuracy", "oracle_accuracy"] if condition == "intact" else []
    elif task == "emoji_caption":
        names = ["cider", "bleu_4", "rouge_l"]
    for number, metric in enumerate(names):
        value = 60 + 10 * draw - number
        yield ResultRow(task, metric, value, "test", shots, condition, 1000, 200, 0.5)


def to_mlflow(root: Path, name: str, uri: str) -> int:
    """One run a trial, with its last values; how many."""
    import mlflow
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    from analysis.results import load_results

    results = load_results(name, root)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    experiment = client.create_experiment(name)
    rows = results.evaluations
    trials = rows[["arm", "seed"]].drop_duplicates()
    for arm, seed in trials.itertuples(index=False):
        own = rows[(rows["arm"] == arm) & (rows["seed"] == seed)]
        run = client.create_run(experiment, run_name=f"{arm} {seed}")
        metrics = {
            f"{task}_{condition}_{metric}".replace(":", "_"): value
            for task, condition, metric, value in own[
                ["task", "condition", "metric", "value"]
            ].itertuples(index=False)
        }
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(key, value, 0, 0) for key, value in metrics.items()],
            params=[Param("arm", str(arm)[:500]), Param("seed", str(seed))],
        )
        client.set_terminated(run.info.run_id)
    return len(trials)


def measured(command: list[str]) -> tuple[float, float, float, str]:
    """Seconds, those of the processor, peak memory in bytes and output of a new process."""
    # A Python that keeps what it has compiled, as everybody's does.
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.DEVNULL, env=kept
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        file.seek(0)
        output = file.read().decode()
    if status:
        raise RuntimeError(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    worked = usage.ru_utime + usage.ru_stime
    return seconds, worked, usage.ru_maxrss * 1024.0, output


def _program(text: str, **names: object) -> list[str]:
    return [sys.executable, "-c", text.format(**names)]


def line(what: str, command: list[str], goal: str = "", tries: int = 3) -> None:
    """Print one line of the table: the quickest try, the largest memory."""
    found = [measured(command) for _ in range(tries)]
    seconds, worked = (min(one[column] for one in found) for column in (0, 1))
    memory = max(one[2] for one in found)
    told = f"{seconds:8.2f} s {worked:8.2f} s {memory / 1e9:8.2f} GB  {goal}"
    print(f"{what:<44} {told}".rstrip(), flush=True)


def measure(store: str, name: str) -> None:
    """Print how long each view of a study takes."""
    mm1 = [sys.executable, "-m", "mm1"]
    flat = f"{store}/../flat.parquet"
    rows = READ.format(name=name, store=store) + f"; r.evaluations.to_parquet({flat!r})"
    measured(_program("{rows}", rows=rows))  # in a process of its own, whose memory is not ours
    folder = Path(store, "index")
    shutil.rmtree(folder, ignore_errors=True)
    read = READ.format(name=name, store=store) + "; r.scores(); r.problems"
    print(f"{'':<44} {'seconds':>10} {'processor':>10} {'memory':>11}")
    line("first StudyResults, without index", _program("{read}", read=read), tries=1)
    size = sum(path.stat().st_size for path in folder.glob("*")) if folder.exists() else 0
    print(f"    its index has {size / 1e6:.1f} MB")
    for what, command, goal in (
        ("mm1 status", [*mm1, "status", "--store", store], "goal: 2 s, 1 GB"),
        ("mm1 compare --json", [*mm1, "compare", name, "--store", store, "--json"], "goal: 4 s"),
        ("first StudyResults: scores, problems", _program("{read}", read=read), "goal: 3 s"),
        ("    of it: reading the plan", _program(PLAN, name=name, store=store), ""),
        ("    of it: Python with pandas", _program("import pandas"), ""),
        ("pandas: one file of all rows of evaluations", _program(FLAT, place=flat), ""),
    ):
        line(what, command, goal)
    output = measured(_program(LOOK, name=name, store=store))[-1]
    took = {key: float(value) for key, value in map(str.split, output.splitlines())}
    print(f"{'dashboard, first look':<44} {took['first']:8.2f} s")
    print(f"{'dashboard, nothing changed':<44} {1000 * took['again']:8.1f} ms  goal: 50 ms")


FLAT = "import pandas; pandas.read_parquet({place!r})"
PLAN = "from sweeps.store import Store; Store({store!r}).snapshot({name!r})"


def main() -> None:
    """Make, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", type=int, default=1000)
    parser.add_argument("--store", type=Path, help="folder to make it in, and to find it in again")
    parser.add_argument("--peer-arms", type=int, default=50, help="of MLflow's; 0: without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.store or Path(scratch)
        if not (folder / "store").exists():
            started = time.perf_counter()
            stages = make(folder, "reading", given.arms)
            took = time.perf_counter() - started
            print(f"made {stages:,} finished stages in {took:.0f} s")
        measure(str(folder / "store"), "reading")
        if given.peer_arms:
            peer = Path(scratch) / "peer"
            make(peer, "peer", given.peer_arms)
            uri = f"sqlite:///{peer}/mlflow.db"
            runs = to_mlflow(peer / "store", "peer", uri)
            print(f"the same {runs:,} trials:")
            store = str(peer / "store")
            read = READ.format(name="peer", store=store) + "; r.scores()"
            line("ours: first StudyResults", _program("{read}", read=read))
            line("MLflow: search_runs, last values", _program(SEARCH, uri=uri, runs=runs))


if __name__ == "__main__":
    main()
