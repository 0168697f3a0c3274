"""A realistic study in a real store: 4 arms × 3 seeds, curves, examples, images, controls."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from ablations import plan as plans
from ablations.plan import Arm, Plan
from ablations.stage import ResultRow
from ablations.stages import Stage, Trial
from ablations.workload import Answer, Code, Work
from analysis.caveats import caveats
from analysis.results import StudyResults, load_results
from mm1.origin import ORIGIN
from mm1.studies import load_study
from mm1_jax.config.recipe import Recipe
from mm1_jax.evaluation.task_records import MEASURED
from mm1_jax.workload import RECIPE, SCHEMA
from sweeps import store as store_module
from sweeps.store import Store

sys.path.append(str(Path(__file__).parent))  # dashboard_client.py, which several tests build from

DATA = "d" * 32
ASKED = {  # role → task, condition
    "easy_vqa": ("easy_vqa", "intact"),
    "easy_vqa shuffled": ("easy_vqa", "shuffled"),
    "emoji_caption": ("emoji_caption", "intact"),
    "held_out_text": ("held_out_text", "intact"),
}
FACTORS = {
    "encoder.image_size": ("32", "16"),
    "connector.kind": ("average_pooling", "c_abstractor"),
    "data.mixture.easy_vqa": ("0.7", "0.3"),
}
ACCURACY = {"32": 81.0, "16": 66.0, "c_abstractor": 81.6, "0.3": 74.5}
CLAIMS = {
    "sees": "score(base) > score(base, condition=shuffled)",
    "beats-the-blind": "score(base) > blind(easy_vqa)",
    "resolution-over-type": (
        "effect(encoder.image_size, 16 -> 32) > "
        "abs(effect(connector.kind, average_pooling -> c_abstractor))"
    ),
    "type-hardly-matters": "score(connector.kind=c_abstractor) == score(base) within 3.0",
    "small-is-better": "score(encoder.image_size=16) > score(base)",
    "type-better": "score(connector.kind=c_abstractor) > score(base)",
}
SOURCE = """\
study: demo
question: What matters most for a small model that answers questions about pictures?
base: ../recipes/mini.yaml
design:
  one_at_a_time:
    encoder.image_size: [32, 16]
