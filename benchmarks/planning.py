"""Seconds that planning takes: what a user waits for.

    .venv/bin/python benchmarks/planning.py [--times 5]

Planning is the demonstration study from the start of Python, in seconds of the processor, which
other load on the machine does not lengthen; its goal is one second. (`scheduling.py` measures
the decisions of a run.)
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "ablations" / "studies" / "demo.yaml"
PLANNING = f"""
import time
from ablations.plan import make_plan
from mm1.studies import load_study
make_plan(load_study({str(DEMO)!r}))
print(time.process_time())
"""


def planning_seconds() -> float:
    """Of a new process that plans the demonstration study."""
    command = [sys.executable, "-c", PLANNING]
    return float(
        subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    planning = statistics.median(planning_seconds() for _ in range(times))
    print(f"planning the demonstration: {planning:.2f} s (goal: 1 s)")


if __name__ == "__main__":
    main()
