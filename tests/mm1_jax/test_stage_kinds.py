from __future__ import annotations

from pathlib import Path

import pytest

from ablations import identity
from ablations.plan import make_plan
from mm1.studies import load_study
from mm1_jax import runner
from mm1_jax.config.data import DataConfig
from mm1_jax.evaluation.task_records import ENCODER, LANGUAGE_MODEL, MULTIMODAL
from mm1_jax.stage_kinds import EVALUATIONS, KINDS, is_ours
from mm1_jax.workload import data_of


@pytest.mark.parametrize("name", KINDS)
def test_what_a_record_names_is_there(name):
    kind = KINDS[name]
    module, _, function = kind.run.partition(":")
    assert module == runner.__name__
    assert callable(getattr(runner, function))
    assert identity.source_file(kind.code) is not None


def test_every_part_is_scored_by_one_kind():
    assert set(EVALUATIONS) == {ENCODER, LANGUAGE_MODEL, MULTIMODAL}
    assert len({kind.run for kind in KINDS.values()}) == len(KINDS)


def test_a_stage_of_every_kind_says_what_it_reads():
    plans = [
        make_plan(load_study(Path(f"ablations/studies/{study}.yaml")))
        for study in ("instruction-tuning", "text-pretraining", "encoder-objective")
    ]
    works = {stage.kind: stage.work for plan in plans for stage in plan.stages.values()}
    assert {*works, "weights"} == set(KINDS)
    for name, work in works.items():
        read = data_of(work)
        assert isinstance(read, DataConfig) == (not KINDS[name].scores)
        assert (KINDS[name].costs is None) == bool(KINDS[name].scores)
        mine = work.model_copy(update={"run": "my.module:run"})
        assert data_of(mine) is None
    weights = {"part": "encoder", "content": "0", "vocabulary": 512, "folder": "/w"}
    read = KINDS["weights"].data(weights)
    assert read is not None
    assert read.vocabulary == 512


def test_a_kind_of_another_workload_is_not_ours():
    assert is_ours("multimodal", "mm1_jax.runner:train")
    assert not is_ours("multimodal", "my.module:train")
    assert not is_ours("step", "ablations.command.runner:run")
