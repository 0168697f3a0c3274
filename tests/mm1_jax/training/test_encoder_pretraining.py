"""The stage `encoder` on prepared data, its checkpoint in the multimodal stage, its scores."""

from __future__ import annotations

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ablations.errors import UserError
from ablations.stage import StageStopped
from mm1_jax import runner
from mm1_jax.config.encoder_pretraining import EncoderPretrainingConfig, EncoderStageConfig
from mm1_jax.config.recipe import Recipe
from mm1_jax.data.sources.drawing_captions import read_drawings
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.evaluation.evaluation_stage import EXAMPLES_FILE
from mm1_jax.training.checkpoints import load_subtree, save_tree
from mm1_jax.training.encoder_pretraining import first_model

KINDS = ("clip", "siglip", "aim")
TOWER = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "mlp_width": 16}
ENCODER = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2}


def stage(kind: str, steps: int = 4, **training) -> dict:
    contrastive = {} if kind == "aim" else {"text_tower": TOWER, "width": 16}
    return {
        "objective": {"kind": kind, **contrastive},
        "encoder": ENCODER,
        "training": {"steps": steps, "batch_size": 16, "log_every": 1, **training},
        "optimizer": {"peak_lr": 0.01, "warmup_steps": 2},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_root):
    """Kind → output folder of a short pre-training with seed 5."""
    from types import SimpleNamespace

    folders = {}

    def build(kind: str):
        if kind not in folders:
            folder = tmp_path_factory.mktemp(kind)
            context = SimpleNamespace(
 gang=None,
                scratch=folder, output=folder, data=data_root,
                report=lambda step, metrics: None, stop_requested=lambda: False,
                record=lambda facts: None,
            )  # fmt: skip
            runner.pretrain_encoder(stage(kind), 5, {}, context)
            folders[kind] = folder
        return folders[kind]

    return build


