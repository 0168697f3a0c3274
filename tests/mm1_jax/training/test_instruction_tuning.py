from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from ablations.errors import UserError
from mm1_jax import runner
from mm1_jax.data import tokenizer
from mm1_jax.data.batches.pipeline import batches
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel, load_model
from mm1_jax.model.positions import interpolate_positions
from mm1_jax.training.checkpoints import save_part
from mm1_jax.training.initial_weights import take_model

CHAT = {"mixture": {"easy_vqa_chat": 1, "emoji_chat": 1}, "text_tokens": 48, "vocabulary": 1024}


def values(model):
    return nnx.to_pure_dict(nnx.state(model))


@pytest.fixture
def pretrained(tiny, tmp_path):
    """`pretrained(**sections)`: the folder of a model with the first weights of seed 3."""

    def save(**sections):
        config = tiny(**sections)
        save_part(tmp_path / "model", config, initialise(MultimodalModel(config), 3))
        return tmp_path / "model"

    return save


def test_all_parts_are_taken_and_positions_go_to_the_new_size(tiny, pretrained):
    connector = {"kind": "c_abstractor", "tokens": 4, "width": 8, "depth": 1}
    folder = pretrained(connector=connector)
    there = values(load_model(folder)[1])
    larger = tiny(connector=connector, encoder={"image_size": 24})
    taken = values(take_model(larger, folder))
    for part in ("encoder", "connector"):
        moved = interpolate_positions(there[part].pop("positions"), (4, 4), (6, 6))
        np.testing.assert_allclose(taken[part].pop("positions"), moved, atol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(taken), jax.tree.leaves(there), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"vocabulary": 310}}, "data.vocabulary 310: the model in .* has 300 tokens"),
        ({"language_model": {"layers": 1}}, "language_model.layers is 2 there and 1"),
        ({"connector": {"tokens": 1}}, "connector.tokens is 4 there and 1"),
    ],
)
def test_another_model_is_refused_in_one_line(tiny, pretrained, changes, message):
    with pytest.raises(UserError, match=message):
        take_model(tiny(**changes), pretrained())


def test_the_loss_is_on_answers_and_their_ends_only(tiny, data_root):
    config = tiny(data=CHAT)
    words = open_prepared(config.data, data_root).tokenizer
    stop = {tokenizer.END}
    for _, batch in zip(range(3), batches(config, data_root, 0), strict=False):
        for tokens, weights in zip(batch["tokens"], batch["loss_weights"], strict=True):
            text = words.decode(tokens[weights > 0])
            assert "?" not in text
            assert stop <= set(tokens[weights > 0].tolist())
            assert "?" in words.decode(tokens[weights == 0])


@pytest.mark.parametrize(
    "sub_images", [{"kind": "grid"}, pytest.param({"kind": "anyres"}, marks=pytest.mark.slow)]
)
def test_it_goes_on_from_the_model_and_learns_to_answer(tiny, pretrained, context_of, sub_images):
    folder = pretrained(data=CHAT, encoder={"layers": 1}, language_model={"layers": 1})
    config = tiny(
        encoder={"image_size": 24, "layers": 1},
        language_model={"layers": 1},
        data={**CHAT, "sub_images": sub_images},
        training={"steps": 40, "batch_size": 2, "log_every": 10},
        optimizer={"kind": "adafactor", "peak_lr": 0.02},
    )
    context = context_of("sft")
    rows = runner.tune(config.model_dump(mode="json"), 0, {"model": folder}, context)
    # Of one source, and so the mean of ten steps: a batch of two says little.
    losses = [row.value for row in rows if row.metric == "loss.easy_vqa_chat"]
    assert losses[-1] < 0.85 * losses[0]
    stated, tuned = load_model(context.output)
    assert stated == config
    before = values(take_model(config, folder))
    for part, tree in values(tuned).items():
        moved = zip(jax.tree.leaves(tree), jax.tree.leaves(before[part]), strict=True)
        assert any(np.abs(a - b).max() > 1e-3 for a, b in moved), part  # nothing is frozen
    assert tokenizer.load(context.output).vocabulary == 1024
