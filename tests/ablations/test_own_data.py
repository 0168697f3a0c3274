"""A user's own data in a study: what it is decides, not where it lies."""

from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1_jax.data import tokenizer
from mm1_jax.data.own.manifest import Manifest, TokenizerFacts

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


def prepared(folder, documents=10, kind="captions", vocabulary=1024, template="plain"):
    folder.mkdir(parents=True)
    manifest = Manifest(
        kind=kind,
        settings={"vocabulary": vocabulary, "template": template},
        tokenizer=TokenizerFacts(file="tokenizer.json", sha256="0" * 64, vocabulary=vocabulary),
        token_type="uint16",
        shards=1,
        documents=documents,
        text_tokens=100,
        images=0 if kind == "text" else documents,
        read=documents,
        dropped={},
        dropped_images={},
        quarantined={},
        quarantined_images={},
        shards_sha256="0" * 64,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
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


def test_a_source_of_another_kind_or_vocabulary_is_told_by_the_plan(plan, tmp_path):
    with pytest.raises(UserError, match=r"sources.mine.kind: captions is not what .*valid: text"):
        plan(prepared(tmp_path / "text", kind="text"))
    with pytest.raises(UserError, match=r"data.vocabulary 1024: .*mine was .* 900 tokens; nearest"):
        plan(prepared(tmp_path / "other", vocabulary=900))


PARTS = {"encoder": "captions", "language_model": "text"}


@pytest.fixture(params=PARTS)
def part(request):
    return request.param


@pytest.fixture
def plan_part(studies, part):
    """`plan_part(folder, mixture, design)`: the part's pre-training reads own data."""

    def build(folder, mixture=None, design=None, **pretraining):
        mine = {"folder": str(folder), "kind": PARTS[part]}
        studies.recipe["data"]["sources"] = {"mine": mine}
        studies.recipe[f"{part}_pretraining"] = {
            "mixture": mixture or {"mine": 1},
            "training": {"steps": 100, "batch_size": 2},
            **pretraining,
        }
        return studies.plan(design=design or {"one_at_a_time": {"connector.tokens": [4, 1]}})

    return build


def stages_of(plan, part):
    return {stage.id: stage for stage in plan.stages.values() if stage.kind == part}


def test_the_manifest_decides_what_a_part_learns_from(plan_part, part, tmp_path):
    kind = PARTS[part]
    here, moved = prepared(tmp_path / "a", kind=kind), prepared(tmp_path / "b", kind=kind)
    other = prepared(tmp_path / "c", documents=11, kind=kind)
    assert set(plan_part(here).stages) == set(plan_part(moved).stages)
    ours, theirs = (stages_of(plan_part(folder), part) for folder in (here, other))
    assert ours
    assert not set(ours) & set(theirs)
    for stage in ours.values():
        # 200 images of 10, or 200 sequences of 256 tokens out of 100.
        assert stage.work.epochs == {"mine": {"encoder": 20.0, "language_model": 512.0}[part]}


def test_a_source_that_a_part_does_not_read_does_not_train_it_anew(plan_part, part, tmp_path):
    embedded = {"encoder": "emoji_captions", "language_model": "text"}[part]
    unread = plan_part(tmp_path / "nowhere", {embedded: 1})
    usual = plan_part(prepared(tmp_path / "a", kind=PARTS[part]), {embedded: 1})
    assert set(stages_of(unread, part)) == set(stages_of(usual, part))


def test_the_share_of_own_data_in_a_pretraining_is_a_factor(plan_part, part, tmp_path):
    folder, path = prepared(tmp_path / "a", kind=PARTS[part]), f"{part}_pretraining.mixture"
    embedded = {"encoder": "emoji_captions", "language_model": "text"}[part]
    design = {"one_at_a_time": {f"{path}.mine": [0.0, 0.25]}}
    arms = {arm.name: arm for arm in plan_part(folder, {embedded: 1}, design).arms}
    mixture = arms[f"{path}.mine=0.25"].config[f"{part}_pretraining"]["mixture"]
    assert (mixture["mine"], mixture[embedded]) == pytest.approx((0.25, 0.75))


def test_what_a_part_cannot_read_is_told_by_the_plan(plan_part, part, tmp_path):
    with pytest.raises(UserError, match=r"no prepared data at .*nowhere"):
        plan_part(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"sources.mine.kind: .* valid: conversations"):
        plan_part(prepared(tmp_path / "chat", kind="conversations"))
    with pytest.raises(UserError, match=r"vocabulary 1024: .*mine was .* 900 tokens; nearest: 900"):
        plan_part(prepared(tmp_path / "other", kind=PARTS[part], vocabulary=900))
    with pytest.raises(UserError, match=rf"{part}_pretraining.mixture.yours: no such source"):
        plan_part(prepared(tmp_path / "a", kind=PARTS[part]), {"yours": 1})


def test_pixels_alone_need_no_tokenizer_of_the_run(studies, tmp_path):
    folder = prepared(tmp_path / "other", kind="interleaved", vocabulary=900)
    studies.recipe["data"]["sources"] = {"mine": {"folder": str(folder), "kind": "interleaved"}}
    studies.recipe["encoder_pretraining"] = {"objective": {"kind": "aim"}, "mixture": {"mine": 1}}
    assert stages_of(studies.plan(), "encoder")
    studies.recipe["encoder_pretraining"]["objective"]["kind"] = "clip"
    with pytest.raises(UserError, match=r"kind interleaved, and objective clip reads captions alo"):
        studies.plan()


def test_a_tokenizer_of_another_size_is_told_by_the_plan(studies, tmp_path):
    words = tokenizer.train([f"text number {n} has other words" for n in range(300)], 300)
    words.save(tmp_path)
    studies.recipe["data"] |= {"tokenizer": str(tmp_path / "tokenizer.json"), "vocabulary": 1024}
    with pytest.raises(UserError, match=r"data\.tokenizer: .* tokens and the model 1024"):
        studies.plan()
    studies.recipe["data"]["vocabulary"] = words.vocabulary + 8  # a table that is rounded up
    assert studies.plan().trials