seeds: 3
"""
QUESTIONS = [
    ("what shape is in the image?", "circle"),
    ("is there a red shape?", "yes"),
    ("is there no triangle?", "no"),
    ("what color is the shape?", "teal"),
    ("does the image contain a rectangle?", "no"),
    ("is a blue shape present?", "yes"),
]


def identity(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def plan_of(seeds: int = 3, null: bool = False, claims: dict[str, str] | None = None) -> Plan:
    """The plan of the fixture's study, put together by hand."""
    base_levels = {factor: levels[0] for factor, levels in FACTORS.items()}
    cells = [("base", base_levels)]
    cells += [
        (f"{factor}={level}", {**base_levels, factor: level})
        for factor, levels in FACTORS.items()
        for level in levels[1:]
    ]
    if null:
        cells.append(("null=1", base_levels))
    recipe = Recipe().model_dump(mode="json")
    arms, trials, stages = [], [], {}
    for name, levels in cells:
        recipe = json.loads(json.dumps(recipe))
        recipe["encoder"]["image_size"] = int(levels["encoder.image_size"])
        recipe["seeds"]["initialisation_salt"] = int(name == "null=1")
        arms.append(
            Arm(
                name=name,
                levels=levels,
                label=name.replace("connector.kind=c_abstractor", "C-Abstractor"),
                config=recipe,
                dropped=(),
                roles=("multimodal", *ASKED),
                answers=tuple(
                    Answer(role=role, task=task, condition=condition)
                    for role, (task, condition) in ASKED.items()
                ),
                main="multimodal",
                parameters={"encoder": 104_000, "connector": 4_160, "language_model": 98_400},
                figures={"image_tokens": 4, "peak_lr": 4.5e-3, "tokens_per_step": 512},
                flops_per_trial=2.2e12,
                memory_bytes=90_000_000,
                warnings=(),
            )
        )
    for seed in range(1, seeds + 1):
        for arm in arms:
            train = Stage(
                id=identity("train", arm.name, seed),
                work=Work(
                    kind="multimodal",
                    run="mm1_jax.runner:train",
                    config={"data": {}},
                    decides=identity("train", arm.name),
                    data_fingerprint=DATA,
                    code=Code(module="mm1_jax.runner"),
                    code_fingerprint="c" * 32,
                    compile_class=arm.name,
                    flops=2e12,
                    seconds=50.0,
                    what="train",
                ),
                seed=seed,
                inputs={},
                origin=arm.name,
            )
            roles = {"multimodal": train.id}
            stages[train.id] = train
            for role, (task, condition) in ASKED.items():
                work = train.work.model_copy(
                    update={
                        "kind": "evaluation",
                        "run": "mm1_jax.runner:evaluate",
                        "config": {"task": task, "shots": 0, "condition": condition},
                        "inputs": {"model": "multimodal"},
                        "seconds": 4.0,
                        "flops": 1e10,
                        "what": f"{task} {condition}",
                    }
                )
                stage_id = identity(task, condition, arm.name, seed)
                roles[role] = stage_id
                stages[stage_id] = Stage(stage_id, work, seed, {"model": train.id}, arm.name)
            trials.append(Trial(arm.name, seed, roles))
    return Plan(
        study="demo",
        workload="recipe",
        tasks=dict(MEASURED),
        free=tuple(sorted(SCHEMA.free)),
        untrained=RECIPE.untrained,
        hash=identity("demo", seeds, null),
        path="ablations/studies/nowhere.yaml",
        source=SOURCE,
        question="What matters most for a small model that answers questions about pictures?",
        null_arms=("null=1",) if null else (),
        primary_metric=("easy_vqa", "accuracy"),
        alpha=0.05,
        seeds=tuple(range(1, seeds + 1)),
        factors=FACTORS,
        arms=tuple(arms),
        trials=tuple(trials),
        stages=stages,
        claims=CLAIMS if claims is None else claims,
        warnings=("the mixture changes what a step sees; pairing is weaker for its arms",),
    )


def numbers_of(arm: Arm, seed: int, task: str, condition: str) -> list[ResultRow]:
    """Plausible numbers, drawn from the names: the same in every run."""
    draw = random.Random(f"{seed}")
    luck = draw.gauss(0, 1.5)  # shared by the arms of a seed: pairing takes it out
    own = random.Random(f"{arm.name} {seed} {task} {condition}")
    level = next((v for v in arm.levels.values() if v in ACCURACY and v != "32"), "32")
    accuracy = ACCURACY[level] + luck + own.gauss(0, 0.5)
    if task == "training":
        return [
            ResultRow("training", "loss", value, step=step)
            for step in range(25, 501, 25)
            for value in [0.9 + 5.5 * 2 ** (-step / 60) - accuracy / 200 + own.gauss(0, 0.03)]
        ]
    if task == "easy_vqa":
        seen = accuracy if condition == "intact" else 55.0 + own.gauss(0, 0.7)
        numbers = {"accuracy": seen, "blind_accuracy": 65.4, "oracle_accuracy": 67.0}
    elif task == "emoji_caption":
        numbers = {"cider": 31.0 + (accuracy - 80) * 0.4 + own.gauss(0, 0.8)}
    else:
        numbers = {"perplexity": 41.3 - 0.2 * luck + own.gauss(0, 0.15)}
    return [
        ResultRow(task, metric, value, "test", 0, condition, 500, 1000)
        for metric, value in numbers.items()
    ]


