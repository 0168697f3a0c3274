"""What a study with a diverged trial prints for programs is JSON that all of them can read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.store import Store


def refused(constant: str) -> Any:
    raise AssertionError(constant)


@pytest.fixture(scope="module")
def store(tmp_path_factory, make_plan, fill) -> Path:
    root = tmp_path_factory.mktemp("diverged")
    store = Store(root)
    plan = make_plan().model_copy(update={"primary_metric": ("held_out_text", "perplexity")})
    store.register(plan)
    seeds = sorted({trial.seed for trial in plan.trials})
    fill(store, plan, diverged={("base", seed) for seed in seeds})
    return root


def test_what_is_no_number_is_null_in_the_status(store, tmp_path):
    command = [sys.executable, "-m", "mm1", "status", "--json", "--store", str(store)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout, parse_constant=refused)
    assert "null" in done.stdout
