"""Every benchmark runs to its end on something small: what it measures moves, and it follows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
IMPORTED_BY_OTHERS = {"noop", "processor_time"}
LONG = {"scale_table"}  # writes a page of docs/ after an hour of compiling
SMALL = {  # arguments, and words of the last lines that it prints
    "adaptive": ("one --studies 2", "adaptive, at most 12"),
    "raw_data": ("--pairs 20 --hashes 1000", "hashes"),
    "scheduling": ("--stages 600 --workers 20", "peak memory"),
}
SMALL_AND_SLOW = {
    "dashboard": ("--arms 4 --no-mlflow --aim=", "memory"),
    "data_pipeline": ("--copies 1 --batches 2 --data {data}", "packed"),
    "driver": ("--trials 40 --workers 4", "started again"),
    "generation_speed": ("--shape mini --batch 1 --rounds 1", "mini"),
    "gpu_step": ("--preset mini --text-tokens 64 --batch 1 --steps 2", "MFU"),
    "planning": ("--arms 1000 --times 1", "demonstration"),
    "reading": ("--arms 3 --peer-arms 2", "MLflow"),
    "start_up": ("--times 1 --data {data}", "step"),
    "step_time": ("--model mini --steps 6", "mini"),
    "sweep_time": ("--trials 4 --classes 2 --steps 5", "shell loop"),
    "trial_overhead": ("--trials 8", "Ray Tune"),
    "ways_round": ("--studies 2", "untold"),
}


def test_every_benchmark_is_run_here():
    """A new one has a small form."""
    there = {path.stem for path in BENCHMARKS.glob("*.py")} - IMPORTED_BY_OTHERS - LONG
    assert there == {*SMALL, *SMALL_AND_SLOW}


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [pytest.param(name, *small, id=name) for name, small in SMALL.items()]
    + [
        pytest.param(name, *small, id=name, marks=pytest.mark.slow)
        for name, small in SMALL_AND_SLOW.items()
    ],
)
def test_runs(name, arguments, told, request, tmp_path):
    """From its command line, as its first lines say."""
    if name == "dashboard" and shutil.which("chromium") is None:
        pytest.skip("no Chromium on this machine")
    if name == "generation_speed":
        pytest.importorskip("transformers")
    if "{data}" in arguments:
        arguments = arguments.replace("{data}", str(request.getfixturevalue("data_root")))
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=900)
    assert not done.returncode, done.stderr[-3000:]
    assert told in done.stdout
