from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from ablations.stage import StageStopped
from mm1_jax.data import tokenizer
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel, load_model
from mm1_jax.training.checkpoints import Progress, save_part
from mm1_jax.training.kept_tokenizer import keep_tokenizer
from mm1_jax.training.loop import Trainer, compiled_step
from mm1_jax.training.multimodal_training import train

pytestmark = pytest.mark.usefixtures("synthetic_batches")


def weights(folder) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(load_model(folder)[1]))]


def trainer_of(config, seed) -> Trainer:
    model = initialise(MultimodalModel(config), seed)
    return Trainer(model, config.training, config.optimizer, seed)


def assert_bit_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_can_learn_one_batch_by_heart(tiny, synthetic_batch):
    config = tiny()
    trainer, batch = trainer_of(config, 0), synthetic_batch(config)
    losses = [float(trainer.step(batch, 0.01, 1)["loss"]) for _ in range(120)]
    assert np.log(300) - 0.3 < losses[0] < np.log(300) + 1.3
    assert losses[-1] < 0.05


def test_training_reports_and_returns_rows_at_every_log_step(tiny, recording_context):
    context = recording_context()
    rows = train(tiny(), 0, context.data, {}, context)
    assert [step for step, _ in context.reports] == [2, 4, 6]
    curve = {(row.step, row.metric): row.value for row in rows}
    assert {step for step, _ in curve} == {2, 4, 6}
    parts = ("encoder", "connector", "language_model")
    norms = {f"{norm}.{part}" for norm in ("grad_norm", "weight_norm") for part in parts}
    assert {metric for _, metric in curve} == {
        *("loss", "learning_rate", "grad_norm", "weight_norm", "loss.text"),
        *norms,
    }
    assert {(row.task, row.split) for row in rows} == {("training", "train")}
    assert curve[2, "learning_rate"] == 0.01
    assert (context.output / "config.json").is_file()


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tiny, recording_context):
    results = {}
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        context = recording_context(name)
        results[name] = train(tiny(), seed, context.data, {}, context), weights(context.output)
    assert results["a"][0] == results["b"][0]
    assert_bit_equal(results["a"][1], results["b"][1])
    assert results["a"][0] != results["c"][0]


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_stopped_and_resumed_training_gives_the_bits_of_uninterrupted_training(
    tiny, recording_context, stop_after
):
    whole = recording_context("whole")
    rows = train(tiny(), 0, whole.data, {}, whole)
    first = recording_context("parts", stop_at_question=stop_after)
    with pytest.raises(StageStopped, match=f"after step {stop_after} of 6"):
        train(tiny(), 0, first.data, {}, first)
    assert not (first.output / "checkpoint").exists()
    second = recording_context("parts")
    assert train(tiny(), 0, second.data, {}, second) == rows
    assert second.questions == 6 - stop_after
    assert_bit_equal(weights(second.output), weights(whole.output))


def test_training_killed_between_checkpoints_gives_the_bits_of_uninterrupted_training(
    tiny, recording_context, monkeypatch
):
    whole = recording_context("whole")
    rows = train(tiny(), 0, whole.data, {}, whole)
    killed = recording_context("killed")
    monkeypatch.setattr(killed, "stop_requested", iter([False] * 4).__next__)
    with pytest.raises(StopIteration):  # dies after step 5; the last checkpoint is step 4
        train(tiny(), 0, killed.data, {}, killed)
    again = recording_context("killed")
    assert train(tiny(), 0, again.data, {}, again) == rows
    assert again.questions == 2
    assert_bit_equal(weights(again.output), weights(whole.output))


