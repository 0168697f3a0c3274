from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.model.initialisation import initialise
from mm1_jax.model.layers import UNROLLED, Form, layer_form
from mm1_jax.model.multimodal import MultimodalModel, take_rows


def build(config):
    return initialise(MultimodalModel(config), 0)


@nnx.jit
def outputs(model, batch):
    return model(batch), model.token_losses(batch), model.loss(batch, None)[0]


def token_losses(model, batch) -> np.ndarray:
    return np.asarray(outputs(model, batch)[1])


def test_logits_and_losses_have_the_shapes_of_the_text(tiny, synthetic_batch):
    batch = synthetic_batch(tiny())
    logits, losses, _ = outputs(build(tiny()), batch)
    assert logits.shape == (2, 12, 300)
    rows, places = np.indices((2, 12))
    expected = -np.asarray(jax.nn.log_softmax(logits))[rows, places, batch["tokens"]]
    np.testing.assert_allclose(losses, expected, atol=1e-4)


@pytest.mark.parametrize("what", ["text", "image"])
def test_nothing_of_one_document_influences_the_losses_of_another(tiny, synthetic_batch, what):
    model, batch = build(tiny()), synthetic_batch(tiny())
    before = token_losses(model, batch)
    changed = {name: array.copy() for name, array in batch.items()}
    if what == "text":
        changed["tokens"][:, :6] = (changed["tokens"][:, :6] + 7) % 300
    else:
        changed["images"][:, 0] = 255 - changed["images"][:, 0]
    after = token_losses(model, changed)
    np.testing.assert_allclose(after[:, 6:11], before[:, 6:11], atol=1e-6)
    assert np.abs(after[:, :6] - before[:, :6]).min() > 1e-6  # its own document it does


def test_a_token_influences_no_loss_before_its_own(tiny, synthetic_batch):
    model, batch = build(tiny()), synthetic_batch(tiny())
    before = token_losses(model, batch)
    batch["tokens"][:, 3] = (batch["tokens"][:, 3] + 7) % 300
    after = token_losses(model, batch)
    np.testing.assert_allclose(after[:, :3], before[:, :3], atol=1e-6)
    assert (np.abs(after[:, 3:6] - before[:, 3:6]) > 1e-6).all()


def test_padding_and_images_bear_no_loss(tiny, synthetic_batch):
    model, batch = build(tiny()), synthetic_batch(tiny())
    assert batch["loss_weights"].sum() == 22  # 12 text tokens a row, one of them padding
    before = outputs(model, batch)[2]
    batch["tokens"][:, -1] = 7  # the padding
    np.testing.assert_allclose(outputs(model, batch)[2], before, rtol=1e-6)
    losses, weights = token_losses(model, batch), batch["loss_weights"]
    np.testing.assert_allclose(before, (losses * weights).sum() / 22, rtol=1e-5)


def test_auto_unrolls_on_cpu_and_a_config_can_insist(tiny):
    assert layer_form(tiny().training) == UNROLLED
    assert layer_form(tiny(training={"layers": "scanned"}).training) == Form("scanned")


def test_bfloat16_compute_stays_close_and_keeps_the_loss_in_float32(tiny, synthetic_batch):
    batch = synthetic_batch(tiny())
    exact = token_losses(build(tiny()), batch)
    rough = token_losses(build(tiny(training={"compute_dtype": "bfloat16"})), batch)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=0.1)
    assert not np.array_equal(rough, exact)


def test_rows_are_taken_within_their_own_sequence():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    taken = take_rows(x, jnp.array([[2, 0], [1, 1]]))
    np.testing.assert_array_equal(taken, [[[4, 5], [0, 1]], [[8, 9], [8, 9]]])


def test_sequences_count_alike_in_the_loss_when_asked_however_many_tokens_they_predict(
    tiny, synthetic_batch
):
    config = tiny(training={"loss_mean": "sequences"})
    model, batch = build(config), synthetic_batch(config)
    batch["loss_weights"][0, 2:] = 0  # a short answer beside a long text
    losses, weights = token_losses(model, batch), batch["loss_weights"]
    means = (losses * weights).sum(1) / weights.sum(1)
    np.testing.assert_allclose(outputs(model, batch)[2], means.mean(), rtol=1e-5)
    batch["loss_weights"][1] = 0  # an empty sequence counts for nothing
    np.testing.assert_allclose(outputs(model, batch)[2], means[0], rtol=1e-5)