def examples_of(arm: Arm, seed: int, task: str) -> pandas.DataFrame:
    own = random.Random(f"{arm.name} {seed} {task}")
    lines = []
    for number in range(36):
        prompt, answer = QUESTIONS[number % len(QUESTIONS)]
        right = own.random() < 0.75
        if task == "emoji_caption":
            prompt, answer = "", "a <smiling> face & a hat"
        lines.append(
            {
                "item_id": f"{task}/{number}",
                "image_id": number % 6 if task != "held_out_text" else -1,
                "prompt": f"<image>{prompt}",
                "prediction": answer if right else ("<b>triangle</b>", "")[number % 2],
                "references": [answer],
                "score": (100.0 if task == "easy_vqa" else 3.25) * right,
            }
        )
    return pandas.DataFrame(lines)


def fill_store(
    store: Store,
    plan: Plan,
    *,
    skip: Iterable[tuple[str, int]] = (),
    diverged: Iterable[tuple[str, int]] = (),
    rows: Callable[[Arm, int, str, str], list[ResultRow]] = numbers_of,
    images: str | None = None,
    mesh: Callable[[Stage], dict[str, int]] | None = None,
    **facts: Any,
) -> None:
    """Write the results of every trial of `plan` but those in `skip`; `facts` of how they ran."""
    arms = {arm.name: arm for arm in plan.arms}
    for trial in plan.trials:
        if (trial.arm, trial.seed) in skip:
            continue
        asked = [(trial.stages["multimodal"], "training", "intact")]
        asked += [(stage, one.task, one.condition) for one, stage in plan.answers(trial).items()]
        for stage, task, condition in asked:
            if store.is_done(stage):
                continue
            attempt = store.begin(plan.stages[stage])
            if task != "training":
                table = examples_of(arms[trial.arm], trial.seed, task)
                table.to_parquet(attempt.output / "examples.parquet")
            lost = (trial.arm, trial.seed) in diverged
            found = rows(arms[trial.arm], trial.seed, task, condition)
            if lost:
                found = [
                    ResultRow(**{**vars(r), "value": float("nan")})
                    for r in found
                    if not r.metric.startswith(("blind", "oracle"))
                ]
            store.finish(
                attempt,
                found,
                {
                    "seconds": 48.5 if task == "training" else 3.1,
                    "device_kind": "cpu",
                    "device_count": 1,
                    "threads": 1,
                    "python": "3.11.7",
                    "libraries": {"jax": "0.10.2", "flax": "0.12.8"},
                    **({"images": images} if images and task != "training" else {}),
                    **({"mesh": mesh(plan.stages[stage])} if mesh else {}),
                    "host": "here",
                    "git_revision": "6880732e" * 5,
                    "started_at": 1.7e9,
                    **facts,
                },
                "diverged" if lost else "ok",
            )


def draw_images(store: Store) -> None:
    """Six prepared images of 64 × 64 pixels in a store."""
    folder = Path(store.root) / "data" / DATA
    folder.mkdir(parents=True)
    images = np.full((6, 64, 64, 3), 255, np.uint8)
    for number, image in enumerate(images):
        image[12:52, 12 + number : 40 + number] = [(40 * number, 90, 200 - 30 * number)]
    np.save(folder / "images-64.npy", images)
    index = {
        "name": [f"easy_vqa/test/{n}" for n in range(6)],
        "file": ["images-64.npy"] * 6,
        "row": pa.array(range(6), pa.int32()),
    }
    pyarrow.parquet.write_table(pa.table(index), folder / "images.parquet")


