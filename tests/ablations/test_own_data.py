"""A user's own data in a study: what it is decides, not where it lies."""

from __future__ import annotations

import pytest

from mm1_jax.data.manifest import Manifest, TokenizerFacts
from mm1_jax.errors import UserError

DESIGN = {"one_at_a_time": {"data.mixture.mine": [0.5, 0.2]}}


@pytest.fixture
def plan(studies):
    """`plan(folder, design)`: a study whose base reads half of its sequences from a folder."""

    def build(folder, design=DESIGN, **data):
        studies.recipe["data"] |= {
            "sources": {"mine": {"folder": str(folder), "kind": "captions"}},
            "mixture": {"mine": 2, "easy_vqa": 1, "text": 1},
            **data,
        }
        return studies.plan(design=design)

    return build


def prepared(folder, documents=10, kind="captions", template="plain"):
    folder.mkdir(parents=True)
    manifest = Manifest(
        kind=kind,
        settings={"vocabulary": 1024, "template": template},
        tokenizer=TokenizerFacts(file="tokenizer.json", sha256="0" * 64, vocabulary=1024),
        token_type="uint16",
        shards=1,
        documents=documents,
        text_tokens=100,
        images=documents,
        read=documents,
        dropped={},
        dropped_images={},
        quarantined={},
        quarantined_images={},
        shards_sha256="0" * 64,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder


def test_the_manifest_decides_what_is_run_and_the_folder_does_not(plan, tmp_path):
    here, moved = prepared(tmp_path / "here"), prepared(tmp_path / "there" / "moved")
    other = prepared(tmp_path / "other", documents=11)
    assert set(plan(here).stages) == set(plan(moved).stages)
    assert not set(plan(here).stages) & set(plan(other).stages)


def test_a_source_that_is_not_read_changes_nothing(plan, studies, tmp_path):
    design = {"one_at_a_time": {"encoder.image_size": [32, 16]}}
    unread = plan(prepared(tmp_path / "here"), design, mixture={"easy_vqa": 1})
    studies.recipe["data"]["sources"] = {}
    assert set(studies.plan(design=design).stages) == set(unread.stages)


def test_the_weight_of_an_own_source_is_a_factor(plan, tmp_path):
    arms = {arm.name: arm for arm in plan(prepared(tmp_path / "here")).arms}
    mixture = arms["data.mixture.mine=0.2"].config["data"]["mixture"]
    assert mixture["mine"] == pytest.approx(0.2)
    assert mixture["easy_vqa"] == mixture["text"] == pytest.approx(0.4)


def test_an_own_source_without_a_weight_in_the_base_can_get_one(plan, tmp_path):
    folder = prepared(tmp_path / "here")
    arms = {arm.name: arm for arm in plan(folder, mixture={"easy_vqa": 1, "text": 1}).arms}
    mixture = arms["data.mixture.mine=0.2"].config["data"]["mixture"]
    assert (mixture["mine"], mixture["text"]) == pytest.approx((0.2, 0.4))


def test_the_share_of_a_kind_is_a_factor(plan, tmp_path):
    kinds = {"captions": 45, "text": 45, "conversations": 10}
    design = {"one_at_a_time": {"data.kinds.captions": [0.45, 0.89]}}
    arms = {arm.name: arm for arm in plan(prepared(tmp_path / "x"), design, kinds=kinds).arms}
    shares = arms["data.kinds.captions=0.89"].config["data"]["kinds"]
    assert (shares["captions"], shares["text"]) == pytest.approx((0.89, 0.09))


def test_data_that_is_not_prepared_is_told_by_the_plan(plan, tmp_path):
    with pytest.raises(UserError, match=r"no prepared data at .*nowhere"):
        plan(tmp_path / "nowhere")


def test_conversations_in_other_words_than_a_stages_are_told_by_the_plan(studies, tmp_path):
    folder = prepared(tmp_path / "talk", kind="conversations", template="vicuna")
    studies.recipe["data"]["sources"] = {"talk": {"folder": str(folder), "kind": "conversations"}}
    studies.recipe["sft"] = {
        "mixture": {"talk": 1},
        "template": "chatml",
        "training": {"steps": 60},
        "optimizer": {"warmup_steps": 1},
    }
    message = (
        "conversations in .*talk were prepared with template vicuna and sft.template is chatml"
    )
    with pytest.raises(UserError, match=message):
        studies.plan()
    studies.recipe["sft"]["template"] = "vicuna"
    plan = studies.plan()  # the multimodal stage, whose template is plain, does not read them
    studies.recipe["data"]["mixture"]["talk"] = 0.2
    with pytest.raises(UserError, match=r"vicuna and data\.template is plain; write data"):
        studies.plan()
    assert len(plan.trials) == 6
    captions = prepared(tmp_path / "captions", template="vicuna")  # which have no turns
    studies.recipe["data"]["sources"] = {"talk": {"folder": str(captions), "kind": "captions"}}
    studies.recipe["sft"] = None
    studies.plan()