def test_the_checkpoint_with_the_lowest_loss_is_saved_beside_the_last(tiny, recording_context):
    # At such a rate the loss rises, so that the newest checkpoint is not the best.
    config = tiny(training={"keep_best": True, "log_every": 1}, optimizer={"peak_lr": 1.0})
    context = recording_context()
    rows = train(config, 0, context.data, {}, context)
    loss = {row.step: row.value for row in rows if row.metric == "loss"}
    means = {2: loss[1] + loss[2], 4: loss[3] + loss[4]}  # since the checkpoint before
    best = min(means, key=means.get)
    assert best == 2
    shorter = recording_context("until the best", stop_at_question=best)
    with pytest.raises(StageStopped):
        train(config, 0, shorter.data, {}, shorter)
    kept = Progress(shorter.scratch / "progress")
    trainer = trainer_of(config, 0)
    trainer.restore(kept.load_newest(trainer.state())[0])
    kept.close()
    there = jax.tree.leaves(nnx.state(trainer.model()))
    assert_bit_equal(weights(context.output / "best"), [np.asarray(x) for x in there])


def test_the_best_checkpoint_has_its_tokenizer_too(tiny, data_root, tmp_path):
    config = tiny(data={"vocabulary": 1024})
    for folder in (tmp_path, tmp_path / "best"):
        save_part(folder, config, initialise(MultimodalModel(config), 0))
    keep_tokenizer(config, data_root, tmp_path)
    words = tokenizer.load(tmp_path / "best")
    assert words.vocabulary == 1024
    tokenizer.check_same(words, tmp_path)


@pytest.mark.parametrize("frozen", ["encoder", "language_model"])
def test_frozen_parts_do_not_move_and_the_others_do(tiny, synthetic_batch, frozen):
    config = tiny(
        training={"freeze": [frozen]},
        optimizer={"weight_decay": 0.5},
        encoder={"layers": 1},
        language_model={"layers": 1},
    )
    trainer = trainer_of(config, 0)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(trainer.model())))
    for _ in range(2):
        trainer.step(synthetic_batch(config), 0.01, 1)
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(trainer.model())))
    for part in before:
        pairs = zip(jax.tree.leaves(before[part]), jax.tree.leaves(after[part]), strict=True)
        same = [np.array_equal(a, b) for a, b in pairs]
        assert all(same) if part == frozen else not any(same), part


def test_another_seed_length_or_rate_needs_no_compilation(tiny, synthetic_batch):
    first = trainer_of(tiny(), 0)
    first.step(synthetic_batch(tiny()), 0.001, 1)
    compiled = compiled_step.cache_info().misses, first._step._cache_size()
    for seed, config in enumerate(
        [
            tiny(training={"steps": 50}),
            tiny(optimizer={"peak_lr": 0.1, "warmup_steps": 1}),
            tiny(optimizer={"schedule": "wsd", "decay_share": 0.5, "final_lr_share": 0.0}),
        ]
    ):
        trainer = trainer_of(config, seed)
        trainer.step(synthetic_batch(config), 0.002 * (1 + seed), 1)
    assert (compiled_step.cache_info().misses, first._step._cache_size()) == compiled


def test_resuming_in_a_process_that_has_compiled_needs_no_compilation(
    tiny, recording_context, synthetic_batch
):
    trainer = trainer_of(tiny(), 0)
    trainer.step(synthetic_batch(tiny()), 0.001, 1)
    compiled = trainer._step._cache_size()
    first = recording_context(stop_at_question=2)
    with pytest.raises(StageStopped):
        train(tiny(), 0, first.data, {}, first)
    train(tiny(), 0, first.data, {}, recording_context())
    assert trainer._step._cache_size() == compiled


def test_scanned_and_unrolled_layers_start_equal_and_learn_equally(tiny, synthetic_batch):
    batch, after = synthetic_batch(tiny()), {}
    trainers = {
        form: trainer_of(tiny(training={"layers": form}), 0) for form in ("auto", "scanned")
    }
    unrolled, scanned = (trainer.weights for trainer in trainers.values())
    assert_bit_equal(unrolled, scanned)
    for form, trainer in trainers.items():
        loss = trainer.step(batch, 0.01, 1)["loss"]
        after[form] = [loss, *jax.tree.leaves(trainer.moments)]  # shares of the gradient
    for a, b in zip(*after.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
