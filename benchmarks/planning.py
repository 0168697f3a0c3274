"""Seconds that planning and deciding take: what a user and a busy driver wait for.

    .venv/bin/python benchmarks/planning.py [--times 5]

Planning is the demonstration study from the start of Python, in seconds of the processor, which
other load on the machine does not lengthen; its goal is one second. Deciding is what the driver
needs for each stage of a study of 5,000 (20 ms), and for the estimate it shows each second.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ablations.plan import Plan, make_plan
from ablations.study import load_study
from sweeps.scheduler import Scheduler

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "ablations" / "studies" / "demo.yaml"
PLANNING = f"""
import time
from ablations.plan import make_plan
from ablations.study import load_study
make_plan(load_study({str(DEMO)!r}))
print(time.process_time())
"""


def planning_seconds() -> float:
    """Of a new process that plans the demonstration study."""
    command = [sys.executable, "-c", PLANNING]
    return float(
        subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    )


def large_plan(stages: int) -> Plan:
    """The demonstration's first training under many identities."""
    plan = make_plan(load_study(DEMO))
    training = plan.stages[plan.trials[0].train]
    many = {
        f"{number:032x}": training.model_copy(
            update={"id": f"{number:032x}", "seed": plan.seeds[number % len(plan.seeds)]}
        )
        for number in range(stages)
    }
    return plan.model_copy(update={"stages": many})


def deciding_seconds(plan: Plan, decisions: int = 50) -> tuple[float, float]:
    """Seconds a decision, and of one estimate of the remaining time."""
    scheduler = Scheduler(plan, (), ["one", "two"])
    started = time.process_time()
    for _ in range(decisions):
        stage = scheduler.next("one", {"two": 0.0})
        assert stage is not None
        scheduler.finished(stage, 1.0)
    decided = time.process_time()
    scheduler.remaining_seconds({})
    return (decided - started) / decisions, time.process_time() - decided


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    planning = statistics.median(planning_seconds() for _ in range(times))
    print(f"planning the demonstration: {planning:.2f} s (goal: 1 s)")
    decision, estimate = deciding_seconds(large_plan(5_000))
    print(f"one decision among 5,000 stages: {1000 * decision:.1f} ms (goal: 20 ms)")
    print(f"one estimate of the remaining time: {1000 * estimate:.1f} ms")


if __name__ == "__main__":
    main()
