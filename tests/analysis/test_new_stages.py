"""What a plan says of stages whose place in the store others have: which part of them differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.plan import make_plan
from ablations.stage import ResultRow
from analysis.new_stages import new_stages
from mm1.studies import load_study
from sweeps import fsck
from sweeps.store import Store

RECIPE = """\
encoder_pretraining: {}
training: {steps: 20, log_every: 5}
optimizer: {warmup_steps: 2}
evaluation:
  easy_vqa: {items: 8}
  emoji_caption: {items: 8}
"""
STUDY = """\
study: sizes
question: Do smaller pictures do?
base: recipe.yaml
design: {one_at_a_time: {encoder.image_size: [32, 16]}}
seeds: 2
primary_metric: easy_vqa.accuracy
"""


class World:
    """A study file, a store, and the source in memory."""

    def __init__(self, folder: Path):
        self.folder, self.store = folder, Store(folder / "store")
        (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
        self.recipe(RECIPE)

    def recipe(self, text: str) -> None:
        (self.folder / "recipe.yaml").write_text(text, encoding="utf-8")

    def plan(self):
        return make_plan(load_study(self.folder / "study.yaml"))

    def run(self) -> None:
        plan = self.plan()
        self.store.register(plan)
        for stage in plan.stages.values():
            if not self.store.is_done(stage.id):
                attempt = self.store.begin(stage)
                self.store.finish(
                    attempt, [ResultRow("easy_vqa", "accuracy", 50.0)], {"seconds": 1.0}
                )

    def told(self) -> list[str]:
        plan = self.plan()
        return list(map(str, new_stages(self.store, plan, self.store.done(plan.stages))))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_nothing_is_told_of_a_first_plan_or_of_what_is_finished(world, edit_source):
    assert world.told() == []
    world.run()
    assert world.told() == []
    edit_source("mm1_jax/model/layers.py", '"""', '"""Anew: ')
    edit_source("mm1_jax/scale/costs.py", "SECONDS_PER_FLOP = 1.5e-11", "SECONDS_PER_FLOP = 9e-11")
    assert world.told() == []


def test_the_module_that_changed_is_named_and_what_follows_from_it(world, edit_source):
    world.run()
    edit_source("mm1_jax/training/contrastive.py", "return ", "return 0 or ")
    why = "code: changed mm1_jax.training.contrastive"
    assert world.told() == [
        f"4 encoder stages: {why}",
        f"4 multimodal stages: it reads a new encoder ({why})",
        f"8 evaluation stages: it reads a new model (it reads a new encoder ({why}))",
    ]


def test_a_metric_is_named_for_its_own_evaluations(world, edit_source):
    world.run()
    edit_source("mm1_jax/evaluation/metrics/captions.py", "return ", "return 0 or ")
    why = "code: changed mm1_jax.evaluation.metrics.captions"
    assert world.told() == [f"4 evaluation stages: {why}"]


def test_fields_of_the_config_are_named_but_not_those_that_decide_nothing(world):
    world.run()
    changed = RECIPE.replace("steps: 20, log_every: 5", "steps: 30, log_every: 3")
    world.recipe(changed.replace("emoji_caption: {items: 8", "emoji_caption: {items: 9"))
    told = world.told()
    assert told[0] == "4 multimodal stages: config: training.steps"
    assert "4 evaluation stages: it reads a new model (config: training.steps)" in told
    assert any(line.endswith("(config: training.steps)") and "items" in line for line in told)
    assert not any("log_every" in line or "encoder" in line for line in told)


def test_other_data_are_told(world):
    world.run()
    world.recipe(RECIPE + "data: {vocabulary: 1000}\n")
    assert any(line.startswith("4 multimodal stages: config: data.") for line in world.told())
    assert all("; data" in line for line in world.told() if "multimodal" in line)


def test_the_last_registration_is_what_is_compared_with(world, edit_source):
    world.run()
    world.recipe(RECIPE.replace("steps: 20", "steps: 30"))
    world.run()
    edit_source("mm1_jax/data/batches/pipeline.py", "return ", "return 0 or ")
    told = world.told()
    assert told[0] == "4 multimodal stages: code: changed mm1_jax.data.batches.pipeline"
    assert not any("config" in line for line in told)


def test_a_registration_without_results_has_nothing_in_its_place(world, edit_source):
    world.run()
    edit_source("mm1_jax/evaluation/metrics/captions.py", "return ", "return 0 or ")
    told = world.told()
    world.store.register(world.plan())  # as a run does that is interrupted at once
    assert told == world.told() != []


def test_without_a_record_of_the_code_its_modules_are_not_named(world, edit_source):
    world.run()
    assert fsck.examine(world.store) == []
    world.store.objects.remove("code")
    edit_source("mm1_jax/evaluation/metrics/captions.py", "return ", "return 0 or ")
    assert world.told() == ["4 evaluation stages: code"]


def test_a_damaged_record_of_code_is_found_and_removed(world):
    world.run()
    (record, *_) = world.store.objects.children("code")
    world.store.objects.write(f"code/{record}", b"{}")
    (found,) = fsck.examine(world.store)
    assert (found.kind, found.place) == ("damage", f"code/{record}")
    fsck.repair(world.store)
    assert fsck.examine(world.store) == []
