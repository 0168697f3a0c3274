"""Decisions a second and memory of the driver, with 1,000 simulated workers and the real store.

    .venv/bin/python benchmarks/driver.py                       100,000 trials on 1,000 workers
    .venv/bin/python benchmarks/driver.py --trials 10000
    .venv/bin/python benchmarks/driver.py --alone               the driver alone: nothing is written
    .venv/bin/python benchmarks/driver.py --folder /dev/shm/x   where the store is made, and removed

`sweeps.run.run_plan` runs as it is: registration, leases of the study, scheduler, progress, what
watchers read. In the place of Ray and its actors stand workers that take no time: a stage is
pickled, as it is for Ray, and a process writes its records with the store's own functions, without
waiting for the disk. These processes are on the same cores as the driver, as no cluster's would be,
so the driver's own seconds of the processor say what it holds. A decision is a stage handed out
and its outcome taken in. Ray's own time for a call is not in it (`benchmarks/trial_overhead.py`).

A trial is a training and an evaluation. Then a new process plans the study again and finds what is
there, as a driver does that was killed when half was done. Goals: 1,000 decisions a second, 1 GB,
10 s until a driver that starts again hands out its first stage (planning apart).
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SEEDS, WRITERS = 10, 2
STUDY = """\
study: driven
question: What does one driver hold?
base: {base}
design:
  factorial:
    optimizer.peak_lr: {rates}
    optimizer.weight_decay: {decays}
seeds: {seeds}
primary_metric: easy_vqa.accuracy
claims:
  faster-is-better: effect(optimizer.peak_lr, {rates[0]} -> {rates[1]}) > 0
"""


def planned(folder: Path, trials: int) -> Any:
    """A study of so many trials, as its plan."""
    from ablations.plan import make_plan
    from mm1.studies import load_study

    recipe = yaml.safe_load((ROOT / "ablations" / "recipes" / "mini.yaml").read_text("utf-8"))
    recipe["evaluation"] = {"easy_vqa": {"shots": [0], "conditions": ["intact"], "items": None}}
    base, study = folder / "base.yaml", folder / "driven.yaml"
    base.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    side = max(2, round((trials / SEEDS) ** 0.5))
    rates = [round(0.001 * (1 + number / 10), 6) for number in range(side)]
    decays = [round(0.01 * (1 + number / 10), 6) for number in range(side)]
    text = STUDY.format(base=base, rates=rates, decays=decays, seeds=SEEDS)
    study.write_text(text, encoding="utf-8")
    return make_plan(load_study(study), many=True)


class Writers:
    """Processes that write what simulated workers finish."""

    def __init__(self, store: str):
        context = multiprocessing.get_context("fork")
        self._lock, self._waiting = threading.Lock(), {}
        self._pipes = []
        for _ in range(WRITERS):
            here, there = context.Pipe()
            context.Process(target=_write, args=(store, there), daemon=True).start()
            self._pipes.append(here)

    def listen(self) -> None:
        """Take in what they have written; in the driver's process, once nothing is forked."""
        for pipe in self._pipes:
            threading.Thread(target=self._hear, args=(pipe,), daemon=True).start()

    def finish(self, stage: Any) -> Future[Any]:
        """The outcome of a stage, when its records are written."""
        future: Future[Any] = Future()
        with self._lock:
            self._waiting[stage.id] = future
            self._pipes[int(stage.id[:4], 16) % WRITERS].send_bytes(pickle.dumps(stage))
        return future

    def _hear(self, pipe: Any) -> None:
        while True:
            try:
                outcome = pipe.recv()
            except (EOFError, OSError):  # they end with this process
                return
            with self._lock:
                future = self._waiting.pop(outcome.stage)
            future.set_result(outcome)


def _write(root: str, pipe: Any) -> None:
    from ablations.stage import ResultRow
    from sweeps import objects
    from sweeps.store import Store
    from sweeps.worker import Outcome

    setattr(objects, "flush", lambda path: None)  # noqa: B010 - it need not outlive the power
    store = Store(root)
    while True:
        stage = pickle.loads(pipe.recv_bytes())
        draw = int(stage.id[:8], 16) / 2**32
        row = ResultRow("training", "loss", 1 + draw, step=1)
        if "task" in stage.config:
            row = ResultRow(stage.config["task"], "accuracy", 60 + draw, split="test", n_items=1000)
        execution = {
            "seconds": 40.0 + draw,
            "compilation_seconds": 3.0,
            "host": "simulated",
            "started_at": time.time(),
        }
        store.finish(store.begin(stage), [row], execution)
        pipe.send(Outcome(stage.id, "done", seconds=37.0 + draw))


class NoWriters:
    """In their place: a stage is done at once, and nothing of it is written."""

    def finish(self, stage: Any) -> Future[Any]:
        """Pickled too, as for another process."""
        from sweeps.worker import Outcome

        pickle.dumps(stage)
        future: Future[Any] = Future()
        future.set_result(Outcome(stage.id, "done", seconds=37.0))
        return future


class Session:
    """In the place of Ray."""

    embedded = True

    def __init__(self, cores: int):
        self.cores = cores

    def check(self) -> None:
        """Nothing can end."""


