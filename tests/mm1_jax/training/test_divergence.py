from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ablations.stage import StageStopped
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import load_part
from mm1_jax.training.divergence import RECENT, remember
from mm1_jax.training.loop import Trainer
from mm1_jax.training.multimodal_training import train


@pytest.fixture
def bad_batches(monkeypatch, synthetic_batch, synthetic_batches):
    """`bad_batches({3, 5})`: the loss of these steps is not a number."""
    from mm1_jax.training import multimodal_training

    def install(bad: set[int]) -> None:
        def batches(config, data_root, seed, start_step, stream, rows):
            step = start_step
            while True:
                step += 1
                batch = synthetic_batch(config, step)
                if step in bad:
                    batch["loss_weights"] = batch["loss_weights"] * np.float32(np.nan)
                yield batch

        monkeypatch.setattr(multimodal_training, "batches", batches)

    return install


def weights_of(folder) -> list[np.ndarray]:
    import jax
    from flax import nnx

    return [
        np.asarray(x)
        for x in jax.tree.leaves(nnx.state(load_part(folder, TrainConfig, MultimodalModel)[1]))
    ]


def curve(rows, metric) -> dict[int, float]:
    return {row.step: row.value for row in rows if row.metric == metric}


def test_stop_ends_the_training_at_the_step_that_went_wrong_and_keeps_what_was_learnt(
    tiny, recording_context, bad_batches
):
    bad_batches({3})
    context = recording_context()
    rows = train(tiny(), 0, context.data, {}, context)
    assert curve(rows, "diverged") == {3: 1.0}
    assert max(row.step for row in rows) == 3
    assert context.reports[-1][1]["diverged"] == 1.0
    assert all(np.isfinite(weight).all() for weight in weights_of(context.output))


def test_skip_leaves_the_step_out_and_counts_it(tiny, recording_context, bad_batches):
    bad_batches({3, 5})
    context = recording_context()
    config = tiny(training={"divergence": {"policy": "skip"}})
    rows = train(config, 0, context.data, {}, context)
    assert curve(rows, "skipped_steps") == {2: 0.0, 4: 1.0, 6: 2.0}
    assert np.isfinite(curve(rows, "loss")[6])
    assert not curve(rows, "diverged")


def test_a_skipped_step_changes_neither_weights_nor_moments(tiny, synthetic_batch):
    config = tiny()
    trainer = Trainer(initialise(MultimodalModel(config), 0), config.training, config.optimizer, 0)
    trainer.step(synthetic_batch(config), 0.01, 1)
    before = [np.asarray(x) for group in trainer.state().values() for x in group]
    bad = synthetic_batch(config)
    bad["loss_weights"] = bad["loss_weights"] * np.float32(np.inf)
    assert not bool(trainer.step(bad, 0.01, 2)["healthy"])
    after = [np.asarray(x) for group in trainer.state().values() for x in group]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_skipped_steps_than_allowed_stop_the_training(tiny, recording_context, bad_batches):
    bad_batches({2, 3, 4})
    context = recording_context()
    config = tiny(training={"divergence": {"policy": "skip", "most": 2}})
    rows = train(config, 0, context.data, {}, context)
    assert curve(rows, "diverged") == {4: 1.0}


def test_roll_back_goes_on_from_the_last_checkpoint_with_the_batches_that_follow(
    tiny, recording_context, bad_batches
):
    bad_batches({4})
    rolled = recording_context("rolled")
    config = tiny(training={"divergence": {"policy": "roll_back"}, "steps": 4})
    rows = train(config, 0, rolled.data, {}, rolled)  # checkpoints after step 2
    assert curve(rows, "rolled_back_steps") == {2: 0.0, 4: 1.0}
    stopped = recording_context("stopped", stop_at_question=2)
    with pytest.raises(StageStopped):
        train(config, 0, stopped.data, {}, stopped)
    resumed = recording_context("stopped")
    # As text, because the loss of step 4 is not a number, which equals nothing.
    assert repr(train(config, 0, resumed.data, {}, resumed)) == repr(rows)
    two = recording_context("two")  # both its steps are warm-up, at the rates of the longer one
    train(tiny(training={"steps": 2, "divergence": {"policy": "roll_back"}}), 0, two.data, {}, two)
    for a, b in zip(weights_of(rolled.output), weights_of(two.output), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("loss", "healthy"), [(2.9, True), (3.1, False), (np.nan, False)])
def test_a_spike_is_a_loss_above_its_multiple_of_the_mean_of_the_last_ones(loss, healthy):
    recent = jnp.ones(RECENT)
    found, after = remember(recent, jnp.float32(loss), jnp.float32(1.0), jnp.float32(3.0))
    assert bool(found) is healthy
    assert float(after[-1]) == (pytest.approx(loss) if healthy else 1.0)


def test_nothing_is_a_spike_before_enough_losses_are_known():
    recent = jnp.ones(RECENT).at[0].set(jnp.nan)
    healthy, _ = remember(recent, jnp.float32(1e9), jnp.float32(1.0), jnp.float32(3.0))
    assert bool(healthy)


def test_a_gradient_that_is_not_finite_is_not_learnt_from():
    healthy, after = remember(
        jnp.ones(RECENT), jnp.float32(1.0), jnp.float32(np.inf), jnp.float32(np.inf)
    )
    assert not bool(healthy)
    np.testing.assert_array_equal(after, np.ones(RECENT))