@pytest.fixture(scope="session")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the study `demo` has run to its end. Only for reading."""
    root = tmp_path_factory.mktemp("store")
    store = Store(root)
    plan = plan_of()
    store.register(plan)
    fill_store(store, plan)
    draw_images(store)
    return store


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    return plan_of


@pytest.fixture(scope="session")
def fill() -> Callable[..., None]:
    return fill_store


@pytest.fixture(scope="session")
def add_images() -> Callable[[Store], None]:
    return draw_images


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., list[ResultRow]]:
    return numbers_of


BETTER = "effect(encoder.image_size, 16 -> 32) > 0"
LAB_RECIPE = {
    "training": {"steps": 100, "batch_size": 4},
    "evaluation": {"easy_vqa": {}, "held_out_text": {}},
}


class Lab:
    """A store, and a clock that moves on by a minute with whatever is written."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.store = folder, Store(folder / "store")
        minutes = itertools.count()
        monkeypatch.setattr(
            store_module,
            "utc_now",
            lambda: "2026-11-02T{:02d}:{:02d}:00+00:00".format(*divmod(next(minutes), 60)),
        )

    def plan(self, study: str = "sizes", recipe: dict[str, Any] | None = None, **keys: Any) -> Plan:
        (self.folder / "recipe.yaml").write_text(
            yaml.safe_dump(recipe or LAB_RECIPE), encoding="utf-8"
        )
        file = {
            "study": study,
            "question": "Is it better?",
            "base": "recipe.yaml",
            "design": {"one_at_a_time": {"encoder.image_size": [32, 16]}},
            "seeds": [0, 1, 2],
            "primary_metric": "easy_vqa.accuracy",
            "claims": {"better": BETTER},
            **keys,
        }
        path = self.folder / f"{study}.yaml"
        path.write_text(yaml.safe_dump(file), encoding="utf-8")
        return plans.make_plan(load_study(path))

    def register(self, *args: Any, **keys: Any) -> Plan:
        plan = self.plan(*args, **keys)
        self.store.register(plan)
        return plan

    def finish(
        self,
        plan: Plan,
        seeds: int | None = None,
        blind: float | None = None,
        tasks: Mapping[str, Mapping[str, float]] | None = None,
        devices: Mapping[str, str] | None = None,
    ) -> None:
        """Results of a plan's first seeds: the larger image is better by about 10.

        `tasks` gives the numbers of some, `devices` where some stages ran.
        """
        ran = devices or {}
        for trial in plan.trials:
            if seeds is not None and trial.seed not in plan.seeds[:seeds]:
                continue
            level = (60.0 if "16" in trial.arm else 70.0) + trial.seed % 7 * 0.3
            level += sum(f"{trial.arm} {trial.seed}".encode()) % 5 * 0.1
            for stage in plan.trainings(trial).values():
                loss = [ResultRow("training", "loss", 1.0, step=1)]
                self._done(plan, stage, loss, ran.get(stage, "cpu"))
            for one, stage in plan.answers(trial).items():
                own = blind if one.task == "easy_vqa" else None
                rows = self.rows(one.task, level, own, one.shots)
                if tasks and one.task in tasks:
                    rows = [ResultRow(one.task, m, v, "test") for m, v in tasks[one.task].items()]
                self._done(plan, stage, rows, ran.get(stage, "cpu"))

    def rows(self, task: str, level: float, blind: float | None, shots: int = 0) -> list[ResultRow]:
        """What an evaluation measured, with the best blind answerer where it is given."""
        metric = "accuracy" if task == "easy_vqa" else "perplexity"
        found = {metric: level} | ({} if blind is None else {f"blind_{metric}": blind})
        return [
            ResultRow(task, m, value, "test", shots, "intact", 9, 10) for m, value in found.items()
        ]

    def _done(self, plan: Plan, stage: str, rows: list[ResultRow], device: str) -> None:
        if not self.store.is_done(stage):
            attempt = self.store.begin(plan.stages[stage])
            execution = {
                "seconds": 0.5,
                "started_at": 1.7e9,
                "git_revision": "abc",
                "device_kind": device,
            }
            self.store.finish(attempt, rows, execution)

    def run(self, *args: Any, **keys: Any) -> Plan:
        plan = self.register(*args, **keys)
        self.finish(plan)
        return plan

    def results(self, study: str = "sizes") -> StudyResults:
        return load_results(study, self.store, origin=ORIGIN)

    def standing(self, study: str = "sizes", claim: str = "better") -> str:
        return self.results(study).standing(claim)

    def told(self, study: str = "sizes", claim: str = "better") -> str:
        results = self.results(study)
        verdict = next(one for one in results.verdicts if one.name == claim)
        return " ".join(f"{one.word}: {one.told}" for one in caveats(results, verdict))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)
