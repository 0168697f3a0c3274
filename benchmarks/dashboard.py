"""What a browser sees of a large store: seconds, memory and many viewers, beside MLflow and Aim.

.venv/bin/python benchmarks/dashboard.py                     10,000 trials, 1 M stored examples
.venv/bin/python benchmarks/dashboard.py --arms 100          1,000 trials
.venv/bin/python benchmarks/dashboard.py --store FOLDER      made once, measured again
"""

from __future__ import annotations

import io
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEEDS, STEPS, METRICS, ITEMS, CORES = 10, 40, 50, 100, 2
STUDY = """\
study: {name}
question: How does a page of ten thousand trials feel?
workload:
  command: python3 train.py --config {{config}} --seed {{seed}} --out {{output}}
  metrics:
{metrics}
  code: [train.py]
base: base.json
design:
  factorial:
    rate: {rates}
    decay: {decays}
    width: {widths}
seeds: {seeds}
primary_metric: run.m00
claims:
  faster-is-better: effect(rate, {first} -> {second}) > 0
"""
WORDS = ("red", "blue", "teal", "circle", "square", "triangle", "left", "right", "above", "below")


def make(folder: Path, name: str, arms: int, items: int = ITEMS) -> int:
    """A store with a finished study of `arms` arms, `items` examples a trial; its trials."""
    from ablations.plan import make_plan
    from mm1.studies import load_study
    from sweeps.store import Store

    folder.mkdir(parents=True, exist_ok=True)
    sides = _sides(arms)
    rates = [round(0.1 * (1 + number), 3) for number in range(sides[0])]
    (folder / "train.py").write_text("# results are written by the benchmark\n", encoding="utf-8")
    (folder / "base.json").write_text('{"rate": 0.1, "decay": 0.01, "width": 8}', encoding="utf-8")
    text = STUDY.format(
        name=name,
        metrics="\n".join(f"    run.m{n:02}: {{goal: maximize}}" for n in range(METRICS)),
        rates=rates,
        decays=[round(0.01 * (1 + number), 4) for number in range(sides[1])],
        widths=[8 * (1 + number) for number in range(sides[2])],
        seeds=SEEDS,
        first=rates[0],
        second=rates[1],
    )
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    plan = make_plan(load_study(path), many=True)
    Store(folder / "store").register(plan)
    stages = list(plan.stages.values())
    parts = [(str(folder / "store"), stages[start::CORES], items) for start in range(CORES)]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        pool.starmap(_finish, parts)
    return len(plan.trials)


def _sides(arms: int) -> tuple[int, int, int]:
    """Levels of three factors that make about so many arms."""
    side = max(2, round(arms ** (1 / 3)))
    return max(2, round(arms / side / side)), side, side


def _finish(root: str, stages: list[Any], items: int) -> None:
    import pyarrow
    from pyarrow import parquet

    from sweeps import objects
    from sweeps.store import Store

    setattr(objects, "flush", lambda path: None)  # noqa: B010 - it need not outlive the power
    opened, pictures = Store(root), [*_pictures()]
    for stage in stages:
        attempt = opened.begin(stage)
        columns = _examples(stage, items, pictures)
        types = {"references": pyarrow.list_(pyarrow.string()), "image": pyarrow.binary()}
        table = {key: pyarrow.array(column, types.get(key)) for key, column in columns.items()}
        parquet.write_table(pyarrow.table(table), attempt.output / "examples.parquet")
        execution = {
            "seconds": 40.0,
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
        opened.finish(attempt, list(_rows(stage)), execution)


def _pictures() -> Iterator[bytes]:
    from PIL import Image

    for number in range(10):
        file = io.BytesIO()
        Image.new("RGB", (24, 24), (25 * number, 90, 200)).save(file, "PNG")
        yield file.getvalue()


def _examples(stage: Any, items: int, pictures: list[bytes]) -> dict[str, list[Any]]:
    """Columns of a trial's examples: the same questions to everybody, answers of its own."""
    draw = random.Random(stage.id)
    skill = 0.4 + 0.4 * draw.random()
    asked = [random.Random(f"question {n}").choices(WORDS, k=6) for n in range(items)]
    right = [draw.random() < skill for _ in range(items)]
    return {
        "item_id": [f"question/{n}" for n in range(items)],
        "image_id": list(range(items)),
        "prompt": [f"<image>what is {' '.join(words)}?" for words in asked],
        "prediction": [
            words[0] if one else f"{draw.choice(WORDS)} {draw.randrange(1000)}"
            for words, one in zip(asked, right, strict=True)
        ],
        "references": [[words[0]] for words in asked],
        "score": [float(one) for one in right],
        "weight": [1.0] * items,
        "image_file": [f"{n}.png" for n in range(items)],
        "image": [pictures[n % len(pictures)] for n in range(items)],
    }


def _rows(stage: Any) -> Iterator[Any]:
    from ablations.stage import ResultRow

    draw = random.Random(stage.id)
    level = 0.5 + 0.1 * draw.random()
    for step in range(1, STEPS + 1):
        yield ResultRow("training", "m00", level - 0.5 / step, step=5 * step)
    for number in range(METRICS):
        yield ResultRow("run", f"m{number:02}", level + 0.01 * number, "test", step=5 * STEPS)