def equal(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("kind", ["clip", pytest.param("siglip", marks=pytest.mark.slow), "aim"])
def test_each_objective_lowers_its_loss(kind, context_of):
    rows = runner.pretrain_encoder(stage(kind, steps=40), 0, {}, context_of(kind))
    losses = [row.value for row in rows if row.metric == "loss"]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.93 * np.mean(losses[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_it_gives_the_same_bits(kind, context_of, trained):
    first = context_of(kind, stop_at_question=3)
    with pytest.raises(StageStopped):
        runner.pretrain_encoder(stage(kind), 5, {}, first)
    runner.pretrain_encoder(stage(kind), 5, {}, context_of(kind))
    parts = ("encoder", "head") if kind == "aim" else ("encoder", "text_tower", "head")
    for part in parts:
        ours, theirs = (load_subtree(f, part)[1] for f in (first.output, trained(kind)))
        assert equal(ours, theirs), part


@pytest.mark.parametrize("kind", ["clip", "aim"])
def test_it_learns_from_ones_own_shards_and_goes_on_within_an_epoch(kind, context_of, own_captions):
    mine = {"folder": str(own_captions), "kind": "captions"}
    config = {**stage(kind, steps=7), "sources": {"mine": mine}, "mixture": {"mine": 1}}
    whole = context_of("whole")
    rows = runner.pretrain_encoder(config, 5, {}, whole)
    epochs = [row.value for row in rows if row.metric == "epochs.mine"]
    np.testing.assert_allclose(epochs, np.arange(1, 8) * 16 / 80)
    with pytest.raises(StageStopped):  # five batches are an epoch
        runner.pretrain_encoder(config, 5, {}, context_of("parts", stop_at_question=6))
    again = runner.pretrain_encoder(config, 5, {}, context_of("parts"))
    assert again == rows
    ours, theirs = (load_subtree(context_of(f).output, "encoder")[1] for f in ("whole", "parts"))
    assert equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_multimodal_stage_starts_from_its_encoder(kind, context_of, trained, tiny):
    config = tiny(
        encoder=ENCODER,
        data={"vocabulary": 1024, "text_tokens": 32, "images": 1},
        training={"steps": 1, "freeze": ["encoder"]},
        optimizer={"warmup_steps": 0},
    )
    context = context_of("multimodal")
    inputs = {"encoder": trained(kind)}
    runner.train(config.model_dump(mode="json"), 5, inputs, context)
    assert equal(
        load_subtree(context.output, "encoder")[1], load_subtree(trained(kind), "encoder")[1]
    )


def score(task: str, folder, context, **config):
    rows = runner.evaluate_encoder({"task": task, **config}, 5, {"model": folder}, context)
    examples = pq.read_table(context.output / EXAMPLES_FILE).to_pylist()
    return {row.metric: row for row in rows}, examples


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["emoji_probe", "emoji_retrieval"])
def test_scores_are_of_held_out_drawings_and_follow_from_the_examples(
    kind, task, trained, context_of
):
    if (kind, task) == ("aim", "emoji_retrieval"):
        with pytest.raises(UserError, match="objective aim reads none"):
            score(task, trained(kind), context_of("score"))
        return
    context = context_of("score")
    rows, examples = score(task, trained(kind), context, batch_size=100)
    seen = read_drawings(open_prepared(EncoderStageConfig().data, context.data), "train")
    assert not {e["image_id"] for e in examples} & {drawing.image for drawing in seen}
    main = rows["accuracy" if task == "emoji_probe" else "recall_at_1"]
    assert main.n_items == len(examples) == 214
    assert main.value == pytest.approx(np.mean([e["score"] for e in examples]))
    for example in examples:
        assert (example["score"] == 100) == (example["prediction"] in example["references"])
    assert {row.split for row in rows.values()} == {"test"}


def test_chance_is_stated_for_the_number_of_candidates(trained, context_of):
    rows, examples = score("emoji_retrieval", trained("clip"), context_of("score"), items=50)
    assert len(examples) == 50
    assert (rows["chance_at_1"].value, rows["chance_at_5"].value) == (2.0, 10.0)


def test_the_probes_control_is_the_encoder_it_started_from(trained, context_of, tmp_path):
    from flax import nnx

    config = EncoderStageConfig.model_validate(stage("aim"))
    first = nnx.to_pure_dict(nnx.state(first_model(config, 5)))
    save_tree(tmp_path, config, {"encoder": first["encoder"]})
    rows, _ = score("emoji_probe", tmp_path, context_of("first"))
    assert rows["accuracy"].value == rows["untrained_accuracy"].value
    after, _ = score("emoji_probe", trained("aim"), context_of("after"))
    assert after["untrained_accuracy"].value == rows["accuracy"].value
    assert after["accuracy"].value != after["untrained_accuracy"].value
    with pytest.raises(UserError, match="objective aim reads none"):
        score("emoji_retrieval", tmp_path, context_of("retrieval"))


def test_weights_without_a_text_tower_are_told_so(trained, context_of, tmp_path):
    config, weights = load_subtree(trained("clip"), "encoder")
    save_tree(tmp_path, config, {"encoder": weights})
    with pytest.raises(UserError, match="has no text_tower; it holds encoder"):
        score("emoji_retrieval", tmp_path, context_of("score"))
    score("emoji_probe", tmp_path, context_of("score"))


def test_an_unknown_task_or_form_is_told(trained, context_of):
    with pytest.raises(UserError, match="did you mean 'emoji_probe'"):
        score("emoji_prob", trained("aim"), context_of("score"))
    with pytest.raises(UserError, match="no images to shuffle"):
        score("emoji_probe", trained("aim"), context_of("score"), condition="shuffled")


@pytest.mark.parametrize(
    ("encoder", "pretraining", "message"),
    [
        ({"class_token": True}, {"objective": {"kind": "aim"}}, "hand later patches to earlier"),
        ({"kind": "fused"}, {"objective": {"kind": "aim"}}, "one tower, not two; nearest: obj"),
        ({"patch_size": 32}, {"objective": {"kind": "aim"}}, "the encoder has only one"),
        ({}, {"objective": {"kind": "clip", "pooling_heads": 5}}, "by 5 heads; nearest: 4 heads"),
        ({}, {"training": {"micro_batches": 2}}, "all pairs of the whole batch; nearest poss"),
        ({}, {"mixture": {"mine": 1}}, r"pretraining.mixture.mine: no such source; valid: emoji_c"),
        ({}, {"mixture": {"captions": 1}}, "of the embedded sources objective clip reads one"),
        ({}, {"training": {"steps": 9}}, "warmup_steps 50 exceed the 9 training steps"),
    ],
)
def test_what_an_objective_cannot_train_is_told_with_what_it_can(encoder, pretraining, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(
            {
                "encoder": encoder,
                "connector": {"kind": "average_pooling", "tokens": 1},
                "encoder_pretraining": pretraining,
            }
        )


def test_a_part_of_the_training_that_is_written_keeps_the_other_defaults():
    config = EncoderPretrainingConfig.model_validate(
        {"training": {"steps": 60}, "optimizer": {"warmup_steps": 5}}
    )
    assert config.training.batch_size == 128
    assert config.optimizer.peak_lr == 1e-3
