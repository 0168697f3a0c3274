"""What each shipped study comes to, as flat text: a changed default shows up as a diff.

Rewrite on purpose with `UPDATE_GOLDEN=1 .venv/bin/pytest tests/ablations/test_golden.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablations.plan import Plan, make_plan
from mm1.studies import load_study

GOLDEN = Path(__file__).with_name("golden")
STUDIES = sorted(Path("ablations/studies").glob("*.yaml"))


def flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{at}.{key}" if at else str(key))
    else:
        yield at, value


def described(plan: Plan) -> str:
    base = dict(flat(plan.arms[0].config))
    lines = {
        "study": plan.study,
        "seeds": plan.seeds,
        "alpha": plan.alpha,
        "primary_metric": ".".join(plan.primary_metric),
        "null_arms": plan.null_arms,
        "trials": len(plan.trials),
        "stages": len(plan.stages),
        **{f"claims.{name}": text for name, text in plan.claims.items()},
        **{f"factors.{name}": levels for name, levels in plan.factors.items()},
        **{f"base.{path}": value for path, value in base.items()},
    }
    for arm in plan.arms:
        at = f"arms.{arm.name}"
        lines |= {f"{at}.parameters.{part}": n for part, n in arm.parameters.items()}
        lines |= {f"{at}.{name}": value for name, value in arm.figures.items()}
        lines[f"{at}.dropped"] = arm.dropped
        for path, value in flat(arm.config):
            if path not in base or base[path] != value:
                lines[f"{at}.config.{path}"] = value
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in sorted(lines.items()))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_studies_come_to_what_was_agreed(path):
    found = described(make_plan(load_study(path)))
    golden = GOLDEN / f"{path.stem}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == {path.stem for path in STUDIES}