class SimulatedWorker:
    """In the place of an actor (`sweeps.pool.RemoteWorker`)."""

    writers: Writers | NoWriters

    def __init__(self, shape: object, node: str, *_: object):
        self._node = node

    def run(self, stage: Any) -> Future[Any]:
        """Done as soon as it is written."""
        return self.writers.finish(stage)

    def stop(self) -> None:
        """Nothing runs for long."""

    def go_on(self) -> None:
        """Nothing was stopped."""

    def ready(self) -> Future[list[str]]:
        """At once."""
        return _known([self._node])

    def signs(self) -> Future[Any]:
        """It was heard of just now."""
        from sweeps.watchdog import Signs

        return _known(Signs(0.0, ""))

    def kill(self) -> None:
        """There is no process."""


def _known(answer: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(answer)
    return future


def used() -> float:
    """Seconds of the processor that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak() -> float:
    """The most memory that this process held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def drive(folder: Path, trials: int, workers: int, *, writes: bool = True) -> None:
    """Run the study, and say what it took."""
    from sweeps import pool, run
    from sweeps.offer import Node

    started = used()
    plan = planned(folder, trials)
    SimulatedWorker.writers = NoWriters()
    if writes:
        SimulatedWorker.writers = Writers(str(folder / "store"))
        SimulatedWorker.writers.listen()
    took = used() - started
    print(f"planned {len(plan.trials):,} trials, {len(plan.stages):,} stages: {took:.1f} s")

    @contextlib.contextmanager
    def session(*_: object) -> Generator[Session]:
        yield Session(workers)

    first: list[float] = []
    started_stage = pool.Pool.start

    def start(self: Any, worker: str, stage: Any) -> None:
        first.append(used()) if not first else None
        started_stage(self, worker, stage)

    setattr(run, "ray_session", session)  # noqa: B010
    setattr(run, "offered", lambda: [Node("here", "", {"CPU": float(workers)}, {})])  # noqa: B010
    setattr(pool, "ActorWorker", SimulatedWorker)  # noqa: B010
    setattr(pool.Pool, "start", start)  # noqa: B010
    clock, started = time.perf_counter(), used()
    code = run.run_plan(
        plan, folder / "store", data=folder, workers=workers, mlflow_uri="off", quiet=True
    )
    seconds, worked = time.perf_counter() - clock, used() - first[0]
    if code:
        raise RuntimeError(f"the run ended with {code}")
    count = len(plan.stages)
    print(f"until the first stage is handed out: {first[0] - started:.1f} s of the processor")
    print(
        f"{count:,} decisions, {workers:,} workers: {seconds:.0f} s with the workers' writing on "
        f"the same {os.cpu_count()} cores; driver {worked:.1f} s of the processor, "
        f"{count / worked:,.0f} decisions/s, {peak() / 1e9:.2f} GB"
    )


def restart(folder: Path, trials: int, workers: int) -> None:
    """What a driver does that is started again, up to its first decision."""
    from sweeps.measured import measured_seconds
    from sweeps.progress import Progress
    from sweeps.scheduler import Scheduler
    from sweeps.store import Store

    plan = planned(folder, trials)
    marks = [(time.perf_counter(), used())]
    store = Store(folder / "store")
    store.register(plan)
    marks.append((time.perf_counter(), used()))
    done = store.done(plan.stages)
    marks.append((time.perf_counter(), used()))
    progress = Progress(plan, store, quiet=True)
    names = [f"worker {number}" for number in range(1, workers + 1)]
    measured = measured_seconds(store, plan, done)
    progress.scheduler = Scheduler(plan, done, names, measured=measured)
    progress.scheduler.next(names[0], time.monotonic())
    marks.append((time.perf_counter(), used()))
    progress.update()
    shown = time.perf_counter() - marks[-1][0]
    parts = [
        f"{what} {two[1] - one[1]:.1f} s"
        for what, one, two in zip(
            ("registering", "finding what is done", "scheduler"), marks, marks[1:], strict=False
        )
    ]  # fmt: skip
    print(
        f"started again with {len(done):,} of {len(plan.stages):,} done: "
        f"{marks[-1][1] - marks[0][1]:.1f} s of the processor, {marks[-1][0] - marks[0][0]:.1f} s "
        f"by the clock ({', '.join(parts)}); shown {shown:.1f} s later; {peak() / 1e9:.2f} GB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--alone", action="store_true", help="no stage is written, no restart")
    parser.add_argument("--part", choices=["drive", "restart"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        if given.part == "drive":
            drive(given.folder, given.trials, given.workers, writes=not given.alone)
        else:
            restart(given.folder, given.trials, given.workers)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        command = [sys.executable, __file__, "--folder", folder, "--trials", str(given.trials)]
        command += ["--workers", str(given.workers), "--part"]
        if given.alone:
            subprocess.run([*command, "drive", "--alone"], check=True, cwd=ROOT)
            return
        subprocess.run([*command, "drive"], check=True, cwd=ROOT)
        stages = Path(folder, "store", "stages")
        for half in sorted(stages.iterdir())[::2]:
            shutil.rmtree(half)
        subprocess.run([*command, "restart"], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
